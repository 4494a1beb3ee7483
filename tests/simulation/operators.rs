//! Operators at work, who revoke and lift, and the sky above all: outages, full disks, clocks that step, principals that
//! somebody drops.

use std::sync::Arc;
use std::time::Duration;

use leasehold::broker::RevokeCommand;
use leasehold_law::caller::CallerId;
use leasehold_law::id::RevocationId;
use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::revocation::Selector;
use leasehold_law::time::Span;

use crate::ground::{REF, agents, owner_of};
use crate::life::pause;
use crate::world::World;

/// How far the wall clock may be behind for an operator to take it as right.
const FORGIVEN: Span = Span::from_secs(20);

fn operator() -> CallerId {
    CallerId::LocalUser(0)
}

/// Revokes now and then, lifts what it froze, and drills.
pub(crate) async fn live(world: Arc<World>) {
    loop {
        pause(world.dice.millis(2000, 20_000)).await;
        if world.dice.chance(500) {
            a_mint(&world).await;
        }
        if world.weather.is_calm() {
            return;
        }
        match world.dice.roll(6) {
            0..=2 => revoke(&world).await,
            3 => lift_one(&world).await,
            4 => drop(tokio::spawn(drill(world.clone()))),
            _ => confirm_clock(&world).await,
        }
    }
}

/// The worst moment to revoke: something is being minted.
async fn a_mint(world: &World) {
    for _ in 0..100 {
        if minting(world).is_some() {
            return;
        }
        pause(Duration::from_millis(20)).await;
    }
}

fn minting(world: &World) -> Option<Lease> {
    let rows = world.record.rows();
    rows.live().find(|lease| matches!(lease.state, LeaseState::Minting { .. })).cloned()
}

async fn revoke(world: &Arc<World>) {
    let Some(selector) = select(world) else { return };
    let freeze = world.dice.chance(500).then(|| world.dice.chance(500));
    let command = RevokeCommand { selector, freeze, reason: "the simulation".to_owned(), by: operator() };
    world.history.note(format!("operator revokes {}, freeze {freeze:?}", command.selector));
    let revoke = async |broker: leasehold::broker::Broker| broker.revoke(command).await;
    match world.call("revoke", revoke).await {
        Some(Ok(revocation)) => {
            world.record.told_revoked(&revocation);
            if revocation.is_freezing() && is_wide(&revocation.selector) {
                // Behind it little happens.
                pause(world.dice.millis(500, 5000)).await;
                lift(world, revocation.id).await;
            }
        }
        Some(Err(refused)) => world.history.note(format!("revoke: {refused}")),
        None => {}
    }
}

/// More than one agent at a time.
fn is_wide(selector: &Selector) -> bool {
    match selector {
        Selector::Lease(_) | Selector::Task(_) | Selector::Agent(_) => false,
        Selector::Owner(_)
        | Selector::Person(_)
        | Selector::Target(_)
        | Selector::Intent(_)
        | Selector::Ref { .. }
        | Selector::All => true,
    }
}

/// What is being minted, what is live, or whatever there may be.
fn select(world: &World) -> Option<Selector> {
    if let Some(lease) = minting(world) {
        return Some(meaning(world, &lease));
    }
    let rows = world.record.rows();
    let live: Vec<_> = rows.live().cloned().collect();
    let tasks: Vec<_> = rows.tasks.keys().copied().collect();
    drop(rows);
    match world.dice.roll(8) {
        0 | 1 => world.dice.pick(&live).map(|lease| Selector::Lease(lease.terms.id)),
        2 => world.dice.pick(&tasks).copied().map(Selector::Task),
        3 => world.dice.pick(&agents()).cloned().map(Selector::Agent),
        _ => world.dice.pick(&live).map(|lease| meaning(world, lease)),
    }
}

/// One of all that a lease may be taken by.
fn meaning(world: &World, lease: &Lease) -> Selector {
    let terms = &lease.terms;
    match world.dice.roll(16) {
        0..=2 => Selector::Lease(terms.id),
        3..=5 => Selector::Task(terms.task),
        6..=8 => Selector::Agent(terms.agent.clone()),
        9 | 10 => Selector::Owner(owner_of(&terms.agent)),
        11 => whom_it_is_for(lease),
        12 => Selector::Target(terms.pair.target.clone()),
        13 => Selector::Intent(terms.pair.intent.clone()),
        14 => {
            let rows = world.record.rows();
            let run = rows.tasks.get(&terms.task).and_then(|task| task.terms.refs.get(REF)).cloned();
            Selector::Ref { key: REF.to_owned(), value: run.unwrap_or_default() }
        }
        _ => Selector::All,
    }
}

/// The person that a lease's task acts for, or else the target.
fn whom_it_is_for(lease: &Lease) -> Selector {
    match &lease.terms.on_behalf_of {
        Some(person) => Selector::Person(person.clone()),
        None => Selector::Target(lease.terms.pair.target.clone()),
    }
}

fn standing(world: &World) -> Vec<RevocationId> {
    let rows = world.record.rows();
    rows.revocations.values().filter(|r| r.is_freezing()).map(|r| r.id).collect()
}

async fn lift_one(world: &World) {
    if let Some(id) = world.dice.pick(&standing(world)).copied() {
        lift(world, id).await;
    }
}

async fn lift(world: &World, id: RevocationId) {
    let lift = async |broker: leasehold::broker::Broker| broker.lift(id, operator(), "over".to_owned()).await;
    if let Some(Err(refused)) = world.call("lift", lift).await {
        world.history.note(format!("lift {id}: {refused}"));
    }
}

/// Drills a target. In this weather most drills prove nothing; none may find alive what the record calls dead.
async fn drill(world: Arc<World>) {
    let Some(target) = world.dice.pick(&world.sites).map(|site| site.name) else { return };
    let drill = async |broker: leasehold::broker::Broker| {
        let mut told = broker.drill(target, Some(operator())).await?;
        let mut last = None;
        while let Some(drill) = told.recv().await {
            last = Some(drill?);
        }
        Ok::<_, leasehold::broker::Refused>(last)
    };
    match world.call("drill", drill).await {
        Some(Ok(Some(drill))) => {
            world.history.note(format!(
                "the drill of {target} {}: {:?}",
                drill.state().name(),
                drill.failure
            ));
            if drill.failure.is_some_and(|failure| failure.alive) {
                world.history.wrong(format!("a drill of {target} found alive what was called revoked"));
            }
        }
        Some(Ok(None)) | None => {}
        Some(Err(refused)) => world.history.note(format!("drill: {refused}")),
    }
}

/// Takes the wall clock as right where it is a little behind: each such step lets leases live longer by as much. Where
/// it is far behind, an operator would set it right.
async fn confirm_clock(world: &World) {
    let Some((broker, _)) = world.serving() else { return };
    let reading = broker.clock().read();
    let _confirming = world.hindrance.begin(world, true);
    if reading.behind <= FORGIVEN {
        drop(world.call("confirm", async |b| b.confirm_clock("uid:0", "looked").await).await);
    } else {
        world.time.set_right(reading.now);
    }
}

/// What freezes is lifted, and the clocks agree: the calm begins.
pub(crate) async fn settle(world: &World) {
    for _ in 0..20 {
        if let Some((broker, _)) = world.serving() {
            world.time.set_right(broker.now());
            for id in standing(world) {
                lift(world, id).await;
            }
            if standing(world).is_empty() {
                return;
            }
        }
        pause(Duration::from_secs(1)).await;
    }
    world.history.wrong("what freezes cannot be lifted in calm weather");
}

/// What happens to everybody at once.
pub(crate) async fn sky(world: Arc<World>) {
    loop {
        pause(world.dice.millis(2000, 9000)).await;
        if world.weather.is_calm() {
            return;
        }
        if world.dice.chance(world.weather.rates().sky) {
            match world.dice.roll(6) {
                0 | 1 => drop(tokio::spawn(outage(world.clone()))),
                2 => drop(tokio::spawn(full_disk(world.clone()))),
                3 | 4 => drop_by_hand(&world),
                _ => drop(tokio::spawn(step_clock(world.clone()))),
            }
        }
    }
}

async fn outage(world: Arc<World>) {
    let Some(site) = world.dice.pick(&world.sites).cloned() else { return };
    world.history.note(format!("{} is down", site.name));
    site.set_down(true);
    let away = site.hindrance.begin(&world, true);
    pause(world.dice.millis(1000, 35_000)).await;
    site.set_down(false);
    drop(away);
    world.history.note(format!("{} is up", site.name));
}

/// Somebody drops a principal, and says nothing.
fn drop_by_hand(world: &World) {
    let exact: Vec<_> = world.sites.iter().filter(|site| site.is_exact()).collect();
    let Some(site) = world.dice.pick(&exact) else { return };
    let names: Vec<_> = site.target.accounts().into_keys().collect();
    if let Some(name) = world.dice.pick(&names) {
        world.history.note(format!("somebody drops {name} in {}", site.name));
        site.target.remove(name);
    }
}

async fn full_disk(world: Arc<World>) {
    world.history.note("the disk is full");
    world.weather.fill_disk(true);
    let _full = world.hindrance.begin(&world, true);
    pause(world.dice.millis(500, 12_000)).await;
    world.weather.fill_disk(false);
    world.history.note("the disk has room");
}

/// Mostly a little, either way; sometimes by half an hour. Somebody looks at it soon.
async fn step_clock(world: Arc<World>) {
    let size = match world.dice.roll(4) {
        0 => 1_800_000,
        1 => 60_000,
        _ => 8000,
    };
    let millis = i64::try_from(world.dice.roll(size * 2)).unwrap() - i64::try_from(size).unwrap();
    world.history.note(format!("the wall clock steps by {millis} ms"));
    world.time.step(millis);
    world.hindrance.note(&world);
    pause(world.dice.millis(500, 12_000)).await;
    confirm_clock(&world).await;
}
