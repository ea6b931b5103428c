//! SMTP, submission and LMTP, server side (RFC 5321, 6409, 2033): one language, one session, one shell.
//!
//! Floor: 2. It must never know who exists, what is spam or where mail is stored: a [`Handler`] decides.
//! Main types: [`server::Session`], the pure state machine; [`server::serve`], the shell; [`Handler`].
//! Surprise: a message with a bare CR or LF is read to its end and then refused: two readings of one line end is how
//! messages are smuggled.

pub mod proto;
pub mod server;

pub use proto::{Command, MailParameters, Reply};
pub use server::{
    Config, Credentials, Handler, Identity, Limits, Mechanism, Onward, Protocol, SessionFacts, SignIn, Transaction,
    serve,
};
