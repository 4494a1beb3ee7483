//! The statements for one's own first database: a group that may read schema public, and the broker's role.
//!
//! They are the same on every version; what is only for PostgreSQL 16 and newer says so where it fails on older ones.

use leasehold_backend::Statement;

/// The group whose members may read.
pub const GROUP: &str = "leasehold_read";
/// The broker's own role.
pub const ADMIN: &str = "leasehold";

/// The role by which brokers know whose a server is (RULES R-11): made without a login by the broker itself.
const MARK: &str = "lh_owner";

/// What a superuser runs once, in the database itself, and what takes it back.
#[must_use]
pub fn statements() -> Vec<Statement> {
    let make = |why: &str, text: String| Statement { why: why.to_owned(), text, undo: false };
    let undo = |text: String| Statement { why: "takes it back".to_owned(), text, undo: true };
    vec![
        make(
            "the group that leases are members of; nobody logs in as it",
            format!("CREATE ROLE {GROUP} NOLOGIN;"),
        ),
        make("what its members may do", format!("GRANT USAGE ON SCHEMA public TO {GROUP};")),
        make("and read", format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {GROUP};")),
        make(
            "makes and drops the roles of leases, and nothing wider",
            format!("CREATE ROLE {ADMIN} LOGIN CREATEROLE;"),
        ),
        make("ends the sessions of revoked leases", format!("GRANT pg_signal_backend TO {ADMIN};")),
        make(
            "sees logins that are half-way, without which no revocation can be proven",
            format!("GRANT pg_read_all_stats TO {ADMIN};"),
        ),
        make("gives leases membership of the group, and the broker none of its rights", admin_option()),
        undo(format!(
            "DROP OWNED BY {GROUP}; DROP ROLE {ADMIN}; DROP ROLE {GROUP}; DROP ROLE IF EXISTS {MARK};"
        )),
    ]
}

/// Before PostgreSQL 16 CREATEROLE alone is enough, and the options are not known.
fn admin_option() -> String {
    let grant = format!("GRANT {GROUP} TO {ADMIN} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE");
    format!(
        "DO $$ BEGIN IF current_setting('server_version_num')::int >= 160000 THEN EXECUTE '{grant}'; END IF; END $$;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stands_in_them() {
        assert!(statements().iter().all(|statement| !statement.text.to_lowercase().contains("password")));
    }
}
