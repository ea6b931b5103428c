//! PostgreSQL as the engine that several nodes share: store, directory and trail bring their own tables.
//!
//! An error that says [`EngineError::Postgres`] may heal; after one of a commit it is open whether it happened
//! ([`Session::is_lost`]).
//!
//! [`EngineError::Postgres`]: crate::EngineError::Postgres

mod listen;
mod migrate;
mod pool;
#[cfg(any(test, feature = "server"))]
mod server;
mod settings;
mod tls;

pub use listen::{Notice, Notices};
pub use migrate::{Migration, migrate};
pub use pool::{Params, Pool, Session, value};
#[cfg(any(test, feature = "server"))]
pub use server::Server;
pub use settings::PgSettings;
pub use tls::PgTls;
pub use tokio_postgres::Row;
pub use tokio_postgres::types;
