//! Renewing: moves the end of a role that is there and may log in, and nothing else.

use leasehold_backend::{BackendError, Renewed};
use leasehold_law::policy::RenewOrder;
use leasehold_law::time::{Span, Timestamp};

use crate::Postgres;
use crate::client::Lane;
use crate::error::{ABSENT, DISABLED, Failure};
use crate::issue::{execute_until, in_time, raise};
use crate::lock;
use crate::quote::{block, ident, literal};

/// Moves the end, and reads it back.
pub(crate) async fn renew(backend: &Postgres, order: &RenewOrder) -> Result<Renewed, BackendError> {
    let renewal = Renewal {
        name: order.principal().as_str(),
        oid: order.handle().and_then(|handle| handle.parse().ok()),
        ttl: order.ttl(),
        renew_by: order.renew_by(),
    };
    let mut conn = backend.server.conn(Lane::Mints).await?;
    let left = conn.run_for_value(&renewal.sql()).await.map_err(|failure| failure.sorted(conn.label()))?;
    let millis = left.and_then(|text| text.parse().ok());
    let unread = || Failure::silent("the new end could not be read back").sorted(conn.label());
    Ok(Renewed { ttl: Span(millis.ok_or_else(unread)?) })
}

/// One end that is to be moved.
struct Renewal<'a> {
    name: &'a str,
    oid: Option<u32>,
    ttl: Span,
    renew_by: Timestamp,
}

impl Renewal<'_> {
    fn sql(&self) -> String {
        let alter = format!("ALTER ROLE {} VALID UNTIL ", ident(self.name));
        let body = format!(
            "DECLARE login bool; BEGIN {lock} {in_time} {find} {absent} {disabled} {alter} END",
            lock = lock::perform(self.name),
            in_time = in_time(self.renew_by),
            find = format_args!("SELECT rolcanlogin INTO login FROM pg_roles WHERE {};", self.is_it()),
            absent = format_args!("IF NOT FOUND THEN {} END IF;", raise(ABSENT, "'no such principal'")),
            disabled =
                format_args!("IF NOT login THEN {} END IF;", raise(DISABLED, "'the principal is disabled'")),
            alter = execute_until(&alter, self.ttl),
        );
        let left = "floor(extract(epoch FROM rolvaliduntil - clock_timestamp()) * 1000)::int8";
        format!("{}; SELECT {left} FROM pg_roles WHERE {}", block(&body), self.is_it())
    }

    /// A role of the same name that was made since is another.
    fn is_it(&self) -> String {
        let oid = self.oid.map(|oid| format!(" AND oid = {oid}")).unwrap_or_default();
        format!("rolname = {}{oid}", literal(self.name))
    }
}
