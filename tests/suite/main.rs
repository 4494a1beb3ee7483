//! The suite: brokers on real sockets with a real store, a dev trust domain and, where it says so, a real PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say where"
)]

mod flow;
mod leases;
mod requests;
mod scopes;
mod tasks;
mod world;
