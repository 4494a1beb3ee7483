//! Leasehold.

pub mod store;
