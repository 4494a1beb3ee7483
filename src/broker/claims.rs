//! Whose a target is (RULES ).
//!
//! A target keeps the claim of the broker that mints in it, and with it a term: a number that this store raises every
//! half minute, by a step that nobody can guess, first on its own record and then in the target. So a target tells more
//! than a name: a term that is not on record was taken by another store, a copy of this one or what it is a copy of; a
//! term that is long over, or none, is that of another server, or of one that was set back.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_backend::{BackendError, Claim, Found};
use leasehold_law::principal::PrincipalName;
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::keep::Kept;
use super::refused::Refused;
use crate::ledger::Terms;

/// How often a target is asked whose it is.
const ASK_EVERY: Span = Span::from_secs(5);
/// How long a term lasts. A broker that has just started takes none before, so that of two stores that are alike the
/// one that was there first goes on, and the other sees it.
const TERM: Span = Span::from_secs(30);
/// A step from one term to the next is at most so long.
const LONGEST_STEP: u64 = 1 << 31;

/// Whose a target is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's yet, or an earlier incarnation's: ours to claim.
    #[default]
    Unknown,
    /// This installation's, in this incarnation.
    Ours,
    /// Another installation's: nothing is ever swept in it from here.
    Other(Claim),
    /// A later incarnation of this installation's: this store is a clone, or was set back by hand.
    Later(Claim),
    /// Another store's that has this installation's key: a copy of this one, or what this one is a copy of.
    Twin(Claim),
    /// No longer this store's, though nobody else has claimed it: another server may be answering, or one that was set
    /// back.
    Gone,
}

impl Owner {
    /// Why nothing in it may be killed from here, and what to do: another broker answers for what it holds.
    #[must_use]
    pub fn forbids_kills(&self) -> Option<String> {
        match self {
            Self::Later(claim) => Some(format!(
                "incarnation {} of this installation has claimed the target, and answers for what is in it: stop this \
                 broker, or restore its store anew",
                claim.incarnation
            )),
            Self::Twin(_) => Some(
                "another store of this installation has it, a copy of this one or what this one is a copy of: stop \
                 whichever broker is not the right one. Where the other store is lost for good, put this one in its place \
                 with leasehold restore, or, if this one was made anew, leasehold targets sweep NAME --claim"
                    .to_owned(),
            ),
            Self::Unknown | Self::Ours | Self::Other(_) | Self::Gone => None,
        }
    }

    /// Why nothing may be minted in it from here, and what to do.
    #[must_use]
    pub fn forbids_mints(&self) -> Option<String> {
        let gone = "the claim that this broker made there is gone: another server may be answering in its place, or one \
                    that was set back, and what is not found in it proves nothing. See where its address leads; if it is \
                    the right one, leasehold targets sweep NAME --claim";
        match self {
            Self::Gone => Some(gone.to_owned()),
            Self::Later(_) | Self::Twin(_) => self.forbids_kills(),
            Self::Unknown | Self::Ours | Self::Other(_) => None,
        }
    }

    /// Whoever else has claimed it.
    #[must_use]
    pub const fn claimant(&self) -> Option<&Claim> {
        match self {
            Self::Other(claim) | Self::Later(claim) | Self::Twin(claim) => Some(claim),
            Self::Unknown | Self::Ours | Self::Gone => None,
        }
    }
}

/// What a target answered.
struct Answer {
    owner: Owner,
    standing: Option<Claim>,
}

/// What a target has said of its claim.
#[derive(Default)]
pub(super) struct Said {
    pub(super) owner: Owner,
    /// Whether it has ever said anything.
    known: bool,
    /// The question whose answer this is, of those that were asked.
    answered: u64,
    asked: u64,
    /// When it is asked again, and when the next term is taken.
    ask_at: Timestamp,
    term_at: Option<Timestamp>,
}

impl Said {
    /// A question, by its number.
    const fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Remembers an answer, unless a later question was answered before, and tells where it is another one than the
    /// last.
    fn learn(&mut self, target: &str, question: u64, owner: &Owner) {
        if question < self.answered {
            return;
        }
        self.answered = question;
        if self.owner != *owner {
            tell(target, &self.owner, owner);
            self.owner = owner.clone();
        }
        self.known = true;
    }

    /// What it said last. One that does not answer now has not changed hands; one that never did may be anybody's.
    fn known(&self) -> Option<&Owner> {
        self.known.then_some(&self.owner)
    }

    /// Whether it is to be asked now; if so, it is not again for a while.
    fn is_due(&mut self, now: Timestamp) -> bool {
        let due = self.ask_at.has_come(now, ASK_EVERY);
        if due {
            self.ask_at = now + ASK_EVERY;
        }
        due
    }

    /// Whether the term that stands is over. The first lasts from the first look.
    fn is_over(&mut self, now: Timestamp) -> bool {
        let over = self.term_at.get_or_insert(now + TERM).has_come(now, TERM);
        if over {
            self.term_at = Some(now + TERM);
        }
        over
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

/// Whose a target is that says this, by the terms on record.
fn judge(mine: &Claim, terms: Terms, standing: Option<Claim>) -> Owner {
    let Some(claim) = standing else {
        return if terms.before > 0 { Owner::Gone } else { Owner::Unknown };
    };
    let is_on_record = claim.term == terms.now || claim.term == terms.before;
    if claim.installation != mine.installation {
        Owner::Other(claim)
    } else if claim.incarnation > mine.incarnation {
        Owner::Later(claim)
    } else if claim.term < terms.before {
        Owner::Gone
    } else if claim.incarnation < mine.incarnation {
        Owner::Unknown
    } else if is_on_record {
        Owner::Ours
    } else {
        Owner::Twin(claim)
    }
}

impl Inner {
    /// Asks each target whose time has come whose it is, beside everything else: one that is down delays nobody.
    pub(super) fn tend_claims(self: &Arc<Self>) {
        let now = self.clock.now();
        for (name, kept) in self.keep.all() {
            if kept.asking.try_lock().is_err() || !kept.state().said.is_due(now) {
                continue;
            }
            let (inner, name, kept) = (self.clone(), name.clone(), kept.clone());
            self.owned.spawn(async move {
                let Ok(_turn) = kept.asking.try_lock() else { return };
                if let Err(error) = inner.hold_claim(&name, &kept).await {
                    tracing::debug!(target = name, %error, "a target does not say whose it is");
                }
            });
        }
    }

    /// Takes the next term of a target that is ours.
    async fn hold_claim(&self, target: &str, kept: &Kept) -> Result<(), Refused> {
        let answer = self.ask_owner(target).await?;
        let over = answer.owner == Owner::Ours && kept.state().said.is_over(self.clock.now());
        if over && self.outlasts_us(target) {
            self.take_term(target, answer.standing).await.map(drop)
        } else {
            Ok(())
        }
    }

    /// Whose a target is, as it said at most a few seconds ago. Where it does not say now, what it said last stands: a
    /// broker that once had it is never kept from killing there (law 8).
    ///
    /// # Errors
    /// Where it has never said, and does not say now.
    pub(super) async fn owner_now(&self, target: &str) -> Result<Owner, Refused> {
        let Some(kept) = self.keep.kept(target) else { return Ok(Owner::Unknown) };
        let known = kept.state().said.known().cloned();
        match known {
            Some(owner) => Ok(owner),
            None => self.owner_of(target).await,
        }
    }

    /// Whose a target is: it is asked.
    pub(super) async fn owner_of(&self, target: &str) -> Result<Owner, Refused> {
        self.ask_owner(target).await.map(|answer| answer.owner)
    }

    /// What is amiss is asked for twice, since another broker of this store may have taken a term between the target's
    /// answer and the record.
    async fn ask_owner(&self, target: &str) -> Result<Answer, Refused> {
        let question = self.keep.kept(target).map_or(0, |kept| kept.state().said.ask());
        let mut answer = self.read_owner(target).await?;
        if matches!(answer.owner, Owner::Gone | Owner::Twin(_)) {
            answer = self.read_owner(target).await?;
        }
        if let Some(kept) = self.keep.kept(target) {
            kept.state().said.learn(target, question, &answer.owner);
        }
        Ok(answer)
    }

    async fn read_owner(&self, target: &str) -> Result<Answer, Refused> {
        let standing = self.door.owner(target).await.map_err(|error| Refused::backend(target, &error))?;
        let terms = self.terms_of(target).await?;
        let owner = judge(self.keep.claim(), terms, standing.clone());
        if owner == Owner::Ours {
            self.door.expect(target, &Claim { term: terms.before, ..self.keep.claim().clone() });
        }
        Ok(Answer { owner, standing })
    }

    /// The terms on record. What a target forgets when the broker stops is not held against it.
    async fn terms_of(&self, target: &str) -> Result<Terms, Refused> {
        if self.outlasts_us(target) { Ok(self.ledger.terms(target).await?) } else { Ok(Terms::default()) }
    }

    fn outlasts_us(&self, target: &str) -> bool {
        self.door.capabilities(target).is_some_and(|can| can.lasts)
    }

    /// Claims a target where nobody else has it, and reads back who has it: of two brokers that claim at once, one has
    /// it.
    pub(super) async fn claim(&self, target: &str) -> Result<Owner, Refused> {
        let answer = self.ask_owner(target).await?;
        match answer.owner {
            Owner::Unknown => self.take_term(target, answer.standing).await,
            owner @ (Owner::Ours | Owner::Other(_) | Owner::Later(_) | Owner::Twin(_) | Owner::Gone) => {
                Ok(owner)
            }
        }
    }

    /// Takes the next term, in the place of the claim that was read: on record first, so that this store knows it
    /// whatever becomes of the call.
    async fn take_term(&self, target: &str, standing: Option<Claim>) -> Result<Owner, Refused> {
        let stands = standing.as_ref().map_or(0, |claim| claim.term);
        let term = if self.outlasts_us(target) {
            let step = 1 + self.random_bits()? % LONGEST_STEP;
            self.ledger.next_term(target, stands, i64::try_from(step).unwrap_or(1)).await?
        } else {
            0
        };
        let next = Claim { term, ..self.keep.claim().clone() };
        match self.door.claim(target, &next, standing.as_ref()).await {
            Ok(()) | Err(BackendError::Conflict(_)) => self.owner_of(target).await,
            Err(error) => Err(Refused::backend(target, &error)),
        }
    }

    /// An operator says that this is the right target, and that whoever had it with this key is gone.
    pub(super) async fn claim_anew(&self, target: &str) -> Result<(), Refused> {
        let answer = self.ask_owner(target).await?;
        let (claim, next) = match answer.owner {
            Owner::Ours => return Ok(()),
            Owner::Unknown | Owner::Gone | Owner::Twin(_) => {
                let details = BTreeMap::from([("target".to_owned(), target.to_owned())]);
                self.ledger.note_broker("claimed a target anew, as an operator said", details).await?;
                return self.take_term(target, answer.standing).await.map(drop);
            }
            Owner::Other(claim) => {
                let next = "give each installation databases of its own, or remove its claim in the target";
                (claim, next.to_owned())
            }
            Owner::Later(claim) => {
                let next = claim.incarnation.saturating_add(1);
                (claim, format!("leasehold restore --incarnation {next}, if that one is lost"))
            }
        };
        let Claim { installation, incarnation, .. } = claim;
        Err(Refused::new(Reason::TargetRefused, format!("`{target}` is not claimed anew"))
            .why(format!("installation {installation}, incarnation {incarnation}, has it"))
            .next(next)
            .detail("target", target))
    }

    /// Whether anything may be minted in a target now.
    pub(super) async fn may_mint_in(&self, target: &str) -> Result<(), Refused> {
        self.keep.is_ready(target)?;
        match self.owner_now(target).await?.forbids_mints() {
            Some(why) => Err(Refused::new(Reason::TargetRefused, format!("nothing is minted in `{target}`"))
                .why(why.replace("NAME", target))
                .next("an operator looks with: leasehold status")
                .detail("target", target)),
            None => Ok(()),
        }
    }

    /// What a target holds by a name. That it is not there is believed only where it is the target that held it.
    pub(super) async fn look_up(
        &self,
        target: &str,
        name: &PrincipalName,
    ) -> Result<Option<Found>, BackendError> {
        let found = self.door.lookup(target, name).await?;
        let gone = || self.keep.kept(target).is_some_and(|kept| kept.state().said.owner == Owner::Gone);
        if found.is_none() && gone() {
            let what = "the claim that this broker made there is gone: another server may be answering";
            return Err(BackendError::Transient { target: target.to_owned(), what: what.to_owned() });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn claim(incarnation: u32, term: i64) -> Claim {
        Claim { installation: "i".into(), incarnation, term }
    }

    /// Law 8: who once had a target is not kept from killing there by a claim that cannot be read now.
    #[test]
    fn what_was_said_last_stands_and_a_late_answer_changes_nothing() {
        let mut said = Said::default();
        assert_eq!(said.known(), None, "it may be anybody's");
        let (early, late) = (said.ask(), said.ask());
        said.learn("t", late, &Owner::Ours);
        said.learn("t", early, &Owner::Gone);
        assert_eq!(said.known(), Some(&Owner::Ours));
        let next = said.ask();
        said.learn("t", next, &Owner::Later(claim(2, 0)));
        assert_eq!(said.known(), Some(&Owner::Later(claim(2, 0))));
    }

    #[test]
    fn a_target_is_asked_every_five_seconds_and_a_term_lasts_thirty() {
        let mut said = Said::default();
        assert!(said.is_due(NOW) && !said.is_due(NOW + Span::from_secs(4)) && said.is_due(NOW + ASK_EVERY));
        assert!(!said.is_over(NOW) && !said.is_over(NOW + Span::from_secs(29)));
        assert!(said.is_over(NOW + TERM) && !said.is_over(NOW + TERM) && said.is_over(NOW + TERM + TERM));
    }

    #[test]
    fn a_term_tells_whose_a_target_is() {
        let terms = Terms { before: 70, now: 90 };
        let check = |incarnation, standing: Option<Claim>, expect: Owner| {
            assert_eq!(judge(&claim(incarnation, 0), terms, standing.clone()), expect, "{standing:?}");
        };
        check(1, Some(claim(1, 90)), Owner::Ours);
        check(1, Some(claim(1, 70)), Owner::Ours);
        check(1, Some(claim(1, 80)), Owner::Twin(claim(1, 80)));
        check(1, Some(claim(1, 91)), Owner::Twin(claim(1, 91)));
        check(1, Some(claim(1, 69)), Owner::Gone);
        check(1, None, Owner::Gone);
        check(1, Some(claim(2, 90)), Owner::Later(claim(2, 90)));
        check(2, Some(claim(1, 900)), Owner::Unknown);
        check(2, Some(claim(1, 69)), Owner::Gone);
        let other = Claim { installation: "j".into(), ..claim(9, 1) };
        check(1, Some(other.clone()), Owner::Other(other));
    }

    /// A first claim that never landed, and one that a version before this one made.
    #[test]
    fn a_target_without_terms_is_ours_to_claim() {
        let first = Terms { before: 0, now: 90 };
        assert_eq!(judge(&claim(1, 0), first, None), Owner::Unknown);
        assert_eq!(judge(&claim(1, 0), first, Some(claim(1, 90))), Owner::Ours);
        assert_eq!(judge(&claim(1, 0), Terms::default(), Some(claim(1, 0))), Owner::Ours);
        assert_eq!(judge(&claim(1, 0), Terms::default(), Some(claim(1, 7))), Owner::Twin(claim(1, 7)));
    }

    #[test]
    fn who_may_mint_and_who_may_kill() {
        let check = |owner: Owner, mints: bool, kills: bool| {
            assert_eq!((owner.forbids_mints().is_none(), owner.forbids_kills().is_none()), (mints, kills));
        };
        check(Owner::Unknown, true, true);
        check(Owner::Ours, true, true);
        check(Owner::Other(claim(2, 0)), true, true);
        check(Owner::Gone, false, true);
        check(Owner::Later(claim(2, 0)), false, false);
        check(Owner::Twin(claim(2, 0)), false, false);
    }
}
