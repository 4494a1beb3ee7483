//! One broker, killed again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agents::{Doors, Load};
use super::dice::Dice;
use super::verdict::{self, Store};
use super::{runs_for, seed, tell};
use crate::child::Rig;
use crate::shared::{POSTGRES, SQLITE, write_url};
use crate::site::Site;

/// So many of each agent are at work.
const EACH: u64 = 3;
/// The pause between two calls of an agent.
const PAUSE: Duration = Duration::from_millis(40);
/// How many answers a broker gives at most before it is killed.
const ANSWERS: u64 = 40;
/// The longest time between an answer and the kill, in microseconds: as long as a call takes.
const BETWEEN: u64 = 30_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_at_random_instants_leave_nothing_behind() {
    let site = Site::stormy();
    let rig = rig(site).await;
    survives(rig, site, 30, seed("thirty kills")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_at_random_instants_leave_nothing_behind_on_a_postgresql_store() {
    let site = Site::stormy();
    let mut rig = rig(site).await;
    let (_, url) = site.store().await;
    write_url(&rig.world, &url);
    rig.setup = rig.setup.replace(SQLITE, POSTGRES);
    survives(rig, site, 10, seed("ten kills on a PostgreSQL store")).await;
}

/// A broker that knows all agents of the load.
pub(super) async fn rig(site: &Site) -> Rig {
    let mut rig = Rig::new(site, site.port()).await;
    let triage = "[agents.\"spiffe://suite.leasehold.test/agent/triage\"]";
    let other = "owner = \"person:ana\"\ngroups = [\"soc\"]\nautonomy = \"act\"\n";
    let both = format!("{}\n{other}{triage}", triage.replace("triage", "other"));
    rig.setup = rig.setup.replace(triage, &both);
    rig
}

/// It is killed while it starts, one time in four, and otherwise after some answers and a moment.
async fn survives(mut rig: Rig, site: &Site, kills: u64, seed: u64) {
    let (dice, doors, begun) = (Dice::of(seed), Arc::new(Doors::default()), Instant::now());
    rig.start(&[]).await;
    let start = begun.elapsed();
    rig.kill().await;
    let load = Load::begin(&rig.world, &doors, EACH, PAUSE, seed);
    for _ in 0..kills {
        rig.spawn(&[]);
        if dice.chance(250) {
            runs_for(rig.process(), start / 1000 * u32::try_from(dice.roll(1000)).unwrap()).await;
        } else {
            rig.serves().await;
            doors.open(0, rig.process().agents());
            load.answers(dice.roll(ANSWERS)).await;
            runs_for(rig.process(), Duration::from_micros(dice.roll(BETWEEN))).await;
            doors.close(0);
        }
        rig.kill().await;
    }
    tell(&format!("{}: {kills} kills in {:?}; a start takes {start:?}", rig.mark, begun.elapsed()));
    rig.start(&[]).await;
    doors.open(0, rig.process().agents());
    let told = load.end().await;
    verdict::holds(site, &rig.mark, &told, &[rig.admin().await], Store::Stood).await;
    tell(&format!("{}: all of it in {:?}", rig.mark, begun.elapsed()));
}
