//! The broker's own readers, compiled from their sources without the broker, and what must hold of them whatever they are
//! given. What the law and jose read is fed to them by the targets themselves.
#![expect(dead_code, reason = "the broker uses more of its readers than is fed here")]

mod config;
mod identity;
#[path = "../../src/near.rs"]
mod near;
mod registry;

pub use config::any_text;
pub use identity::{any_discovery, any_rules};
pub use registry::{any_manifest, any_patterns};
