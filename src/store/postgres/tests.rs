//! The suite on PostgreSQL, and what only several brokers can do to each other.

mod commits;
mod disks;
mod failover;
mod fences;
mod opening;
mod rows;
mod world;

use crate::store::suite::store_suite;

mod suite {
    use super::*;
    store_suite!(world::fresh().await);
}
