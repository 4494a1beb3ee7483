//! The broker's own login on a PostgreSQL: made with a verifier, and given what `targets setup` says, nothing else.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use leasehold_backend::{Backend, BackendError, Entropy, GrantView, Statement};
use leasehold_law::catalog::Recipe;
use leasehold_law::scope::Pair;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use tokio_postgres::{Client, Error};

/// The name of the broker's own login.
pub const ADMIN: &str = "leasehold";

const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Why the login is not ready.
#[derive(Debug, thiserror::Error)]
pub enum AdminRoleError {
    /// The server refused a statement.
    #[error("{}", told(.0))]
    Server(#[from] Error),
    /// The backend cannot say what it needs.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// There is no randomness.
    #[error(transparent)]
    Entropy(#[from] leasehold_backend::kind::EntropyError),
}

/// The server's own words, where it had any.
pub fn told(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{}: {}", told.severity(), told.message()),
        None => error.to_string(),
    }
}

/// A new password: 256 random bits in hexadecimal.
///
/// # Errors
/// Without randomness.
pub fn new_password(entropy: &dyn Entropy) -> Result<String, leasehold_backend::kind::EntropyError> {
    let mut bits = [0; 32];
    entropy.fill(&mut bits)?;
    Ok(bits.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the login, or gives the one that is there this password. The server never sees the password itself: a
/// statement may be logged.
///
/// # Errors
/// Where the server refuses.
pub async fn make(root: &Client, password: &str, entropy: &dyn Entropy) -> Result<(), AdminRoleError> {
    let mut salt = [0; 16];
    entropy.fill(&mut salt)?;
    let verifier = verifier(password, &salt);
    let known = root.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&ADMIN]).await?.is_some();
    let verb = if known { "ALTER" } else { "CREATE" };
    Ok(root.batch_execute(&format!("{verb} ROLE {ADMIN} LOGIN PASSWORD '{verifier}'")).await?)
}

/// What the backend wants to be given, for leases of these groups.
///
/// # Errors
/// Where the broker's login does not work yet.
pub async fn statements(
    backend: &dyn Backend,
    grants: &[(Pair, Recipe)],
) -> Result<Vec<Statement>, AdminRoleError> {
    let views: Vec<_> = grants.iter().map(|(pair, recipe)| GrantView { pair, recipe }).collect();
    Ok(backend.setup(&views).await?)
}

/// Runs these, but for those that take back.
///
/// # Errors
/// The first that the server refuses.
pub async fn grant(root: &Client, statements: &[Statement]) -> Result<(), AdminRoleError> {
    for statement in statements.iter().filter(|statement| !statement.undo) {
        root.batch_execute(&statement.text).await?;
    }
    Ok(())
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>` (RFC 5803, and PostgreSQL's own form of it).
fn verifier(password: &str, salt: &[u8]) -> String {
    let mut salted = [0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, ITERATIONS, salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(HMAC_SHA256, &salted);
    let stored = digest(&SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let [salt, stored, server] =
        [salt, stored.as_ref(), server.as_ref()].map(|part| BASE64_STANDARD.encode(part));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_that_of_the_standard() {
        // The example of RFC 7677, section 3: user `user`, password `pencil`.
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier("pencil", &salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
             $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
