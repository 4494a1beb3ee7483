//! Words for people: how many of a thing, and all that an error has to say.

use std::error::Error;
use std::fmt::Display;

/// `1 lease`, `2 leases`, `0 entries`.
#[must_use]
pub fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    if number == N::from(1) {
        return format!("1 {thing}");
    }
    match thing.strip_suffix('y') {
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {thing}s"),
    }
}

/// `1 lease is`, `2 leases are`.
#[must_use]
pub fn count_are<N: Copy + Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let verb = if number == N::from(1) { "is" } else { "are" };
    format!("{} {verb}", count(number, thing))
}

/// An error with its causes; transport errors say nothing without them.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_not_several() {
        assert_eq!([count(0_u64, "lease"), count(1_u64, "lease")], ["0 leases", "1 lease"]);
        assert_eq!([count(1_usize, "entry"), count(2_usize, "entry")], ["1 entry", "2 entries"]);
        assert_eq!([count_are(1_u32, "row"), count_are(3_u32, "row")], ["1 row is", "3 rows are"]);
    }
}
