//! Which requests a task that was opened lately has had, so that a new one is known to be new without a look into the
//! file.

use std::collections::{HashMap, HashSet};

use leasehold_law::id::TaskId;
use leasehold_law::lease::Lease;
use leasehold_law::request::RequestId;
use leasehold_law::task::Task;

/// So many tasks and requests fill a generation, of about a hundred bytes each. Two are kept.
const GENERATION: usize = 8192;

/// Of a task whose opening is not forgotten yet, all requests are known.
#[derive(Default)]
pub(super) struct Requests {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    of: HashMap<TaskId, Known>,
    size: usize,
}

#[derive(Default)]
struct Known {
    opened: bool,
    ids: HashSet<RequestId>,
}

impl Requests {
    /// Whether no lease was ever requested by this id. False also where that is not known.
    pub(super) fn is_new(&self, task: TaskId, request: &RequestId) -> bool {
        let known = || [&self.young, &self.old].into_iter().filter_map(|generation| generation.of.get(&task));
        known().any(|known| known.opened) && !known().any(|known| known.ids.contains(request))
    }

    pub(super) fn learn_task(&mut self, task: &Task) {
        if task.version == 1 {
            self.note(task.terms.id, |known| known.opened = true);
        }
    }

    pub(super) fn learn_lease(&mut self, lease: &Lease) {
        if lease.version == 1 {
            let id = lease.terms.request_id.clone();
            self.note(lease.terms.task, |known| {
                known.ids.insert(id);
            });
        }
    }

    fn note(&mut self, task: TaskId, note: impl FnOnce(&mut Known)) {
        if self.young.size >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.size += 1;
        note(self.young.of.entry(task).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u64) -> TaskId {
        TaskId::derive(leasehold_law::time::Timestamp(1), n)
    }

    fn request(n: usize) -> RequestId {
        format!("request-{n}").parse().unwrap()
    }

    fn had(requests: &mut Requests, of: TaskId, n: usize) {
        requests.note(of, |known| {
            known.ids.insert(request(n));
        });
    }

    #[test]
    fn a_request_is_new_only_in_a_task_whose_opening_is_remembered() {
        let mut requests = Requests::default();
        assert!(!requests.is_new(task(1), &request(1)), "nothing is known of it");
        requests.note(task(1), |known| known.opened = true);
        assert!(requests.is_new(task(1), &request(1)));
        had(&mut requests, task(1), 1);
        assert!(!requests.is_new(task(1), &request(1)));
        assert!(requests.is_new(task(1), &request(2)));
    }

    #[test]
    fn no_request_of_a_remembered_task_is_forgotten_and_memory_is_bounded() {
        let mut requests = Requests::default();
        requests.note(task(1), |known| known.opened = true);
        for n in 0..3 * GENERATION {
            had(&mut requests, task(1), n);
            assert!(!requests.is_new(task(1), &request(0)), "after {n} more");
        }
        assert!(!requests.is_new(task(1), &request(usize::MAX)), "its opening is forgotten by now");
        assert!(requests.young.size + requests.old.size <= 2 * GENERATION);
    }
}
