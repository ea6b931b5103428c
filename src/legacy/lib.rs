//! Old servers that still have mailboxes: signs in there on behalf of clients, and hands mail over to them.
//!
//! Floor: 2. It must never know who is on which server, or what is done with a password.
//! Main types: [`Gateway`], which goes there; [`Place`], a server's address; [`Opened`], a session whose client has signed in.
//! Surprise: what the server says while the client signs in is read here line by line; from then on nobody looks.

mod delivery;
mod gateway;
mod imap;
mod pop3;
mod sieve;
mod smtp;
#[cfg(test)]
mod tests;
mod wire;

pub use delivery::{Outgoing, Transport};
pub use gateway::{Client, Failure, Gateway, Opened, Place, Protocol};
