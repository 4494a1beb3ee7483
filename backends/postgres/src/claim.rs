//! Whose the server is: a comment on a role that cannot log in. It is the same in each of its databases, a standby has
//! it, and a server that answers in its place has another or none.

use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_backend::{BackendError, Claim};
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Conn, Lane};
use crate::error::{CLAIMED, Failure, STRANGER};
use crate::lock::{self, Wanted};
use crate::quote::{ident, literal};
use crate::session::raise;
use crate::setup;

/// The role whose comment it is.
const OWNER: &str = "lh_owner";

const READ: &str = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1::text::name";

/// Whose the server is to be, once that is known.
#[derive(Debug, Default)]
pub(crate) struct Expected(Mutex<Option<Claim>>);

impl Expected {
    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers it. Gives whether sessions that are open may lead elsewhere: a later term is the same server's.
    pub(crate) fn set(&self, claim: &Claim) -> bool {
        let before = self.claim().replace(claim.clone());
        before.is_none_or(|before| {
            (&before.installation, before.incarnation) != (&claim.installation, claim.incarnation)
        })
    }

    /// Statements that end a new session on any other server.
    pub(crate) fn check(&self) -> Option<String> {
        let claim = self.claim();
        let Claim { installation, incarnation, term } = claim.as_ref()?;
        let stranger = raise(STRANGER, "'this server is not the one that the broker has claimed'");
        let body = format!(
            "DECLARE claim jsonb; \
             BEGIN claim := (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = {owner})::jsonb; \
             IF claim->>'installation' = {installation} AND (claim->>'incarnation')::int8 = {incarnation} \
               AND coalesce((claim->>'term')::int8, 0) >= {term} THEN RETURN; END IF; {stranger} END",
            owner = literal(OWNER),
            installation = literal(installation),
        );
        Some(format!("DO {};", literal(&body)))
    }
}

/// Who has claimed the server. A comment that is no claim of ours is nobody's.
pub(crate) async fn owner(backend: &Postgres) -> Result<Option<Claim>, BackendError> {
    let mut conn = backend.server.conn(Lane::Claims).await?;
    let comment = comment(&mut conn).await.map_err(|failure| failure.sorted(conn.label()))?;
    Ok(claim_of(comment.as_deref()))
}

async fn comment(conn: &mut Conn<'_>) -> Result<Option<String>, Failure> {
    let rows = conn.rows(READ, &[(&OWNER, Type::TEXT)]).await?;
    rows.first().map_or(Ok(None), |row| row.try_get(0).map_err(Failure::from))
}

fn claim_of(comment: Option<&str>) -> Option<Claim> {
    serde_json::from_str(comment?).ok()
}

/// Claims the server, unless another claim stands by now.
pub(crate) async fn claim(
    backend: &Postgres,
    claim: &Claim,
    instead_of: Option<&Claim>,
) -> Result<(), BackendError> {
    let text = serde_json::to_string(claim).map_err(|error| BackendError::BadRecipe(error.to_string()))?;
    let mut conn = backend.server.conn(Lane::Claims).await?;
    let stands = comment(&mut conn).await.map_err(|failure| failure.sorted(conn.label()))?;
    if claim_of(stands.as_deref()).as_ref() != instead_of {
        return Err(BackendError::Conflict("another claim stands".to_owned()));
    }
    let statements = replace(stands.as_deref(), &text);
    let wanted = Wanted { names: &[OWNER], oids: &[], session: None };
    let claimed = lock::against_holders(&backend.server, &wanted, conn.run(&statements)).await;
    claimed.map_err(|failure| failure.sorted(backend.server.label()))
}

/// One transaction, under a lock: the comment is compared with what was read.
fn replace(stands: Option<&str>, text: &str) -> String {
    let compare = format!(
        "BEGIN IF (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = {owner}) \
           IS DISTINCT FROM {stands} THEN {claimed} END IF; END",
        owner = literal(OWNER),
        stands = stands.map_or("NULL".to_owned(), literal),
        claimed = raise(CLAIMED, "'another claim stands'"),
    );
    format!(
        "{lock}; DO {compare}; {create} COMMENT ON ROLE {role} IS {text}",
        lock = lock::take([OWNER]),
        compare = literal(&compare),
        create = setup::create_role(OWNER),
        role = ident(OWNER),
        text = literal(text),
    )
}
