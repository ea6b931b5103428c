//! What all nodes together have seen of senders, networks and accounts: numbers, and when.
//!
//! Floor: 2. It must never know what is good or bad, or what follows from it: it adds up what it is told.
//! Main types: [`Reputation`], [`Subject`], [`Record`].
//! Surprise: nothing is stored in clear: a subject is a digest of what it names. Numbers lie in slots of time, so that old ones
//! count less and go away whole, and adding is all that ever happens to them: nodes need not agree on anything.

mod copy;
mod postgres;
mod reputation;
mod sqlite;
mod subject;
mod tables;
#[cfg(test)]
mod tests;

pub use reputation::Reputation;
pub use subject::{Amount, Kind, Record, Slot, Subject};
