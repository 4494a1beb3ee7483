//! Revoking, in the order that attacks taught (RULES R-7): login, sessions, logins that are half-way, the role, the
//! membership of what stays, a read-back under the lock that mints take, and last the roles that own something.
//!
//! Nothing that a stranger can hold comes before the login and the sessions, and no step takes the call's whole time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::lease::Reached;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::case::{Case, Role, View};
use crate::client::{Conn, Lane, column};
use crate::error::Failure;
use crate::issue::label;
use crate::lock::{self, Wanted};
use crate::owned;
use crate::privilege::Rights;
use crate::quote::{array, ident, idents};
use crate::sessions;

/// Most roles that one transaction touches: each costs room in the server's table of locks.
const CHUNK: usize = 64;

/// How long a call takes over refusing logins, where they cannot be refused at once.
const DISABLE: Duration = Duration::from_secs(8);
/// How long a call begins new steps: it tells how far it came well before its caller gives it up, which is after 30 s.
const WALK: Duration = Duration::from_secs(18);
/// What cannot be done with the others is tried alone, for no longer than this a lock: first whatever is free, so that it
/// waits for nothing that is held, and then the rest, whose holders were ended already, where they can be.
const LOCK_FREE: Duration = Duration::from_millis(20);
const LOCK_HELD: Duration = Duration::from_millis(200);

/// How long a call sees to what roles own, where it has others to report on, and where it has not. A clean-up that takes
/// longer has its time in a call of its own.
const OWNED_BESIDE: Duration = Duration::from_secs(1);
const OWNED_ALONE: Duration = Duration::from_secs(10);
/// A clean-up is not begun in less.
const OWNED_LEAST: Duration = Duration::from_millis(50);
/// How long the others wait for a new connection, where a clean-up used up the old one.
const AGAIN: Duration = Duration::from_millis(500);

/// Revokes each of these; one report an order, in their order.
pub(crate) async fn revoke(backend: &Postgres, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
    if orders.is_empty() {
        return Vec::new();
    }
    let until = Instant::now() + WALK;
    let mut conn = match backend.server.conn_or_why(Lane::Revokes).await {
        Ok(conn) => conn,
        Err(none) => {
            let report = if none.all_in_use { RevokeReport::unasked } else { RevokeReport::failed };
            return orders.iter().map(|_| report(&none.error)).collect();
        }
    };
    let mut cases: Vec<_> = orders.iter().map(Case::new).collect();
    let walk = Walk { backend, conn: &mut conn, until, session: None };
    if let Err(failure) = walk.all(&mut cases).await {
        let error = failure.sorted(backend.server.label());
        cases.iter_mut().filter(|case| !case.done).for_each(|case| case.fail(&error));
    }
    cases.into_iter().map(|case| case.report).collect()
}

/// The steps, on one connection. A failure that they return is the connection's: everything else stays in its case.
struct Walk<'a, 'b> {
    backend: &'b Postgres,
    conn: &'a mut Conn<'b>,
    /// When no new step is begun any more.
    until: Instant,
    /// The process of the connection's session.
    session: Option<i32>,
}

impl Walk<'_, '_> {
    /// What roles own comes last: whatever it takes, the others are proven by then.
    async fn all(mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let rights = Rights::read(self.conn).await?;
        self.session = Some(rights.session);
        self.find(cases).await?;
        self.find_absent(cases).await?;
        self.disable(cases).await?;
        self.cut(cases, &rights).await?;
        self.remove(cases).await?;
        self.leave(cases).await?;
        self.read_back(picked(cases, |case| !case.owns)).await?;
        self.remove_owners(cases, &rights).await?;
        self.read_back(picked(cases, |case| case.owns)).await
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

    /// The login first, committed alone: a login that comes between it and the cut must see it.
    async fn disable(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let until = Instant::now() + DISABLE;
        self.each(picked(cases, |case| case.role.is_some()), until, disable_sql, |case, outcome| {
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
    async fn remove(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let is_cut = |case: &Case<'_>| case.role.is_some() && case.report.reached == Reached::Cut;
        self.each(picked(cases, is_cut), self.until, drop_sql, |case, outcome| match outcome {
            Err(failure) if failure.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => case.owns = true,
            other => case.dropped = case.note(other, "its role could not be dropped"),
        })
        .await
    }

    /// What stays is no member of anything: not before the login and the sessions, since from 16 on this waits for
    /// whoever has the group in hand.
    async fn leave(&mut self, cases: &mut [Case<'_>]) -> Result<(), Failure> {
        let stays =
            |case: &Case<'_>| !case.dropped && case.role.as_ref().is_some_and(|role| !role.groups.is_empty());
        self.each(picked(cases, stays), self.until, leave_sql, |case, outcome| {
            case.note(outcome, "its memberships could not be revoked");
        })
        .await
    }

    /// Drops the roles that own something, for as long as the call has for it. Which of them is first changes from call
    /// to call, so that one that never comes to an end keeps none of the others.
    async fn remove_owners(&mut self, cases: &mut [Case<'_>], rights: &Rights) -> Result<(), Failure> {
        let alone = cases.iter().all(|case| case.owns);
        let deadline = Instant::now() + if alone { OWNED_ALONE } else { OWNED_BESIDE };
        let mut owners = picked(cases, |case| case.owns);
        self.rotate(&mut owners);
        for case in owners {
            let left = deadline.min(self.until).saturating_duration_since(Instant::now());
            if left < OWNED_LEAST {
                case.report.remains = vec!["what it owns had no turn yet".to_owned()];
                continue;
            }
            // Each statement's own bound is less, so that the server's answer is heard where one of them is slow.
            match timeout(left, self.remove_owner(case, rights, left * 3 / 4)).await {
                Ok(done) => done?,
                Err(_) => {
                    case.report.remains =
                        vec!["what it owns takes longer than this call had for it".to_owned()];
                    self.reconnect().await?;
                }
            }
        }
        Ok(())
    }

    /// What comes first changes from call to call, so that nothing is always last.
    fn rotate<T>(&self, cases: &mut [T]) {
        let first = self.backend.turns.fetch_add(1, Ordering::Relaxed).checked_rem(cases.len());
        cases.rotate_left(first.unwrap_or_default());
    }

    /// A connection that owes an answer is of no more use.
    async fn reconnect(&mut self) -> Result<(), Failure> {
        let none = |why: String| Failure::silent(why);
        let conn = timeout(AGAIN, self.backend.server.conn(Lane::Revokes)).await;
        let conn = conn.map_err(|_| none("no new connection in time".to_owned()))?;
        *self.conn = conn.map_err(|error| none(error.to_string()))?;
        self.session = None;
        Ok(())
    }

    /// Drops a role that owns something. Where that cannot be, it stays, without a login and without a session.
    async fn remove_owner(
        &mut self,
        case: &mut Case<'_>,
        rights: &Rights,
        within: Duration,
    ) -> Result<(), Failure> {
        let settings = &self.backend.settings;
        let settled = owned::settle(self.conn, settings, rights, case.role_name(), within).await;
        let sql = format!("{}; {}", owned::limits(within), drop_sql(&[&mut *case]));
        let dropped = self.run_over(&[&mut *case], &sql).await;
        let Err(failure) = dropped else { return Ok(()) };
        if failure.is_silent() {
            return Err(failure);
        }
        let oid = case.role.as_ref().map_or(0, |role| role.oid);
        let mut remains = match owned::blockers(self.conn, oid).await {
            Err(failure) if failure.is_silent() => return Err(failure),
            other => other.unwrap_or_default(),
        };
        remains.extend(settled.err().map(|failure| failure.text()));
        remains.push(failure.text());
        case.report.remains = remains;
        Ok(())
    }

    /// Reads these back under the locks. What it says overrules what the statements said, and is the last word.
    async fn read_back(&mut self, cases: Vec<&mut Case<'_>>) -> Result<(), Failure> {
        let (mut present, absent): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.role.is_some());
        absent.into_iter().for_each(|case| case.done = true);
        for chunk in present.chunks_mut(CHUNK) {
            match self.view(chunk).await {
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => chunk.iter_mut().for_each(|case| case.fail(&failure.text())),
                Ok(view) => chunk.iter_mut().for_each(|case| case.read_back(&view)),
            }
            chunk.iter_mut().for_each(|case| case.done = true);
        }
        Ok(())
    }

    /// What the target holds by these names, under their locks, by the target's clock.
    async fn view(&mut self, cases: &[&mut Case<'_>]) -> Result<View, Failure> {
        let names = cases.iter().flat_map(|case| [case.name(), case.role_name()]);
        let oids: Vec<_> = cases.iter().flat_map(|case| case.oids()).map(|oid| oid.to_string()).collect();
        let locks = lock::take(cases.iter().map(|case| case.name()));
        let query = format!(
            "{locks}; SELECT json_build_object(\
               'now', floor(extract(epoch FROM clock_timestamp()) * 1000)::int8, \
               'roles', (SELECT coalesce(json_object_agg(rolname, rolcanlogin), '{{}}') FROM pg_roles \
                 WHERE rolname::text = ANY({names})), \
               'open', (SELECT coalesce(json_agg(DISTINCT usesysid::int8), '[]') FROM pg_stat_activity \
                 WHERE usesysid::text = ANY({oids})))",
            names = array(names),
            oids = array(oids.iter().map(String::as_str)),
        );
        let (names, oids) = concerned(cases);
        let answer = self.conn.run_for_value(&query);
        let wanted = Wanted { names: &names, oids: &oids, session: self.session };
        let text = lock::against_holders(&self.backend.server, &wanted, answer).await?;
        let text = text.unwrap_or_default();
        serde_json::from_str(&text)
            .map_err(|error| Failure::silent(format!("an unreadable read-back: {error}")))
    }

    /// Runs statements for these cases: many in one transaction, and one by one where that fails, so that one that
    /// cannot be done stops no other.
    async fn each(
        &mut self,
        mut cases: Vec<&mut Case<'_>>,
        until: Instant,
        statements: impl Fn(&[&mut Case<'_>]) -> String,
        mut settle: impl FnMut(&mut Case<'_>, Result<(), Failure>),
    ) -> Result<(), Failure> {
        cases.sort_by_key(|case| lock::key(case.name()));
        let mut apart = Vec::new();
        for chunk in cases.chunks_mut(CHUNK) {
            if Instant::now() >= until {
                apart.extend(chunk);
                continue;
            }
            match self.run_over(chunk, &statements(chunk)).await {
                Ok(()) => chunk.iter_mut().for_each(|case| settle(case, Ok(()))),
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => match chunk {
                    [case] => settle(case, Err(failure)),
                    _ => apart.extend(chunk),
                },
            }
        }
        self.one_by_one(apart, until, statements, settle).await
    }

    async fn one_by_one(
        &mut self,
        mut cases: Vec<&mut &mut Case<'_>>,
        until: Instant,
        statements: impl Fn(&[&mut Case<'_>]) -> String,
        mut settle: impl FnMut(&mut Case<'_>, Result<(), Failure>),
    ) -> Result<(), Failure> {
        self.rotate(&mut cases);
        for wait in [LOCK_FREE, LOCK_HELD] {
            let mut held = Vec::new();
            for case in cases {
                if Instant::now() >= until {
                    settle(case, Err(Failure::no_turn()));
                    continue;
                }
                let one = [&mut **case];
                let sql = format!("SET LOCAL lock_timeout = {}; {}", wait.as_millis(), statements(&one));
                match self.run_over(&one, &sql).await {
                    Err(failure) if failure.is_silent() => return Err(failure),
                    Err(failure) if wait == LOCK_FREE && failure.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                        held.push(case);
                    }
                    outcome => settle(case, outcome),
                }
            }
            cases = held;
        }
        Ok(())
    }

    /// Runs statements about these cases, whoever sits on what they lock.
    async fn run_over(&mut self, cases: &[&mut Case<'_>], statements: &str) -> Result<(), Failure> {
        let (names, oids) = concerned(cases);
        let wanted = Wanted { names: &names, oids: &oids, session: self.session };
        lock::against_holders(&self.backend.server, &wanted, self.conn.run(statements)).await
    }
}

/// Whose locks and whose sessions may stand in the way of these.
fn concerned<'c>(cases: &'c [&mut Case<'_>]) -> (Vec<&'c str>, Vec<u32>) {
    let names = cases.iter().map(|case| case.name()).collect();
    (names, cases.iter().flat_map(|case| case.oids()).collect())
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
