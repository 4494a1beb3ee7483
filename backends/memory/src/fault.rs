//! A script of what goes wrong, call by call.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_backend::BackendError;
use leasehold_law::lease::{Reached, Sessions};
use tokio::sync::Semaphore;

/// A call to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A mint.
    Issue,
    /// A renewal.
    Renew,
    /// A look by name.
    Lookup,
    /// One order of a revocation.
    Revoke,
    /// A reaping.
    Reap,
    /// A probe.
    Probe,
    /// Who has claimed it, or a claim.
    Claim,
    /// A listing.
    List,
    /// Time and privileges.
    Health,
}

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails before anything is done.
    Before(BackendError),
    /// It is done, and then the answer is lost or another.
    After(BackendError),
    /// It waits at the gate before anything is done.
    Hold(Gate),
    /// It is done, and its answer waits at the gate.
    HoldAnswer(Gate),
    /// A mint or renewal that is answered with this error and lies in the target until [`crate::MemoryTarget::land`].
    Late(BackendError),
    /// A revocation that comes so far and no further, with this to say of the sessions.
    StopAt(Reached, Sessions),
    /// A revocation that is answered as done and proven, and nothing is: the target lies.
    Lie,
    /// A revocation that the broker is too short of connections to ask for.
    Unasked,
}

impl Fault {
    /// No answer, and nothing done.
    #[must_use]
    pub fn down() -> Self {
        Self::Before(no_answer())
    }

    /// Done, and no answer.
    #[must_use]
    pub fn lost_answer() -> Self {
        Self::After(no_answer())
    }

    /// No answer, and done later.
    #[must_use]
    pub fn late() -> Self {
        Self::Late(no_answer())
    }

    /// The target's operator would have to act.
    #[must_use]
    pub fn refuse(what: &str) -> Self {
        Self::Before(BackendError::Refused { what: what.to_owned(), fix: None })
    }
}

fn no_answer() -> BackendError {
    BackendError::Transient {
        target: "memory".to_owned(),
        what: "the fault script took the answer".to_owned(),
    }
}

/// Where a call waits until a test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Doors>);

#[derive(Debug)]
struct Doors {
    arrived: Semaphore,
    open: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Doors { arrived: Semaphore::new(0), open: Semaphore::new(0) }))
    }
}

impl Gate {
    /// Waits until a call has come to the gate; each arrival answers one such wait.
    pub async fn arrival(&self) {
        take(&self.0.arrived).await;
    }

    /// Lets one call through, now or when it comes.
    pub fn open(&self) {
        self.0.open.add_permits(1);
    }

    pub(crate) async fn pass(&self) {
        self.0.arrived.add_permits(1);
        take(&self.0.open).await;
    }
}

/// Nobody closes these semaphores, so that an error cannot come.
async fn take(semaphore: &Semaphore) {
    if let Ok(permit) = semaphore.acquire().await {
        permit.forget();
    }
}

/// A fault, and which calls it hits.
#[derive(Clone, Debug)]
pub struct Rule {
    call: Call,
    principal: Option<String>,
    left: Option<u32>,
    fault: Fault,
}

impl Rule {
    /// The next such call.
    #[must_use]
    pub fn once(call: Call, fault: Fault) -> Self {
        Self::times(call, 1, fault)
    }

    /// The next `times` such calls.
    #[must_use]
    pub fn times(call: Call, times: u32, fault: Fault) -> Self {
        Self { call, principal: None, left: Some(times), fault }
    }

    /// Every such call until the script is cleared.
    #[must_use]
    pub fn always(call: Call, fault: Fault) -> Self {
        Self { call, principal: None, left: None, fault }
    }

    /// Only calls for this principal.
    #[must_use]
    pub fn on(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    fn fits(&self, call: Call, principal: Option<&str>) -> bool {
        let named = self.principal.as_deref().is_none_or(|name| Some(name) == principal);
        self.call == call && named && self.left != Some(0)
    }
}

/// The faults that are still to come. The first rule that fits a call is used.
#[derive(Debug, Default)]
pub struct FaultScript(Mutex<Vec<Rule>>);

impl FaultScript {
    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn take(&self, call: Call, principal: Option<&str>) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter_mut().find(|rule| rule.fits(call, principal))?;
        rule.left = rule.left.map(|left| left.saturating_sub(1));
        let fault = rule.fault.clone();
        rules.retain(|rule| rule.left != Some(0));
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_is_used_as_often_as_it_says() {
        let script = FaultScript::default();
        script.add(Rule::once(Call::Issue, Fault::down()).on("lhx"));
        script.add(Rule::times(Call::Issue, 2, Fault::lost_answer()));
        script.add(Rule::always(Call::Revoke, Fault::down()));
        let check = |call, name, expect: Option<&str>| {
            let fault = script.take(call, name).map(|fault| format!("{fault:?}"));
            let word = fault.as_deref().and_then(|text| text.split('(').next());
            assert_eq!(word, expect, "{call:?} {name:?}");
        };
        check(Call::Issue, Some("lhy"), Some("After"));
        check(Call::Issue, Some("lhx"), Some("Before"));
        check(Call::Issue, Some("lhx"), Some("After"));
        check(Call::Issue, Some("lhx"), None);
        check(Call::Revoke, None, Some("Before"));
        check(Call::Revoke, None, Some("Before"));
        script.clear();
        check(Call::Revoke, None, None);
    }
}
