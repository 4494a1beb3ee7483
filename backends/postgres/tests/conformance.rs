//! The suite that every backend runs, on a real server.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod common;

use common::server::Server;

leasehold_backend::conformance!(Server::shared());

#[test]
fn all_of_it_on_postgresql_18() {
    common::run_again_on_18();
}
