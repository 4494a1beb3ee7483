//! The quiet at the end of a world: nothing goes wrong any more, and what must hold then is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leasehold::store::{LeaseFilter, Store, TaskFilter};
use leasehold_law::id::{LeaseId, TaskId};
use leasehold_law::journal::{Body, Event, Hash, Line, verify};
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::task::{Task, TaskState};
use leasehold_law::time::Span;

use crate::life::pause;
use crate::operators;
use crate::record::Rows;
use crate::target::Site;
use crate::world::World;

/// All that was begun comes to its end within this: a call of half a minute, and a minute until it is tried again.
const SETTLES_WITHIN: u64 = 150;
/// The last task ends, and its leases with it, within this.
const ENDS_WITHIN: u64 = 400;
/// How long a lease outlives its expiry at most, while broker and target are up (docs/guarantees.md).
pub(crate) const BOUND: Span = Span::from_secs(5);

/// The weather calms down; what was begun ends; agents fall silent; everything ends.
pub(crate) async fn come(world: &Arc<World>) {
    world.history.note("calm");
    world.weather.calm_down();
    world.sites.iter().for_each(|site| site.set_down(false));
    operators::settle(world).await;
    if !until(world, SETTLES_WITHIN, is_settled).await {
        return tell_unsettled(world);
    }
    explained(world);
    promises_hold(world);
    on_time(world).await;
    world.history.note("silence");
    world.silence.cancel();
    if !until(world, ENDS_WITHIN, is_over).await {
        return tell_unsettled(world);
    }
    explained(world);
    nothing_is_left(world);
    journal_makes_the_rows(world).await;
}

/// Looks once a second whether something is so; whether it came to be.
async fn until(world: &Arc<World>, seconds: u64, so: impl Fn(&World) -> bool) -> bool {
    for _ in 0..seconds {
        if world.history.is_wrong() {
            return false;
        }
        if so(world) {
            return true;
        }
        pause(Duration::from_secs(1)).await;
    }
    false
}

/// Nothing is on its way: no call, no row in the middle of something, no session that the reaper has yet to meet.
fn is_settled(world: &World) -> bool {
    let Some((broker, life)) = world.serving() else { return false };
    let (rows, now) = (world.record.rows(), broker.now());
    let due = |lease: &Lease| lease.state.expires_at().is_none_or(|end| now > end);
    let rests = |lease: &Lease| match lease.state {
        LeaseState::Active { .. } => !due(lease),
        LeaseState::Residual { .. } => true,
        LeaseState::New
        | LeaseState::Refused { .. }
        | LeaseState::Minting { .. }
        | LeaseState::Renewing { .. }
        | LeaseState::Revoking { .. }
        | LeaseState::Revoked { .. }
        | LeaseState::Lapsed { .. } => false,
    };
    let ending = |task: &Task| matches!(task.state, TaskState::Ending { .. });
    life.flights.is_empty()
        && world.sites.iter().all(|site| site.flights.is_empty())
        && rows.live().all(rests)
        && rows.revocations.values().all(|revocation| revocation.complete)
        && world.sites.iter().filter(|site| site.is_exact()).all(|site| lost(&rows, site).is_empty())
        && !rows.tasks.values().any(ending)
        && sessions(world)
            .into_iter()
            .all(|name| rows.live().any(|lease| lease.terms.principal.as_str() == name))
}

/// Active leases whose principals are gone: somebody dropped them by hand, and the next look at the target finds out.
fn lost(rows: &Rows, site: &Site) -> Vec<String> {
    let found = found(site);
    let active = rows.active(site.name).filter(|(_, killed_first)| !killed_first);
    active.map(|(name, _)| name).filter(|name| !found.contains(name)).collect()
}

fn is_over(world: &World) -> bool {
    let rows = world.record.rows();
    let over = |task: &Task| matches!(task.state, TaskState::Ended { .. } | TaskState::Refused);
    rows.live().next().is_none() && rows.tasks.values().all(over) && sessions(world).is_empty()
}

fn tell_unsettled(world: &World) {
    if world.history.is_wrong() {
        return;
    }
    let rows = world.record.rows();
    for lease in rows.live() {
        world.history.wrong(format!("{} does not settle: {:?}", lease.terms.id, lease.state));
    }
    for task in rows.tasks.values().filter(|task| !matches!(task.state, TaskState::Ended { .. })) {
        world.history.wrong(format!("{} does not settle: {:?}", task.terms.id, task.state));
    }
    for revocation in rows.revocations.values().filter(|revocation| !revocation.complete) {
        world.history.wrong(format!("nobody sees {} through", revocation.id));
    }
    for site in world.sites.iter().filter(|site| site.is_exact()) {
        lost(&rows, site).iter().for_each(|name| {
            world.history.wrong(format!("{name} is gone from {}, and nobody finds out", site.name));
        });
    }
    let left = sessions(world);
    world.history.wrong(format!(
        "it does not settle: {left:?} are served, a broker serves: {}",
        world.serving().is_some()
    ));
}

fn sessions(world: &World) -> Vec<String> {
    let exact = world.sites.iter().filter(|site| site.is_exact());
    exact.flat_map(|site| site.served()).map(|session| session.principal).collect()
}

/// Principals in the targets are the Active leases of the store, and nothing else.
fn explained(world: &World) {
    for site in &world.sites {
        let rows = world.record.rows();
        let active: BTreeMap<String, bool> = rows.active(site.name).collect();
        let found = found(site);
        for orphan in found.iter().filter(|name| !active.contains_key(*name)) {
            world.history.wrong(format!("{orphan} is in {}, and no active lease explains it", site.name));
        }
        for lost in lost(&rows, site).iter().filter(|_| site.is_exact()) {
            world.history.wrong(format!("{lost} is active, and not in {}", site.name));
        }
    }
}

/// Whoever may log in; in a target that kills, whoever is there at all. What nobody can kill is Residual on record.
fn found(site: &Site) -> BTreeSet<String> {
    if site.is_exact() {
        return site.target.accounts().into_keys().collect();
    }
    let disables = site.target.settings().0.grade == leasehold_law::lease::Grade::Coarse;
    if disables { site.usable().into_keys().collect() } else { BTreeSet::new() }
}

/// What an operator was told is so.
fn promises_hold(world: &World) {
    for id in world.record.rows().broken_promises() {
        world.history.wrong(format!("an operator was told that {id} is revoked, and it is in use"));
    }
    for (lease, revocation) in world.record.rows().spared() {
        world.history.wrong(format!("{revocation} is on record and complete, and spared {lease}"));
    }
}

/// While all is well, leases end when they expire.
async fn on_time(world: &Arc<World>) {
    for _ in 0..20 {
        pause(Duration::from_secs(1)).await;
        let Some((broker, _)) = world.serving() else { continue };
        let rows = world.record.rows();
        for lease in rows.live().filter(|lease| !matches!(lease.state, LeaseState::Residual { .. })) {
            let late = lease.state.expires_at().map_or(Span::ZERO, |end| broker.now().since(end));
            if late > BOUND {
                world
                    .history
                    .wrong(format!("{} outlives its expiry by {late}: {:?}", lease.terms.id, lease.state));
            }
        }
    }
}

fn nothing_is_left(world: &World) {
    for site in &world.sites {
        for name in site.usable().into_keys() {
            world.history.wrong(format!("{name} lives on in {} when all is over", site.name));
        }
    }
}

/// The chain is whole, and told again from the beginning it makes the rows.
async fn journal_makes_the_rows(world: &World) {
    let Some(store) = world.disk.store() else {
        return world.history.wrong("the store is closed in the quiet");
    };
    let entries = store.entries(1, usize::MAX).await.unwrap();
    let head = store.head().await.unwrap();
    let begin = Line::Begin { chain: head.chain.clone(), first_seq: 1, prev: Hash::GENESIS };
    let mut lines = vec![serde_json::to_string(&begin).unwrap()];
    let (mut leases, mut tasks) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        let body = Body::parse(&entry.body).unwrap();
        if let Err(why) = replay(body, &mut leases, &mut tasks) {
            world.history.wrong(format!("entry {} does not replay: {why}", entry.seq));
        }
        let text = String::from_utf8(entry.body).unwrap();
        lines.push(
            serde_json::to_string(&Line::Entry { seq: entry.seq, body: text, hash: entry.hash }).unwrap(),
        );
    }
    if verify(lines.iter().map(String::as_str)).as_ref() != Ok(&head) {
        world.history.wrong("the chain is broken");
    }
    world.history.note(format!("the chain ends at {} with {}", head.seq, head.hash));
    same(world, &*store, leases, tasks).await;
}

/// The rows of the store are those of the journal, and those that were acknowledged.
async fn same(
    world: &World,
    store: &dyn Store,
    leases: BTreeMap<LeaseId, Lease>,
    tasks: BTreeMap<TaskId, Task>,
) {
    let found = store.leases(&LeaseFilter::default(), usize::MAX).await.unwrap();
    let found: BTreeMap<_, _> = found.into_iter().map(|lease| (lease.terms.id, lease)).collect();
    let found_tasks = store.tasks(&TaskFilter::default(), usize::MAX).await.unwrap();
    let found_tasks: BTreeMap<_, _> = found_tasks.into_iter().map(|task| (task.terms.id, task)).collect();
    if found != leases || found_tasks != tasks {
        world.history.wrong("the journal does not make the rows");
    }
    let rows = world.record.rows();
    if found != rows.leases || found_tasks != rows.tasks {
        world.history.wrong("the store does not hold what it acknowledged");
    }
}

fn replay(
    body: Body,
    leases: &mut BTreeMap<LeaseId, Lease>,
    tasks: &mut BTreeMap<TaskId, Task>,
) -> Result<(), String> {
    if let Event::Lease { terms, step, .. } = body.event {
        let id = body.lease.ok_or("no lease")?;
        let next = match (terms, leases.get(&id)) {
            (Some(terms), None) => Lease::first(terms, &step),
            (None, Some(lease)) => lease.apply(&step),
            (Some(_), Some(_)) | (None, None) => return Err(format!("{id} begins twice or never")),
        };
        leases.insert(id, next.map_err(|error| error.to_string())?);
    } else if let Event::Task { terms, scope, step, .. } = body.event {
        let id = body.task.ok_or("no task")?;
        let next = match (terms, scope, tasks.get(&id)) {
            (Some(terms), Some(scope), None) => Task::first(*terms, scope, &step),
            (None, None, Some(task)) => task.apply(&step),
            _ => return Err(format!("{id} begins twice or never")),
        };
        tasks.insert(id, next.map_err(|error| error.to_string())?);
    }
    Ok(())
}
