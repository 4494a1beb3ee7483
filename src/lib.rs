//! Leasehold: a just-in-time credential broker for AI agents and pipelines.
//!
//! The rooms, in the order in which a request meets them; ARCHITECTURE.md is the map.

pub mod clock;
pub mod entropy;
pub mod ledger;
pub mod store;
