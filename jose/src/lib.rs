//! Signed tokens (RFC 7519), read strictly, and proofs of possession (RFC 9449): what brokers check and clients make.
//!
//! The cryptography is ring's and the format `jsonwebtoken`'s; what stands here is what those leave open: which
//! algorithms count, what a claim must look like, how long a token may live, and whose key it is bound to.

pub mod keys;
pub mod proof;
mod provider;
pub mod signing;
mod strict;
pub mod token;

pub use keys::{Keys, KeysError};
pub use proof::{Demand, Proof, ProofError, ProofKey, Thumbprint};
pub use signing::{SigningError, SigningKey};
pub use token::{Claims, Peek, Rules, TokenError};
