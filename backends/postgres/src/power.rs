//! Which groups a lease may never be a member of: those that reach a superuser, CREATEROLE, PostgreSQL's own roles, or
//! the broker itself (RULES R-9). Asked anew at each mint, since memberships change.

use crate::error::TOO_POWERFUL;
use crate::issue::raise;
use crate::quote::{array, ident, literal};

/// What makes a role too powerful.
const POWERFUL: &str = "(r.rolsuper OR r.rolcreaterole OR r.rolname = current_user \
    OR starts_with(r.rolname::text, 'pg_'))";

/// What a block declares for [`refuse`].
pub(crate) const DECLARE: &str = "reach oid[]; more oid[]; told text;";

/// Fails a block where a group reaches too much. Step by step along an index: on a server with thousands of leases a
/// recursive query reads them all, which costs more than the mint.
pub(crate) fn refuse(groups: &[String]) -> String {
    let roles: Vec<_> =
        groups.iter().map(|group| format!("{}::regrole::oid", literal(&ident(group)))).collect();
    format!(
        "reach := ARRAY[{roles}]; \
         LOOP more := ARRAY(SELECT roleid FROM pg_auth_members WHERE member = ANY(reach) AND roleid <> ALL(reach)); \
         EXIT WHEN more = '{{}}'; reach := reach || more; END LOOP; \
         IF EXISTS (SELECT FROM pg_roles r WHERE r.oid = ANY(reach) AND {POWERFUL}) THEN told := ({told}); {raise} END IF;",
        roles = roles.join(", "),
        told = query(groups),
        raise = raise(TOO_POWERFUL, "told"),
    )
}

/// A query for one text: what is wrong with these groups, or NULL.
pub(crate) fn query(groups: &[String]) -> String {
    let groups = array(groups.iter().map(String::as_str));
    format!(
        "WITH RECURSIVE reach(start, oid) AS (\
           SELECT rolname, oid FROM pg_roles WHERE rolname = ANY({groups}::name[]) \
           UNION SELECT reach.start, m.roleid FROM pg_auth_members m JOIN reach ON m.member = reach.oid) \
         SELECT string_agg(DISTINCT format('the group `%s` reaches `%s`, which %s', reach.start, r.rolname, \
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolcreaterole THEN 'has CREATEROLE' \
           WHEN r.rolname = current_user THEN 'is the broker itself' \
           ELSE 'is one of PostgreSQL''s own roles' END), '; ') \
         FROM reach JOIN pg_roles r ON r.oid = reach.oid WHERE {POWERFUL}"
    )
}
