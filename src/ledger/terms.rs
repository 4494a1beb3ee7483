//! Records of the servers that targets stand for, and of the terms that this store took of them (RULES R-11).
//!
//! All of it is numbers that only grow, so that brokers that share a store cannot set each other back.

use leasehold_law::subject::{Guard, Subject};

use super::{Ledger, LedgerError};
use crate::store::{Change, StoreError};

/// The last two terms of a server. It stands under either, since one is on record before it is in the server; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The one that was read there when the next was taken.
    pub before: i64,
    /// The next.
    pub now: i64,
}

/// What is on record of the server that answers for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// Its terms.
    pub terms: Terms,
    /// How many servers were found to be this store's and the target's, one after the other.
    pub homes: i64,
    /// Whether it is the last of them.
    pub is_home: bool,
}

/// How the next term may follow what stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// One of the last two on record, or newer than both.
    OnRecord,
    /// A term that an older incarnation took meanwhile.
    Older,
    /// Whatever stands: an operator says so.
    Anything,
}

impl Terms {
    /// Whether the next is on record and did not reach the server, which stands under this one.
    const fn wait(self, stands: i64) -> bool {
        self.now > self.before && stands == self.before
    }

    /// Whether nobody took a term since the server was read: what it stands under is on record, or is newer than all
    /// that is.
    const fn fit(self, stands: i64, follow: Follow) -> bool {
        match follow {
            Follow::OnRecord => stands == self.before || stands >= self.now,
            Follow::Older => stands >= self.before,
            Follow::Anything => true,
        }
    }

    fn next(self, stands: i64, step: i64) -> Self {
        let now = self.now.max(stands).saturating_add(step);
        Self { before: self.before.max(stands), now }
    }
}

impl Ledger {
    /// What is on record of the server of this name, if it has one, as the one that answers for a target.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn tenure(&self, target: &str, place: Option<&str>) -> Result<Tenure, LedgerError> {
        let latest = self.count(home(target)).await?;
        let Some(place) = place else { return Ok(Tenure { homes: latest, ..Tenure::default() }) };
        let is_home = latest > 0 && self.count(home_at(target, place)).await? == latest;
        Ok(Tenure { terms: self.terms(place).await?, homes: latest, is_home })
    }

    /// From now on this is the server that answers for a target.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where another broker of the store says so of another server, and where it cannot be
    /// written.
    pub async fn settle(&self, target: &str, place: &str) -> Result<(), LedgerError> {
        let (subject, guard) = self.guard(home(target)).await?;
        let latest = self.count(home(target)).await?.saturating_add(1);
        let number = |name: String| Change::Number(name.into(), latest);
        let changes = vec![number(home(target)), number(home_at(target, place)), Change::Bump(subject)];
        self.commit(changes, vec![guard]).await
    }

    /// The next term of a server that stands under this one: greater than any before it. One that did not reach the
    /// server is tried again.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] where another broker of the store took one meanwhile, and where it cannot be written.
    pub async fn next_term(
        &self,
        place: &str,
        stands: i64,
        step: i64,
        follow: Follow,
    ) -> Result<i64, LedgerError> {
        let (subject, guard) = self.guard(now(place)).await?;
        let terms = self.terms(place).await?;
        if terms.wait(stands) {
            return Ok(terms.now);
        }
        if !terms.fit(stands, follow) {
            return Err(LedgerError::Stale(subject));
        }
        let next = terms.next(stands, step);
        let changes = vec![
            Change::Number(before(place).into(), next.before),
            Change::Number(now(place).into(), next.now),
            Change::Bump(subject),
        ];
        self.commit(changes, vec![guard]).await?;
        Ok(next.now)
    }

    /// What changes with these numbers, as it is before they are read.
    async fn guard(&self, name: String) -> Result<(Subject, Guard), StoreError> {
        let subject = Subject::Term(name);
        let version = self.store.versions(std::slice::from_ref(&subject)).await?.first().copied();
        Ok((subject.clone(), Guard { subject, version: version.unwrap_or_default() }))
    }

    async fn terms(&self, place: &str) -> Result<Terms, StoreError> {
        Ok(Terms { before: self.count(before(place)).await?, now: self.count(now(place)).await? })
    }

    async fn count(&self, name: String) -> Result<i64, StoreError> {
        Ok(self.store.number(&name).await?.unwrap_or_default())
    }
}

fn home(target: &str) -> String {
    format!("home/{target}")
}

fn home_at(target: &str, place: &str) -> String {
    format!("home/{target}/{place}")
}

fn before(place: &str) -> String {
    format!("term/before/{place}")
}

fn now(place: &str) -> String {
    format!("term/now/{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { before: 70, now: 90 };

    #[test]
    fn a_term_is_greater_than_whatever_stands() {
        assert_eq!(TERMS.next(90, 5), Terms { before: 90, now: 95 });
        assert_eq!(TERMS.next(0, 5), Terms { before: 70, now: 95 }, "a claim that is gone is not forgotten");
        assert_eq!(TERMS.next(200, 5), Terms { before: 200, now: 205 }, "and what another took is outdone");
        assert_eq!(Terms::default().next(0, 5), Terms { before: 0, now: 5 });
    }

    #[test]
    fn a_term_that_did_not_reach_the_server_is_tried_again() {
        assert!(TERMS.wait(70) && !TERMS.wait(90) && !TERMS.wait(0));
        assert!(Terms { before: 0, now: 90 }.wait(0) && !Terms::default().wait(0));
    }

    /// A broker that read the server, and was then paused while others went on.
    #[test]
    fn no_term_follows_one_that_is_over() {
        let fit = |stands| TERMS.fit(stands, Follow::OnRecord);
        assert!(fit(70) && fit(90) && fit(91));
        assert!(!fit(69) && !fit(80) && !fit(0));
        assert!(Terms::default().fit(0, Follow::OnRecord));
        let older = |stands| TERMS.fit(stands, Follow::Older);
        assert!(older(80) && older(900) && !older(69), "an older incarnation went on meanwhile");
    }
}
