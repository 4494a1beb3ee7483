//! The wire: `leasehold.v1`, generated, with clients and servers; and the SPIFFE Workload API.
//!
//! The protos in `leasehold/v1` are the reference, with units and bounds; their comments are the docs of
//! the types here. Maps are ordered. Messages that carry a secret have a `Debug` that prints the secret's
//! name and never its value.

mod redact;
#[cfg(test)]
mod tests;

pub use generated::leasehold as v1;
pub use generated::workload;

/// The encoded `FileDescriptorSet` of `leasehold.v1` and what it imports, for gRPC reflection. Without
/// comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/leasehold.v1.bin"));

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    unused_qualifications,
    reason = "the generators write code in their own style"
)]
mod generated {
    /// The services and messages of Leasehold.
    pub mod leasehold {
        include!(concat!(env!("OUT_DIR"), "/leasehold/leasehold.v1.rs"));
    }

    /// The SPIFFE Workload API, client and server. The server is that of the dev trust domain.
    #[expect(missing_docs, reason = "the standard leaves one of its messages without a comment")]
    pub mod workload {
        include!(concat!(env!("OUT_DIR"), "/workload/_.rs"));
    }
}
