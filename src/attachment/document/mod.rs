//! Looks into documents for what acts by itself, needs a password, or carries other files.

pub mod ole;
pub mod onenote;
pub mod package;
pub mod pdf;
pub mod rtf;
pub mod web;

use std::borrow::Cow;

use crate::report::Mark;

/// What a document holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look<'a> {
    /// Each with a few English words.
    pub marks: Vec<(Mark, &'static str)>,
    pub children: Vec<Child<'a>>,
}

/// A file inside a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child<'a> {
    pub name: String,
    pub content: Cow<'a, [u8]>,
}

impl<'a> Look<'a> {
    pub(crate) fn mark(&mut self, mark: Mark, what: &'static str) {
        if !self.marks.contains(&(mark, what)) {
            self.marks.push((mark, what));
        }
    }

    /// Keeps a file inside; false once there are as many as are looked at.
    pub(crate) fn child(&mut self, name: String, content: impl Into<Cow<'a, [u8]>>) -> bool {
        if self.children.len() >= CHILDREN_MAX {
            return false;
        }
        self.children.push(Child { name, content: content.into() });
        true
    }
}

/// Files inside one document that are looked at.
const CHILDREN_MAX: usize = 100;
/// Octets that files inside one document may take together, unpacked.
pub(crate) const CHILDREN_BYTES_MAX: usize = 32 * 1024 * 1024;
