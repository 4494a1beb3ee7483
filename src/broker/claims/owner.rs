//! Who has a target, and what its server is called, by its claim and what is on record of it.

use leasehold_backend::Claim;

use crate::ledger::Tenure;

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

    /// Whether it is believed what it holds and what it does not: death is proven only by the server that agents reach.
    #[must_use]
    pub const fn is_believed(&self) -> bool {
        match self {
            Self::Unknown | Self::Ours | Self::Other(_) => true,
            Self::Gone | Self::Later(_) | Self::Twin(_) => false,
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

/// Whose a target is that says this, by what is on record of the server. Whether the rows have leases there matters
/// where there is no claim.
pub(super) fn judge(mine: &Claim, tenure: Tenure, standing: Option<Claim>, has_leases: bool) -> Owner {
    let Some(claim) = standing else {
        return if tenure.homes > 0 || has_leases { Owner::Gone } else { Owner::Unknown };
    };
    let terms = tenure.terms;
    if claim.installation != mine.installation {
        // A server that somebody else has is another one, where this store had the target's.
        return if tenure.homes > 0 { Owner::Gone } else { Owner::Other(claim) };
    }
    let is_on_record = claim.term == terms.now || claim.term == terms.before;
    let is_elsewhere = tenure.homes > 0 && !tenure.is_home;
    // A term is on record before it is in a server: one of this incarnation that is not was taken by another store,
    // also where that gave the server a new name.
    let is_known = is_on_record || claim.incarnation < mine.incarnation;
    if claim.incarnation > mine.incarnation {
        Owner::Later(claim)
    } else if claim.term < terms.before || (is_elsewhere && is_known) {
        Owner::Gone
    } else if claim.incarnation < mine.incarnation {
        Owner::Unknown
    } else if is_on_record {
        Owner::Ours
    } else {
        Owner::Twin(claim)
    }
}

/// What a server is called in the claim. A new one is called after the target, and one that an operator puts in the
/// place of another by a name that none had before: what was known by the old name is another server.
pub(super) fn place_of(
    target: &str,
    mine: &Claim,
    (standing, tenure): (Option<&Claim>, Tenure),
    anyhow: bool,
) -> String {
    let ours = standing.filter(|claim| claim.installation == mine.installation);
    let on_record = |claim: &&Claim| [tenure.terms.now, tenure.terms.before].contains(&claim.term);
    match ours.filter(|claim| !claim.place.is_empty() && (!anyhow || on_record(claim))) {
        Some(claim) => claim.place.clone(),
        None if tenure.homes > 0 => format!("{target}/{}", tenure.homes),
        None => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Terms;

    fn claim(incarnation: u32, term: i64) -> Claim {
        Claim { installation: "i".into(), incarnation, place: "t".into(), term }
    }

    const HOME: Tenure = Tenure { terms: Terms { before: 70, now: 90 }, homes: 1, is_home: true };

    #[test]
    fn a_term_tells_whose_a_target_is() {
        let check = |incarnation, standing: Option<Claim>, expect: Owner| {
            assert_eq!(judge(&claim(incarnation, 0), HOME, standing.clone(), false), expect, "{standing:?}");
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
        check(1, Some(other.clone()), Owner::Gone);
        assert_eq!(judge(&claim(1, 0), Tenure::default(), Some(other.clone()), true), Owner::Other(other));
    }

    /// The address of one target leads to the server of another, whose terms are known.
    #[test]
    fn a_server_of_ours_that_is_not_the_target_s_is_another() {
        let elsewhere = Tenure { is_home: false, ..HOME };
        assert_eq!(judge(&claim(1, 0), elsewhere, Some(claim(1, 90)), false), Owner::Gone);
        let first = Tenure { homes: 0, ..elsewhere };
        assert_eq!(
            judge(&claim(1, 0), first, Some(claim(1, 90)), false),
            Owner::Ours,
            "a second target on it"
        );
    }

    /// A copy whose original an operator has helped: the server goes by a name that the copy never heard of.
    #[test]
    fn a_server_that_another_store_gave_a_name_is_that_store_s() {
        let unheard_of = Tenure { homes: 1, ..Tenure::default() };
        assert_eq!(judge(&claim(1, 0), unheard_of, Some(claim(1, 95)), false), Owner::Twin(claim(1, 95)));
        assert_eq!(judge(&claim(2, 0), unheard_of, Some(claim(1, 95)), false), Owner::Gone);
    }

    /// A first claim that never landed, and one that a version before this one made.
    #[test]
    fn a_target_without_a_home_is_ours_to_claim_where_it_holds_nothing() {
        let none = Tenure::default();
        assert_eq!(judge(&claim(1, 0), none, None, false), Owner::Unknown);
        assert_eq!(
            judge(&claim(1, 0), none, None, true),
            Owner::Gone,
            "an emptied server, at the first start"
        );
        assert_eq!(judge(&claim(1, 0), none, Some(claim(1, 0)), true), Owner::Ours);
        assert_eq!(judge(&claim(1, 0), none, Some(claim(1, 7)), false), Owner::Twin(claim(1, 7)));
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

    /// Two servers that go by one name would take each other's terms for a copy's.
    #[test]
    fn a_server_that_an_operator_puts_in_another_s_place_has_a_name_of_its_own() {
        let place = |standing: Option<Claim>, tenure, anyhow| {
            place_of("orders", &claim(1, 0), (standing.as_ref(), tenure), anyhow)
        };
        assert_eq!(place(None, Tenure::default(), false), "orders");
        assert_eq!(place(Some(claim(1, 90)), HOME, false), "t");
        assert_eq!(place(None, HOME, true), "orders/1", "an emptied server, or a new one");
        assert_eq!(place(Some(claim(1, 80)), HOME, true), "orders/1", "one that a copy has had");
        let elsewhere = Tenure { is_home: false, ..HOME };
        assert_eq!(place(Some(claim(1, 90)), elsewhere, true), "t", "that of another target of ours");
    }
}
