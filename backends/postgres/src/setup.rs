//! The statements that give the broker the least that it needs, for the server's version (RULES R-9).

use leasehold_backend::{BackendError, GrantView, Statement};

use crate::Postgres;
use crate::client::Lane;
use crate::config::{OnOwned, Settings};
use crate::health::groups_of;
use crate::privilege::Rights;
use crate::quote::{ident, literal};
use crate::session;

/// What CREATEROLE is up to PostgreSQL 15.
pub(crate) const NEARLY_ROOT: &str = "up to PostgreSQL 15 a login with CREATEROLE can give itself almost any role, \
    pg_execute_server_program among them: guard its password like a superuser's, or move to PostgreSQL 16";

/// The statements, for a superuser to read and run.
pub(crate) async fn setup(
    backend: &Postgres,
    grants: &[GrantView<'_>],
) -> Result<Vec<Statement>, BackendError> {
    let mut conn = backend.server.conn(Lane::Others).await?;
    let rights = Rights::read(&mut conn).await.map_err(|failure| failure.sorted(conn.label()))?;
    Ok(statements(&backend.settings, &rights, &groups_of(grants)))
}

fn statements(settings: &Settings, rights: &Rights, groups: &[String]) -> Vec<Statement> {
    let user = ident(&rights.user);
    let mut list = vec![
        make_roles(&user, rights),
        statement("ends the sessions of revoked leases", format!("GRANT pg_signal_backend TO {user};")),
    ];
    if rights.has_grant_options() {
        let why = "sees logins that are half-way, without which no revocation can be proven";
        list.push(statement(why, format!("GRANT pg_read_all_stats TO {user};")));
    }
    if !rights.may_mint {
        let why = "makes the functions that mint, in the temporary schema of each of its sessions";
        list.push(statement(why, session::grant(&settings.connect.dbname, &rights.user)));
    }
    for group in groups {
        list.push(statement(&format!("makes sure that `{group}` is there"), create_role(group)));
        if rights.has_grant_options() {
            let why = format!("gives leases membership of `{group}`, and the broker none of its rights");
            list.push(statement(&why, grant_group(group, &rights.user)));
        }
    }
    if settings.on_owned == OnOwned::Keep {
        list.push(statement(
            "keeps what agents made, without power and without a login",
            create_estate(settings),
        ));
        list.push(statement("hands over to it", grant_estate(settings, rights)));
    }
    list
}

fn make_roles(user: &str, rights: &Rights) -> Statement {
    let text = format!("ALTER ROLE {user} NOSUPERUSER CREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;");
    let why = "makes and drops the roles of leases, and nothing wider";
    if rights.has_grant_options() {
        return statement(why, text);
    }
    statement(&format!("makes and drops the roles of leases. Beware: {NEARLY_ROOT}"), text)
}

fn statement(why: &str, text: String) -> Statement {
    Statement { why: why.to_owned(), text, undo: false }
}

/// Makes a role that cannot log in, unless it is there.
pub(crate) fn create_role(name: &str) -> String {
    let create = format!(
        "BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) THEN CREATE ROLE {} NOLOGIN; END IF; END",
        literal(name),
        ident(name)
    );
    format!("DO {};", literal(&create))
}

/// Lets the broker give a group away without having it.
pub(crate) fn grant_group(group: &str, user: &str) -> String {
    format!("GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;", ident(group), ident(user))
}

/// Makes the estate role.
pub(crate) fn create_estate(settings: &Settings) -> String {
    create_role(&settings.estate_role)
}

/// Lets the broker hand over to the estate role.
pub(crate) fn grant_estate(settings: &Settings, rights: &Rights) -> String {
    let options = if rights.has_grant_options() { " WITH ADMIN FALSE, INHERIT TRUE, SET TRUE" } else { "" };
    format!("GRANT {} TO {}{options};", ident(&settings.estate_role), ident(&rights.user))
}
