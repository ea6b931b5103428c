//! Mail that leaves: from the queue to whoever takes it, and back to its sender if nobody does.
//!
//! Floor: 3. It must never judge a message or decide where a local one lies.
//! Main types: [`Relay`], a node's worker on the queue; [`Routes`], which says where a recipient's mail goes next;
//! [`Conversation`], one with a server; [`Schedule`], when something is tried again.
//! Surprise: a lane of the queue is held by one node at a time, so what is said of a destination's limits needs no agreement
//! among nodes, and a recipient is in one hand only. What a node that died had under way is taken up when its lease is over.

mod attempt;
pub mod bounce;
pub mod call_ahead;
pub mod client;
pub mod home;
pub mod hosts;
pub mod https;
pub mod keyring;
mod lane;
pub mod notice;
mod outcome;
pub mod outgoing;
pub mod relayed;
pub mod routes;
pub mod schedule;
pub mod site;
pub mod srs;
pub mod sts;
mod words;
pub mod worker;

pub use bounce::{Action, Report, Told};
pub use call_ahead::{CallAhead, Said};
pub use client::{ConnectError, Conversation, Parcel, Protection, Target, Transport, Waits};
pub use home::Home;
pub use https::Https;
pub use keyring::Keyring;
pub use notice::{Letter, Notices};
pub use outgoing::{Outgoing, Posting, Wish};
pub use relayed::{Onward, RelayedDomains};
pub use routes::{LOCAL, RouteError, Routes};
pub use schedule::Schedule;
pub use srs::Srs;
pub use sts::Policies;
pub use worker::{Relay, RelayParts, RelaySettings};
