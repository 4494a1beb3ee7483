//! Whose a target is. Each says who has claimed it; what it says is read again before anything is minted or killed there
//! (RULES ).

use std::collections::BTreeMap;

use leasehold_backend::Claim;
use leasehold_law::reason::Reason;
use leasehold_law::time::{Span, Timestamp};

use super::Inner;
use super::keep::Kept;
use super::refused::Refused;

/// How old what a target said may be.
const AGE: Span = Span::from_secs(5);
/// How soon one that did not say is asked again, at most.
const ASK_AGAIN: Span = Span::from_secs(1);

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
    /// Another store's that has this installation's key.
    Twin(Claim),
    /// Nobody's, though this store has claimed it: another server may be answering, or one that was set back.
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
                "another store that was made with this installation key has claimed the target: stop whichever broker \
                 is not the right one; where the other store is lost for good, leasehold targets sweep NAME --claim"
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

/// What a target has said of its claim.
#[derive(Default)]
pub(super) struct Said {
    pub(super) owner: Owner,
    /// Whether it has ever said anything.
    known: bool,
    /// When it was asked last, and why it did not say.
    asked: Option<(Timestamp, Option<Refused>)>,
    /// Whether it is on record that it was claimed.
    recorded: bool,
}

impl Said {
    /// What is known, if that is not too old. One that does not answer now has not changed hands; one that never did
    /// may be anybody's.
    fn recently(&self, now: Timestamp) -> Option<Result<Owner, Refused>> {
        match self.asked.as_ref()? {
            (at, None) if now.since(*at) < AGE => Some(Ok(self.owner.clone())),
            (at, Some(error)) if now.since(*at) < ASK_AGAIN => Some(self.at_least(error)),
            (_, None | Some(_)) => None,
        }
    }

    fn at_least(&self, error: &Refused) -> Result<Owner, Refused> {
        if self.known { Ok(self.owner.clone()) } else { Err(error.clone()) }
    }

    /// Remembers an answer, and tells where it is another one than the last.
    fn learn(&mut self, target: &str, at: Timestamp, answer: &Result<Owner, Refused>) {
        self.asked = Some((at, answer.as_ref().err().cloned()));
        let Ok(owner) = answer else { return };
        if self.owner != *owner {
            tell(target, &self.owner, owner);
            self.owner = owner.clone();
        }
        self.known = true;
    }
}

fn tell(target: &str, before: &Owner, owner: &Owner) {
    if let Some(why) = owner.forbids_mints() {
        tracing::error!(target, why, "nothing is minted in a target, and what must die in it waits");
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

impl Inner {
    /// Whose a target is, by an answer that is at most five seconds old. Where it does not say now, what it said last
    /// stands: a broker that once had it is never kept from killing there (law 8).
    ///
    /// # Errors
    /// Where it has never said, and does not say now.
    pub(super) async fn owner_now(&self, target: &str) -> Result<Owner, Refused> {
        let Some(kept) = self.keep.kept(target) else { return Ok(Owner::Unknown) };
        if let Some(answer) = kept.state().said.recently(self.clock.now()) {
            return answer;
        }
        let _turn = kept.asking.lock().await;
        if let Some(answer) = kept.state().said.recently(self.clock.now()) {
            return answer;
        }
        match self.owner_of(target).await {
            Ok(owner) => Ok(owner),
            Err(error) => kept.state().said.at_least(&error),
        }
    }

    /// Whose a target is: it is asked.
    pub(super) async fn owner_of(&self, target: &str) -> Result<Owner, Refused> {
        let at = self.clock.now();
        let answer = self.read_owner(target).await;
        if let Some(kept) = self.keep.kept(target) {
            kept.state().said.learn(target, at, &answer);
        }
        answer
    }

    /// A claim that is missing is looked for once more after the record, since another broker may have made both
    /// between the two.
    async fn read_owner(&self, target: &str) -> Result<Owner, Refused> {
        let standing = self.standing_claim(target).await?;
        let owner = self.owner_by(standing);
        if owner != Owner::Unknown {
            return Ok(owner);
        }
        let claimed = self.claimed_as(target).await;
        let standing = self.standing_claim(target).await?;
        let stands = standing.as_ref().map_or(0, |claim| claim.incarnation);
        let owner = self.owner_by(standing);
        Ok(if owner == Owner::Unknown && claimed > stands { Owner::Gone } else { owner })
    }

    async fn standing_claim(&self, target: &str) -> Result<Option<Claim>, Refused> {
        self.door.owner(target).await.map_err(|error| Refused::backend(target, &error))
    }

    fn owner_by(&self, standing: Option<Claim>) -> Owner {
        let mine = self.keep.claim();
        match standing {
            None => Owner::Unknown,
            Some(claim) if claim.installation != mine.installation => Owner::Other(claim),
            Some(claim) if claim.incarnation > mine.incarnation => Owner::Later(claim),
            Some(claim) if claim.incarnation < mine.incarnation || claim.store.is_empty() => Owner::Unknown,
            Some(claim) if claim.store != mine.store => Owner::Twin(claim),
            Some(_) => Owner::Ours,
        }
    }

    /// The incarnation in which this store last claimed a target, by the record; 0 for none. A store that does not say
    /// stops nobody.
    async fn claimed_as(&self, target: &str) -> u32 {
        if !self.door.capabilities(target).is_some_and(|can| can.lasts) {
            return 0;
        }
        if self.keep.kept(target).is_some_and(|kept| kept.state().said.recorded) {
            return self.keep.claim().incarnation;
        }
        let recorded = self.ledger.claimed(target).await.ok().flatten();
        recorded.and_then(|incarnation| u32::try_from(incarnation).ok()).unwrap_or_default()
    }

    /// Claims a target where nobody else has it, and reads back who has it: of two brokers that claim at once, one has
    /// it. That it was claimed goes on record, so that a claim that vanishes is noticed.
    pub(super) async fn claim(&self, target: &str, kept: &Kept) -> Result<Owner, Refused> {
        let owner = match self.owner_of(target).await? {
            Owner::Unknown => self.take_claim(target).await?,
            owner @ (Owner::Ours | Owner::Other(_) | Owner::Later(_) | Owner::Twin(_) | Owner::Gone) => owner,
        };
        if owner == Owner::Ours && !kept.state().said.recorded {
            match self.ledger.record_claimed(target, self.keep.claim().incarnation).await {
                Ok(()) => kept.state().said.recorded = true,
                Err(error) => {
                    tracing::warn!(target, %error, "that a target was claimed is not on record yet");
                }
            }
        }
        Ok(owner)
    }

    async fn take_claim(&self, target: &str) -> Result<Owner, Refused> {
        let claimed = self.door.claim(target, self.keep.claim()).await;
        claimed.map_err(|error| Refused::backend(target, &error))?;
        self.owner_of(target).await
    }

    /// An operator says that this is the right target, and that whoever had it with this key is gone.
    pub(super) async fn claim_anew(&self, target: &str, kept: &Kept) -> Result<(), Refused> {
        let refused = |claim: &Claim, next: String| {
            Err(Refused::new(Reason::TargetRefused, format!("`{target}` is not claimed anew"))
                .why(format!(
                    "installation {}, incarnation {}, has it",
                    claim.installation, claim.incarnation
                ))
                .next(next)
                .detail("target", target))
        };
        match self.owner_of(target).await? {
            Owner::Ours => return Ok(()),
            Owner::Unknown | Owner::Gone | Owner::Twin(_) => {}
            Owner::Other(claim) => {
                return refused(
                    &claim,
                    "give each installation databases of its own, or remove its claim in the target".into(),
                );
            }
            Owner::Later(claim) => {
                let next = claim.incarnation.saturating_add(1);
                return refused(
                    &claim,
                    format!("leasehold restore --incarnation {next}, if that one is lost"),
                );
            }
        }
        let details = BTreeMap::from([("target".to_owned(), target.to_owned())]);
        self.ledger.note_broker("claimed a target anew, as an operator said", details).await?;
        self.take_claim(target).await?;
        self.claim(target, kept).await.map(drop)
    }

    /// Whether anything may be minted in a target now.
    pub(super) async fn may_mint_in(&self, target: &str) -> Result<(), Refused> {
        self.keep.is_ready(target)?;
        match self.owner_now(target).await?.forbids_mints() {
            Some(why) => Err(Refused::new(Reason::TargetRefused, format!("nothing is minted in `{target}`"))
                .why(why)
                .next("an operator looks with: leasehold status")
                .detail("target", target)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn failed() -> Result<Owner, Refused> {
        Err(Refused::new(Reason::TargetDown, "it does not answer"))
    }

    /// Law 8: who once had a target is not kept from killing there by a claim that cannot be read now.
    #[test]
    fn what_was_said_last_stands_while_a_target_does_not_say() {
        let mut said = Said::default();
        assert!(said.recently(NOW).is_none(), "it was never asked");
        said.learn("t", NOW, &failed());
        assert!(matches!(said.recently(NOW), Some(Err(_))), "it may be anybody's");
        assert!(said.recently(NOW + ASK_AGAIN).is_none());
        said.learn("t", NOW, &Ok(Owner::Ours));
        assert_eq!(said.recently(NOW + Span::from_secs(4)), Some(Ok(Owner::Ours)));
        assert!(said.recently(NOW + AGE).is_none());
        said.learn("t", NOW + AGE, &failed());
        assert_eq!(said.recently(NOW + AGE), Some(Ok(Owner::Ours)));
        let later = Owner::Later(Claim { installation: "i".into(), incarnation: 2, store: String::new() });
        said.learn("t", NOW + AGE, &Ok(later.clone()));
        assert_eq!(said.recently(NOW + AGE), Some(Ok(later)));
    }

    #[test]
    fn who_may_mint_and_who_may_kill() {
        let claim = || Claim { installation: "i".into(), incarnation: 2, store: "s".into() };
        let check = |owner: Owner, mints: bool, kills: bool| {
            assert_eq!((owner.forbids_mints().is_none(), owner.forbids_kills().is_none()), (mints, kills));
        };
        check(Owner::Unknown, true, true);
        check(Owner::Ours, true, true);
        check(Owner::Other(claim()), true, true);
        check(Owner::Gone, false, true);
        check(Owner::Later(claim()), false, false);
        check(Owner::Twin(claim()), false, false);
    }
}
