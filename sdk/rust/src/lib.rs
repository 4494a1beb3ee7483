//! The Rust SDK: open a task, lease, renew, complete.

pub mod channel;
