//! Lists what lies in archives. Readers are lenient: they see what any unpacker would see, and say what is odd.

pub mod cab;
pub mod iso;
pub mod rar;
pub mod seven;
pub mod tar;
pub mod tnef;
pub mod zip;

use crate::unpack::Method;

/// One thing in an archive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry<'a> {
    /// As stored, decoded: may hold folders, `..`, NULs and worse.
    pub name: String,
    /// Another name of the same content that some unpackers use.
    pub other_name: Option<String>,
    /// `None` where the format is only listed.
    pub content: Option<Packed<'a>>,
    /// Where it lies in what that unpacks to, if other files are packed with it.
    pub within: Option<std::ops::Range<usize>>,
    pub is_folder: bool,
    pub is_encrypted: bool,
}

/// Content as it lies in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed<'a> {
    pub method: Method,
    pub data: &'a [u8],
}

/// What an archive holds, as far as it can be seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing<'a> {
    pub entries: Vec<Entry<'a>>,
    /// Names cannot be seen without the password.
    pub names_are_encrypted: bool,
    /// Entries share octets: that is how small archives become huge ones.
    pub overlaps: bool,
    /// There are more entries than were asked for.
    pub is_cut: bool,
    /// Parts that do not fit the format, or that only some unpackers see.
    pub is_damaged: bool,
    /// What the archive says its content measures unpacked.
    pub declared_bytes: u64,
}

impl<'a> Listing<'a> {
    /// Adds an entry; false once there are `max`.
    pub(crate) fn push(&mut self, entry: Entry<'a>, max: usize) -> bool {
        if self.entries.len() >= max {
            self.is_cut = true;
            return false;
        }
        self.entries.push(entry);
        true
    }

    pub(crate) const fn damaged() -> Self {
        Self {
            entries: Vec::new(),
            names_are_encrypted: false,
            overlaps: false,
            is_cut: false,
            is_damaged: true,
            declared_bytes: 0,
        }
    }
}

/// Octets of a name that are read.
pub(crate) const NAME_MAX: usize = 4096;

#[cfg(test)]
pub(crate) fn names(listing: &Listing<'_>) -> Vec<String> {
    listing.entries.iter().map(|entry| entry.name.clone()).collect()
}
