//! The suite: brokers on real sockets with a real store, a dev trust domain and, where it says so, a real PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should say where"
)]

mod archive;
mod aside;
mod at_scale;
mod audit;
mod bad_input;
mod bearer;
mod chaos;
mod child;
mod ci;
mod commands;
mod copies;
mod crash;
#[cfg(feature = "fault-points")]
mod crash_points;
mod crash_wire;
mod demo;
mod drift;
mod drills;
mod engine;
mod faults;
mod federation;
mod flow;
mod hidden;
mod hints;
mod interop;
mod leases;
mod load;
mod matrix;
mod metrics;
mod mishaps;
mod on_behalf_of;
mod orphans;
mod outages;
mod owners;
mod papers;
mod people;
mod postgres;
mod process;
mod proxy;
mod quotas;
mod races;
mod raw;
mod redaction;
mod registry;
mod registry_cut;
mod requests;
mod restart;
mod restore;
mod rotation;
mod scopes;
mod selectors;
mod shared;
mod site;
mod stopping;
mod taking;
mod targets;
mod tasks;
mod together;
mod web;
mod world;
