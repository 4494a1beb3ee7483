//! Leasehold.

pub mod cli;
