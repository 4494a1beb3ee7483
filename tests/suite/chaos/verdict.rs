//! What must hold when it is quiet again: by the target's own catalog, by the logins of all who ever had a credential,
//! and by the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasehold_proto::v1;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::agents::{AGENTS, Granted, Told};
use super::tell;
use crate::child::{all_leases, journal};
use crate::site::{Site, login, works};
use crate::stopping::{revoke, run};
use crate::world::{Client, DOMAIN, eventually, eventually_within, millis};

/// What went wrong beside the brokers that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// It took what it was given.
    Stood,
    /// It went away, and so may the answer to any commit; and a broker slept while others fenced it.
    WasLost,
}

/// A mint is called dead ten seconds after it began, and a broker is given up by the others after thirty.
const QUIET: Duration = Duration::from_secs(120);

/// Waits until it is quiet, and holds everything that agents were told against what is. Every broker's chain must be
/// whole. Afterwards all is revoked, and nothing may be left.
pub(super) async fn holds(site: &Site, mark: &str, told: &Told, brokers: &[Client], store: Store) {
    let (mut admin, begun) = (brokers[0].clone(), Instant::now());
    the_silent_are_lost(&admin, told).await;
    let leases = until_quiet(site, mark, &admin).await;
    let quiet = begun.elapsed();
    let leases: BTreeMap<_, _> = leases.into_iter().map(|lease| (lease.id.clone(), lease)).collect();
    let active: BTreeSet<_> =
        leases.values().filter(|lease| is_active(lease)).map(|lease| lease.task.clone()).collect();
    let (lost, held) = tasks_are_as_said(&mut admin, told, &active).await;
    assert!(!told.granted.is_empty() && !told.released.is_empty(), "nothing was asked that could go wrong");
    for (id, until) in &told.renewed {
        let lease = &leases[id];
        let kept = !is_active(lease) || millis(lease.expires_at) >= *until;
        assert!(kept, "{id} was renewed until {until}, and lives no longer than {:?}", lease.expires_at);
    }
    for (id, _) in told.released.iter().filter(|(_, acknowledged)| **acknowledged) {
        assert_eq!(leases[id].state(), v1::LeaseState::Revoked, "{id} was given back");
    }
    for granted in &told.granted {
        is_held_or_explained(granted, &leases, told, store);
    }
    let alive = credentials_are_as_said(&told.granted, &leases).await;
    for broker in brokers {
        journal(broker).await;
    }
    tell(&format!(
        "{mark}: quiet after {quiet:?}, all looked at after {:?}; {} tasks, of these {lost} lost and {held} held by \
         heartbeats, {} leases, {} credentials handed over, {alive} of them alive, {} active leases",
        begun.elapsed(),
        told.tasks.len(),
        leases.len(),
        told.granted.len(),
        leases.values().filter(|lease| is_active(lease)).count(),
    ));
    ends_empty(site, mark, &mut admin).await;
}

/// An agent that fell silent loses its task, whichever brokers heard it and died; so does one that was not heard when it
/// said how its task ends.
async fn the_silent_are_lost(admin: &Client, told: &Told) {
    for id in told.tasks.keys().filter(|id| told.hearts.let_go_of(id)) {
        eventually_within(QUIET, "a silent task is lost", || async {
            task(&mut admin.clone(), id).await.state() == v1::TaskState::Ended
        })
        .await;
    }
}

async fn task(admin: &mut Client, id: &str) -> v1::Task {
    let found = admin.tasks.get_task(v1::GetTaskRequest { task: id.to_owned() }).await;
    found.unwrap_or_else(|status| panic!("{id} was opened and is lost: {status:?}")).into_inner()
}

/// A task ends where its agent ends it, or falls silent, and nowhere else. Gives how many were lost, and how many
/// heartbeats still hold.
async fn tasks_are_as_said(admin: &mut Client, told: &Told, active: &BTreeSet<String>) -> (usize, usize) {
    let (mut lost, mut held) = (0, 0);
    for (id, opened) in &told.tasks {
        let task = task(admin, id).await;
        if task.state() == v1::TaskState::Open {
            assert!(!opened.ended && !told.hearts.let_go_of(id), "{id} was ended and is not: {task:?}");
            held += usize::from(told.hearts.hold(id));
            continue;
        }
        assert!(!active.contains(id), "{id} has ended and has a live lease");
        if task.cause() == v1::Cause::TaskLost {
            told.hearts.explain_loss(id, millis(task.ended_at));
            lost += 1;
        } else {
            assert_eq!(Some(task.cause()), opened.cause, "nobody ended it: {task:?}");
        }
    }
    assert!(
        lost > 0 && held > 0,
        "{lost} tasks were lost, and {held} are held by heartbeats: a load has both"
    );
    (lost, held)
}

/// A credential that its agent holds by right is alive. These are all the reasons for which it may be dead, whatever died
/// meanwhile: what its agent did, and its own end. What a broker does for reasons of its own (a recovery, a mint that
/// failed, a later attempt, a principal that is gone) never meets a lease that was answered. A store that goes away is the
/// one exception: where nobody knows whether a renewal is on record, the lease is revoked.
fn is_held_or_explained(granted: &Granted, leases: &BTreeMap<String, v1::Lease>, told: &Told, store: Store) {
    let lease =
        leases.get(&granted.lease).unwrap_or_else(|| panic!("{} was granted and is lost", granted.lease));
    if is_active(lease) {
        return;
    }
    let opened = &told.tasks[&lease.task];
    let renewed = told.renewed.iter().filter(|(id, _)| *id == lease.id).map(|(_, until)| *until);
    let promised = renewed.fold(granted.until, i64::max);
    let unknown = store == Store::WasLost && told.doubtful.contains(&lease.id);
    let reasons = [
        (v1::Cause::Released, told.released.contains_key(&lease.id)),
        (v1::Cause::TaskCompleted, opened.cause == Some(v1::Cause::TaskCompleted)),
        (v1::Cause::TaskAborted, opened.cause == Some(v1::Cause::TaskAborted)),
        (v1::Cause::TaskLost, told.hearts.let_go_of(&lease.task)),
        (v1::Cause::Expired, millis(lease.ended_at) >= promised),
        (v1::Cause::MintFailed, unknown),
    ];
    assert!(
        reasons.contains(&(lease.cause(), true)),
        "it was promised until {promised}, and is dead: {lease:?}"
    );
}

/// Nothing is under way, and the target's catalog holds a role for each active lease, and no other.
async fn until_quiet(site: &Site, mark: &str, admin: &Client) -> Vec<v1::Lease> {
    let until = Instant::now() + QUIET;
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    loop {
        beat.tick().await;
        let leases = all_leases(admin).await;
        let moving: Vec<_> = leases.iter().filter(|lease| is_moving(lease)).collect();
        let expected = leases.iter().filter(|lease| is_active(lease)).map(|lease| lease.principal.clone());
        let (expected, roles): (BTreeSet<_>, BTreeSet<_>) =
            (expected.collect(), site.roles(mark).await.into_iter().collect());
        if moving.is_empty() && expected == roles {
            return leases;
        }
        let orphans: Vec<_> = roles.difference(&expected).collect();
        let missing: Vec<_> = expected.difference(&roles).collect();
        assert!(
            Instant::now() < until,
            "never quiet: under way {moving:#?}, roles without a live lease {orphans:?}, live leases without a role \
             {missing:?}"
        );
    }
}

fn is_active(lease: &v1::Lease) -> bool {
    lease.state() == v1::LeaseState::Active
}

/// On its way to another state, or so soon at its end that it would move while one looks.
fn is_moving(lease: &v1::Lease) -> bool {
    let length =
        lease.expires_at.as_ref().zip(lease.created_at.as_ref()).map(|(end, at)| end.seconds - at.seconds);
    match lease.state() {
        v1::LeaseState::Active => length.is_some_and(|length| length < 300),
        v1::LeaseState::Refused | v1::LeaseState::Revoked | v1::LeaseState::Lapsed => false,
        v1::LeaseState::Unspecified
        | v1::LeaseState::Awaiting
        | v1::LeaseState::Minting
        | v1::LeaseState::Renewing
        | v1::LeaseState::Revoking
        | v1::LeaseState::Residual => true,
    }
}

/// A credential logs in exactly where its lease is active, and of one request at most one does. Gives how many do.
async fn credentials_are_as_said(granted: &[Granted], leases: &BTreeMap<String, v1::Lease>) -> usize {
    let mut alive: BTreeMap<&(String, String), Vec<&str>> = BTreeMap::new();
    for one in granted {
        let lease = leases.get(&one.lease);
        let lease = lease.unwrap_or_else(|| panic!("{} was granted and is lost", one.lease));
        let answer = login(&one.login).await;
        match &answer {
            Ok(_) => alive.entry(&one.request).or_default().push(&one.lease),
            Err(error) => assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD), "{error}: {lease:?}"),
        }
        assert_eq!(answer.is_ok(), is_active(lease), "whether its credential logs in: {lease:?}");
        if let Some(session) = one.session.as_ref().filter(|_| !is_active(lease)) {
            assert!(!works(session).await, "a session outlived its lease: {lease:?}");
        }
    }
    for (request, leases) in &alive {
        assert_eq!(leases.len(), 1, "{request:?} has more than one live credential: {leases:?}");
    }
    alive.len()
}

async fn ends_empty(site: &Site, mark: &str, admin: &mut Client) {
    for agent in AGENTS {
        let id = format!("spiffe://{DOMAIN}/agent/{agent}");
        run(admin, revoke(v1::selector::Kind::Agent(id))).await.unwrap();
    }
    eventually("nothing is left", || async { site.roles(mark).await.is_empty() }).await;
}
