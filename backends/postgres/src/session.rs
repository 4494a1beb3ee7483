//! The functions that each session for mints makes for itself, in its own temporary schema.
//!
//! A function is parsed and planned once a session, where a block of the same statements is each time, which costs the
//! server several times what the role costs. A call is one statement, and so one transaction: it lands whole or not at
//! all. Nobody else sees or changes what lies in a session's temporary schema, and it goes with the session.

use crate::error::{ABSENT, DISABLED, TOO_LATE, TOO_POWERFUL};
use crate::power;
use crate::quote::{ident, literal};

/// The statements that make them.
pub(crate) fn functions() -> String {
    let mint = function("mint", MINT_TAKES, "oid", &mint());
    let renew = function("renew", RENEW_TAKES, "int8", &renew());
    format!("{mint}; {renew}")
}

/// Lets a login make them.
pub(crate) fn grant(database: &str, user: &str) -> String {
    format!("GRANT TEMPORARY ON DATABASE {} TO {};", ident(database), ident(user))
}

/// Calls [`mint`]; gives the role's OID.
pub(crate) const MINT: &str = "SELECT pg_temp.mint($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS oid";

const MINT_TAKES: &str = "in_lock int8, in_by int8, in_name text, in_verifier text, in_groups text[], \
    in_limit int4, in_ttl int8, in_label text, in_settings text[], in_values text[], in_superuser bool";

/// The clock is looked at under the lock, and the end is computed from the server's clock (RULES R-4). Groups are asked
/// anew at each mint what they reach (RULES R-9), one after the other along an index: on a server with thousands of
/// leases a query over all memberships costs more than the role. From 16 on a member may use what its group may, and not
/// become the group, as which it could make what outlives it.
fn mint() -> String {
    format!(
        "DECLARE reach oid[]; more oid[]; strong bool; groups text; told text; item text; place int := 1; \
         BEGIN {lock_in_time} \
         IF NOT in_superuser AND current_setting('is_superuser') = 'on' THEN {superuser} END IF; \
         FOREACH item IN ARRAY in_groups LOOP \
           reach := reach || quote_ident(item)::regrole::oid; groups := concat_ws(', ', groups, quote_ident(item)); \
         END LOOP; \
         WHILE place <= cardinality(reach) LOOP \
           SELECT {POWERFUL}, ARRAY(SELECT m.roleid FROM pg_auth_members m \
               WHERE m.member = reach[place] AND m.roleid <> ALL(reach)) \
             INTO strong, more FROM pg_roles r WHERE r.oid = reach[place]; \
           IF strong THEN told := ({told}); {powerful} END IF; \
           reach := reach || more; place := place + 1; \
         END LOOP; \
         EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L' \
           || CASE WHEN {HAS_OPTIONS} THEN '; GRANT %s TO %1$I WITH INHERIT TRUE, SET FALSE' ELSE ' IN ROLE %s' END \
           || '; COMMENT ON ROLE %1$I IS %6$L', \
           in_name, in_limit, in_verifier, {until}, groups, in_label); \
         FOR place IN 1 .. cardinality(in_settings) LOOP \
           EXECUTE format('ALTER ROLE %I SET %I = %L', in_name, in_settings[place], in_values[place]); \
         END LOOP; \
         RETURN quote_ident(in_name)::regrole::oid; END",
        lock_in_time = lock_in_time(),
        superuser = raise(
            TOO_POWERFUL,
            "'the broker logs in as a superuser, and the target has no `accept_superuser`'"
        ),
        POWERFUL = power::POWERFUL,
        told = power::told("in_groups"),
        powerful = raise(TOO_POWERFUL, "told"),
        until = UNTIL,
    )
}

/// Calls [`renew`]; gives the milliseconds that are left.
pub(crate) const RENEW: &str = "SELECT pg_temp.renew($1, $2, $3, $4, $5) AS remaining";

const RENEW_TAKES: &str = "in_lock int8, in_by int8, in_name text, in_oid oid, in_ttl int8";

/// A role of the same name that was made since is another.
fn renew() -> String {
    format!(
        "DECLARE login bool; \
         BEGIN {lock_in_time} \
         SELECT rolcanlogin INTO login FROM pg_roles \
           WHERE rolname = in_name::name AND (in_oid IS NULL OR oid = in_oid); \
         IF NOT FOUND THEN {absent} END IF; \
         IF NOT login THEN {disabled} END IF; \
         EXECUTE format('ALTER ROLE %I VALID UNTIL %L', in_name, {UNTIL}); \
         RETURN (SELECT floor(extract(epoch FROM rolvaliduntil - clock_timestamp()) * 1000)::int8 \
           FROM pg_roles WHERE rolname = in_name::name); END",
        lock_in_time = lock_in_time(),
        absent = raise(ABSENT, "'no such principal'"),
        disabled = raise(DISABLED, "'the principal is disabled'"),
    )
}

/// A moment `in_ttl` milliseconds from now by the server's clock.
const UNTIL: &str = "clock_timestamp() + in_ttl * interval '1 millisecond'";

/// Whether memberships have options.
const HAS_OPTIONS: &str = "current_setting('server_version_num')::int >= 160000";

/// Takes the lock of the name until the end of the transaction, and fails past the moment `in_by`.
fn lock_in_time() -> String {
    let late = raise(TOO_LATE, "'too late'");
    format!(
        "PERFORM pg_advisory_xact_lock(in_lock); \
         IF clock_timestamp() >= to_timestamp(in_by / 1000.0::float8) THEN {late} END IF;"
    )
}

/// Fails with a code of ours. `told` is an SQL expression.
pub(crate) fn raise(code: &str, told: &str) -> String {
    format!("RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = {told};")
}

fn function(name: &str, takes: &str, gives: &str, body: &str) -> String {
    let body = literal(body);
    format!("CREATE OR REPLACE FUNCTION pg_temp.{name}({takes}) RETURNS {gives} LANGUAGE plpgsql AS {body}")
}
