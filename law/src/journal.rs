//! The one ordered record: what an entry says, and how entries are chained.

pub mod chain;
pub mod record;

pub use chain::{ChainError, ChainHead, ChainId, Entry, Hash, Line, verify};
pub use record::{Aims, Body, Event};
