//! A drill (REQUIREMENTS REV-8): the broker asks for a lease as any agent does, uses the credential, has it revoked as
//! any task's end does, and has the target say that it is dead.
//!
//! It is the agent `leasehold/drill` then, which no wire can be. The secret is handed to nobody: it stays in this
//! process, and is gone with the drill. A broker that dies in the middle leaves a lease like any other behind.

mod course;
mod schedule;

use leasehold_law::caller::{CallerId, ProvenBy};
use leasehold_law::drill::{Drill, Plan};
use leasehold_law::lease::Grade;
use leasehold_law::reason::Reason;
use leasehold_law::request::{Liveness, OpenRequest, Refs, RequestId};
use leasehold_law::scope::{Scope, ScopeEntry};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::Span;
use tokio::sync::{mpsc, oneshot};

use super::decide::Asker;
use super::refused::Refused;
use super::{Breaker, Broker, Inner};
use crate::store::TaskFilter;
use course::Course;
pub use schedule::DrillStatus;
pub(super) use schedule::Drills;

/// How long the task of a drill lasts at most, and its credential with it: longer than a mint and a revocation may
/// take. What a broker leaves that dies for good is over by then.
const LASTS: Span = Span::from_mins(2);
/// The reference by which the drills of a target are found.
const REF: &str = "drill";
/// The reference that says which broker drills.
const BROKER_REF: &str = "broker";
/// More than a drill has to say, so that it never waits for whoever listens.
const TOLD: usize = 8;

/// A drill as it goes on: what it has come to after each step, and at the end whether it has passed.
pub type Drilling = mpsc::Receiver<Result<Drill, Refused>>;

/// Who drills.
fn driller() -> Asker {
    Asker { id: CallerId::Drill, proof: ProvenBy::Broker }
}

impl Broker {
    /// Drills a target. What stands in its way is said at once; once it has begun it goes on, whoever listens.
    ///
    /// # Errors
    /// Where there is no such target, nothing to drill it with or nothing to prove; where it is frozen, barred, down or
    /// being drilled; and as for any request of a lease.
    pub async fn drill(&self, target: &str, by: Option<CallerId>) -> Result<Drilling, Refused> {
        let (broker, target) = (self.clone(), target.to_owned());
        let (answer, begun) = oneshot::channel();
        // The broker's own, from before its task is open: a caller that goes away leaves no task that nobody ends.
        self.inner.owned.spawn(async move {
            let begun = broker.begin_drill(&target, by).await;
            let (out, told) = mpsc::channel(TOLD);
            match broker.on_record(&driller(), &format!("drill {target}"), begun).await {
                Ok(course) => {
                    drop(answer.send(Ok(told)));
                    course.run(out).await;
                }
                Err(refused) => drop(answer.send(Err(refused))),
            }
        });
        begun.await.map_err(|error| Refused::internal(&error))?
    }

    async fn begin_drill(&self, target: &str, by: Option<CallerId>) -> Result<Course, Refused> {
        let plan = self.inner.may_drill(target).await?;
        let turn = self.inner.take_drill(target).ok_or_else(|| under_way(target, None))?;
        let last = self.inner.last_drill_task(target).await?;
        if let Some(task) = last.as_ref().filter(|task| is_live(task)) {
            return Err(under_way(target, Some(task)));
        }
        let ttl = self.registry().require_grant(&plan.pair)?.grant.ttl.default.min(LASTS);
        let request = self.inner.drill_request(&plan, last.as_ref(), ttl)?;
        let opened =
            self.open_task(&driller(), request, std::future::ready(Ok(None))).await.map_err(|refused| {
                // Another broker of the same store was faster.
                if refused.reason == Reason::RequestIdReused { under_way(target, None) } else { refused }
            })?;
        Ok(Course::new(self.clone(), plan, opened.task, by, turn))
    }
}

impl Inner {
    /// What a target is drilled with, if it can be and may be now. Nothing is minted where an operator stopped it,
    /// where nothing could be killed, or where nothing would be proven.
    async fn may_drill(&self, target: &str) -> Result<Plan, Refused> {
        self.require_target(target)?;
        let registry = self.registry.load_full();
        let plan = registry.catalog().drills.get(target).ok_or_else(|| nothing_to_drill_with(target))?;
        if let Some(grade) =
            self.door.capabilities(target).map(|can| can.grade).filter(|it| *it != Grade::Exact)
        {
            return Err(nothing_to_prove(target, grade));
        }
        match self.revoker.breaker(target) {
            Breaker::Closed => {}
            Breaker::Open { since, .. } | Breaker::HalfOpen { since, .. } => {
                return Err(Refused::new(Reason::TargetDown, format!("`{target}` is not drilled now"))
                    .why(format!(
                        "it has answered no revocation since {since}: nothing more is minted to be killed"
                    ))
                    .next("bring it back; leasehold status says when it answers")
                    .detail("target", target));
            }
        }
        self.may_issue().await?;
        self.barrier_guard(&registry.reach(&CallerId::Drill, None, Some(&plan.pair))).await?;
        self.may_mint_in(target).await?;
        self.door.may_mint(target).await.map_err(|closed| Refused::closed(target, &closed))?;
        Ok(plan.clone())
    }

    /// The task of the drill that was begun last on a target, by whichever broker of this store.
    async fn last_drill_task(&self, target: &str) -> Result<Option<Task>, Refused> {
        Ok(self.ledger.store().tasks(&drills_of(target), 1).await?.pop())
    }

    /// Its name says which drill it follows: where two brokers begin the same one, the store lets one of them.
    fn drill_request(&self, plan: &Plan, last: Option<&Task>, ttl: Span) -> Result<OpenRequest, Refused> {
        let target = &plan.pair.target;
        let follows = last.map_or_else(|| target.clone(), |task| task.terms.id.to_string());
        let entry = ScopeEntry { pair: plan.pair.clone(), max_ttl: Some(ttl), params: plan.params.clone() };
        let refs = [(REF, target), (BROKER_REF, &self.name)];
        Ok(OpenRequest {
            manifest: None,
            on_behalf_of: None,
            request_id: follows.parse::<RequestId>().map_err(|error| Refused::internal(&error))?,
            purpose: format!("a drill of {target}: whether what is revoked is dead"),
            scope: Scope::new(vec![entry]).map_err(|error| Refused::internal(&error))?,
            liveness: Liveness::Deadline,
            deadline: Some(LASTS.min(self.tasks.max_deadline)),
            refs: refs.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect::<Refs>(),
        })
    }
}

/// The drills of a target, the newest first.
fn drills_of(target: &str) -> TaskFilter {
    let reference = Some((REF.to_owned(), target.to_owned()));
    TaskFilter { agent: Some(CallerId::Drill), reference, ..TaskFilter::default() }
}

fn is_live(task: &Task) -> bool {
    matches!(task.state, TaskState::Open | TaskState::Ending { .. })
}

fn under_way(target: &str, task: Option<&Task>) -> Refused {
    let refused = Refused::contended(format!("`{target}` is being drilled"));
    match task {
        Some(task) => refused
            .why(format!("the last drill is not over: {} is {}", task.terms.id, task.state.name()))
            .next(format!("leasehold audit trace {}", task.terms.id)),
        None => refused,
    }
}

fn nothing_to_drill_with(target: &str) -> Refused {
    Refused::new(Reason::NotServed, format!("`{target}` is not drilled"))
        .why("its config says so, or it has no read-only grant that does without people and parameters")
        .next(format!("name a grant to drill with: [targets.{target}] drill = \"INTENT\""))
        .detail("target", target)
}

fn nothing_to_prove(target: &str, grade: Grade) -> Refused {
    let word = match grade {
        Grade::Exact => "exact",
        Grade::Coarse => "coarse",
        Grade::None => "none",
    };
    Refused::new(Reason::NotServed, format!("`{target}` cannot be drilled"))
        .why(format!(
            "its grade is {word}: what is revoked there may live to its natural end, as every lease says"
        ))
        .next("drill the targets whose grade is exact: leasehold drill list")
        .detail("target", target)
}
