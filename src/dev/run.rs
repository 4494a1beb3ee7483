//! `leasehold dev`.
