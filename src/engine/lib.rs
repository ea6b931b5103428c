//! The engines: one SQLite file with one writer thread that commits in groups, and many readers; or a PostgreSQL server
//! that several nodes share.
//!
//! Floor: 1. It must never know what the tables mean: store, directory and trail bring their own schema.
//! Main types: [`Database`], [`postgres::Pool`], [`table::Table`], [`EngineError`], [`Waypoints`].
//! Surprise: a write's result is handed out only after the commit it was part of is on disk (WAL,
//! `synchronous=FULL`), so whoever holds the result holds proof of durability.

mod crc;
pub mod database;
pub mod error;
mod filesystem;
#[cfg(any(test, feature = "server"))]
pub mod fixture;
pub mod postgres;
pub mod table;
pub mod waypoints;
mod writer;

pub use crc::{Checked, WRONG_CRC, add_row_crc};
pub use database::{Database, Settings, copy};
pub use error::{EngineError, tells_of_damage};
pub use waypoints::Waypoints;
