//! ManageSieve (RFC 5804), as far as it leads to an old server: greeting, TLS, sign-in; scripts are that server's matter.
//!
//! Floor: 3. It must never know about engines, scripts or configuration files.
//! Main types: [`serve`], which runs one connection on [`Services`]; [`Session`], the pure state machine.
//! Surprise: nobody is ever signed in here. An account whose mailbox is here hears that its filters are not kept here.

pub mod proto;
mod serve;
mod session;

pub use serve::{Config, Services, serve};
pub use session::{Output, Session, Transport};
