//! What an agent made and left, so that its role can be dropped. It never goes to anybody with power (RULES R-8).

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::client::{Conn, LOCK, STATEMENT, column};
use crate::config::{OnOwned, Settings};
use crate::error::Failure;
use crate::privilege::Rights;
use crate::quote::{block, ident, literal};

/// Most objects that a report names.
const NAMED: i64 = 10;

/// Drops or keeps what a role owns in the target's database, where that takes no longer than `within`.
pub(crate) async fn settle(
    conn: &mut Conn<'_>,
    settings: &Settings,
    rights: &Rights,
    role: &str,
    within: Duration,
) -> Result<(), Failure> {
    let keep = match settings.on_owned {
        OnOwned::Drop => String::new(),
        OnOwned::Keep => keep(role, &settings.estate_role),
    };
    let (role, options) =
        (ident(role), if rights.has_grant_options() { " WITH INHERIT TRUE, SET FALSE" } else { "" });
    // Both need the role's rights, which the broker takes for this one transaction.
    let statements = format!(
        "{limits}; GRANT {role} TO CURRENT_USER{options}; {keep}DROP OWNED BY {role} RESTRICT; REVOKE {role} FROM CURRENT_USER",
        limits = limits(within),
    );
    conn.run(&statements).await
}

/// Each statement of the transaction takes no longer than this, and waits no longer for any lock, nor than it would by
/// itself.
pub(crate) fn limits(within: Duration) -> String {
    let (whole, locks) = (within.min(STATEMENT).as_millis(), within.min(LOCK).as_millis());
    format!("SET LOCAL statement_timeout = {whole}; SET LOCAL lock_timeout = {locks}")
}

/// Hands everything to the estate, once nothing is left in it that runs by itself or with its owner's rights.
fn keep(role: &str, estate: &str) -> String {
    let body = format!(
        "DECLARE owned oid := {name}::regrole::oid; heir oid; thing text; BEGIN \
         SELECT oid INTO heir FROM pg_roles r WHERE rolname = {estate_name} AND NOT (rolcanlogin OR rolsuper \
           OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) \
           AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid); \
         IF NOT FOUND THEN RAISE EXCEPTION 'the estate role must be there, without login and without power'; END IF; \
         FOR thing IN {triggers} UNION ALL {rules} UNION ALL {definers} LOOP EXECUTE thing; END LOOP; \
         EXECUTE {reassign}; END",
        name = literal(&ident(role)),
        estate_name = literal(estate),
        triggers = TRIGGERS,
        rules = RULES,
        definers = DEFINERS,
        reassign = literal(&format!("REASSIGN OWNED BY {} TO {}", ident(role), ident(estate))),
    );
    format!("{}; ", block(&body))
}

/// Triggers on the role's tables, and those that call its functions.
const TRIGGERS: &str = "SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
    JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid \
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND owned IN (c.relowner, p.proowner)";

/// Rules on its tables. What makes a view a view stays.
const RULES: &str = "SELECT format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass) FROM pg_rewrite r \
    JOIN pg_class c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' AND c.relowner = owned";

/// Functions that run with their owner's rights.
const DEFINERS: &str = "SELECT format('DROP ROUTINE %s', p.oid::regprocedure) FROM pg_proc p \
    WHERE p.prosecdef AND p.proowner = owned";

/// A role may own more than can be described in time.
const BLOCKERS: &str = "SELECT CASE WHEN d.datname IS NULL OR d.datname = current_database() \
      THEN coalesce(pg_describe_object(s.classid, s.objid, s.objsubid), 'an object') \
      ELSE format('an object in the database `%s`', d.datname) END AS what \
    FROM (SELECT * FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1 LIMIT $2) s \
    LEFT JOIN pg_database d ON d.oid = s.dbid ORDER BY 1";

/// What keeps a role from being dropped, in words.
pub(crate) async fn blockers(conn: &mut Conn<'_>, oid: u32) -> Result<Vec<String>, Failure> {
    let rows = conn.rows(BLOCKERS, &[(&oid, Type::OID), (&NAMED, Type::INT8)]).await?;
    rows.iter().map(|row| column(row, "what")).collect()
}
