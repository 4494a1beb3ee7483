//! The wire: leasehold.v1, generated.
