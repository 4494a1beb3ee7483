//! The target as a small service, and a backend that speaks to one: plain HTTP, on loopback only.

mod client;
mod server;
mod token;
mod wire;

pub use client::HttpBackend;
pub use server::serve;
pub use token::Token;
