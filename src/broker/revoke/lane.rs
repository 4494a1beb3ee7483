//! What goes to one target and when: its queue, its breaker and its calls, under one lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_law::cause::Rank;
use leasehold_law::lease::Lease;
use leasehold_law::time::Timestamp;

use super::breaker::{Breaker, Leave};
use super::queue::{Queue, Waiting};

/// How many leases go to a target in one call.
const BATCH: usize = 64;
/// How many calls a target gets at a time, beside the one that is kept for security.
const CALLS: usize = leasehold_backend::REVOKE_CALLS - 1;
/// How many leases wait for one target; what does not fit is found again by the sweep, since its row is due.
const QUEUE: usize = 10_000;
/// How many leases the sweep lets wait: more than a target kills in a beat, and far fewer than there may be.
const FEED: usize = 4096;

/// The way to one target.
pub(super) struct Lane(Mutex<State>);

struct State {
    queue: Queue,
    breaker: Breaker,
    calls: usize,
    security_call: bool,
    /// How many probes took their turn among the lanes.
    probes: usize,
}

/// Which of a target's calls it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// One of those that all lanes share.
    Shared,
    /// The one that is kept for security, so that no storm of expiries delays an incident.
    Security,
    /// The one that asks whether the target is back.
    Probe,
}

/// A call that may be made now, with its leases. Dropped, they wait again; [`Call::finish`] says otherwise.
pub(super) struct Call {
    lane: Arc<Lane>,
    slot: Slot,
    leases: Vec<Waiting>,
}

impl Lane {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            queue: Queue::new(QUEUE),
            breaker: Breaker::Closed,
            calls: 0,
            security_call: false,
            probes: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a lease wait.
    pub(super) fn put(&self, lease: Lease, rank: Rank) {
        self.state().queue.put(Waiting { lease, rank, tried: false });
    }

    /// The next call, if one may be made.
    pub(super) fn begin(self: &Arc<Self>, now: Timestamp) -> Option<Call> {
        let mut state = self.state();
        let slot = state.slot(now)?;
        let leases = match slot {
            Slot::Shared => {
                state.calls += 1;
                state.queue.take(BATCH)
            }
            Slot::Security => {
                state.security_call = true;
                state.queue.take(BATCH)
            }
            Slot::Probe => {
                state.breaker.probe();
                state.take_probe()
            }
        };
        Some(Call { lane: self.clone(), slot, leases })
    }

    /// How many more leases of this lane the sweep should bring: while the target does not answer, one to ask with.
    /// What it brings it claims, and another broker of the store may reach the target where this one does not.
    pub(super) fn room(&self, rank: Rank) -> usize {
        let state = self.state();
        if state.breaker.is_closed() {
            return FEED.saturating_sub(state.queue.ahead_of(rank));
        }
        usize::from(!state.queue.has_untried(rank))
    }

    /// Whether this lease waits, as it is here, or is with the target.
    pub(super) fn has(&self, lease: &Lease) -> bool {
        self.state().queue.has(lease)
    }

    /// How many leases wait for the target or are with it.
    pub(super) fn in_hand(&self) -> usize {
        self.state().queue.in_hand()
    }

    /// How the target answers.
    pub(super) fn breaker(&self) -> Breaker {
        self.state().breaker
    }
}

impl State {
    /// The call that may be made now, if anything waits for it.
    fn slot(&self, now: Timestamp) -> Option<Slot> {
        let security = self.queue.lanes().next()? == Rank::Security;
        match self.breaker.leave(now, self.is_urgent()) {
            Leave::Probe => Some(Slot::Probe),
            Leave::Call if self.calls < CALLS => Some(Slot::Shared),
            Leave::Call if security && !self.security_call => Some(Slot::Security),
            Leave::Call | Leave::Wait => None,
        }
    }

    /// Whether a security lease waits that no call has carried yet.
    fn is_urgent(&self) -> bool {
        self.queue.has_untried(Rank::Security)
    }

    /// The lease that asks whether the target is back: one that is urgent, else one of each lane in turn, since it may
    /// be a lease, and not the target, that has no answer.
    fn take_probe(&mut self) -> Vec<Waiting> {
        let lanes: Vec<_> = self.queue.lanes().collect();
        let turn = if self.is_urgent() { 0 } else { self.probes % lanes.len().max(1) };
        self.probes = self.probes.wrapping_add(1);
        lanes.get(turn).map(|rank| self.queue.take_one(*rank)).unwrap_or_default()
    }
}

impl Call {
    /// The leases that it is about.
    pub(super) fn leases(&self) -> &[Waiting] {
        &self.leases
    }

    /// What the call says of the target: where it did not answer, the moment from which on it is asked again.
    pub(super) fn judge(&self, answered: bool, now: Timestamp, spread: u64) -> Option<Timestamp> {
        let mut state = self.lane.state();
        if answered {
            state.breaker.answered();
            return None;
        }
        Some(state.breaker.unanswered(self.slot == Slot::Probe, now, spread))
    }

    /// The call was answered, and what it came to is on record or due.
    pub(super) fn finish(mut self) {
        let leases = std::mem::take(&mut self.leases);
        self.lane.state().queue.forget(&leases);
    }
}

/// However a call ends, its place is free again, and a probe that said nothing counts as one that failed.
impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        state.queue.put_back(std::mem::take(&mut self.leases));
        match self.slot {
            Slot::Shared => state.calls = state.calls.saturating_sub(1),
            Slot::Security => state.security_call = false,
            Slot::Probe => state.breaker.give_up_probe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::samples::minting;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn lane(with: impl IntoIterator<Item = (u64, Rank)>) -> Arc<Lane> {
        let lane = Lane::new();
        with.into_iter().for_each(|(n, rank)| lane.put(minting(n, 1), rank));
        lane
    }

    fn all(lane: &Arc<Lane>, now: Timestamp) -> Vec<Call> {
        std::iter::from_fn(|| lane.begin(now)).collect()
    }

    #[test]
    fn a_storm_of_expiries_leaves_a_call_for_security() {
        let lane = lane((1..=1000).map(|n| (n, Rank::Routine)));
        let storm = all(&lane, NOW);
        assert_eq!(storm.len(), CALLS);
        lane.put(minting(5000, 1), Rank::Security);
        let incident = lane.begin(NOW).expect("there is a call for it");
        assert_eq!((incident.slot, incident.leases().len()), (Slot::Security, 1));
        lane.put(minting(5001, 1), Rank::Security);
        assert!(lane.begin(NOW).is_none(), "and only one");
        incident.finish();
        assert_eq!(lane.begin(NOW).expect("the next").leases().len(), 1);
    }

    #[test]
    fn a_target_that_is_back_gets_all_its_calls_at_once() {
        let lane = lane((1..=1000).map(|n| (n, Rank::Routine)));
        let calls = all(&lane, NOW);
        let until = calls[0].judge(false, NOW, 0).expect("no answer");
        drop(calls);
        assert_eq!(lane.in_hand(), 1000, "all wait again");
        assert!(lane.begin(until.shifted(-1)).is_none());
        let probe = lane.begin(until).expect("the probe");
        assert_eq!((probe.slot, probe.leases().len()), (Slot::Probe, 1));
        assert!(lane.begin(until).is_none(), "one probe at a time");
        assert_eq!(probe.judge(true, until, 0), None);
        assert_eq!(all(&lane, until).len(), CALLS, "before the probe itself is on record");
    }

    #[test]
    fn a_call_that_is_lost_frees_its_place_and_keeps_its_leases() {
        let lane = lane((1..=3).map(|n| (n, Rank::Routine)));
        drop(lane.begin(NOW));
        assert_eq!((lane.in_hand(), lane.begin(NOW).map(|call| call.leases().len())), (3, Some(3)));
        let until = lane.begin(NOW).expect("a call").judge(false, NOW, 0).expect("no answer");
        drop(lane.begin(until));
        assert!(
            lane.begin(until + leasehold_law::time::Span::from_secs(5)).is_some(),
            "a lost probe is no end"
        );
    }

    #[test]
    fn the_sweep_brings_no_more_than_fits() {
        let lane = lane((1..=600).map(|n| (n, Rank::Routine)));
        lane.put(minting(5000, 1), Rank::Security);
        assert_eq!(lane.room(Rank::Routine), FEED - 601);
        assert_eq!(lane.room(Rank::Security), FEED - 1);
        let call = lane.begin(NOW).expect("a call");
        call.judge(false, NOW, 0);
        drop(call);
        let room = || Rank::ALL.map(|rank| (rank, lane.room(rank)));
        let one_to_ask_with = [(Rank::Security, 1), (Rank::TaskEnd, 1), (Rank::Routine, 0)];
        assert_eq!(room(), one_to_ask_with, "the one that was tried may be what has no answer");
        lane.put(minting(5001, 1), Rank::Security);
        assert_eq!(lane.room(Rank::Security), 0);
    }

    /// One lease whose calls never have an answer, in a target that is well, is not the only one that asks.
    #[test]
    fn lanes_take_turns_to_ask_whether_the_target_is_back() {
        let lane = lane([(1, Rank::Security), (2, Rank::Routine), (3, Rank::TaskEnd), (4, Rank::Security)]);
        let mut now = NOW;
        let first = lane.begin(now).expect("a call");
        now = first.judge(false, now, 0).expect("no answer");
        drop(first);
        let mut asked = Vec::new();
        for _ in 0..6 {
            let probe = lane.begin(now).expect("a probe");
            asked.extend(probe.leases().iter().map(|one| one.lease.terms.request_id.to_string()));
            now = probe.judge(false, now, 0).expect("no answer");
        }
        let mut lanes = asked.clone();
        lanes.sort_unstable();
        assert_eq!(lanes, ["lease-1", "lease-2", "lease-2", "lease-3", "lease-3", "lease-4"], "{asked:?}");
        lane.put(minting(5, 1), Rank::Security);
        let urgent = lane.begin(now).expect("a probe");
        assert_eq!(
            urgent.leases()[0].lease.terms.request_id.to_string(),
            "lease-5",
            "no turn comes before it"
        );
    }
}
