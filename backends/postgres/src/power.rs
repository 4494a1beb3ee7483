//! Which groups a lease may never be a member of: those that reach a superuser, CREATEROLE, PostgreSQL's own roles, or
//! the broker itself (RULES R-9). Asked anew at each mint, since memberships change.

use crate::quote;

/// A query for one text: what is wrong with these groups, or NULL.
pub(crate) fn query(groups: &[String]) -> String {
    let groups = quote::array(groups.iter().map(String::as_str));
    format!(
        "WITH RECURSIVE reach(start, oid) AS (\
           SELECT rolname, oid FROM pg_roles WHERE rolname::text = ANY({groups}) \
           UNION SELECT reach.start, m.roleid FROM pg_auth_members m JOIN reach ON m.member = reach.oid) \
         SELECT string_agg(DISTINCT format('the group `%s` reaches `%s`, which %s', reach.start, r.rolname, \
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolcreaterole THEN 'has CREATEROLE' \
           WHEN r.rolname = current_user THEN 'is the broker itself' \
           ELSE 'is one of PostgreSQL''s own roles' END), '; ') \
         FROM reach JOIN pg_roles r ON r.oid = reach.oid \
         WHERE r.rolsuper OR r.rolcreaterole OR r.rolname = current_user OR starts_with(r.rolname::text, 'pg_')"
    )
}
