//! Rows that leave their tables: set aside because they cannot be read, or archived because they are over.

use std::collections::BTreeMap;

use super::super::{Aside, AsideKind, Ended};
use super::fault::Fault;
use super::link::Link;

/// The judge has compared these rows, and the transaction holds them.
const TAKE_LEASES: &str = "DELETE FROM leases WHERE id = ANY($1)";
const TAKE_TASKS: &str = "DELETE FROM tasks WHERE id = ANY($1)";
const TAKE_REVOCATIONS: &str = "DELETE FROM revocations WHERE id = ANY($1)";

const PUT: &str = "INSERT INTO set_aside (kind, id, task, target, principal, handle, bytes, error, at, due, tries, \
        last_error, gone_at) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], \
        $8::text[], $9::int8[], $10::int8[], $11::int8[], $12::text[], $13::int8[]) \
    ON CONFLICT (kind, id, target) DO UPDATE SET handle = excluded.handle, bytes = excluded.bytes, \
        error = excluded.error, at = excluded.at, due = excluded.due, tries = excluded.tries, \
        last_error = excluded.last_error, gone_at = excluded.gone_at";

/// What came back to life meanwhile stays.
const ARCHIVE_LEASES: &str = "DELETE FROM leases WHERE id = ANY($1) AND due IS NULL";
const ARCHIVE_TASKS: &str = "DELETE FROM tasks WHERE id = ANY($1) AND due IS NULL";
const ARCHIVE_REFS: &str = "DELETE FROM task_refs WHERE task = ANY($1) \
    AND NOT EXISTS (SELECT FROM tasks WHERE tasks.id = task_refs.task)";

/// What leaves with a batch.
#[derive(Default)]
pub(super) struct Leaving<'a> {
    taken: BTreeMap<AsideKind, Vec<&'a str>>,
    /// As the last set leaves it.
    asides: BTreeMap<(AsideKind, &'a str, &'a str), &'a Aside>,
    leases: Vec<String>,
    tasks: Vec<String>,
}

impl<'a> Leaving<'a> {
    /// Adds what is moved out of its table. An orphan has no row to move.
    pub(super) fn set_aside(&mut self, aside: &'a Aside) {
        if aside.row.kind != AsideKind::Orphan {
            self.taken.entry(aside.row.kind).or_default().push(&aside.row.id);
        }
        self.note(aside);
    }

    /// Adds how far something has come.
    pub(super) fn note(&mut self, aside: &'a Aside) {
        let row = &aside.row;
        self.asides.insert((row.kind, &row.id, &row.target), aside);
    }

    /// Adds a row that is over.
    pub(super) fn archive(&mut self, ended: &Ended) {
        match ended {
            Ended::Lease(id) => self.leases.push(id.to_string()),
            Ended::Task(id) => self.tasks.push(id.to_string()),
        }
    }

    pub(super) async fn make_ready(link: &Link) -> Result<(), Fault> {
        let take = [TAKE_LEASES, TAKE_TASKS, TAKE_REVOCATIONS];
        link.ready(&take).await?;
        link.ready(&[PUT, ARCHIVE_LEASES, ARCHIVE_TASKS, ARCHIVE_REFS]).await
    }

    /// Goes out before anything is written: another row may take the place.
    pub(super) async fn take(&self, link: &Link) -> Result<(), Fault> {
        let ids = |kind| self.taken.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let answers: [Result<(), Fault>; 3] = futures::join!(
            each(link, TAKE_LEASES, ids(AsideKind::Lease)),
            each(link, TAKE_TASKS, ids(AsideKind::Task)),
            each(link, TAKE_REVOCATIONS, ids(AsideKind::Revocation)),
        )
        .into();
        answers.into_iter().collect()
    }

    /// Writes what was set aside.
    pub(super) async fn put(&self, link: &Link) -> Result<(), Fault> {
        let all: Vec<_> = self.asides.values().collect();
        if all.is_empty() {
            return Ok(());
        }
        let texts =
            |text: fn(&Aside) -> &str| all.iter().map(|one| without_nul(text(one))).collect::<Vec<_>>();
        let moments =
            |moment: fn(&Aside) -> Option<i64>| all.iter().map(|one| moment(one)).collect::<Vec<_>>();
        let kinds: Vec<_> = all.iter().map(|one| one.row.kind.name()).collect();
        let handles: Vec<_> = all.iter().map(|one| one.row.handle.as_deref()).collect();
        let bytes: Vec<_> = all.iter().map(|one| one.row.bytes.as_slice()).collect();
        let tries: Vec<_> = all.iter().map(|one| i64::from(one.tries)).collect();
        let last: Vec<_> = all.iter().map(|one| one.last_error.as_deref().map(without_nul)).collect();
        link.rows(
            PUT,
            &[
                &kinds,
                &texts(|one| &one.row.id),
                &texts(|one| &one.row.task),
                &texts(|one| &one.row.target),
                &texts(|one| &one.row.principal),
                &handles,
                &bytes,
                &texts(|one| &one.row.error),
                &moments(|one| Some(one.at.0)),
                &moments(|one| one.due.map(|at| at.0)),
                &tries,
                &last,
                &moments(|one| one.gone_at.map(|at| at.0)),
            ],
        )
        .await
        .map(drop)
    }

    /// Goes out behind everything that is written.
    pub(super) async fn leave(&self, link: &Link) -> Result<(), Fault> {
        let answers: [Result<(), Fault>; 3] = futures::join!(
            each(link, ARCHIVE_LEASES, &self.leases),
            each(link, ARCHIVE_TASKS, &self.tasks),
            each(link, ARCHIVE_REFS, &self.tasks),
        )
        .into();
        answers.into_iter().collect()
    }
}

async fn each<T: tokio_postgres::types::ToSql + Sync>(
    link: &Link,
    sql: &str,
    ids: &[T],
) -> Result<(), Fault> {
    if ids.is_empty() { Ok(()) } else { link.rows(sql, &[&ids]).await.map(drop) }
}

/// PostgreSQL's texts have no NUL; what a target said may.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
