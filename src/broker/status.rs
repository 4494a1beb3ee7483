//! The operator's one screen: what there is, and what needs a person.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_backend::{Capabilities, Statement};
use leasehold_law::cause::Rank;
use leasehold_law::journal::ChainHead;
use leasehold_law::time::{Span, Timestamp};
use leasehold_law::words::{count, count_are};

use super::claims::Owner;
use super::drill::DrillStatus;
use super::orphans::{SweepReport, SweepVerdict};
use super::refused::Refused;
use super::restore::Reconciled;
use super::{Breaker, Broker, Inner};
use crate::clock::Reading;
use crate::near::nearest;
use crate::store::{Aside, AsideFilter, AsideKind, Counts, LaneCounts, StoreError};
use crate::vault_door::Seen;

/// How many that were set aside are shown.
const ASIDES: usize = 1000;
/// How many barriers are counted.
const FREEZES: usize = 1000;
/// How long something that is over is news.
const NEWS: Span = Span::from_mins(24 * 60);

/// Everything on one screen.
#[derive(Clone, Debug)]
pub struct Status {
    /// How many there are.
    pub counts: Counts,
    /// Barriers that stand.
    pub frozen: usize,
    /// Each target.
    pub targets: Vec<TargetStatus>,
    /// Where the chain ends.
    pub head: ChainHead,
    /// Why the journal takes nothing, if it does not.
    pub journal_error: Option<String>,
    /// The clock.
    pub clock: Reading,
    /// Since the start.
    pub uptime: Span,
    /// What was set aside and may be alive, or was set aside within a day; newest first.
    pub asides: Vec<Aside>,
    /// Agents that said they run something else than was reviewed, in words.
    pub drifting: Vec<String>,
    /// Registrations whose agents may do less than they are registered for, or nothing.
    pub lowered_agents: u64,
    /// What needs a person, in plain words.
    pub needs_person: Vec<String>,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// The kind of its backend.
    pub kind: String,
    /// What it can do.
    pub capabilities: Option<Capabilities>,
    /// What is known of it.
    pub seen: Seen,
    /// Leases in it that are live.
    pub live: u64,
    /// Of these, those with a failed try behind them.
    pub stuck: u64,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it agrees with the store, after a restore.
    pub reconciled: bool,
    /// What became of the leases of a restored store in it, if they were compared since the start.
    pub compared: Option<Reconciled>,
    /// How the last sweep for orphans went.
    pub swept: Option<SweepReport>,
    /// How its drills went.
    pub drill: DrillStatus,
    /// Of these, those that are being revoked or are due to be, by lane.
    pub due: BTreeMap<Rank, u64>,
    /// Whether revocations reach it.
    pub breaker: Breaker,
}

impl TargetStatus {
    /// With the counts of one of its lanes.
    fn count(&mut self, lane: &LaneCounts) {
        self.live += lane.live;
        self.stuck += lane.stuck;
        self.due.insert(lane.lane, lane.due);
    }
}

impl Broker {
    /// Everything on one screen.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn status(&self) -> Result<Status, Refused> {
        let inner = &self.inner;
        let store = inner.ledger.store();
        let journal_error = inner.ledger.check_writable().await.err().map(|error| error.to_string());
        let counts = store.counts().await?;
        let frozen = inner.frozen().await?;
        let targets = self.target_statuses().await?;
        let clock = inner.clock.read();
        let (drifting, lowered_agents) = self.lowered_agents().await?;
        let asides = inner.recent_asides(clock.now).await?;
        let mut needs_person = needs(&counts, &targets, clock, journal_error.as_deref());
        if inner.revoker.unrecorded() > 0 {
            needs_person
                .push(format!("revoked without a record: {}", count(inner.revoker.unrecorded(), "lease")));
        }
        needs_person.extend(asides_need(&asides));
        Ok(Status {
            asides,
            counts,
            frozen,
            targets,
            head: store.head().await?,
            journal_error,
            clock,
            uptime: clock.now.since(inner.started_at),
            needs_person,
            drifting,
            lowered_agents,
        })
    }

    /// The names of the targets.
    #[must_use]
    pub fn target_names(&self) -> Vec<String> {
        self.inner.door.targets().map(ToOwned::to_owned).collect()
    }

    /// Every target with its leases.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn target_statuses(&self) -> Result<Vec<TargetStatus>, Refused> {
        let inner = &self.inner;
        let counts = inner.ledger.store().counts_by_lane(self.now()).await?;
        let status = |name: &str| {
            let mut status = TargetStatus {
                name: name.to_owned(),
                kind: inner.door.kind(name).unwrap_or_default().to_owned(),
                capabilities: inner.door.capabilities(name).cloned(),
                seen: inner.door.seen(name).unwrap_or_else(removed),
                owner: inner.keep.owner(name),
                reconciled: inner.keep.is_reconciled(name),
                compared: inner.keep.compared(name),
                swept: inner.keep.swept(name),
                drill: inner.drill_status(name),
                live: 0,
                stuck: 0,
                due: BTreeMap::new(),
                breaker: inner.revoker.breaker(name),
            };
            counts.iter().filter(|lane| lane.target == name).for_each(|lane| status.count(lane));
            status
        };
        // What was removed from the config with leases alive is still shown: nothing revokes them.
        let names: BTreeSet<_> =
            inner.door.targets().chain(counts.iter().map(|lane| lane.target.as_str())).collect();
        Ok(names.into_iter().map(status).collect())
    }

    /// Asks a target how it is.
    ///
    /// # Errors
    /// Where there is no such target; one that does not answer is an answer.
    pub async fn check_target(&self, name: &str) -> Result<TargetStatus, Refused> {
        self.inner.require_target(name)?;
        if let Err(error) = self.inner.door.look(name).await {
            tracing::info!(target = name, %error, "checked a target that does not answer");
        }
        let statuses = self.target_statuses().await?;
        statuses.into_iter().find(|status| status.name == name).ok_or_else(|| self.inner.no_target(name))
    }

    /// The statements that give the broker the least that it needs in a target.
    ///
    /// # Errors
    /// Where there is no such target, or it does not say what version it is.
    pub async fn setup_target(&self, name: &str) -> Result<Vec<Statement>, Refused> {
        self.inner.require_target(name)?;
        let statements = self.inner.door.setup(name).await;
        statements.map_err(|error| Refused::backend(name, &error).why(error.to_string()))
    }

    /// An operator looked at the wall clock and takes it as right.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn confirm_clock(&self, by: &str, reason: &str) -> Result<Reading, Refused> {
        let before = self.inner.clock.read();
        let details = BTreeMap::from([
            ("by".to_owned(), by.to_owned()),
            ("reason".to_owned(), reason.to_owned()),
            ("behind".to_owned(), before.behind.to_string()),
        ]);
        self.inner.ledger.note_broker("clock confirmed", details).await?;
        let reading = self.inner.clock.confirm();
        self.inner.wake_put_off();
        Ok(reading)
    }
}

fn removed() -> Seen {
    let error = "it is not in the config any more, and its leases cannot be revoked: put it back";
    Seen { error: Some(error.to_owned()), ..Seen::default() }
}

fn needs(counts: &Counts, targets: &[TargetStatus], clock: Reading, journal: Option<&str>) -> Vec<String> {
    let mut needs = Vec::new();
    if let Some(error) = journal {
        needs.push(format!("the journal takes nothing: {error}"));
    }
    if !clock.may_issue() {
        needs.push(format!("the wall clock is {} behind: leasehold clock confirm --reason R", clock.behind));
    }
    if counts.stuck > 0 {
        needs.push(format!("{} stuck: leasehold lease stuck", count_are(counts.stuck, "lease")));
    }
    for target in targets {
        if let Breaker::Open { since, failures, .. } | Breaker::HalfOpen { since, failures } = target.breaker
            && target.owner.forbids_mints().is_none()
        {
            needs.push(format!(
                "{} has not answered a revocation since {since}, {}: it is asked every few seconds",
                target.name,
                count(failures, "time")
            ));
        }
        needs.extend(target.seen.error.iter().map(|error| format!("{}: {error}", target.name)));
        let lacks = target.seen.missing.iter();
        needs.extend(lacks.map(|missing| format!("{} lacks {}: {}", target.name, missing.what, missing.fix)));
        needs.extend(keeping_needs(target));
        needs.extend(drill_need(target));
    }
    needs
}

/// A drill that failed is an alarm until a later one has passed; a schedule that is not kept is one, too.
fn drill_need(target: &TargetStatus) -> Option<String> {
    let (name, drill) = (&target.name, &target.drill);
    if let Some((last, failure)) = drill.last.as_ref().and_then(|last| Some((last, last.failure.as_ref()?))) {
        let alive = if failure.alive { "A REVOKED CREDENTIAL IS ALIVE in it: " } else { "" };
        return Some(format!(
            "{name}: {alive}the drill of {} failed to {}: {}: leasehold drill run --target {name}",
            last.at,
            failure.step.name(),
            failure.why
        ));
    }
    let why = drill.not_drilled.as_ref()?;
    Some(match &drill.last {
        Some(last) => format!("{name}: drilled last at {}, and not when it was due: {why}", last.at),
        None => format!("{name}: was never drilled, though it was due: {why}"),
    })
}

impl Inner {
    /// Whether the config has a target of this name.
    pub(super) fn require_target(&self, name: &str) -> Result<(), Refused> {
        if self.door.kind(name).is_some() { Ok(()) } else { Err(self.no_target(name)) }
    }

    /// What may have been meant.
    pub(super) fn no_target(&self, name: &str) -> Refused {
        let next = match nearest(name, self.door.targets()) {
            Some(near) => format!("did you mean `{near}`? leasehold targets list names them all"),
            None => "see which there are with: leasehold targets list".to_owned(),
        };
        Refused::not_found("target", name).next(next)
    }

    fn drill_status(&self, target: &str) -> DrillStatus {
        let plan = self.registry.load().catalog().drills.get(target).cloned();
        DrillStatus { plan, ..self.drills.status(target) }
    }

    /// How many barriers stand. One that cannot be read stands too, and keeps nobody from the screen that says so.
    async fn frozen(&self) -> Result<usize, Refused> {
        let store = self.ledger.store();
        match store.revocations(true, None, FREEZES).await {
            Err(StoreError::Unreadable(_)) => {
                let read = store.revocations(false, None, FREEZES).await?;
                Ok(read.iter().filter(|one| one.is_freezing()).count() + 1)
            }
            found => Ok(found?.len()),
        }
    }

    async fn recent_asides(&self, now: Timestamp) -> Result<Vec<Aside>, Refused> {
        let mut asides = self.ledger.store().asides(&AsideFilter::default(), ASIDES).await?;
        asides.retain(|aside| aside.due.is_some() || now.since(aside.at) < NEWS);
        Ok(asides)
    }
}

fn asides_need(asides: &[Aside]) -> Vec<String> {
    let bad = asides.iter().filter(|aside| aside.row.kind != AsideKind::Orphan).count();
    let alive = asides.iter().filter(|aside| aside.due.is_some() && aside.tries > 0).count();
    let mut needs = Vec::new();
    if bad > 0 {
        needs.push(format!(
            "set aside within a day, since it cannot be read: {}; look at the disk",
            count(bad, "row")
        ));
    }
    if alive > 0 {
        needs.push(format!("set aside, and not dead yet: {}", count(alive, "principal")));
    }
    needs
}

fn keeping_needs(target: &TargetStatus) -> Vec<String> {
    let name = &target.name;
    let mut needs = Vec::new();
    if let Some(why) = target.owner.forbids_mints() {
        needs.push(format!("{name}: nothing is minted there, since {}", why.replace("NAME", name)));
    }
    if !target.reconciled {
        needs.push(format!("{name}: not compared with the restored store yet, and nothing is minted there"));
    }
    needs.extend(target.swept.as_ref().and_then(|swept| sweep_need(name, swept)));
    needs
}

fn sweep_need(name: &str, swept: &SweepReport) -> Option<String> {
    let missing = swept.missing.len();
    match &swept.verdict {
        SweepVerdict::Halted if u64::try_from(missing).is_ok_and(|missing| missing > swept.missing_bound) => {
            Some(format!(
                "{name}: the principals of {} are gone, more than the bound of {}, and another server may be answering: \
                 leasehold targets sweep {name} --dry-run",
                count(missing, "lease"),
                swept.missing_bound
            ))
        }
        SweepVerdict::Halted => Some(format!(
            "{name}: {} more than the bound of {}: leasehold targets sweep {name} --dry-run",
            count_are(swept.found, "orphan"),
            swept.bound
        )),
        SweepVerdict::NotOurs(claim) if swept.found > 0 => Some(format!(
            "{name}: {} left, since installation {} has claimed it",
            count_are(swept.found, "orphan"),
            claim.installation
        )),
        SweepVerdict::NotOurs(_) | SweepVerdict::ClaimGone | SweepVerdict::Swept | SweepVerdict::DryRun => {
            None
        }
    }
}
