//! The one place where text becomes SQL: utility statements take no parameters.

/// A name, quoted, whatever it holds.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names, quoted, with commas between them.
pub(crate) fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

/// A text, quoted so that no server setting changes what it means.
pub(crate) fn literal(text: &str) -> String {
    let escape = if text.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Texts as an array.
pub(crate) fn array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.into_iter().map(literal).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

/// A block that runs on the server in one step. Quoted as a literal: no dollar quote that its text could close.
pub(crate) fn block(body: &str) -> String {
    format!("DO {}", literal(body))
}

/// A pattern that matches what begins with `prefix`, for `LIKE ... ESCAPE '\'` (RULES R-11).
pub(crate) fn like_prefix(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for letter in prefix.chars() {
        if matches!(letter, '\\' | '_' | '%') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let check = |name: &str, expect: &str| assert_eq!(ident(name), expect);
        check("orders_reader", "\"orders_reader\"");
        check("a\"b", "\"a\"\"b\"");
        check("a'; drop role x; --", "\"a'; drop role x; --\"");
        check("\\", "\"\\\"");
        check("Ünï cödé", "\"Ünï cödé\"");
        assert_eq!(idents(["a", "b\""]), "\"a\", \"b\"\"\"");
    }

    #[test]
    fn texts_cannot_leave_their_quotes() {
        let check = |text: &str, expect: &str| assert_eq!(literal(text), expect);
        check("plain", "'plain'");
        check("it's", "'it''s'");
        check("\\", "E'\\\\'");
        check("\\'", "E'\\\\'''");
        check("$lh$", "'$lh$'");
        assert_eq!(array(["a", "b'"]), "ARRAY['a', 'b''']::text[]");
        assert_eq!(block("BEGIN 'x' END"), "DO 'BEGIN ''x'' END'");
    }

    #[test]
    fn a_prefix_matches_only_itself() {
        let check = |prefix: &str, expect: &str| assert_eq!(like_prefix(prefix), expect);
        check("lh", "lh%");
        check("lh_", "lh\\_%");
        check("100%", "100\\%%");
        check("a\\", "a\\\\%");
    }
}
