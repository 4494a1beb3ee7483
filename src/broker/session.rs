//! The person behind a task: that they are still signed in, and which person somebody means.

use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::id::TaskId;
use leasehold_law::task::{Task, TaskEvent, TaskState};

use super::Broker;
use super::decide::{Asker, TRIES};
use super::refused::Refused;
use crate::ledger::LedgerError;

/// The field that brings a person's token, for those who are told about it.
const TOKEN: &str = "on_behalf_of.token";

impl Broker {
    /// A newer token of the person that a caller's own task acts for: the task goes on for as long as that lasts. One
    /// that is not newer changes nothing.
    ///
    /// # Errors
    /// Where the task is not the caller's, is over, or acts for somebody else; where it cannot be written.
    pub async fn renew_session(
        &self,
        asker: &Asker,
        id: TaskId,
        newer: &OnBehalfOf,
    ) -> Result<Task, Refused> {
        for _ in 0..TRIES {
            let task = self.own_task(asker, id).await?;
            if task.state != TaskState::Open {
                return Err(Refused::task_ended(&task));
            }
            if task.person() != Some(&newer.person) || task.session_until.is_none() {
                return Err(Refused::field(
                    TOKEN,
                    "this is not a token of the person that the task acts for",
                ));
            }
            let Some(until) = newer.until.filter(|until| task.session_until < Some(*until)) else {
                return Ok(task);
            };
            let step = TaskEvent::SessionRenewed { until };
            match self.inner.ledger.step_task(&task, step, Vec::new(), &[], Vec::new()).await {
                Ok((task, _)) => return Ok(task),
                Err(LedgerError::Stale(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused::contended(format!("{id} keeps changing")))
    }

    /// The person that an operator means: by their name in the config, or as `oidc:ISSUER|SUBJECT`.
    ///
    /// # Errors
    /// Where nobody is called so.
    pub fn person(&self, text: &str) -> Result<Vouched, Refused> {
        if let Ok(CallerId::Person(person)) = text.parse() {
            return Ok(person);
        }
        let registry = self.registry();
        let name = text.strip_prefix("person:").unwrap_or(text);
        registry.catalog().people.get(name).cloned().ok_or_else(|| {
            Refused::not_found("person", name)
                .next("name somebody of [people], or write oidc:ISSUER|SUBJECT as `task show` prints it")
        })
    }
}

/// Whom a new task acts for: the person of the token that came with the request, or the one in whose session its agent
/// is.
///
/// # Errors
/// Where there would be two.
pub(super) fn behalf(asker: &Asker, proven: Option<OnBehalfOf>) -> Result<Option<OnBehalfOf>, Refused> {
    match (asker.id.session_of(), proven) {
        (Some(_), Some(_)) => {
            Err(Refused::field(TOKEN, "an agent in a person's session acts for that person already"))
        }
        (Some(person), None) => Ok(Some(OnBehalfOf { person, until: None })),
        (None, proven) => Ok(proven),
    }
}
