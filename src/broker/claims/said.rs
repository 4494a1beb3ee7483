//! What a target has said of its claim, and when it is asked next.

use leasehold_law::time::{Span, Timestamp};

use super::owner::Owner;
use crate::broker::refused::Refused;

/// How often a target is asked whose it is.
const ASK_EVERY: Span = Span::from_secs(5);
/// How long a term lasts.
const TERM: Span = Span::from_secs(30);
/// How long a broker that has just started waits for its first term, so that of two stores that are alike the one that
/// was there first goes on, and the other sees it.
pub(super) const FIRST_TERM: Span = Span::from_secs(60);

/// What a target has said of its claim.
#[derive(Default)]
pub(in crate::broker) struct Said {
    pub(in crate::broker) owner: Owner,
    /// Whether it has ever said anything.
    known: bool,
    /// The last question, the one whose answer this is, and the last that had none.
    pub(super) asked: u64,
    answered: u64,
    failed: Option<(u64, Refused)>,
    /// When it is asked again, and when the next term is taken.
    ask_at: Timestamp,
    term_at: Option<Timestamp>,
    /// Since when it does not say whose it is, or takes no term, and why.
    pub(in crate::broker) unsettled: Option<(Timestamp, String)>,
}

impl Said {
    /// A question, by its number.
    pub(super) const fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Remembers an answer, unless a later question was answered before, and tells where it is another one than the
    /// last. Gives whether it stands now.
    pub(super) fn learn(&mut self, target: &str, question: u64, answer: Result<&Owner, &Refused>) -> bool {
        match answer {
            Err(error) => self.failed = Some((question, error.clone())),
            Ok(_) if question < self.answered => {}
            Ok(owner) => {
                (self.answered, self.known) = (question, true);
                if self.owner != *owner {
                    tell(target, &self.owner, owner);
                    self.owner = owner.clone();
                }
                return true;
            }
        }
        false
    }

    /// What it said last. One that does not answer now has not changed hands; one that never did may be anybody's, and
    /// whoever asked in the meantime has asked for all that wait.
    pub(super) fn known(&self, since: u64) -> Option<Result<Owner, Refused>> {
        if self.known {
            return Some(Ok(self.owner.clone()));
        }
        let failed = self.failed.as_ref().filter(|(question, _)| *question > since);
        failed.map(|(_, error)| Err(error.clone()))
    }

    /// Whether it is to be asked now; if so, it is not again for a while.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        let due = self.ask_at.has_come(now, ASK_EVERY);
        if due {
            self.ask_at = now + ASK_EVERY;
        }
        due
    }

    /// Whether the term that stands is over. The first lasts from the first look.
    pub(super) fn is_over(&mut self, now: Timestamp) -> bool {
        self.term_at.get_or_insert(now + FIRST_TERM).has_come(now, FIRST_TERM)
    }

    pub(super) fn took_term(&mut self, now: Timestamp) {
        self.term_at = Some(now + TERM);
    }

    /// Remembers whether whose it is, and its term, are settled.
    pub(super) fn settle(&mut self, now: Timestamp, settled: Result<(), Refused>) {
        self.unsettled = settled.err().map(|error| {
            let since = self.unsettled.take().map_or(now, |(since, _)| since.min(now));
            (since, error.why.unwrap_or(error.what))
        });
    }
}

fn tell(target: &str, before: &Owner, owner: &Owner) {
    if let Some(why) = owner.forbids_mints() {
        tracing::error!(
            target,
            why,
            "nothing is minted in a target, and what must die in it may have to wait"
        );
    } else if let Owner::Other(claim) = owner {
        let owner = &claim.installation;
        tracing::warn!(
            target,
            owner,
            "another installation has claimed this target; nothing of it is ever swept here"
        );
    } else if before.forbids_mints().is_some() {
        tracing::warn!(target, "a target is this broker's again, and what waited goes on");
    }
}

#[cfg(test)]
mod tests {
    use leasehold_backend::Claim;
    use leasehold_law::reason::Reason;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn claim(incarnation: u32, term: i64) -> Claim {
        Claim { installation: "i".into(), incarnation, place: "t".into(), term }
    }

    fn down() -> Refused {
        Refused::new(Reason::TargetDown, "it does not answer")
    }

    /// Law 8: who once had a target is not kept from killing there by a claim that cannot be read now.
    #[test]
    fn what_was_said_last_stands_and_a_late_answer_changes_nothing() {
        let mut said = Said::default();
        let (early, late) = (said.ask(), said.ask());
        assert_eq!(said.known(late), None, "it may be anybody's");
        said.learn("t", late, Err(&down()));
        assert_eq!(said.known(early), Some(Err(down())), "who waited meanwhile need not ask again");
        assert_eq!(said.known(late), None, "who comes later does");
        said.learn("t", late, Ok(&Owner::Ours));
        said.learn("t", early, Ok(&Owner::Gone));
        assert_eq!(said.known(late), Some(Ok(Owner::Ours)));
        let next = said.ask();
        said.learn("t", next, Ok(&Owner::Later(claim(2, 0))));
        assert_eq!(said.known(0), Some(Ok(Owner::Later(claim(2, 0)))));
    }

    #[test]
    fn a_target_is_asked_every_five_seconds_and_a_term_lasts_thirty() {
        let mut said = Said::default();
        assert!(said.is_due(NOW) && !said.is_due(NOW + Span::from_secs(4)) && said.is_due(NOW + ASK_EVERY));
        assert!(!said.is_over(NOW) && !said.is_over(NOW + Span::from_secs(59)));
        let first = NOW + FIRST_TERM;
        assert!(said.is_over(first) && said.is_over(first), "one that failed is taken at the next look");
        said.took_term(first);
        assert!(!said.is_over(first + Span::from_secs(29)) && said.is_over(first + TERM));
    }

    #[test]
    fn what_is_not_settled_is_told_since_it_began() {
        let mut said = Said::default();
        said.settle(NOW, Err(down()));
        said.settle(NOW + TERM, Err(down()));
        assert_eq!(said.unsettled, Some((NOW, "it does not answer".to_owned())));
        said.settle(NOW + TERM, Ok(()));
        assert_eq!(said.unsettled, None);
    }
}
