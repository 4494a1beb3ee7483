//! What a word may have been meant to be.

/// The known word that a few slips of the finger lead to.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let near = known.into_iter().min_by_key(|candidate| distance(candidate))?;
    (distance(near) <= 1 + near.len() / 4).then_some(near)
}

/// At most `most` of the known words that are likest to one, the likest first.
pub(crate) fn likest(word: &str, known: impl IntoIterator<Item = String>, most: usize) -> Vec<String> {
    let distance = |candidate: &String| strsim::damerau_levenshtein(word, candidate);
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_by_cached_key(|candidate| (distance(candidate), candidate.clone()));
    known.truncate(most);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_leads_somewhere_and_another_word_nowhere() {
        let known = ["orders-db", "stock"];
        assert_eq!(nearest("order-db", known), Some("orders-db"));
        assert_eq!(nearest("payments", known), None);
        assert_eq!(likest("stick", known.map(String::from), 1), ["stock"]);
    }
}
