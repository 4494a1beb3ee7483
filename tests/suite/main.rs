//! The suite: brokers on real sockets with a real store, a dev trust domain and, where it says so, a real PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say where"
)]

mod audit;
mod bad_input;
mod faults;
mod flow;
mod leases;
mod matrix;
mod races;
mod raw;
mod requests;
mod restart;
mod scopes;
mod stopping;
mod targets;
mod tasks;
mod world;
