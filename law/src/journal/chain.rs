//! The chain: each entry's hash covers its bytes, its place and the hash before it (AUD-3).
//!
//! `hash = SHA-256("leasehold.journal.v1\0" ‖ u16be length ‖ chain id ‖ u64be seq ‖ prev ‖ u64be length ‖ body)`,
//! where `prev` of the first entry is 32 zeros. Bodies are bytes that were made once and are never serialised again.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::hex::Hex;

const CONTEXT: &[u8] = b"leasehold.journal.v1\0";

/// Which chain: the broker's name and its incarnation, written `broker-1/1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(String);

impl ChainId {
    /// The chain of one incarnation of a broker.
    #[must_use]
    pub fn new(broker: &str, incarnation: u32) -> Self {
        Self(format!("{broker}/{incarnation}"))
    }

    /// A chain id that was stored.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 32 bytes of SHA-256; in text, hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What stands before the first entry.
    pub const GENESIS: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash")]
pub struct HashError;

impl TryFrom<String> for Hash {
    type Error = HashError;
    fn try_from(text: String) -> Result<Self, HashError> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(HashError);
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(place * 2..place * 2 + 2).ok_or(HashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| HashError)?;
        }
        Ok(Self(bytes))
    }
}

/// Where a chain ends: the next entry goes behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Which chain.
    pub chain: ChainId,
    /// The sequence number of the last entry; 0 if there is none.
    pub seq: u64,
    /// The hash of the last entry.
    pub hash: Hash,
}

/// One chained entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1.
    pub seq: u64,
    /// The bytes, made once.
    pub body: Vec<u8>,
    /// The hash of the entry before it.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
}

impl ChainHead {
    /// A chain without entries.
    #[must_use]
    pub fn genesis(chain: ChainId) -> Self {
        Self { chain, seq: 0, hash: Hash::GENESIS }
    }

    /// Chains these bytes behind the head, and moves the head.
    pub fn append(&mut self, body: Vec<u8>) -> Entry {
        let seq = self.seq + 1;
        let prev = self.hash;
        let hash = entry_hash(&self.chain, seq, &prev, &body);
        self.seq = seq;
        self.hash = hash;
        Entry { seq, body, prev, hash }
    }
}

fn entry_hash(chain: &ChainId, seq: u64, prev: &Hash, body: &[u8]) -> Hash {
    let name = chain.0.as_bytes();
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(CONTEXT);
    context.update(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    context.update(name);
    context.update(&seq.to_be_bytes());
    context.update(&prev.0);
    context.update(&u64::try_from(body.len()).unwrap_or(u64::MAX).to_be_bytes());
    context.update(body);
    let mut hash = [0; 32];
    hash.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Hash(hash)
}

/// What an export begins with, and what each of its further lines is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The first line.
    Begin {
        /// Which chain.
        chain: ChainId,
        /// The sequence number of the first entry that follows.
        first_seq: u64,
        /// The hash of the entry before that.
        prev: Hash,
    },
    /// One entry; the body stands as a text, so that its bytes survive.
    Entry {
        /// Its place.
        seq: u64,
        /// Its bytes.
        body: String,
        /// Its hash.
        hash: Hash,
    },
}

/// The first thing that is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It does not begin as an export does.
    #[error("line 1 does not begin an export")]
    NoBeginning,
    /// A line is not an entry.
    #[error("line {0} is not an entry")]
    NotAnEntry(usize),
    /// An entry is missing or out of order.
    #[error("entry {expected} is missing; line {line} holds entry {found}")]
    Gap {
        /// The line.
        line: usize,
        /// What should stand there.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// An entry is not what was chained.
    #[error("entry {0} is the first broken one")]
    Broken(u64),
}

/// Checks an export without any broker, and gives the head that its last entry leaves.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify<'a>(mut lines: impl Iterator<Item = &'a str>) -> Result<ChainHead, ChainError> {
    let first = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let Some(Line::Begin { chain, first_seq, prev }) = first else { return Err(ChainError::NoBeginning) };
    let mut head = ChainHead { chain, seq: first_seq.saturating_sub(1), hash: prev };
    for (at, line) in lines.enumerate() {
        let number = at + 2;
        let Ok(Line::Entry { seq, body, hash }) = serde_json::from_str(line) else {
            return Err(ChainError::NotAnEntry(number));
        };
        if seq != head.seq + 1 {
            return Err(ChainError::Gap { line: number, expected: head.seq + 1, found: seq });
        }
        if head.append(body.into_bytes()).hash != hash {
            return Err(ChainError::Broken(seq));
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(bodies: &[&str]) -> Vec<String> {
        let mut head = ChainHead::genesis(ChainId::new("broker-1", 1));
        let begin = Line::Begin { chain: head.chain.clone(), first_seq: 1, prev: head.hash };
        let mut lines = vec![serde_json::to_string(&begin).unwrap()];
        for body in bodies {
            let entry = head.append(body.as_bytes().to_vec());
            let line = Line::Entry { seq: entry.seq, body: (*body).to_owned(), hash: entry.hash };
            lines.push(serde_json::to_string(&line).unwrap());
        }
        lines
    }

    fn check(lines: &[String]) -> Result<u64, ChainError> {
        verify(lines.iter().map(String::as_str)).map(|head| head.seq)
    }

    #[test]
    fn a_whole_export_is_good() {
        assert_eq!(check(&export(&["a", "b", "c"])), Ok(3));
        assert_eq!(check(&export(&[])), Ok(0));
    }

    #[test]
    fn the_first_broken_entry_is_named() {
        let mut lines = export(&["aaaa", "bbbb", "cccc"]);
        lines[2] = lines[2].replace("bbbb", "bbBb");
        assert_eq!(check(&lines), Err(ChainError::Broken(2)));
    }

    #[test]
    fn what_is_left_out_or_moved_is_found() {
        let lines = export(&["a", "b", "c"]);
        let without = [&lines[..2], &lines[3..]].concat();
        assert_eq!(check(&without), Err(ChainError::Gap { line: 3, expected: 2, found: 3 }));
        assert_eq!(check(&lines[1..]), Err(ChainError::NoBeginning));
        let junk = [&lines[..], &["{}".to_owned()]].concat();
        assert_eq!(check(&junk), Err(ChainError::NotAnEntry(5)));
    }

    #[test]
    fn an_entry_belongs_to_its_chain() {
        let lines = export(&["a"]);
        let moved = vec![lines[0].replace("broker-1/1", "broker-1/2"), lines[1].clone()];
        assert_eq!(check(&moved), Err(ChainError::Broken(1)));
    }
}
