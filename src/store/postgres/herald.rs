//! Says that this broker lives and has written, hears when others have, and fences who has fallen silent: on a
//! connection of its own, so that neither waits for the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::address::Address;
use super::fault::Fault;
use super::link::{Ear, Link, Param};
use super::presence::{PULSE, Presence};

/// So many pulses lie between two looks for brokers that have fallen silent.
const PULSES_A_LOOK: u64 = 2;
/// How long a notification may take; the poll behind it carries what is lost.
const NOTIFY: Duration = Duration::from_secs(2);
/// A pulse that a crash of the server takes back is not missed, and so none waits for the disk.
const RELAXED: &str = "SET synchronous_commit = off";

/// What the herald works with.
pub(super) struct Herald {
    pub(super) address: Arc<Address>,
    pub(super) presence: Presence,
    /// Woken when this broker has written.
    pub(super) written: Arc<Notify>,
    /// Wakes whoever follows the others.
    pub(super) wake: Arc<Notify>,
    /// Set where one was fenced, until whoever follows has heard of it.
    pub(super) fallen: Arc<AtomicBool>,
}

impl Herald {
    /// Goes on until it is aborted; a connection that was lost is made again.
    pub(super) async fn run(self) {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(fault) = self.serve(&mut pulse).await {
                tracing::warn!(%fault, "the store does not hear that this broker lives");
            }
            pulse.tick().await;
        }
    }

    async fn serve(&self, pulse: &mut Interval) -> Result<(), Fault> {
        let ear = Ear { wake: self.wake.clone(), own: self.presence.name.clone() };
        let link = Link::open(&self.address, Some(ear)).await?;
        link.run(RELAXED).await?;
        link.run("LISTEN leasehold").await?;
        for count in 0_u64.. {
            self.beat(&link, count).await?;
            self.announce(&link, pulse).await?;
        }
        Ok(())
    }

    async fn beat(&self, link: &Link, count: u64) -> Result<(), Fault> {
        match self.presence.beat(link).await {
            Err(fault) if fault.ends_connection() => return Err(fault),
            // A transaction of this broker that waits for a lock holds its row meanwhile.
            Err(fault) => tracing::debug!(%fault, "a pulse was late"),
            Ok(()) => {}
        }
        if !count.is_multiple_of(PULSES_A_LOOK) {
            return Ok(());
        }
        match self.presence.take_over(link).await {
            Ok(fallen) => fallen.iter().for_each(|name| {
                tracing::warn!(broker = name, "fell silent: it is fenced, and its work is taken over");
                self.fallen.store(true, Ordering::Relaxed);
                self.wake.notify_one();
            }),
            Err(error) => tracing::warn!(%error, "brokers that fell silent could not be looked for"),
        }
        Ok(())
    }

    /// Until the next pulse: tells the others, once for all that was written since it last did. The payload is only
    /// this broker's name; what has changed is in its journal.
    async fn announce(&self, link: &Link, pulse: &mut Interval) -> Result<(), Fault> {
        loop {
            tokio::select! {
                _ = pulse.tick() => return Ok(()),
                () = self.written.notified() => {
                    let name: [Param<'_>; 1] = [&self.presence.name];
                    let said = link.rows("SELECT pg_notify('leasehold', $1)", &name);
                    let late = |_| Fault::Silent("no answer to a notification".to_owned());
                    timeout(NOTIFY, said).await.map_err(late)??;
                }
            }
        }
    }
}
