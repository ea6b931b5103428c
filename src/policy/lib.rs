//! What is done with a judged message: options with their levels, and the disposition of each recipient.
//!
//! Floor: 1, pure (no async, no I/O, no clock). It must never know how findings are made or mail is stored.
//! Main types: [`Finding`], [`Score`].
//! Surprise: scores are whole thousandths, so that sums do not depend on their order.

pub mod finding;

pub use finding::{Finding, ReasonClass, Score};
