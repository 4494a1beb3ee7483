//! Whose a target is (RULES; docs/decisions/0008-terms-in-targets.md).
//!
//! A target keeps the claim of the broker that mints in it, and with it a term: a number that this store raises every
//! half minute, by a step that nobody can guess, first on its own record and then in the target. So a target tells more
//! than a name: a term that is not on record was taken by another store, a copy of this one or what it is a copy of; a
//! term that is long over, or none, is that of another server, or of one that was set back.

mod owner;
mod said;

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_backend::{BackendError, Claim, Found};
use leasehold_law::principal::PrincipalName;
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::keep::Kept;
use super::refused::Refused;
use crate::ledger::{Follow, LedgerError, Tenure};
use crate::store::LeaseFilter;
pub use owner::Owner;
use owner::{judge, place_of};
use said::FIRST_TERM;
pub(super) use said::Said;

/// A step from one term to the next is at most so long.
const LONGEST_STEP: u64 = 1 << 31;
/// So often is it tried again where another broker of the store was first.
const RACES: usize = 3;
/// How soon a claim that cannot be made is tried again.
const CLAIM_AGAIN: Span = Span::from_secs(5);

/// What a target answered.
struct Answer {
    owner: Owner,
    standing: Option<Claim>,
    tenure: Tenure,
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
                let settled = inner.hold_claim(&name, &kept).await;
                kept.state().said.settle(inner.clock.now(), settled);
            });
        }
    }

    /// Takes the next term of a target that is ours, and the first of one that is nobody's.
    async fn hold_claim(&self, target: &str, kept: &Kept) -> Result<(), Refused> {
        let answer = self.ask_owner(target).await?;
        let due = match answer.owner {
            Owner::Ours => self.outlasts_us(target) && kept.state().said.is_over(self.clock.now()),
            Owner::Unknown => kept.is_greeted() && self.keep.is_reconciled(target),
            Owner::Other(_) | Owner::Later(_) | Owner::Twin(_) | Owner::Gone => false,
        };
        if due && self.take_term(target, answer, false).await? == Owner::Ours {
            kept.state().said.took_term(self.clock.now());
        }
        Ok(())
    }

    /// Whose a target is, as it said at most a few seconds ago. Where it does not say now, what it said last stands: a
    /// broker that once had it is never kept from killing there (law 8). The first answer is one for all that wait.
    ///
    /// # Errors
    /// Where it has never said, and does not say now.
    pub(super) async fn owner_now(&self, target: &str) -> Result<Owner, Refused> {
        let Some(kept) = self.keep.kept(target) else { return Ok(Owner::Unknown) };
        let since = {
            let said = &kept.state().said;
            if let Some(answer) = said.known(said.asked) {
                return answer;
            }
            said.asked
        };
        let _turn = kept.asking.lock().await;
        let answer = kept.state().said.known(since);
        match answer {
            Some(answer) => answer,
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
        let answer = match self.read_owner(target).await {
            Ok(Answer { owner: Owner::Gone | Owner::Twin(_), .. }) => self.read_owner(target).await,
            answer => answer,
        };
        let learnt = self.keep.kept(target).is_some_and(|kept| {
            kept.state().said.learn(target, question, answer.as_ref().map(|answer| &answer.owner))
        });
        if let Some(Answer { owner, standing, tenure }) = answer.as_ref().ok().filter(|_| learnt) {
            let ours = standing.as_ref().filter(|_| *owner == Owner::Ours);
            let expected = ours.map(|claim| Claim { term: tenure.terms.before, ..claim.clone() });
            self.door.expect(target, expected.as_ref());
        }
        answer
    }

    async fn read_owner(&self, target: &str) -> Result<Answer, Refused> {
        let mine = self.keep.claim();
        let standing = self.door.owner(target).await.map_err(|error| Refused::backend(target, &error))?;
        let tenure = self.tenure_of(target, standing.as_ref()).await?;
        let has_leases = standing.is_none() && self.has_leases_in(target).await?;
        let owner = judge(mine, tenure, standing.clone(), has_leases);
        let place = standing.as_ref().map(|claim| &claim.place).filter(|_| owner == Owner::Ours);
        let new = |place: &&String| !place.is_empty() && !tenure.is_home && self.outlasts_us(target);
        if let Some(place) = place.filter(new) {
            // No record stops a kill: the next question tries again.
            if let Err(error) = self.ledger.settle(target, place).await {
                tracing::warn!(target, %error, "which server answers for a target is not on record yet");
            }
        }
        Ok(Answer { owner, standing, tenure })
    }

    /// What is on record of a server with this claim. What a target forgets when the broker stops is not held against
    /// it, and what another installation says is its own.
    async fn tenure_of(&self, target: &str, standing: Option<&Claim>) -> Result<Tenure, Refused> {
        if !self.outlasts_us(target) {
            return Ok(Tenure::default());
        }
        let mine = |claim: &&Claim| claim.installation == self.keep.claim().installation;
        let place = standing.filter(mine).map(|claim| claim.place.as_str());
        Ok(self.ledger.tenure(target, place).await?)
    }

    /// Whether the rows say that a target may hold something of ours. Nothing is minted in one that is not claimed, so
    /// that there is none where a first claim has not landed.
    async fn has_leases_in(&self, target: &str) -> Result<bool, Refused> {
        let filter = LeaseFilter { target: Some(target.to_owned()), live: true, ..LeaseFilter::default() };
        Ok(self.outlasts_us(target) && !self.ledger.store().leases(&filter, 1).await?.is_empty())
    }

    fn outlasts_us(&self, target: &str) -> bool {
        self.door.capabilities(target).is_some_and(|can| can.lasts)
    }

    /// Claims a target where nobody else has it, and reads back who has it: of two brokers that claim at once, one has
    /// it. One claims for all that wait.
    ///
    /// # Errors
    /// Where it is still nobody's: there was no answer, or the target lets nobody claim it.
    pub(super) async fn claim(&self, target: &str) -> Result<Owner, Refused> {
        let Some(kept) = self.keep.kept(target) else { return Ok(Owner::Unknown) };
        let _turn = kept.asking.lock().await;
        let known = kept.state().said.owner.clone();
        if known != Owner::Unknown {
            return Ok(known);
        }
        let claimed = self.claim_in_turn(target).await;
        let settled = claimed.as_ref().map(drop).map_err(Refused::clone);
        kept.state().said.settle(self.clock.now(), settled);
        claimed
    }

    async fn claim_in_turn(&self, target: &str) -> Result<Owner, Refused> {
        for _ in 0..RACES {
            let answer = self.ask_owner(target).await?;
            if answer.owner != Owner::Unknown {
                return Ok(answer.owner);
            }
            self.take_term(target, answer, false).await?;
        }
        Err(Refused::new(Reason::TargetDown, format!("cannot use `{target}` yet"))
            .why("another broker was claiming it for this installation at the same time")
            .next("ask again: it is done by itself")
            .retry_after(CLAIM_AGAIN)
            .detail("target", target))
    }

    /// Takes the next term, in the place of the claim that was read: on record first, so that this store knows it
    /// whatever becomes of the call.
    async fn take_term(&self, target: &str, answer: Answer, anyhow: bool) -> Result<Owner, Refused> {
        let mine = self.keep.claim();
        let place = place_of(target, mine, (answer.standing.as_ref(), answer.tenure), anyhow);
        let standing = answer.standing;
        let ours = standing.as_ref().filter(|claim| claim.installation == mine.installation);
        let stands = ours.map_or(0, |claim| claim.term);
        let follow = match ours {
            _ if anyhow => Follow::Anything,
            Some(claim) if claim.incarnation < mine.incarnation => Follow::Older,
            Some(_) | None => Follow::OnRecord,
        };
        let term = if self.outlasts_us(target) {
            let step = i64::try_from(1 + self.random_bits()? % LONGEST_STEP).unwrap_or(1);
            match self.ledger.next_term(&place, stands, step, follow).await {
                Err(LedgerError::Stale(_)) => return self.owner_of(target).await,
                term => term?,
            }
        } else {
            0
        };
        let next = Claim { place: place.clone(), term, ..mine.clone() };
        match self.door.claim(target, &next, standing.as_ref()).await {
            Ok(()) if anyhow => self.ledger.settle(target, &place).await?,
            Ok(()) | Err(BackendError::Conflict(_)) => {}
            Err(error) => return Err(Refused::backend(target, &error)),
        }
        self.owner_of(target).await
    }

    /// An operator says that this is the right target, and that whoever had it with this key is gone.
    pub(super) async fn claim_anew(&self, target: &str) -> Result<(), Refused> {
        let mine = &self.keep.claim().installation;
        let answer = self.ask_owner(target).await?;
        let foreign = answer.standing.as_ref().filter(|claim| claim.installation != *mine).cloned();
        let (claim, next) = match (&answer.owner, foreign) {
            (Owner::Ours, _) => return Ok(()),
            (Owner::Later(claim), _) => {
                let next = claim.incarnation.saturating_add(1);
                (claim.clone(), format!("leasehold restore --incarnation {next}, if that one is lost"))
            }
            (Owner::Other(_) | Owner::Unknown | Owner::Gone | Owner::Twin(_), Some(claim)) => {
                let next = "see where the address leads; if it is the right server, remove the claim there (in \
                            PostgreSQL the comment on the role `lh_owner`), and then --claim";
                (claim, next.to_owned())
            }
            (Owner::Other(_) | Owner::Unknown | Owner::Gone | Owner::Twin(_), None) => {
                let stood = answer.standing.clone();
                let owner = self.take_term(target, answer, true).await?;
                self.note_claimed_anew(target, stood.as_ref(), &owner).await?;
                return Self::barred_by(target, &owner);
            }
        };
        let Claim { installation, incarnation, .. } = claim;
        Err(Refused::new(Reason::TargetRefused, format!("`{target}` is not claimed anew"))
            .why(format!("installation {installation}, incarnation {incarnation}, has it"))
            .next(next)
            .detail("target", target))
    }

    async fn note_claimed_anew(
        &self,
        target: &str,
        standing: Option<&Claim>,
        owner: &Owner,
    ) -> Result<(), Refused> {
        let stood = standing.map_or("no claim".to_owned(), |claim| {
            format!("incarnation {}, term {} of {}", claim.incarnation, claim.term, claim.place)
        });
        let came_to = owner.forbids_mints().unwrap_or_else(|| "it is this store's".to_owned());
        let came_to = came_to.replace("NAME", target);
        let details =
            [("target", target.to_owned()), ("what stood there", stood), ("what it came to", came_to)];
        let details: BTreeMap<_, _> = details.map(|(key, value)| (key.to_owned(), value)).into();
        Ok(self.ledger.note_broker("claimed a target anew, as an operator said", details).await?)
    }

    /// Whether anything may be minted in a target now. It is claimed first.
    pub(super) async fn may_mint_in(&self, target: &str) -> Result<(), Refused> {
        self.keep.is_ready(target)?;
        let owner = match self.owner_now(target).await? {
            Owner::Unknown => self.claim(target).await?,
            owner @ (Owner::Ours | Owner::Other(_) | Owner::Later(_) | Owner::Twin(_) | Owner::Gone) => owner,
        };
        Self::barred_by(target, &owner)
    }

    fn barred_by(target: &str, owner: &Owner) -> Result<(), Refused> {
        match owner.forbids_mints() {
            Some(why) => Err(Refused::new(Reason::TargetRefused, format!("nothing is minted in `{target}`"))
                .why(why.replace("NAME", target))
                .next("an operator looks with: leasehold status")
                .detail("target", target)),
            None => Ok(()),
        }
    }

    /// Since when a target that answers does not let it be settled whose it is, and why, where that is too long.
    pub(super) fn unsettled(&self, target: &str) -> Option<(Timestamp, String)> {
        let answers = self.door.seen(target).is_some_and(|seen| seen.error.is_none());
        let long = |(since, _): &(Timestamp, String)| self.clock.now().since(*since) >= FIRST_TERM;
        self.keep.unsettled(target).filter(long).filter(|_| answers)
    }

    /// What a target holds by a name, where it is believed.
    pub(super) async fn look_up(
        &self,
        target: &str,
        name: &PrincipalName,
    ) -> Result<Option<Found>, BackendError> {
        let owner = self.owner_now(target).await;
        if owner.is_ok_and(|owner| owner.is_believed()) {
            let found = self.door.lookup(target, name).await;
            if self.keep.owner(target).is_believed() {
                return found;
            }
        }
        let what = "whose it is, is not known, or it is not ours: what it holds proves nothing";
        Err(BackendError::Transient { target: target.to_owned(), what: what.to_owned() })
    }
}
