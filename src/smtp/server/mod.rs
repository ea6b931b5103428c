//! The server side.

mod handler;
mod serve;
mod session;
#[cfg(test)]
mod tests;

pub use handler::{Credentials, Handler, Identity, Mechanism, Onward, Protocol, SessionFacts, SignIn, Transaction};
pub use serve::{Config, serve};
pub use session::{Limits, Offers, Output, Session};
