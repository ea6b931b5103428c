//! The flow of a message: recipients checked, judged, decided for each of them, committed, answered.
//!
//! Floor: 4. It must never know about sockets, engines or the language of SMTP.
//! Main types: [`Intake`], the flow itself; [`Reception`], the flow as SMTP, submission and LMTP sessions see it.
//! Surprise: a success status exists only as the answer to the store's `Committed`, or where the mailbox is still on an old
//! server as that server's own word; everything else asks the client to keep the message.

mod content;
mod handler;
mod handover;
mod intake;
mod judging;
mod leaving;
mod letter;
mod notice;
mod onward;
mod received;
mod release;
mod seen;
mod sending;
mod signing;
mod story;
mod submit;

pub use handler::Reception;
pub use intake::{Intake, IntakeParts, Judged, SendingLimits};
pub use judging::Unasked;
pub use letter::Letter;
pub use release::{By, NotReleased, Released};
