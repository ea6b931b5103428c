//! Proof that the store keeps its word whatever happens: a plain model of an account, random scripts of operations on it,
//! and processes that are interrupted while they play them.

mod crash;
mod cut;
mod flips;
mod model;
mod play;
mod power;

pub(crate) use model::{Model, Op};
