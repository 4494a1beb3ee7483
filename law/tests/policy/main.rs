//! What policies are refused, and what the others decide.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly")]

mod decide;
mod fixture;
mod load;
mod schema;
