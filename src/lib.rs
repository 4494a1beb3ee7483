//! Leasehold: a just-in-time credential broker for AI agents and pipelines.
//!
//! The rooms, in the order in which a request meets them; ARCHITECTURE.md is the map.

pub mod api;
pub mod authority;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dev;
pub mod entropy;
mod fault;
pub mod identity;
pub mod init;
pub mod ledger;
pub mod meter;
mod near;
pub mod registry;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod vault_door;
