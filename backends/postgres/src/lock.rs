//! One advisory lock for each principal, so that a mint and the read-back of its revocation cannot pass each other
//! (RULES R-4).

use std::pin::pin;
use std::time::Duration;

use ring::digest;
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::client::{Conn, Lane, Server};
use crate::error::Failure;
use crate::sessions;

const CONTEXT: &[u8] = b"leasehold.postgres.lock.v1\0";

/// The key of a principal's lock: half of a digest, so that two names never share one by chance.
pub(crate) fn key(name: &str) -> i64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(CONTEXT);
    context.update(name.as_bytes());
    let digest = context.finish();
    digest.as_ref().iter().take(8).fold(0_i64, |key, byte| (key << 8) | i64::from(*byte))
}

/// Takes locks until the end of the transaction, in one order for everybody.
pub(crate) fn take<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut keys: Vec<_> = names.into_iter().map(key).collect();
    keys.sort_unstable();
    let keys: Vec<_> = keys.iter().map(i64::to_string).collect();
    format!("SELECT pg_advisory_xact_lock(key) FROM unnest('{{{}}}'::int8[]) AS key", keys.join(","))
}

/// What a statement needs for itself.
pub(crate) struct Wanted<'a> {
    /// The names whose locks it takes.
    pub(crate) names: &'a [&'a str],
    /// The roles that it changes.
    pub(crate) oids: &'a [u32],
    /// The process of the session that runs it, where nobody may keep that waiting by whatever else it is.
    pub(crate) session: Option<i32>,
}

/// Ends the sessions of anybody else who holds or awaits these locks, or holds the roles themselves, as a change that
/// names them and is never committed does, or stands before our session in a queue. Any login may take any advisory
/// lock, and nobody but the broker has business with these: a stranger must not be able to keep a revocation from its
/// proof.
async fn evict(conn: &mut Conn<'_>, wanted: &Wanted<'_>) -> Result<(), Failure> {
    let keys: Vec<i64> = wanted.names.iter().map(|name| key(name)).collect();
    let params = [
        (&keys as _, Type::INT8_ARRAY),
        (&wanted.oids as _, Type::OID_ARRAY),
        (&wanted.session as _, Type::INT4),
    ];
    conn.rows(EVICT, &params).await.map(drop)
}

/// Has a statement done while a second connection ends whoever keeps its locks: strangers on the advisory lock or on the
/// roles, and sessions of these roles, which lock their own row by a change that they never commit. The statement waits
/// in the server's queue meanwhile, so that it is next, however soon they come back.
pub(crate) async fn against_holders<T>(
    server: &Server,
    wanted: &Wanted<'_>,
    statement: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut waiting = pin!(statement);
    if let Ok(outcome) = timeout(SLOW, &mut waiting).await {
        return outcome;
    }
    loop {
        // Between two looks others may have it.
        let Ok(mut second) = server.conn(Lane::Others).await else { return waiting.await };
        let evicted = evict(&mut second, wanted).await;
        let ended = sessions::end_once(&mut second, wanted.oids).await;
        drop(second);
        if [evicted.err(), ended.err()].into_iter().flatten().any(|failure| failure.is_silent()) {
            return waiting.await;
        }
        if let Ok(outcome) = timeout(HELD, &mut waiting).await {
            return outcome;
        }
    }
}

/// How long a statement may take before somebody is taken to keep its locks.
const SLOW: Duration = Duration::from_millis(100);
/// How long it waits then until whoever keeps them now is ended.
const HELD: Duration = Duration::from_millis(30);

/// A superuser is nobody whom the broker could end, and would spare all others if it were told to.
const EVICT: &str = "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
    WHERE r.rolname <> current_user AND (NOT r.rolsuper OR current_setting('is_superuser') = 'on') \
    AND a.pid IN (SELECT l.pid FROM pg_locks l WHERE \
      (l.locktype = 'advisory' AND l.objsubid = 1 \
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND ((l.classid::int8 << 32) | l.objid::int8) = ANY($1)) \
      OR (l.locktype = 'object' AND l.database = 0 AND l.classid = 'pg_authid'::regclass AND l.objid = ANY($2)) \
      UNION ALL SELECT unnest(pg_blocking_pids($3)))";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_key() {
        assert_eq!(key("lha"), key("lha"));
        assert_ne!(key("lha"), key("lhb"));
    }

    #[test]
    fn locks_are_taken_in_one_order() {
        assert_eq!(take(["a", "b", "c"]), take(["c", "a", "b"]));
    }
}
