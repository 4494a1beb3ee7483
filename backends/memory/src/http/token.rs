//! The token that the broker shows to the service.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use leasehold_law::secret::Secret;

/// The shortest token, in bytes.
const MIN_BYTES: usize = 16;
/// The longest token file that is read, in bytes.
const MAX_BYTES: u64 = 4096;

/// A bearer token.
#[derive(Debug)]
pub struct Token(Secret);

impl Token {
    /// The token in a file that only its owner may read; white space around it does not count.
    ///
    /// # Errors
    /// In words, where the file cannot be read, is open to others, or holds no token.
    pub fn read(path: &str) -> Result<Self, String> {
        let mode = fs::metadata(path).map_err(|error| format!("`{path}`: {error}"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!("`{path}` is open to others; run `chmod 600 {path}`"));
        }
        let mut text = Vec::new();
        let file = File::open(path).map_err(|error| format!("`{path}`: {error}"))?;
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| format!("`{path}`: {error}"))?;
        Self::new(text.trim_ascii())
            .ok_or_else(|| format!("`{path}` must hold {MIN_BYTES} plain characters or more"))
    }

    /// A token of plain characters; `None` where it is shorter than 16 bytes or has any other.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let plain = bytes.len() >= MIN_BYTES && bytes.iter().all(u8::is_ascii_graphic);
        plain.then(|| Self(Secret::new(bytes.to_vec())))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}
