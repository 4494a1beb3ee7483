//! Records of the terms that this store took of its targets: numbers that only grow (RULES R-11).

use leasehold_law::subject::{Guard, Subject};

use super::{Ledger, LedgerError};
use crate::store::Change;

/// The last two terms of a target. It stands under either, since one is on record before it is in the target; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The one that was read in the target when the next was taken.
    pub before: i64,
    /// The next.
    pub now: i64,
}

impl Terms {
    /// Whether the next is on record and did not reach the target, which stands under this one.
    const fn wait(self, stands: i64) -> bool {
        self.now > self.before && stands == self.before
    }

    fn next(self, stands: i64, step: i64) -> Self {
        let now = self.now.max(stands).saturating_add(step);
        Self { before: self.before.max(stands), now }
    }
}

impl Ledger {
    /// The terms that this store took of a target last.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn terms(&self, target: &str) -> Result<Terms, LedgerError> {
        let number = async |name: String| self.store.number(&name).await;
        let before = number(before_name(target)).await?.unwrap_or_default();
        let now = number(now_name(target)).await?.unwrap_or_default();
        Ok(Terms { before, now })
    }

    /// The next term of a target that stands under this one: greater than any before it. One that did not reach the
    /// target is tried again.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where another broker of the store took one meanwhile, and where it cannot be written.
    pub async fn next_term(&self, target: &str, stands: i64, step: i64) -> Result<i64, LedgerError> {
        let subject = Subject::Term(target.to_owned());
        let version = self.store.versions(std::slice::from_ref(&subject)).await?.first().copied();
        let terms = self.terms(target).await?;
        if terms.wait(stands) {
            return Ok(terms.now);
        }
        let next = terms.next(stands, step);
        let changes = vec![
            Change::Number(before_name(target).into(), next.before),
            Change::Number(now_name(target).into(), next.now),
            Change::Bump(subject.clone()),
        ];
        let guard = Guard { subject, version: version.unwrap_or_default() };
        self.commit(changes, vec![guard]).await?;
        Ok(next.now)
    }
}

fn before_name(target: &str) -> String {
    format!("term.{target}.before")
}

fn now_name(target: &str) -> String {
    format!("term.{target}.now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_greater_than_whatever_stands() {
        let terms = Terms { before: 70, now: 90 };
        assert_eq!(terms.next(90, 5), Terms { before: 90, now: 95 });
        assert_eq!(terms.next(0, 5), Terms { before: 70, now: 95 }, "a claim that is gone is not forgotten");
        assert_eq!(terms.next(200, 5), Terms { before: 200, now: 205 }, "and what another took is outdone");
        assert_eq!(Terms::default().next(0, 5), Terms { before: 0, now: 5 });
    }

    #[test]
    fn a_term_that_did_not_reach_the_target_is_tried_again() {
        let terms = Terms { before: 70, now: 90 };
        assert!(terms.wait(70) && !terms.wait(90) && !terms.wait(0));
        assert!(Terms { before: 0, now: 90 }.wait(0) && !Terms::default().wait(0));
    }
}
