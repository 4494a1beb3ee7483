//! Leasehold: a just-in-time credential broker for AI agents and pipelines.
//!
//! The rooms, in the order in which a request meets them; ARCHITECTURE.md is the map.

pub mod broker;
pub mod clock;
pub mod dev;
pub mod entropy;
pub mod identity;
pub mod ledger;
pub mod registry;
pub mod store;
pub mod vault_door;
