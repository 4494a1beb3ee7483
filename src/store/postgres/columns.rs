//! Rows turned into columns: a statement takes each column of all its rows as one array.

use super::super::set::{LeaseRow, TaskRow, lane_number, signed};

/// What a new version of a lease writes.
pub(super) struct LeaseColumns<'a> {
    pub(super) handles: Vec<Option<&'a str>>,
    pub(super) states: Vec<&'static str>,
    pub(super) due: Vec<Option<i64>>,
    pub(super) versions: Vec<i64>,
    pub(super) stuck: Vec<bool>,
    pub(super) revoked: Vec<Option<i64>>,
    pub(super) bodies: Vec<&'a str>,
    pub(super) lanes: Vec<i64>,
}

impl<'a> LeaseColumns<'a> {
    pub(super) fn of(rows: &[&'a LeaseRow]) -> Self {
        Self {
            handles: rows.iter().map(|row| row.lease.state.handle()).collect(),
            states: rows.iter().map(|row| row.lease.state.name()).collect(),
            due: rows.iter().map(|row| row.due).collect(),
            versions: rows.iter().map(|row| signed(row.lease.version)).collect(),
            stuck: rows.iter().map(|row| row.stuck).collect(),
            revoked: rows.iter().map(|row| row.revoked_at).collect(),
            bodies: rows.iter().map(|row| row.body.as_str()).collect(),
            lanes: rows.iter().map(|row| lane_number(row.lease.state.lane())).collect(),
        }
    }
}

/// What a new version of a task writes.
pub(super) struct TaskColumns<'a> {
    pub(super) ids: Vec<String>,
    pub(super) states: Vec<&'static str>,
    pub(super) due: Vec<Option<i64>>,
    pub(super) versions: Vec<i64>,
    pub(super) bodies: Vec<&'a str>,
}

impl<'a> TaskColumns<'a> {
    pub(super) fn of(rows: &[&'a TaskRow]) -> Self {
        Self {
            ids: rows.iter().map(|row| row.task.terms.id.to_string()).collect(),
            states: rows.iter().map(|row| row.task.state.name()).collect(),
            due: rows.iter().map(|row| row.due).collect(),
            versions: rows.iter().map(|row| signed(row.task.version)).collect(),
            bodies: rows.iter().map(|row| row.body.as_str()).collect(),
        }
    }
}
