//! Bytes as people and records see them: two lower-case hexadecimal digits each.

use std::fmt::{self, Write as _};

/// These bytes, to be shown.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 15))
        })
    }
}

fn digit(four_bits: u8) -> char {
    char::from_digit(u32::from(four_bits), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_two_digits() {
        let all: Vec<u8> = (0..=255).collect();
        let text = Hex(&all).to_string();
        assert_eq!(text.len(), 512);
        assert!((0..=255_usize).all(|n| usize::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap() == n));
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
    }
}
