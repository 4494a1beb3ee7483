//! One order to kill on its way, and what each step says of it.

use std::collections::BTreeMap;
use std::fmt::Display;

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::lease::{Reached, Sessions};
use leasehold_law::time::Timestamp;
use serde::Deserialize;

use crate::error::Failure;

/// One order on its way.
pub(crate) struct Case<'a> {
    pub(crate) order: &'a RevokeOrder,
    /// What the broker knew it by.
    pub(crate) handle: Option<u32>,
    pub(crate) role: Option<Role>,
    /// Whether NOLOGIN was committed.
    pub(crate) disabled: bool,
    /// Whether something depends on the role, so that it cannot simply be dropped.
    pub(crate) owns: bool,
    /// Whether its role was dropped.
    pub(crate) dropped: bool,
    /// Whether every step was taken.
    pub(crate) done: bool,
    pub(crate) report: RevokeReport,
}

/// A role as it was found.
pub(crate) struct Role {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(order: &'a RevokeOrder) -> Self {
        let handle = order.handle.as_deref().and_then(|handle| handle.parse().ok());
        let report = RevokeReport {
            reached: Reached::None,
            sessions: Sessions::Unknown,
            absent: false,
            handle: None,
            target_now: None,
            error: None,
            remains: Vec::new(),
            unasked: false,
        };
        Self { order, handle, role: None, disabled: false, owns: false, dropped: false, done: false, report }
    }

    pub(crate) fn name(&self) -> &str {
        self.order.principal.as_str()
    }

    /// The name that the role has in the target now.
    pub(crate) fn role_name(&self) -> &str {
        self.role.as_ref().map_or(self.name(), |role| &role.name)
    }

    pub(crate) fn oids(&self) -> impl Iterator<Item = u32> {
        let found = self.role.as_ref().map(|role| role.oid);
        self.handle.filter(|oid| Some(*oid) != found).into_iter().chain(found)
    }

    /// The first thing that stood in the way is what is told.
    pub(crate) fn fail(&mut self, error: &dyn Display) {
        self.report.error.get_or_insert_with(|| error.to_string());
    }

    /// Keeps what stood in the way; whether nothing did.
    pub(crate) fn note(&mut self, outcome: Result<(), Failure>, doing: &str) -> bool {
        let failed = outcome.map_err(|failure| self.fail(&format!("{doing}: {}", failure.text())));
        failed.is_ok()
    }
}

impl Case<'_> {
    /// After the cut: `drained` where no login is half-way any more, `ended` where no session is to be seen.
    pub(crate) fn cut(&mut self, drained: bool, ended: bool) {
        let refused = self.disabled || self.report.absent;
        self.report.sessions = match (refused && ended, drained) {
            (true, true) => Sessions::None,
            (true, false) => Sessions::Reaping,
            (false, _) => Sessions::Unknown,
        };
        if !ended {
            self.report.sessions = Sessions::Reaping;
            self.fail(&"sessions do not end");
        } else if self.disabled {
            self.report.reached = Reached::Cut;
        } else if self.report.absent {
            self.report.reached = Reached::Removed;
        }
    }

    pub(crate) fn read_back(&mut self, view: &View) {
        self.report.target_now = Some(view.now);
        if self.oids().any(|oid| view.open.contains(&oid)) && self.report.sessions == Sessions::None {
            self.report.sessions = Sessions::Reaping;
        }
        match view.roles.get(self.role_name()).or_else(|| view.roles.get(self.name())) {
            None => self.gone(),
            Some(true) => {
                self.report.reached = Reached::None;
                self.fail(&"the role may log in again");
            }
            Some(false) => {}
        }
    }

    /// The role is gone; what failed on the way no longer matters, unless a proof lacks.
    fn gone(&mut self) {
        self.report.reached = Reached::Removed;
        self.report.remains.clear();
        if self.report.sessions != Sessions::Unknown {
            self.report.error = None;
        }
    }
}

/// A read-back.
#[derive(Deserialize)]
pub(crate) struct View {
    pub(crate) now: Timestamp,
    /// The roles that are there, and whether they may log in.
    pub(crate) roles: BTreeMap<String, bool>,
    /// The OIDs that have sessions.
    pub(crate) open: Vec<u32>,
}
