//! What the broker may do on a server, as far as a proof needs it: without the right to see, a count of zero proves
//! nothing (RULES R-10).

use leasehold_backend::Missing;

use crate::client::{Conn, column};
use crate::error::Failure;
use crate::quote::ident;

/// The first version whose CREATEROLE is not nearly a superuser, and whose views hide other sessions' owners.
pub(crate) const PG16: i32 = 160_000;

/// The server's version, and what the broker may see and end on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// `server_version_num`.
    pub(crate) version: i32,
    /// The login's own name, as the server has it.
    pub(crate) user: String,
    /// The process of the session that was asked.
    pub(crate) session: i32,
    /// Whether its sessions may make the functions that mint.
    pub(crate) may_mint: bool,
    may_signal: bool,
    may_see: bool,
}

const QUERY: &str = "SELECT current_setting('server_version_num')::int4 AS version, current_user::text AS user, \
    pg_backend_pid() AS session, \
    has_database_privilege(current_database(), 'TEMPORARY') AS may_mint, \
    pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS may_signal, \
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS may_see";

impl Rights {
    /// Asks the server.
    pub(crate) async fn read(conn: &mut Conn<'_>) -> Result<Self, Failure> {
        let row = conn.row(QUERY, &[]).await?;
        Ok(Self {
            version: column(&row, "version")?,
            user: column(&row, "user")?,
            session: column(&row, "session")?,
            may_mint: column(&row, "may_mint")?,
            may_signal: column(&row, "may_signal")?,
            may_see: column(&row, "may_see")?,
        })
    }

    /// Whether the server is one whose grants of membership have options.
    pub(crate) fn has_grant_options(&self) -> bool {
        self.version >= PG16
    }

    /// What a proof lacks.
    pub(crate) fn lacking(&self) -> Vec<Missing> {
        let missing = |role: &str, what: &str| Missing {
            what: what.to_owned(),
            fix: format!("GRANT {role} TO {};", ident(&self.user)),
        };
        let mut lacking = Vec::new();
        if !self.may_signal {
            lacking.push(missing("pg_signal_backend", "ending the sessions of a revoked lease"));
        }
        if !self.may_see && self.has_grant_options() {
            lacking.push(missing("pg_read_all_stats", "seeing logins that are half-way"));
        }
        lacking
    }
}
