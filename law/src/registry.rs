//! The registry of agents: who is registered, by name or by pattern, how it stands, and what lowers it.

mod book;
mod entry;
pub mod pattern;
pub mod standing;

pub use book::{Book, Source, View};
pub use entry::{Act, Drift, Entry, Registration, Review, Terms};
pub use pattern::{Pattern, PatternError, Who};
pub use standing::{Claim, Lowered, LoweredBy, Rules, Ruling, Standing, Status};
