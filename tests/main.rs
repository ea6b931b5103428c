//! Black-box tests: the real binary, real sockets, real clients. One binary, one module for each scenario.
//! `ORTLER_TESTS=all` also runs what is slow or needs programs and corpora beyond the toolchain.

mod cluster;
mod flows;
mod harness;
#[path = "fuzz/targets.rs"]
mod targets;
mod tidy;
