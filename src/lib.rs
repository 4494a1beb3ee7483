//! Leasehold.

pub mod config;
pub mod init;
