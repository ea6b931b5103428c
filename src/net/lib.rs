//! Sockets, TLS, tasks and content on its way in: what every protocol's shell stands on.
//!
//! Floor: 1. It must never know which protocol is spoken.
//! Main types: [`Tasks`], which owns every task; [`Acceptor`], which accepts within limits; [`Tls`]; [`Connectors`], which opens
//! connections; [`Spool`].
//! Surprise: only networks named as trusted may prefix a connection with a PROXY header; to all others the header is
//! just bad protocol.

pub mod acceptor;
pub mod cidr;
pub mod outbound;
pub mod proxy;
pub mod splice;
pub mod spool;
pub mod stream;
pub mod task;
pub mod tls;

pub use acceptor::{Accepted, Acceptor, AcceptorSettings, BindError, bind};
pub use cidr::Cidr;
pub use outbound::{Announce, Connectors, Endpoint, InvalidEndpoint, MailHost, Security, TlsTrouble, Tlsa, Trust};
pub use splice::{splice, splice_after};
pub use spool::{BudgetPermit, MemoryBudget, Spool, SpoolError, SpoolSettings, Spooled};
pub use stream::{MaybeTls, Outbound, Stream, TlsFacts};
pub use task::Tasks;
pub use tls::{Tls, TlsError};
