//! Where a key stood first that stands twice in one table. The parser knows and does not say, so it is asked again: of
//! the keys before it that are spelled so, the first counts beside which alone it is still one too many.

use std::ops::Range;

use toml::de::DeTable;

use super::source::Place;

/// Each look is a parse of the file, and so many of the nearest keys are looked at: a file may be full of such keys.
const MOST_LOOKS: usize = 16;
/// A file that is longer is not looked through: it may come from whoever applies agents.
const LONGEST: usize = 64 * 1024;

/// The message for something that is defined for the second time.
pub(super) fn told(what: &str, first: &Place) -> String {
    format!("{what} is defined twice, first at {}:{}", first.file.display(), first.line)
}

/// Where the key at `again` stood first, as a byte of the text.
pub(super) fn first(text: &str, again: &Range<usize>) -> Option<usize> {
    let key = text.get(again.clone()).filter(|key| !key.is_empty() && text.len() <= LONGEST)?;
    let before = earlier(text.get(..again.start)?, key);
    let nearest = before.iter().rev().take(MOST_LOOKS);
    nearest.copied().rfind(|kept| clashes(text, key, &before, *kept, again))
}

/// Where the key is spelled so before: as a key, as far as its neighbours tell.
fn earlier(before: &str, key: &str) -> Vec<usize> {
    let is_key = |at: &usize| {
        let after = before.get(at + key.len()..).and_then(|rest| rest.chars().next());
        let ahead = before.get(..*at).and_then(|head| head.chars().next_back());
        ahead.is_none_or(|c| c.is_whitespace() || ".[{,".contains(c))
            && after.is_some_and(|c| c.is_whitespace() || ".]=".contains(c))
    };
    before.match_indices(key).map(|(at, _)| at).filter(is_key).collect()
}

/// Whether the key is still one too many where all of the others before it but `kept` are called otherwise.
fn clashes(text: &str, key: &str, before: &[usize], kept: usize, again: &Range<usize>) -> bool {
    let otherwise = if key.starts_with('x') { "y" } else { "x" }.repeat(key.len());
    let mut asked = text.to_owned();
    for at in before.iter().filter(|at| **at != kept) {
        asked.replace_range(*at..at + key.len(), &otherwise);
    }
    let (_, errors) = DeTable::parse_recoverable(&asked);
    errors.iter().any(|error| error.span().as_ref() == Some(again))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last key of each text is one too many; `^` stands before where it stood first.
    #[test]
    fn the_first_is_found_among_keys_of_the_same_name() {
        for marked in [
            "^a = 1\na = 2",
            "^a = 1\na = 2\na = 3",
            "[t]\n^a = 1 # a = 3\nb = \"a = 2\"\na = 2",
            "[t]\na = 0\n[u]\n^a = 1\na = 2",
            "[b]\n^b = 1\nb = 2",
            "[^t]\n[u]\n[t]",
            "[a.t]\n[b.^t]\n[b.t]",
            "[a.^\"spiffe://d/a\"]\nx = 1\n[a.\"spiffe://d/b\"]\n[a.\"spiffe://d/a\"]",
            "[[g]]\na = 1\n[[g]]\n^a = 1\na = 2",
            "a = 1\nt = { ^a = 1, a = 2 }",
            "t.a = 1\nu.^a = 1\nu.a = 2",
        ] {
            let text = marked.replace('^', "");
            let (_, errors) = DeTable::parse_recoverable(&text);
            let again = errors.last().unwrap().span().unwrap();
            assert_eq!(first(&text, &again), marked.find('^'), "{marked}");
        }
    }

    #[test]
    fn what_is_spelled_otherwise_is_not_found() {
        let text = "a = 1\n\"a\" = 2";
        let (_, errors) = DeTable::parse_recoverable(text);
        assert_eq!(first(text, &errors[0].span().unwrap()), None);
    }
}
