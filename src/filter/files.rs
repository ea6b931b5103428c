//! What the attachments are: findings for people, facts for policy.

use std::sync::Arc;

use attachment::{Limits, Mark, Report};
use policy::{AttachmentClass, Attachments, Finding, ReasonClass, Score, Stage};

use crate::proof::{finding, one_line};

/// Looks at all attachments of a message. Takes processor time, bounded by [`Limits`].
pub(crate) fn check(message: &[u8]) -> (Vec<Finding>, Attachments) {
    let report = attachment::inspect(message, &Limits::default());
    (findings(&report), facts(&report))
}

/// What is told where the check itself failed: nobody has looked, and nothing is to slip through.
pub(crate) fn failed() -> (Vec<Finding>, Attachments) {
    let classes = vec![(AttachmentClass::Unreadable, Arc::from(""))];
    let seen = told("ATTACH_FAILED", "Attachments could not be looked at", "");
    (vec![seen], Attachments { classes, ..Attachments::default() })
}

fn findings(report: &Report) -> Vec<Finding> {
    let of = |seen: &attachment::Seen| {
        let mut evidence = seen.paths.join(", ");
        if seen.count > seen.paths.len() {
            evidence = format!("{evidence} and {} more", seen.count - seen.paths.len());
        }
        let (name, description) = words(seen.mark);
        told(name, description, &one_line(&evidence))
    };
    report.seen.iter().map(of).collect()
}

fn told(name: &str, description: &str, evidence: &str) -> Finding {
    Finding {
        stage: Stage::Body,
        class: ReasonClass::Attachment,
        score: Score::ZERO,
        ..finding(name, 0, description, evidence)
    }
}

fn facts(report: &Report) -> Attachments {
    let mut classes: Vec<(AttachmentClass, Arc<str>)> = Vec::new();
    for seen in &report.seen {
        let Some(class) = class(seen.mark) else { continue };
        let path = seen.paths.first().map_or("", String::as_str);
        if !classes.iter().any(|(known, _)| *known == class) {
            classes.push((class, one_line(path).into()));
        }
    }
    let extensions =
        report.extensions.iter().map(|(extension, path)| (extension.as_str().into(), one_line(path).into())).collect();
    Attachments { classes, extensions }
}

const fn class(mark: Mark) -> Option<AttachmentClass> {
    match mark {
        Mark::Executable => Some(AttachmentClass::Executables),
        Mark::Script => Some(AttachmentClass::Scripts),
        Mark::Shortcut => Some(AttachmentClass::Shortcuts),
        Mark::DiskImage => Some(AttachmentClass::DiskImages),
        Mark::Macro => Some(AttachmentClass::Macros),
        Mark::Encrypted => Some(AttachmentClass::Encrypted),
        Mark::NestedArchive => Some(AttachmentClass::NestedArchives),
        Mark::ActiveContent => Some(AttachmentClass::ActiveContent),
        Mark::Disguised => Some(AttachmentClass::Disguised),
        Mark::Bomb | Mark::TooDeep | Mark::TooMuch => Some(AttachmentClass::Unreadable),
        Mark::EncryptedPdf | Mark::Damaged | Mark::Mismatch => None,
    }
}

const fn words(mark: Mark) -> (&'static str, &'static str) {
    match mark {
        Mark::Executable => ("ATTACH_EXECUTABLE", "A program is attached"),
        Mark::Script => ("ATTACH_SCRIPT", "A script is attached"),
        Mark::Shortcut => ("ATTACH_SHORTCUT", "A shortcut that leads elsewhere is attached"),
        Mark::DiskImage => ("ATTACH_DISK_IMAGE", "A disk image is attached"),
        Mark::Macro => ("ATTACH_MACRO", "A document with macros is attached"),
        Mark::Encrypted => ("ATTACH_ENCRYPTED", "An archive or document needs a password"),
        Mark::EncryptedPdf => ("ATTACH_PDF_ENCRYPTED", "A PDF file is encrypted"),
        Mark::NestedArchive => ("ATTACH_NESTED_ARCHIVE", "An archive lies in an archive"),
        Mark::ActiveContent => ("ATTACH_ACTIVE_CONTENT", "A document acts or loads by itself"),
        Mark::Disguised => ("ATTACH_DISGUISED", "A file pretends to be another kind"),
        Mark::Bomb => ("ATTACH_BOMB", "An archive unpacks to far more than it is"),
        Mark::TooDeep => ("ATTACH_TOO_DEEP", "Archives or messages lie too deep in each other"),
        Mark::TooMuch => ("ATTACH_TOO_MUCH", "There is more in the attachments than is looked at"),
        Mark::Damaged => ("ATTACH_DAMAGED", "An archive or document does not fit its format"),
        Mark::Mismatch => ("ATTACH_MISMATCH", "A file is of another kind than its name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Mark::ALL.into_iter().map(|mark| words(mark).0).collect();
        assert_eq!(names.len(), Mark::ALL.len());
    }

    #[test]
    fn a_program_is_a_finding_and_a_fact() {
        let message = b"Content-Type: application/octet-stream; name=\"scan.pdf.exe\"\r\n\r\nMZ\r\n";
        let (findings, facts) = check(message);
        let names: Vec<&str> = findings.iter().map(|finding| &*finding.name).collect();
        assert_eq!(names, ["ATTACH_EXECUTABLE", "ATTACH_DISGUISED"]);
        assert!(findings.iter().all(|finding| finding.evidence == "scan.pdf.exe" && finding.score == Score::ZERO));
        assert_eq!(facts.classes.first().map(|(class, _)| *class), Some(AttachmentClass::Executables));
        assert_eq!(facts.extensions, [("exe".into(), "scan.pdf.exe".into())]);
    }
}
