//! Evidence: a [`Permit`] exists only where the engine said Allow, and an order only where a permit was spent.

use std::sync::Arc;

use crate::catalog::Recipe;
use crate::id::{DecisionId, LeaseId};
use crate::lease::LeaseTerms;
use crate::param::Params;
use crate::policy::Question;
use crate::principal::PrincipalName;
use crate::scope::Pair;
use crate::subject::Guard;
use crate::time::{Span, Timestamp};

/// Leave to do exactly what was asked, as of the versions that it was decided on.
#[derive(Debug)]
pub struct Permit {
    decision: DecisionId,
    pair: Pair,
    /// `None` where conditions were not judged, since parameters were missing: such a permit mints nothing.
    params: Option<Params>,
    renewal: bool,
    guards: Vec<Guard>,
}

/// What a mint needs beyond the permit.
#[derive(Debug)]
pub struct MintTerms {
    /// The terms of the lease, with the principal's name.
    pub terms: Arc<LeaseTerms>,
    /// How long it will live.
    pub ttl: Span,
    /// When it will end, by the broker's clock.
    pub expires_at: Timestamp,
    /// No mint lands after this, by the target's clock.
    pub mint_by: Timestamp,
}

/// What a renewal needs beyond the permit.
#[derive(Debug)]
pub struct RenewTerms {
    /// The lease's terms.
    pub terms: Arc<LeaseTerms>,
    /// What the target knows it by.
    pub handle: Option<String>,
    /// How long it will live from now on.
    pub ttl: Span,
    /// When it will end, by the broker's clock.
    pub until: Timestamp,
    /// No renewal lands after this, by the target's clock.
    pub renew_by: Timestamp,
}

/// An order to mint. Only a permit makes one.
#[derive(Debug)]
pub struct IssueOrder {
    guards: Vec<Guard>,
    mint: MintTerms,
}

/// An order to renew. Only a permit for a renewal makes one.
#[derive(Debug)]
pub struct RenewOrder {
    guards: Vec<Guard>,
    renew: RenewTerms,
}

/// A permit was to be spent on something that it is not for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a permit for {permitted} cannot be spent on {asked}")]
pub struct PermitError {
    permitted: String,
    asked: String,
}

impl Permit {
    /// Only the engine calls this.
    pub(crate) fn new(question: &Question<'_>) -> Self {
        Self {
            decision: question.id,
            pair: question.pair.clone(),
            params: question.params.cloned(),
            renewal: question.renewal,
            guards: question.guards.to_vec(),
        }
    }

    /// The decision behind it.
    #[must_use]
    pub fn decision(&self) -> DecisionId {
        self.decision
    }

    /// The versions that it was decided on.
    #[must_use]
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Spends the permit on one mint.
    ///
    /// # Errors
    /// Where the terms are for another pair, other parameters or another decision, or the permit is for a renewal.
    pub fn into_order(self, mint: MintTerms) -> Result<IssueOrder, PermitError> {
        self.fits(&mint.terms, false)?;
        Ok(IssueOrder { guards: self.guards, mint })
    }

    /// Spends the permit on one renewal.
    ///
    /// # Errors
    /// Where the terms are for another pair or other parameters, or the permit is for a mint.
    pub fn into_renewal(self, renew: RenewTerms) -> Result<RenewOrder, PermitError> {
        self.fits(&renew.terms, true)?;
        Ok(RenewOrder { guards: self.guards, renew })
    }

    fn fits(&self, terms: &LeaseTerms, renewal: bool) -> Result<(), PermitError> {
        let verb = |renewal| if renewal { "the renewal of" } else { "a lease of" };
        let same_decision = renewal || terms.decision == self.decision;
        let same_params = self.params.as_ref() == Some(&terms.params);
        if self.pair == terms.pair && self.renewal == renewal && same_decision && same_params {
            return Ok(());
        }
        Err(PermitError {
            permitted: format!("{} {} ({})", verb(self.renewal), self.pair, self.decision),
            asked: format!("{} {} ({})", verb(renewal), terms.pair, terms.decision),
        })
    }
}

impl IssueOrder {
    /// The lease that the credential is for.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.mint.terms.id
    }

    /// The name to mint.
    #[must_use]
    pub fn principal(&self) -> &PrincipalName {
        &self.mint.terms.principal
    }

    /// How to mint it.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.mint.terms.recipe
    }

    /// How long it lives; the target computes the end by its own clock.
    #[must_use]
    pub fn ttl(&self) -> Span {
        self.mint.ttl
    }

    /// When it ends, by the broker's clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.mint.expires_at
    }

    /// The mint must not land after this, by the target's clock (RULES R-4).
    #[must_use]
    pub fn mint_by(&self) -> Timestamp {
        self.mint.mint_by
    }

    /// The terms that go on record.
    #[must_use]
    pub fn terms(&self) -> &Arc<LeaseTerms> {
        &self.mint.terms
    }

    /// What must not have changed when it is recorded.
    #[must_use]
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }
}

impl RenewOrder {
    /// The lease.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.renew.terms.id
    }

    /// The name in the target.
    #[must_use]
    pub fn principal(&self) -> &PrincipalName {
        &self.renew.terms.principal
    }

    /// What the target knows it by.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        self.renew.handle.as_deref()
    }

    /// How it was minted.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.renew.terms.recipe
    }

    /// How long it lives from now on.
    #[must_use]
    pub fn ttl(&self) -> Span {
        self.renew.ttl
    }

    /// When it ends, by the broker's clock.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.renew.until
    }

    /// The renewal must not land after this, by the target's clock.
    #[must_use]
    pub fn renew_by(&self) -> Timestamp {
        self.renew.renew_by
    }

    /// What must not have changed when it is recorded.
    #[must_use]
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }
}
