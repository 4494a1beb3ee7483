//! A secret that has no way out but one.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped and that cannot be cloned, printed, compared or serialised.
///
/// [`Secret::expose`] is the only way to the bytes; a tidy test counts the places that call it. Wiping ends
/// where the bytes are copied into the wire encoder.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "[redacted]");
    }
}
