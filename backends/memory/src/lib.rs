//! A target in memory, with sessions and a fault script: for tests, simulation and benches in the same process, and
//! with the feature `http` as a small service on loopback, for the demo.
//!
//! It has no timers, no threads and no clock of its own: what happens in it, happens in a call.

mod backend;
mod fault;
mod kind;
mod recipe;
mod settings;
mod target;

#[cfg(feature = "http")]
pub mod http;

pub use backend::MemoryBackend;
pub use fault::{Call, Fault, FaultScript, Gate, Rule};
pub use kind::MemoryKind;
pub use settings::Settings;
pub use target::{Account, MemoryTarget, SessionId};
