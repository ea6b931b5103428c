//! A node under test and the small clients that talk to it.

mod authority;
mod bind;
mod browser;
mod clamd;
mod client;
pub mod dns;
mod dovecot;
mod load;
mod node;
mod patroni;
mod receiver;
mod served;
mod wire;

use std::io::Write as _;

pub use authority::{Authority, WebServer};
pub use bind::Bind;
pub use browser::{Browser, Trap};
pub use clamd::Clamd;
pub use client::{Conversation, base64, http, http_at};
pub use dns::{address as dns_address, answer as answer_dns};
pub use dovecot::Dovecot;
pub use load::{Found, Load, Stop, USERS};
pub use node::{Node, PASSWORD, basic, letter, ortler, ortler_fails, run_program, written};
pub use patroni::{Patroni, Site};
pub use receiver::{Reaction, Receiver};
pub use served::{Served, configure, make_certificate};
pub use wire::{Ended, Place, Wire};

/// True if slow tests and those with foreign programs are wanted.
pub fn wants_all() -> bool {
    std::env::var_os("ORTLER_TESTS").is_some_and(|wish| wish == "all")
}

/// Says why a test does nothing.
pub fn skip(why: &str) {
    report(&format!("skipped: {why}"));
}

/// Says what a test found. Past the capture of output, which would hide it.
pub fn report(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
