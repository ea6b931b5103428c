//! MIME: what a message is made of, found once and kept as a [`Summary`].

pub mod structure;
pub mod summary;

pub use structure::{Disposition, Parameter, Part, PartBody};
pub use summary::{EnvelopeAddress, Summary};
