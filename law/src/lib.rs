//! What may happen: the pure law of Leasehold.
//!
//! No runtime, no wire, no SQL, no file, no clock and no randomness: keys, `now` and random bits come in
//! as arguments, so that every answer can be replayed.

pub mod behalf;
pub mod caller;
pub mod catalog;
pub mod cause;
pub mod drill;
pub mod hex;
pub mod id;
#[cfg(feature = "policy")]
pub mod journal;
pub mod lease;
pub mod lifetime;
pub mod manifest;
pub mod param;
#[cfg(feature = "policy")]
pub mod policy;
pub mod principal;
pub mod quota;
pub mod reason;
pub mod registry;
pub mod request;
pub mod revocation;
pub mod scope;
pub mod secret;
pub mod subject;
pub mod task;
pub mod time;
pub mod words;
