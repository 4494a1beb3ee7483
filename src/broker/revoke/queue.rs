//! What waits for one target: three lanes by the rank of the cause, each lease once, and never more than a bound.

use std::collections::{BTreeMap, HashMap, HashSet};

use leasehold_law::cause::Rank;
use leasehold_law::id::LeaseId;
use leasehold_law::lease::Lease;

/// A lease that waits, and how urgent it is.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// As it stood when it was put here.
    pub(super) lease: Lease,
    /// Its lane: that of its cause, on record or not.
    pub(super) rank: Rank,
    /// Whether a call with it has had no answer.
    pub(super) tried: bool,
}

/// The leases that wait for a target, and those that are with it. A lease that is not taken in, or is pushed out by a
/// more urgent one, is not lost: its row is due.
#[derive(Debug)]
pub(super) struct Queue {
    security: Lane,
    task_end: Lane,
    routine: Lane,
    places: HashMap<LeaseId, (Rank, u64)>,
    in_call: HashSet<LeaseId>,
    next: u64,
    most: usize,
}

type Lane = BTreeMap<u64, Waiting>;

impl Queue {
    /// A queue in which at most so many wait.
    pub(super) fn new(most: usize) -> Self {
        Self {
            security: Lane::new(),
            task_end: Lane::new(),
            routine: Lane::new(),
            places: HashMap::new(),
            in_call: HashSet::new(),
            next: 0,
            most,
        }
    }

    /// Takes a lease in, once: where its cause rose, it changes lanes. A full queue makes room for it only at the cost
    /// of a lesser lane.
    pub(super) fn put(&mut self, waiting: Waiting) {
        let id = waiting.lease.terms.id;
        match self.places.get(&id).copied() {
            _ if self.in_call.contains(&id) => {}
            Some((rank, place)) if rank >= waiting.rank => {
                if let Some(known) = self.lane_mut(rank).get_mut(&place) {
                    known.lease = waiting.lease;
                }
            }
            Some((rank, place)) => {
                self.lane_mut(rank).remove(&place);
                self.insert(waiting);
            }
            None if self.places.len() < self.most || self.push_out_below(waiting.rank) => {
                self.insert(waiting);
            }
            None => {}
        }
    }

    fn insert(&mut self, waiting: Waiting) {
        let (rank, place) = (waiting.rank, self.next);
        self.next += 1;
        self.places.insert(waiting.lease.terms.id, (rank, place));
        self.lane_mut(rank).insert(place, waiting);
    }

    /// Drops the last to be served of the lowest lane, if that is lower than this one.
    fn push_out_below(&mut self, rank: Rank) -> bool {
        let lowest = Rank::ALL.into_iter().rev().find(|lane| !self.lane(*lane).is_empty());
        let Some(lowest) = lowest.filter(|lowest| *lowest < rank) else { return false };
        let Some((_, dropped)) = self.lane_mut(lowest).pop_last() else { return false };
        self.places.remove(&dropped.lease.terms.id).is_some()
    }

    /// The lanes in which anything waits, the most urgent first.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Rank> {
        Rank::ALL.into_iter().filter(|rank| !self.lane(*rank).is_empty())
    }

    /// Whether a lease waits in this lane that no call has carried yet.
    pub(super) fn has_untried(&self, rank: Rank) -> bool {
        self.lane(rank).values().any(|one| !one.tried)
    }

    /// The next leases to call the target with, all of the first lane in which any wait: they are in a call until they
    /// are put back or forgotten.
    pub(super) fn take(&mut self, most: usize) -> Vec<Waiting> {
        let Some(rank) = self.lanes().next() else { return Vec::new() };
        let lane = self.lane_mut(rank);
        let taken: Vec<_> = std::iter::from_fn(|| lane.pop_first()).map(|(_, one)| one).take(most).collect();
        self.begin_call(&taken);
        taken
    }

    /// One lease of a lane, to ask with whether the target is back: one that has not been tried yet, if there is any.
    pub(super) fn take_one(&mut self, rank: Rank) -> Vec<Waiting> {
        let lane = self.lane_mut(rank);
        let untried = lane.iter().find(|(_, one)| !one.tried).map(|(place, _)| *place);
        let place = untried.or_else(|| lane.keys().next().copied());
        let taken: Vec<_> = place.and_then(|place| lane.remove(&place)).into_iter().collect();
        self.begin_call(&taken);
        taken
    }

    fn begin_call(&mut self, taken: &[Waiting]) {
        for one in taken {
            self.places.remove(&one.lease.terms.id);
            self.in_call.insert(one.lease.terms.id);
        }
    }

    /// A call had no answer: its leases wait again, behind those that have not been tried.
    pub(super) fn put_back(&mut self, taken: Vec<Waiting>) {
        for one in taken {
            self.in_call.remove(&one.lease.terms.id);
            self.put(Waiting { tried: true, ..one });
        }
    }

    /// A call was answered: whatever is left to do is due in its row.
    pub(super) fn forget(&mut self, taken: &[Waiting]) {
        taken.iter().for_each(|one| {
            self.in_call.remove(&one.lease.terms.id);
        });
    }

    /// How many wait in this lane or a more urgent one.
    pub(super) fn ahead_of(&self, rank: Rank) -> usize {
        Rank::ALL.into_iter().filter(|lane| *lane >= rank).map(|lane| self.lane(lane).len()).sum()
    }

    /// Whether this lease waits at least as urgently and as it is here, or is in a call.
    pub(super) fn has(&self, lease: &Lease) -> bool {
        let id = &lease.terms.id;
        let waits = |(rank, place): &(Rank, u64)| {
            let known = self.lane(*rank).get(place);
            *rank >= lease.state.lane() && known.is_some_and(|known| known.lease.version >= lease.version)
        };
        self.in_call.contains(id) || self.places.get(id).is_some_and(waits)
    }

    /// How many wait or are in a call.
    pub(super) fn in_hand(&self) -> usize {
        self.places.len() + self.in_call.len()
    }

    fn lane(&self, rank: Rank) -> &Lane {
        match rank {
            Rank::Security => &self.security,
            Rank::TaskEnd => &self.task_end,
            Rank::Routine => &self.routine,
        }
    }

    fn lane_mut(&mut self, rank: Rank) -> &mut Lane {
        match rank {
            Rank::Security => &mut self.security,
            Rank::TaskEnd => &mut self.task_end,
            Rank::Routine => &mut self.routine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::samples::minting;

    fn waiting(n: u64, rank: Rank) -> Waiting {
        Waiting { lease: minting(n, 1), rank, tried: false }
    }

    fn filled(most: usize, with: &[(u64, Rank)]) -> Queue {
        let mut queue = Queue::new(most);
        with.iter().for_each(|(n, rank)| queue.put(waiting(*n, *rank)));
        queue
    }

    fn numbers(taken: &[Waiting]) -> Vec<String> {
        taken.iter().map(|one| one.lease.terms.request_id.to_string()).collect()
    }

    fn check(queue: &mut Queue, most: usize, expect: &[u64]) -> Vec<Waiting> {
        let taken = queue.take(most);
        let expect: Vec<_> = expect.iter().map(|n| format!("lease-{n}")).collect();
        assert_eq!(numbers(&taken), expect);
        taken
    }

    #[test]
    fn security_comes_before_the_end_of_a_task_and_that_before_expiry() {
        let all = [(1, Rank::Routine), (2, Rank::TaskEnd), (3, Rank::Security), (4, Rank::Security)];
        let mut queue = filled(9, &all);
        check(&mut queue, 9, &[3, 4]);
        check(&mut queue, 1, &[2]);
        check(&mut queue, 9, &[1]);
        check(&mut queue, 9, &[]);
        assert_eq!(queue.in_hand(), 4, "what is with the target is in hand");
    }

    #[test]
    fn what_is_in_hand_is_known_by_its_rank_and_its_version() {
        let lease = minting(1, 1);
        let newer = Lease { version: lease.version + 1, ..lease.clone() };
        let mut queue = filled(9, &[(1, Rank::Routine)]);
        assert!(!queue.has(&lease), "it waits behind what it is worth");
        queue.put(waiting(1, lease.state.lane()));
        assert_eq!((queue.has(&lease), queue.has(&newer), queue.has(&minting(2, 1))), (true, false, false));
        let taken = queue.take(9);
        assert!(queue.has(&newer), "a call cannot be changed any more");
        queue.forget(&taken);
        assert!(!queue.has(&lease));
    }

    #[test]
    fn a_lease_waits_once_and_rises_with_its_cause() {
        let mut queue = filled(9, &[(1, Rank::Routine), (2, Rank::Routine), (2, Rank::Security)]);
        queue.put(waiting(2, Rank::Routine));
        assert_eq!(queue.in_hand(), 2);
        let taken = check(&mut queue, 9, &[2]);
        queue.put(waiting(2, Rank::Security));
        check(&mut queue, 9, &[1]);
        assert_eq!(queue.lanes().next(), None, "one that is in a call does not wait as well");
        queue.forget(&taken);
        queue.put(waiting(2, Rank::Security));
        check(&mut queue, 9, &[2]);
    }

    #[test]
    fn what_had_no_answer_waits_behind_what_was_not_tried() {
        let mut queue = filled(9, &[(1, Rank::Security), (2, Rank::Security)]);
        let taken = check(&mut queue, 1, &[1]);
        queue.put_back(taken);
        assert!(queue.has_untried(Rank::Security));
        check(&mut queue, 1, &[2]);
        assert!(!queue.has_untried(Rank::Security));
        queue.put(waiting(3, Rank::Security));
        assert!(queue.has_untried(Rank::Security), "also behind one that was tried");
        assert_eq!(numbers(&queue.take_one(Rank::Security)), ["lease-3"]);
        assert_eq!(numbers(&queue.take_one(Rank::Security)), ["lease-1"]);
        assert_eq!(numbers(&queue.take_one(Rank::Security)), [""; 0]);
    }

    #[test]
    fn a_full_queue_drops_expiry_for_security_and_never_the_other_way() {
        let mut queue = filled(2, &[(1, Rank::Routine), (2, Rank::Routine), (3, Rank::Security)]);
        queue.put(waiting(4, Rank::Routine));
        assert_eq!(queue.in_hand(), 2);
        queue.put(waiting(5, Rank::TaskEnd));
        queue.put(waiting(6, Rank::TaskEnd));
        queue.put(waiting(7, Rank::Security));
        queue.put(waiting(8, Rank::Security));
        assert_eq!((queue.ahead_of(Rank::Security), queue.ahead_of(Rank::Routine)), (2, 2));
        check(&mut queue, 9, &[3, 7]);
        check(&mut queue, 9, &[]);
    }
}
