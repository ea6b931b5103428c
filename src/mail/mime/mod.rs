//! MIME: what a message is made of, found once and kept as a [`Summary`].

pub mod address_list;
mod codec;
pub mod decode;
pub mod structure;
pub mod summary;
pub mod text;
mod walk;

pub use codec::DamagedSummary;
pub use structure::{Disposition, Parameter, Part, PartBody};
pub use summary::{EnvelopeAddress, EnvelopeFields, Summary};
