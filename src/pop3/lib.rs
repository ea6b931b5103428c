//! POP3 (RFC 1939) with CAPA, UIDL, TOP, STLS, SASL, RESP-CODES, AUTH-RESP-CODE, PIPELINING and UTF8.
//!
//! Floor: 3. It must never know about engines, SMTP or configuration files.
//! Main types: [`serve`], which runs one connection on [`Services`] under a [`Config`]; [`Maildrops`], the locks.
//! Surprise: DELE changes nothing; what it marked is expunged by QUIT alone, in one step (RFC 1939 §6).

mod command;
mod config;
mod maildrop;
mod serve;
mod session;
mod stuffing;
#[cfg(test)]
mod tests;
mod wire;

pub use command::{Command, parse};
pub use config::Config;
pub use maildrop::Maildrops;
pub use serve::{Services, serve, serve_led};
pub use stuffing::{Stuffer, Top};
pub use wire::Duplex;
