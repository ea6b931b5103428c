//! Documents that are ZIP archives: Office Open XML (ECMA-376), OpenDocument, Java archives.

use crate::bytes::contains_ignoring_case;
use crate::report::Mark;

/// What the entries of a ZIP archive make it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Package {
    OfficeOpenXml,
    OpenDocument,
    Java,
    Android,
    Plain,
}

impl Package {
    /// By the names of all entries, in the order of the archive.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |wanted: &str| names.clone().any(|name| name.eq_ignore_ascii_case(wanted));
        if has("[Content_Types].xml") {
            Self::OfficeOpenXml
        } else if has("mimetype") && has("META-INF/manifest.xml") {
            Self::OpenDocument
        } else if has("AndroidManifest.xml") {
            Self::Android
        } else if has("META-INF/MANIFEST.MF") {
            Self::Java
        } else {
            Self::Plain
        }
    }

    pub const fn is_document(self) -> bool {
        matches!(self, Self::OfficeOpenXml | Self::OpenDocument)
    }
}

/// What an entry of a document means by its name alone.
pub fn mark_of(name: &str) -> Option<(Mark, &'static str)> {
    let name = name.to_ascii_lowercase().replace('\\', "/");
    let last = name.rsplit('/').next().unwrap_or_default();
    // The project of macros may have any name; its kind is told by the content, too.
    if last == "vbaproject.bin" || last == "vbadata.xml" {
        return Some((Mark::Macro, "VBA project"));
    }
    if name.contains("xl/macrosheets/") || name.contains("xl/intlmacrosheets/") {
        return Some((Mark::Macro, "XLM macro sheet"));
    }
    let is_basic = name.starts_with("basic/") && last.ends_with(".xml") && last != "script-lc.xml";
    if is_basic && last != "script-lb.xml" || name.starts_with("scripts/") && !last.is_empty() {
        return Some((Mark::Macro, "macro of an OpenDocument file"));
    }
    if name.contains("/activex/") && last.ends_with(".bin") {
        return Some((Mark::ActiveContent, "ActiveX control"));
    }
    None
}

/// Entries whose text is read by [`mark_of_text`].
pub fn is_read(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".rels") || name == "meta-inf/manifest.xml" || name == "[content_types].xml"
}

/// What the text of such an entry means.
pub fn mark_of_text(text: &[u8]) -> Option<(Mark, &'static str)> {
    if contains_ignoring_case(text, b"application/vnd.ms-office.vbaproject") {
        return Some((Mark::Macro, "VBA project"));
    }
    if contains_ignoring_case(text, b"encryption-data") {
        return Some((Mark::Encrypted, "document with a password"));
    }
    // Each relationship is one element.
    text.split(|byte| *byte == b'<').find_map(|element| {
        let has = |what: &[u8]| contains_ignoring_case(element, what);
        let loads = has(b"/attachedtemplate\"") || has(b"/oleobject\"") || has(b"/frame\"") || has(b"/subdocument\"");
        let external = has(b"targetmode=\"external\"");
        // A template on the author's own disk is no matter.
        let targets: [&[u8]; 5] =
            [b"target=\"http", b"target=\"ftp", b"target=\"mhtml", b"target=\"\\\\", b"target=\"file:///\\\\"];
        let remote = targets.iter().any(|target| has(target));
        (loads && external && remote).then_some((Mark::ActiveContent, "loads a remote template or object"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told() {
        let of = |names: &[&str]| Package::of(names.iter().copied());
        assert_eq!(of(&["[Content_Types].xml", "word/document.xml"]), Package::OfficeOpenXml);
        assert_eq!(of(&["mimetype", "content.xml", "META-INF/manifest.xml"]), Package::OpenDocument);
        assert_eq!(of(&["META-INF/MANIFEST.MF", "A.class"]), Package::Java);
        assert_eq!(of(&["a.txt"]), Package::Plain);
    }

    #[test]
    fn entries_and_relations() {
        for (name, what) in [
            ("word/vbaProject.bin", Some("VBA project")),
            ("xl/macrosheets/sheet1.xml", Some("XLM macro sheet")),
            ("Basic/Standard/Module1.xml", Some("macro of an OpenDocument file")),
            ("Basic/script-lc.xml", None),
            ("word/activeX/activeX1.bin", Some("ActiveX control")),
            ("word/document.xml", None),
        ] {
            assert_eq!(mark_of(name).map(|(_, what)| what), what, "{name}");
        }
        let relation = |kind: &str, target: &str| {
            let text = format!("<Relationship Type=\"http://x/{kind}\" Target=\"{target}\" TargetMode=\"External\"/>");
            mark_of_text(text.as_bytes()).is_some()
        };
        assert!(relation("attachedTemplate", "https://evil.test/t.dotm") && relation("oleObject", "\\\\evil.test\\x"));
        assert!(!relation("attachedTemplate", "file:///C:/Normal.dotm") && !relation("hyperlink", "https://x.test/"));
        assert_eq!(mark_of_text(b"<manifest:encryption-data ").map(|(mark, _)| mark), Some(Mark::Encrypted));
    }
}
