//! Renewing: moves the end of a role that is there and may log in, and nothing else.

use leasehold_backend::{BackendError, Renewed};
use leasehold_law::policy::RenewOrder;
use leasehold_law::time::Span;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Lane, column};
use crate::lock::{self, Wanted};
use crate::session::RENEW;

/// Moves the end, and reads it back.
pub(crate) async fn renew(backend: &Postgres, order: &RenewOrder) -> Result<Renewed, BackendError> {
    let name = order.principal().as_str();
    let oid: Option<u32> = order.handle().and_then(|handle| handle.parse().ok());
    let (key, by, ttl) = (lock::key(name), order.renew_by().0, millis(order.ttl()));
    let params = [
        (&key as _, Type::INT8),
        (&by as _, Type::INT8),
        (&name as _, Type::TEXT),
        (&oid as _, Type::OID),
        (&ttl as _, Type::INT8),
    ];
    let mut conn = backend.server.conn(Lane::Mints).await?;
    let wanted = Wanted { names: &[name], oids: &[], session: None };
    let moved = lock::against_holders(&backend.server, &wanted, conn.row(RENEW, &params)).await;
    let left = moved.and_then(|row| column::<i64>(&row, "remaining"));
    let left = left.map_err(|failure| failure.sorted(backend.server.label()))?;
    Ok(Renewed { ttl: Span(u64::try_from(left).unwrap_or(0)) })
}

/// A span as a parameter.
pub(crate) fn millis(span: Span) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}
