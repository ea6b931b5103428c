//! What was seen, bounded whatever a message holds.

use std::collections::BTreeMap;

/// What matters of an attachment or of something inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mark {
    /// A program, by content or by name.
    Executable,
    /// Text or help files that run when they are opened.
    Script,
    /// Leads elsewhere when it is opened.
    Shortcut,
    /// A disk image: what lies in it does not carry the mark of having come by mail.
    DiskImage,
    /// A document that carries program code: VBA or XLM macros, Basic.
    Macro,
    /// An archive or document that needs a password: nobody can look inside.
    Encrypted,
    /// A PDF file that is encrypted: mostly so that it cannot be printed, and it opens without a password.
    EncryptedPdf,
    /// An archive inside an archive.
    NestedArchive,
    /// A document that acts or loads by itself: script in HTML, SVG or PDF, objects in RTF, remote templates, OneNote.
    ActiveContent,
    /// A name made to look like something else, or a program under a harmless name.
    Disguised,
    /// Unpacks to far more than it is.
    Bomb,
    /// Nested deeper than is looked into.
    TooDeep,
    /// More things inside than are looked at, or more content.
    TooMuch,
    /// Not what its format says: cut off, or with parts that only some programs see.
    Damaged,
    /// Name and content are of different kinds; either is harmless.
    Mismatch,
}

impl Mark {
    pub const ALL: [Self; 15] = [
        Self::Executable,
        Self::Script,
        Self::Shortcut,
        Self::DiskImage,
        Self::Macro,
        Self::Encrypted,
        Self::EncryptedPdf,
        Self::NestedArchive,
        Self::ActiveContent,
        Self::Disguised,
        Self::Bomb,
        Self::TooDeep,
        Self::TooMuch,
        Self::Damaged,
        Self::Mismatch,
    ];
}

/// Where one [`Mark`] was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub mark: Mark,
    /// The way inside: `invoice.zip/scan.pdf.exe`. The first few of them.
    pub paths: Vec<String>,
    /// What it was at the first of the paths, in a few English words.
    pub what: &'static str,
    /// In how many places.
    pub count: usize,
}

/// All that was seen of one message's attachments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// In the order in which they were first seen; each mark once.
    pub seen: Vec<Seen>,
    /// File name extensions in lower case, each with the first path that has it.
    pub extensions: BTreeMap<String, String>,
    /// Attachments and things inside them.
    pub items: usize,
    /// Octets that were looked at, unpacked.
    pub bytes: usize,
}

/// Paths that a mark keeps.
const PATHS_MAX: usize = 3;
/// Different extensions that are kept.
const EXTENSIONS_MAX: usize = 200;

impl Report {
    pub fn get(&self, mark: Mark) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.mark == mark)
    }

    pub fn has(&self, mark: Mark) -> bool {
        self.get(mark).is_some()
    }

    pub(crate) fn note(&mut self, mark: Mark, path: &str, what: &'static str) {
        let path = if path.is_empty() { "(message)" } else { path };
        match self.seen.iter_mut().find(|seen| seen.mark == mark) {
            Some(seen) if seen.paths.iter().any(|known| known == path) => {}
            Some(seen) => {
                seen.count += 1;
                if seen.paths.len() < PATHS_MAX {
                    seen.paths.push(path.to_owned());
                }
            }
            None => self.seen.push(Seen { mark, paths: vec![path.to_owned()], what, count: 1 }),
        }
    }

    pub(crate) fn note_extension(&mut self, extension: &str, path: &str) {
        let room = self.extensions.len() < EXTENSIONS_MAX;
        if room && !extension.is_empty() && !self.extensions.contains_key(extension) {
            self.extensions.insert(extension.to_owned(), path.to_owned());
        }
    }
}
