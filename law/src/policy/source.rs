//! Policy files, cut into policies: each is parsed by itself, so that one mistake does not hide the next.

use std::iter::Peekable;
use std::str::CharIndices;

/// One policy file.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The file, or `grant INTENT@TARGET` where the policy comes from a grant's `allow`.
    pub source: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// The text of one policy, from its first token on, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snippet<'a> {
    pub(super) source: &'a str,
    pub(super) text: &'a str,
    /// The line of its first token.
    pub(super) line: usize,
}

impl Snippet<'_> {
    /// A problem at a byte of the policy.
    pub(super) fn problem_at(&self, offset: usize, what: String) -> PolicyProblem {
        let before = self.text.get(..offset).unwrap_or(self.text);
        PolicyProblem { source: self.source.to_owned(), line: self.line + newlines(before), what }
    }

    /// A problem where `needle` first stands in the policy, or where the policy begins.
    pub(super) fn problem_near(&self, needle: &str, what: String) -> PolicyProblem {
        self.problem_at(self.text.find(needle).unwrap_or(0), what)
    }
}

/// The policies of a file. What follows the last `;` is one more, unless it is blank.
pub(super) fn cut(source: &PolicySource) -> Vec<Snippet<'_>> {
    let mut snippets = Vec::new();
    let mut rest = source.text.as_str();
    let mut line = 1;
    while !rest.is_empty() {
        let (blank, tail) = rest.split_at(blank_len(rest));
        line += newlines(blank);
        let (text, tail) = tail.split_at(policy_len(tail));
        if !text.is_empty() {
            snippets.push(Snippet { source: &source.name, text, line });
        }
        line += newlines(text);
        rest = tail;
    }
    snippets
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The bytes of white space and comments at the start.
fn blank_len(text: &str) -> usize {
    let mut rest = text.trim_start();
    while rest.starts_with("//") {
        rest = rest.split_once('\n').map_or("", |(_, next)| next).trim_start();
    }
    text.len() - rest.len()
}

/// The bytes up to the first `;` that is neither text nor comment, with it.
fn policy_len(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            ';' => return at + 1,
            '"' => skip_text(&mut chars),
            '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                chars.by_ref().find(|(_, c)| *c == '\n');
            }
            _ => {}
        }
    }
    text.len()
}

fn skip_text(chars: &mut Peekable<CharIndices<'_>>) {
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_at_the_ends_of_policies_only() {
        let check = |text: &str, expect: &[(usize, &str)]| {
            let source = PolicySource { name: "x".into(), text: text.into() };
            let found: Vec<_> = cut(&source).iter().map(|s| (s.line, s.text)).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("", &[]);
        check(" \n// only; a comment", &[]);
        check("a;b;", &[(1, "a;"), (1, "b;")]);
        check("// one; two\n\na\n;\n  b", &[(3, "a\n;"), (5, "b")]);
        check("\"x;\\\";\" ;b", &[(1, "\"x;\\\";\" ;"), (1, "b")]);
        check("a // no; end \"\n;b;", &[(1, "a // no; end \"\n;"), (2, "b;")]);
        check("\"never closed;\n", &[(1, "\"never closed;\n")]);
    }
}
