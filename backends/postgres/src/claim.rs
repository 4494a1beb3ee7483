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

/// The comment, and when the server began: two that are alike began at two moments.
const READ: &str = "SELECT (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1::text::name), \
    pg_postmaster_start_time()::text";

/// Whose the server is to be, once that is known.
#[derive(Debug, Default)]
pub(crate) struct Expected(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    claim: Option<Claim>,
    /// The last that there was.
    last: Option<Claim>,
    began: Option<String>,
}

impl Expected {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers it. Gives whether sessions that are open may lead elsewhere: a later term is the same server's.
    pub(crate) fn set(&self, claim: Option<&Claim>) -> bool {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.claim, claim.cloned());
        state.last = claim.cloned().or(state.last.take());
        let whose = |claim: &Claim| (claim.installation.clone(), claim.incarnation, claim.place.clone());
        before.as_ref().map(whose) != claim.map(whose)
    }

    fn is_known(&self) -> bool {
        self.state().claim.is_some()
    }

    /// Whether another server, or the same after a restart, answers than the last time.
    fn is_another(&self, began: &str) -> bool {
        let before = self.state().began.replace(began.to_owned());
        before.is_some_and(|before| before != began)
    }

    /// Statements that end a new session on any other server: for what `strictly` may not happen elsewhere also while
    /// it is not known whose the server is.
    pub(crate) fn check(&self, strictly: bool) -> Option<String> {
        let state = self.state();
        let claim = state.claim.as_ref().or(state.last.as_ref().filter(|_| strictly))?;
        let Claim { installation, incarnation, place, term } = claim;
        let stranger = raise(STRANGER, "'this server is not the one that the broker has claimed'");
        let body = format!(
            "DECLARE claim jsonb; \
             BEGIN claim := (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = {owner})::jsonb; \
             IF claim->>'installation' = {installation} AND (claim->>'incarnation')::int8 = {incarnation} \
               AND coalesce(claim->>'place', '') = {place} AND coalesce((claim->>'term')::int8, 0) >= {term} \
             THEN RETURN; END IF; {stranger} END",
            owner = literal(OWNER),
            installation = literal(installation),
            place = literal(place),
        );
        Some(format!("DO {};", literal(&body)))
    }
}

/// Who has claimed the server. A comment that is no claim of ours is nobody's. Where another server answers than the last
/// time, connections to that one are closed.
pub(crate) async fn owner(backend: &Postgres) -> Result<Option<Claim>, BackendError> {
    let mut conn = backend.server.conn(Lane::Claims).await?;
    let (comment, began) = read(&mut conn).await.map_err(|failure| failure.sorted(conn.label()))?;
    if backend.server.expected().is_another(&began) {
        backend.server.renew();
    }
    if !backend.server.expected().is_known() {
        // Until it is the right one, each question goes to wherever the address leads by then.
        conn.close();
    }
    Ok(claim_of(comment.as_deref()))
}

async fn read(conn: &mut Conn<'_>) -> Result<(Option<String>, String), Failure> {
    let row = conn.row(READ, &[(&OWNER, Type::TEXT)]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn claim_of(comment: Option<&str>) -> Option<Claim> {
    serde_json::from_str(comment?).ok()
}

/// Claims the server, unless another claim stands by now. The connection is closed then, so that who asks next is
/// answered by the server to which the address leads now.
pub(crate) async fn claim(
    backend: &Postgres,
    claim: &Claim,
    instead_of: Option<&Claim>,
) -> Result<(), BackendError> {
    let text = serde_json::to_string(claim).map_err(|error| BackendError::BadRecipe(error.to_string()))?;
    let mut conn = backend.server.conn(Lane::Claims).await?;
    let (stands, _) = read(&mut conn).await.map_err(|failure| failure.sorted(conn.label()))?;
    if claim_of(stands.as_deref()).as_ref() != instead_of {
        conn.close();
        return Err(BackendError::Conflict("another claim stands".to_owned()));
    }
    let statements = replace(stands.as_deref(), &text);
    let wanted = Wanted { names: &[OWNER], oids: &[], session: None };
    let claimed = lock::against_holders(&backend.server, &wanted, conn.run(&statements)).await;
    conn.close();
    claimed.map_err(|failure| failure.sorted(backend.server.label()))
}

/// One transaction: the comment is compared with what was read. The lock is of one database; the change of the role's
/// row is seen in all of them, and of two at once it fails.
fn replace(stands: Option<&str>, text: &str) -> String {
    let compare = format!(
        "BEGIN IF (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = {owner}) \
           IS DISTINCT FROM {stands} THEN {claimed} END IF; END",
        owner = literal(OWNER),
        stands = stands.map_or("NULL".to_owned(), literal),
        claimed = raise(CLAIMED, "'another claim stands'"),
    );
    format!(
        "{lock}; {create} ALTER ROLE {role} NOLOGIN; DO {compare}; COMMENT ON ROLE {role} IS {text}",
        lock = lock::take([OWNER]),
        compare = literal(&compare),
        create = setup::create_role(OWNER),
        role = ident(OWNER),
        text = literal(text),
    )
}
