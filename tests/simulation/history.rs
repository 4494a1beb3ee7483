//! What happened, in words, and what should not have.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;

use crate::time::SimTime;

/// The history of one world.
pub(crate) struct History {
    time: Arc<SimTime>,
    lines: Mutex<Vec<String>>,
    wrongs: Mutex<Vec<String>>,
}

impl History {
    pub(crate) fn new(time: Arc<SimTime>) -> Self {
        Self { time, lines: Mutex::default(), wrongs: Mutex::default() }
    }

    /// Something happened.
    pub(crate) fn note(&self, what: impl Display) {
        let line = format!("{:>8} {what}", self.time.passed().0);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Something happened that must never happen.
    pub(crate) fn wrong(&self, what: impl Display) {
        self.note(format!("WRONG: {what}"));
        self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_string());
    }

    pub(crate) fn is_wrong(&self) -> bool {
        !self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The history as it is told: its lines, what is wrong, and a digest of it.
    pub(crate) fn tell(&self) -> Told {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wrongs = self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let digest = digest::digest(&digest::SHA256, lines.join("\n").as_bytes());
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Told { lines, wrongs, digest }
    }
}

/// A history that is over.
pub(crate) struct Told {
    pub(crate) lines: Vec<String>,
    pub(crate) wrongs: Vec<String>,
    pub(crate) digest: String,
}
