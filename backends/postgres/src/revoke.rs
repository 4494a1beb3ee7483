//! Revoking, in the order that attacks taught (RULES R-7): membership, login, sessions, logins that are half-way, a
//! read-back, what the role owns, the role, and a read-back under the lock that mints take.

use std::collections::BTreeMap;

use leasehold_backend::{BackendError, RevokeOrder, RevokeReport};
use leasehold_law::lease::Reached;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::case::{Case, Role, View};
use crate::client::{Conn, Lane, column};
use crate::error::Failure;
use crate::issue::label;
use crate::lock;
use crate::owned;
use crate::privilege::Rights;
use crate::quote::{array, ident, idents};
use crate::sessions;

/// Most roles that one transaction touches: each costs room in the server's table of locks.
const CHUNK: usize = 64;

/// Revokes each of these; one report an order, in their order.
pub(crate) async fn revoke(backend: &Postgres, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
    let mut cases: Vec<_> = orders.iter().map(Case::new).collect();
    if !cases.is_empty()
        && let Err(error) = drive(backend, &mut cases).await
    {
        cases.iter_mut().filter(|case| !case.done).for_each(|case| case.fail(&error));
    }
    cases.into_iter().map(|case| case.report).collect()
}

async fn drive(backend: &Postgres, cases: &mut [Case<'_>]) -> Result<(), BackendError> {
    let mut conn = backend.server.conn(Lane::Revokes).await?;
    let walk = Walk { backend, conn: &mut conn };
    walk.all(cases).await.map_err(|failure| failure.sorted(backend.server.label()))
}

/// The steps, on one connection. A failure that they return is the connection's: everything else stays in its case.
struct Walk<'a, 'b> {
    backend: &'a Postgres,
    conn: &'a mut Conn<'b>,
}

impl Walk<'_, '_> {
    async fn all(mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let rights = Rights::read(self.conn).await?;
        self.find(cases).await?;
        self.find_absent(cases).await?;
        self.disable(cases).await?;
        self.cut(cases, &rights).await?;
        self.remove(cases, &rights).await?;
        self.read_back(cases).await
    }

    /// Finds the roles, without waiting for any lock.
    async fn find(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let names: Vec<_> = cases.iter().map(|case| case.name()).collect();
        let oids: Vec<u32> = cases.iter().map(|case| case.handle.unwrap_or(0)).collect();
        let labels: Vec<_> = names.iter().map(|name| label(name)).collect();
        let params = [
            (&names as _, Type::TEXT_ARRAY),
            (&oids as _, Type::OID_ARRAY),
            (&labels as _, Type::TEXT_ARRAY),
        ];
        for row in self.conn.rows(FIND, &params).await? {
            let index: i64 = column(&row, "index")?;
            let role = Role {
                oid: column(&row, "oid")?,
                name: column(&row, "name")?,
                groups: column(&row, "groups")?,
            };
            let case = usize::try_from(index - 1).ok().and_then(|index| cases.get_mut(index));
            if let Some(case) = case.filter(|case| case.role.is_none()) {
                case.report.handle = Some(role.oid.to_string());
                case.role = Some(role);
            }
        }
        Ok(())
    }

    /// Looks again under the lock for what was not there: a mint may have been on its way.
    async fn find_absent(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let mut landed = false;
        for chunk in absent(cases).chunks_mut(CHUNK) {
            match self.view(chunk).await {
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => chunk.iter_mut().for_each(|case| case.fail(&failure.text())),
                Ok(view) => {
                    landed |= !view.roles.is_empty();
                    for case in chunk.iter_mut().filter(|case| !view.roles.contains_key(case.name())) {
                        case.report.absent = true;
                        case.report.target_now = Some(view.now);
                    }
                }
            }
        }
        if landed { self.find(cases).await } else { Ok(()) }
    }

    /// Membership first, which acts on open sessions at their next statement; then the login, committed alone: a login
    /// that comes between it and the cut must see it.
    async fn disable(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let member = |case: &Case<'_>| case.role.as_ref().is_some_and(|role| !role.groups.is_empty());
        self.each(picked(cases, member), leave_sql, |case, outcome| {
            case.note(outcome, "its memberships could not be revoked");
        })
        .await?;
        self.each(picked(cases, |case| case.role.is_some()), disable_sql, |case, outcome| {
            case.disabled = case.note(outcome, "its login could not be refused");
            if case.disabled {
                case.report.reached = Reached::Disabled;
            }
        })
        .await
    }

    /// Ends the sessions, and the logins that could become sessions.
    async fn cut(&mut self, cases: &mut [Case<'_>], rights: &Rights) -> Result<(), Failure> {
        let oids: Vec<u32> = cases.iter().flat_map(Case::oids).collect();
        if let Some(missing) = rights.lacking().into_iter().next() {
            let what = format!("no proof without the privilege of {}: {}", missing.what, missing.fix);
            cases.iter_mut().for_each(|case| case.fail(&what));
            return tolerate(sessions::end_once(self.conn, &oids).await.map(drop));
        }
        if oids.is_empty() {
            cases.iter_mut().for_each(|case| case.cut(true, true));
            return Ok(());
        }
        let seen = sessions::limbo(self.conn).await?;
        sessions::end_once(self.conn, &oids).await?;
        let drained =
            sessions::drain(self.conn, &seen, self.backend.settings.limbo_wait.as_duration()).await?;
        let open = sessions::end(self.conn, &oids).await?;
        for case in cases.iter_mut() {
            let ended = !case.oids().any(|oid| open.contains(&oid));
            case.cut(drained, ended);
        }
        Ok(())
    }

    /// Drops the roles that are cut, under the lock that mints take.
    async fn remove(&mut self, cases: &mut [Case<'_>], rights: &Rights) -> Result<(), Failure> {
        let is_cut = |case: &Case<'_>| case.role.is_some() && case.report.reached == Reached::Cut;
        self.each(picked(cases, is_cut), drop_sql, |case, outcome| match outcome {
            Err(failure) if failure.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => case.owns = true,
            other => _ = case.note(other, "its role could not be dropped"),
        })
        .await?;
        for case in cases.iter_mut().filter(|case| case.owns) {
            self.remove_owner(case, rights).await?;
        }
        Ok(())
    }

    /// Drops a role that owns something. Where that cannot be, it stays, without a login and without a session.
    async fn remove_owner(&mut self, case: &mut Case<'_>, rights: &Rights) -> Result<(), Failure> {
        let settled = owned::settle(self.conn, &self.backend.settings, rights, case.role_name()).await;
        let dropped = self.conn.run(&drop_sql(&[&mut *case])).await;
        let Err(failure) = dropped else { return Ok(()) };
        if failure.is_silent() {
            return Err(failure);
        }
        let oid = case.role.as_ref().map_or(0, |role| role.oid);
        let mut remains = owned::blockers(self.conn, oid).await?;
        remains.extend(settled.err().map(|failure| failure.text()));
        remains.push(failure.text());
        case.report.remains = remains;
        Ok(())
    }

    /// Reads everything back under the locks. What it says overrules what the statements said.
    async fn read_back(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let mut present = picked(cases, |case| case.role.is_some());
        for chunk in present.chunks_mut(CHUNK) {
            match self.view(chunk).await {
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => chunk.iter_mut().for_each(|case| case.fail(&failure.text())),
                Ok(view) => chunk.iter_mut().for_each(|case| case.read_back(&view)),
            }
        }
        cases.iter_mut().for_each(|case| case.done = true);
        Ok(())
    }

    /// What the target holds by these names, under their locks, by the target's clock.
    async fn view(&mut self, cases: &[&mut Case<'_>]) -> Result<View, Failure> {
        let names: Vec<_> = cases.iter().flat_map(|case| [case.name(), case.role_name()]).collect();
        let oids: Vec<_> = cases.iter().flat_map(|case| case.oids()).map(|oid| oid.to_string()).collect();
        let locks = lock::take(cases.iter().map(|case| case.name()));
        let query = format!(
            "{locks}; SELECT json_build_object(\
               'now', floor(extract(epoch FROM clock_timestamp()) * 1000)::int8, \
               'roles', (SELECT coalesce(json_object_agg(rolname, rolcanlogin), '{{}}') FROM pg_roles \
                 WHERE rolname::text = ANY({names})), \
               'open', (SELECT coalesce(json_agg(DISTINCT usesysid::int8), '[]') FROM pg_stat_activity \
                 WHERE usesysid::text = ANY({oids})))",
            names = array(names.iter().copied()),
            oids = array(oids.iter().map(String::as_str)),
        );
        let mut answer = self.conn.run_for_value(&query).await;
        if answer.as_ref().is_err_and(lock::is_held) {
            tolerate(lock::evict(self.conn, &names).await)?;
            answer = self.conn.run_for_value(&query).await;
        }
        let text = answer?.unwrap_or_default();
        serde_json::from_str(&text)
            .map_err(|error| Failure::silent(format!("an unreadable read-back: {error}")))
    }

    /// Runs statements for these cases: many in one transaction, and one by one where that fails, so that one that
    /// cannot be done stops no other.
    async fn each(
        &mut self,
        mut cases: Vec<&mut Case<'_>>,
        statements: impl Fn(&[&mut Case<'_>]) -> String,
        mut settle: impl FnMut(&mut Case<'_>, Result<(), Failure>),
    ) -> Result<(), Failure> {
        cases.sort_by_key(|case| lock::key(case.name()));
        for chunk in cases.chunks_mut(CHUNK) {
            match self.conn.run(&statements(chunk)).await {
                Ok(()) => chunk.iter_mut().for_each(|case| settle(case, Ok(()))),
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => match chunk {
                    [case] if !lock::is_held(&failure) => settle(case, Err(failure)),
                    _ => self.one_by_one(chunk, &statements, &mut settle).await?,
                },
            }
        }
        Ok(())
    }

    async fn one_by_one(
        &mut self,
        cases: &mut [&mut Case<'_>],
        statements: &impl Fn(&[&mut Case<'_>]) -> String,
        settle: &mut impl FnMut(&mut Case<'_>, Result<(), Failure>),
    ) -> Result<(), Failure> {
        for case in cases.chunks_mut(1) {
            let sql = statements(case);
            let Some(case) = case.first_mut() else { continue };
            let oids: Vec<u32> = case.oids().collect();
            let (server, run) = (&self.backend.server, self.conn.run(&sql));
            match lock::against_holders(server, &[case.name()], &oids, run).await {
                Err(failure) if failure.is_silent() => return Err(failure),
                other => settle(case, other),
            }
        }
        Ok(())
    }
}

/// By name; or by OID where somebody renamed a role that our label is on.
const FIND: &str = "SELECT o.index, r.oid, r.name, \
      ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
        WHERE m.member = r.oid) AS groups \
    FROM unnest($1::text[], $2::oid[], $3::text[]) WITH ORDINALITY AS o(name, oid, label, index), \
    LATERAL (SELECT 1 AS rank, oid, rolname::text AS name FROM pg_roles \
        WHERE rolname = o.name::name AND rolname::text = o.name \
      UNION ALL SELECT 2, oid, rolname::text FROM pg_roles \
        WHERE oid = o.oid AND rolname::text <> o.name AND shobj_description(oid, 'pg_authid') = o.label) AS r \
    ORDER BY o.index, r.rank";

/// Lets a refusal pass where what follows shows whether it mattered.
fn tolerate(outcome: Result<(), Failure>) -> Result<(), Failure> {
    outcome.or_else(|failure| if failure.is_silent() { Err(failure) } else { Ok(()) })
}

/// One statement for all that are in the same groups: on 16 and newer each reads every member of its groups.
fn leave_sql(cases: &[&mut Case<'_>]) -> String {
    let mut members: BTreeMap<&[String], Vec<&str>> = BTreeMap::new();
    for role in cases.iter().filter_map(|case| case.role.as_ref()) {
        members.entry(&role.groups).or_default().push(&role.name);
    }
    let leave = |(groups, roles): (&[String], Vec<&str>)| {
        format!("REVOKE {} FROM {}", idents(groups.iter().map(String::as_str)), idents(roles))
    };
    members.into_iter().map(leave).collect::<Vec<_>>().join("; ")
}

fn disable_sql(cases: &[&mut Case<'_>]) -> String {
    let disable = |case: &&mut Case<'_>| format!("ALTER ROLE {} NOLOGIN", ident(case.role_name()));
    cases.iter().map(disable).collect::<Vec<_>>().join("; ")
}

fn drop_sql(cases: &[&mut Case<'_>]) -> String {
    let locks = lock::take(cases.iter().map(|case| case.name()));
    format!("{locks}; DROP ROLE {}", idents(cases.iter().map(|case| case.role_name())))
}

fn picked<'c, 'o>(cases: &'c mut [Case<'o>], pick: impl Fn(&Case<'o>) -> bool) -> Vec<&'c mut Case<'o>> {
    cases.iter_mut().filter(|case| pick(case)).collect()
}

fn absent<'c, 'o>(cases: &'c mut [Case<'o>]) -> Vec<&'c mut Case<'o>> {
    picked(cases, |case| case.role.is_none())
}
