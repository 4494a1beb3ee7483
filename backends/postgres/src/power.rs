//! Which groups a lease may never be a member of: those that reach a superuser, CREATEROLE, PostgreSQL's own roles, or
//! the broker itself (RULES R-9). Asked anew at each mint, since memberships change.

/// What makes a role `r` of `pg_roles` too powerful.
pub(crate) const POWERFUL: &str = "(r.rolsuper OR r.rolcreaterole OR r.rolname = current_user \
    OR starts_with(r.rolname::text, 'pg_'))";

/// A query for one text: what is wrong with these groups, an SQL expression of texts, or NULL.
pub(crate) fn told(groups: &str) -> String {
    format!(
        "WITH RECURSIVE reached(start, oid) AS (\
           SELECT rolname, oid FROM pg_roles WHERE rolname = ANY({groups}::name[]) \
           UNION SELECT reached.start, m.roleid FROM pg_auth_members m JOIN reached ON m.member = reached.oid) \
         SELECT string_agg(DISTINCT format('the group `%s` reaches `%s`, which %s', reached.start, r.rolname, \
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolcreaterole THEN 'has CREATEROLE' \
           WHEN r.rolname = current_user THEN 'is the broker itself' \
           ELSE 'is one of PostgreSQL''s own roles' END), '; ') \
         FROM reached JOIN pg_roles r ON r.oid = reached.oid WHERE {POWERFUL}"
    )
}
