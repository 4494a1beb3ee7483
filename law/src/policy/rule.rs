//! One policy, ready to be asked.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, Effect, Policy, PolicyId};

use super::annotation::{DEFAULT_APPROVERS, DEFAULT_TIMEOUT, Terms};
use super::conjunct::{Conjunct, split};
use super::fault::CedarError;
use super::memo::Moving;
use super::names::class_action;
use super::words::FURTHER;
use super::{ApprovalNeed, Near, Question};
use crate::catalog::{Floor, Intent, Owner};

/// A policy with all that its text alone says.
#[derive(Debug)]
pub(super) struct Rule {
    /// Its name on record.
    pub(super) id: String,
    pub(super) policy: Policy,
    /// A permit with the same scope clauses, whatever the policy's effect, and no condition.
    pub(super) scope: Policy,
    pub(super) conjuncts: Vec<Conjunct>,
    terms: Terms,
    /// What of time it may look at.
    pub(super) moving: Moving,
}

impl Rule {
    /// `key` tells policies apart in Cedar's answers; it is the id, but for grants with several groups.
    pub(super) fn new(id: &str, key: &str, policy: &Policy, terms: Terms) -> Result<Self, CedarError> {
        let key = PolicyId::new(key);
        let tree = policy.to_pst().map_err(CedarError::of)?;
        let body = tree.body();
        let scope = format!(
            "permit (principal {}, action {}, resource {});",
            body.principal, body.action, body.resource
        );
        Ok(Self {
            id: id.to_owned(),
            scope: Policy::parse(Some(key.clone()), scope).map_err(CedarError::of)?,
            conjuncts: split(body.clauses())?,
            policy: policy.new_id(key),
            moving: Moving::of(policy),
            terms,
        })
    }

    pub(super) fn is_permit(&self) -> bool {
        self.policy.effect() == Effect::Permit
    }

    /// Whether its scope clauses are all there is to it.
    pub(super) fn is_unconditional(&self) -> bool {
        !self.policy.has_non_scope_constraint()
    }

    /// Whom it asks at this bar; `None` where it permits by itself.
    pub(super) fn need(&self, bar: &Bar) -> Option<ApprovalNeed> {
        let need = match (&self.terms.need, bar.floor) {
            (Some(need), Floor::Permit | Floor::Ask) => need.clone(),
            (None, Floor::Ask) if bar.always || !self.terms.is_unattended => default_need(),
            (None, Floor::Permit | Floor::Ask) => return None,
        };
        Some(ApprovalNeed { excluded: bar.excluded.clone(), ..need })
    }

    /// The rule with these of its conditions, as far as the agent may know them.
    pub(super) fn near<'a>(
        &self,
        conjuncts: impl IntoIterator<Item = &'a Conjunct>,
        question: &Question<'_>,
    ) -> Near {
        let words: Vec<_> = conjuncts.into_iter().map(|conjunct| conjunct.words.as_ref()).collect();
        let further = words.iter().any(Option::is_none).then(|| FURTHER.to_owned());
        let told = words.into_iter().flatten().map(|words| words.tell(question));
        Near { policy: self.id.clone(), conditions: told.chain(further).collect() }
    }
}

/// What a permit must reach.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// The floor of the class and the target.
    pub(super) floor: Floor,
    /// Whether people are asked whatever a permit says of itself.
    pub(super) always: bool,
    /// Whose vote does not count.
    pub(super) excluded: Option<Owner>,
}

fn default_need() -> ApprovalNeed {
    ApprovalNeed { approvers: DEFAULT_APPROVERS.to_owned(), excluded: None, timeout: DEFAULT_TIMEOUT }
}

/// Whether a policy's action clause takes in an intent. One without an action clause takes in all.
pub(super) fn takes_in(policy: &Policy, intent: &Intent) -> bool {
    let class = class_action(intent.class);
    let named = |uid: &cedar_policy::EntityUid| {
        let id: &str = uid.id().as_ref();
        id == intent.name || id == class
    };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => named(&uid),
        ActionConstraint::In(uids) => uids.iter().any(named),
    }
}

/// The names of rules, sorted.
pub(super) fn names<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<String> {
    let names: BTreeSet<_> = rules.into_iter().map(|rule| rule.id.clone()).collect();
    names.into_iter().collect()
}
