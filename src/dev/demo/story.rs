//! The telling: one line a claim, what was seen beside it, and a verdict that nobody can talk away.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How many claims there are.
pub(super) const CLAIMS: usize = 17;

/// Why a claim does not hold, or could not be checked.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// With its causes: errors of transports say nothing without them.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self(text)
    }
}

/// What was seen.
pub(super) type Seen<T = String> = Result<T, Failure>;

/// Holds, or fails with these words.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Seen<()> {
    if holds { Ok(()) } else { Err(Failure(otherwise())) }
}

/// The story, and how it went so far.
pub(super) struct Story<'a> {
    out: &'a mut dyn Write,
    begun: Instant,
    verdicts: BTreeMap<u32, bool>,
    not_here: BTreeSet<u32>,
}

impl<'a> Story<'a> {
    pub(super) fn begin(out: &'a mut dyn Write) -> Self {
        Self { out, begun: Instant::now(), verdicts: BTreeMap::new(), not_here: BTreeSet::new() }
    }

    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A line that claims nothing.
    pub(super) fn line(&mut self, what: &str, seen: &str) -> io::Result<()> {
        self.say(&format!("    {what:<43} {seen}"))
    }

    /// A claim, and what was seen. It fails when seeing failed.
    pub(super) fn claim(&mut self, number: u32, what: &str, seen: Seen) -> io::Result<()> {
        self.verdicts.insert(number, seen.is_ok());
        match seen {
            Ok(seen) => self.line(what, &format!("{seen:<75} ok {number:>2}")),
            Err(why) => self.line(what, &format!("{why}  FAILED {number}")),
        }
    }

    /// A claim that this target has no means for.
    pub(super) fn not_here(&mut self, number: u32, what: &str) -> io::Result<()> {
        self.not_here.insert(number);
        self.line(what, &format!("{:<75} -- {number:>2}", "needs PostgreSQL"))
    }

    /// Whatever a chapter left open has failed: it never got so far.
    pub(super) fn close(&mut self, claims: &[u32], ended: Seen<()>) -> io::Result<()> {
        let Err(why) = ended else { return Ok(()) };
        for number in claims {
            if !self.verdicts.contains_key(number) && !self.not_here.contains(number) {
                self.verdicts.insert(*number, false);
                self.line("(not reached)", &format!("{why}  FAILED {number}"))?;
            }
        }
        Ok(())
    }

    /// The last line, and whether all that was checked holds.
    pub(super) fn end(&mut self, target: &str, told: &[u32]) -> io::Result<bool> {
        let good = self.verdicts.values().filter(|good| **good).count();
        let failed = self.verdicts.len() - good;
        let text = self.last_line(target, told, good);
        self.say(&text)?;
        Ok(failed == 0 && good > 0)
    }

    fn last_line(&self, target: &str, told: &[u32], good: usize) -> String {
        let seconds = self.begun.elapsed().as_secs();
        let asked = told.len();
        let mut text = format!("{good} of {asked} claims checked on {target} in {seconds} s");
        let failed: Vec<_> = self.verdicts.iter().filter(|(_, good)| !**good).map(|(n, _)| *n).collect();
        if !failed.is_empty() {
            text.push_str(&format!("; failed: {}", list(&failed)));
        }
        if !self.not_here.is_empty() {
            let open: Vec<_> = self.not_here.iter().copied().collect();
            text.push_str(&format!(
                "; not checked: {}. They need PostgreSQL's programs: apt-get install postgresql, or --pg-bin DIR",
                list(&open)
            ));
        }
        text
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A measured time.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A long name, as people point at it.
pub(super) fn short(name: &str) -> String {
    format!("{}...", name.chars().take(12).collect::<String>())
}

/// Asks until there is an answer; a condition of a real server, waited for with a bound.
pub(super) async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Seen<Option<T>>,
) -> Seen<T> {
    let mut patience = Patience::new(what, patience);
    loop {
        patience.next().await?;
        if let Some(found) = look().await? {
            return Ok(found);
        }
    }
}

/// The looks at a condition, and how long there is time for them.
pub(super) struct Patience<'a> {
    what: &'a str,
    end: Instant,
    given: Duration,
    beat: tokio::time::Interval,
}

impl<'a> Patience<'a> {
    pub(super) fn new(what: &'a str, given: Duration) -> Self {
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { what, end: Instant::now() + given, given, beat }
    }

    /// Waits for the next look.
    pub(super) async fn next(&mut self) -> Seen<()> {
        self.beat.tick().await;
        ensure(Instant::now() < self.end, || format!("not within {} s: {}", self.given.as_secs(), self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tell: impl Fn(&mut Story<'_>)) -> (bool, String) {
        let mut out = Vec::new();
        let mut story = Story::begin(&mut out);
        tell(&mut story);
        let good = story.end("a target", &[1, 2, 3]).unwrap();
        (good, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_verdict_is_what_was_seen() {
        let (good, text) = told(|story| {
            for number in 1..=3 {
                story.claim(number, "a claim", Ok("seen".into())).unwrap();
            }
        });
        assert!(good && text.contains("ok  3"), "{text}");
        assert!(text.ends_with("3 of 3 claims checked on a target in 0 s\n"), "{text}");
    }

    #[test]
    fn a_claim_that_fails_or_is_not_reached_fails_the_whole() {
        let (good, text) = told(|story| {
            story.claim(1, "a claim", Err(Failure::new("a role was there"))).unwrap();
            story.not_here(2, "another").unwrap();
            story.close(&[1, 2, 3], Err(Failure::new("the broker is gone"))).unwrap();
        });
        assert!(!good, "{text}");
        for line in
            ["a role was there  FAILED 1", "the broker is gone  FAILED 3", "failed: 1, 3; not checked: 2."]
        {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn nothing_checked_is_no_success() {
        assert!(!told(|_| {}).0);
    }
}
