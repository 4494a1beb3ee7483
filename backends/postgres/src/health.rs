//! How a server is: its time, what the broker lacks in it, and what the broker has too much of.

use std::collections::BTreeSet;

use leasehold_backend::{BackendError, GrantView, Health, Missing};
use leasehold_law::time::Timestamp;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Conn, Lane, column, time_column};
use crate::config::{OnOwned, Settings};
use crate::error::Failure;
use crate::power;
use crate::privilege::Rights;
use crate::quote::ident;
use crate::recipe;
use crate::session;
use crate::setup;

/// Everything about the broker's own login that is asked for.
const SELF: &str = "SELECT current_setting('server_version') AS version, \
      floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now, \
      rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, \
      has_language_privilege(current_user, 'plpgsql', 'USAGE') AS plpgsql, \
      coalesce(current_setting('createrole_self_grant', true), '') AS self_grant, \
      current_setting('max_prepared_transactions')::int4 AS preparable \
    FROM pg_roles WHERE rolname = current_user";

/// What leaves a lease nothing that outlives its sessions. With one prepared, a server refuses to start on 0.
const NOTHING_PREPARED: &str = "ALTER SYSTEM SET max_prepared_transactions = 0; -- the default; then end what \
    pg_prepared_xacts lists, and restart the server";

/// The login as the server has it.
struct Login {
    version: String,
    now: Timestamp,
    superuser: bool,
    createrole: bool,
    plpgsql: bool,
    /// Attributes that minting does not need.
    extra: Vec<&'static str>,
    self_grant: String,
    /// `max_prepared_transactions`.
    preparable: i32,
}

/// The server's time, what the broker lacks, and what is wider than it should be.
pub(crate) async fn health(backend: &Postgres, grants: &[GrantView<'_>]) -> Result<Health, BackendError> {
    let mut conn = backend.server.conn(Lane::Others).await?;
    let groups = groups_of(grants);
    read(&mut conn, &backend.settings, &groups).await.map_err(|failure| failure.sorted(conn.label()))
}

/// The groups that grants need, each once.
pub(crate) fn groups_of(grants: &[GrantView<'_>]) -> Vec<String> {
    let recipes = grants.iter().filter_map(|grant| recipe::parse(grant.recipe).ok());
    recipes.flat_map(|recipe| recipe.member_of).collect::<BTreeSet<_>>().into_iter().collect()
}

async fn read(conn: &mut Conn<'_>, settings: &Settings, groups: &[String]) -> Result<Health, Failure> {
    let login = Login::read(conn).await?;
    let rights = Rights::read(conn).await?;
    let mut warnings = login.warnings(settings, &rights);
    warnings.extend(wide_groups(conn, &rights, groups).await?);
    warnings.extend(owning_groups(conn, groups).await?);
    Ok(Health {
        version: format!("PostgreSQL {}", login.version),
        target_now: login.now,
        missing_privileges: missing_of(conn, settings, &login, &rights, groups).await?,
        warnings,
    })
}

/// What the broker lacks for these groups.
pub(crate) async fn missing(
    conn: &mut Conn<'_>,
    settings: &Settings,
    groups: &[String],
) -> Result<Vec<Missing>, Failure> {
    let login = Login::read(conn).await?;
    let rights = Rights::read(conn).await?;
    missing_of(conn, settings, &login, &rights, groups).await
}

async fn missing_of(
    conn: &mut Conn<'_>,
    settings: &Settings,
    login: &Login,
    rights: &Rights,
    groups: &[String],
) -> Result<Vec<Missing>, Failure> {
    let mut missing = login.missing(settings, rights);
    missing.extend(rights.lacking());
    missing.extend(missing_groups(conn, login, rights, groups).await?);
    if settings.on_owned == OnOwned::Keep {
        missing.extend(missing_estate(conn, settings, rights).await?);
    }
    Ok(missing)
}

impl Login {
    async fn read(conn: &mut Conn<'_>) -> Result<Self, Failure> {
        let row = conn.row(SELF, &[]).await?;
        let mut extra = Vec::new();
        for (attribute, name) in
            [("rolcreatedb", "CREATEDB"), ("rolreplication", "REPLICATION"), ("rolbypassrls", "BYPASSRLS")]
        {
            if column::<bool>(&row, attribute)? {
                extra.push(name);
            }
        }
        Ok(Self {
            version: column(&row, "version")?,
            now: time_column(&row, "now")?,
            superuser: column(&row, "rolsuper")?,
            createrole: column(&row, "rolcreaterole")?,
            plpgsql: column(&row, "plpgsql")?,
            extra,
            self_grant: column(&row, "self_grant")?,
            preparable: column(&row, "preparable")?,
        })
    }

    fn missing(&self, settings: &Settings, rights: &Rights) -> Vec<Missing> {
        let user = ident(&rights.user);
        let mut missing = Vec::new();
        let mut lacks = |what: &str, fix: String| missing.push(Missing { what: what.to_owned(), fix });
        if self.superuser && settings.accept_superuser.is_none() {
            let what = "the broker logs in as a superuser; take that away, or say why in `accept_superuser`";
            lacks(what, format!("ALTER ROLE {user} NOSUPERUSER;"));
        }
        if !self.superuser && !self.createrole {
            lacks("making and dropping roles", format!("ALTER ROLE {user} CREATEROLE;"));
        }
        if !rights.may_mint {
            let fix = session::grant(&settings.connect.dbname, &rights.user);
            lacks("minting in one step, by a function of its session", fix);
        }
        if !self.plpgsql {
            lacks(
                "minting in one step, by a function",
                format!("GRANT USAGE ON LANGUAGE plpgsql TO {user};"),
            );
        }
        if self.preparable > 0 {
            let what = format!(
                "a server without prepared transactions, of which `max_prepared_transactions` allows {}: one that a \
                lease leaves keeps its role locked, with no session that could be ended, so that nothing could kill it",
                self.preparable
            );
            lacks(&what, NOTHING_PREPARED.to_owned());
        }
        missing
    }

    fn warnings(&self, settings: &Settings, rights: &Rights) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(why) = settings.accept_superuser.as_ref().filter(|_| self.superuser) {
            warnings.push(format!("the broker logs in as a superuser, accepted because: {why}"));
        }
        if !self.superuser && !rights.has_grant_options() {
            warnings.push(setup::NEARLY_ROOT.to_owned());
        }
        for name in self.extra.iter().filter(|_| !self.superuser) {
            warnings.push(format!("the broker's login has {name}, which it does not need"));
        }
        if !self.self_grant.is_empty() {
            warnings.push(format!(
                "`createrole_self_grant` gives the broker the rights of leases: {}",
                self.self_grant
            ));
        }
        warnings
    }
}

const GROUPS: &str = "SELECT o.name, r.oid IS NOT NULL AS there, \
      coalesce(pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION'), false) AS admin \
    FROM unnest($1::text[]) AS o(name) LEFT JOIN pg_roles r ON r.rolname = o.name::name ORDER BY 1";

async fn missing_groups(
    conn: &mut Conn<'_>,
    login: &Login,
    rights: &Rights,
    groups: &[String],
) -> Result<Vec<Missing>, Failure> {
    let mut missing = Vec::new();
    for row in conn.rows(GROUPS, &[(&groups, Type::TEXT_ARRAY)]).await? {
        let (name, there, admin): (String, bool, bool) =
            (column(&row, "name")?, column(&row, "there")?, column(&row, "admin")?);
        if !there {
            let what = format!("the group `{name}`, which a grant names");
            missing.push(Missing { what, fix: format!("CREATE ROLE {} NOLOGIN;", ident(&name)) });
        } else if !admin && rights.has_grant_options() && !login.superuser {
            let what = format!("giving membership of `{name}`");
            missing.push(Missing { what, fix: setup::grant_group(&name, &rights.user) });
        }
    }
    Ok(missing)
}

async fn missing_estate(
    conn: &mut Conn<'_>,
    settings: &Settings,
    rights: &Rights,
) -> Result<Option<Missing>, Failure> {
    let query = "SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = $1::text::name";
    let rows = conn.rows(query, &[(&settings.estate_role, Type::TEXT)]).await?;
    let held = rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?;
    let what = format!("handing over to `{}`", settings.estate_role);
    let fix = match held {
        Some(true) => return Ok(None),
        Some(false) => setup::grant_estate(settings, rights),
        None => format!("{} {}", setup::create_estate(settings), setup::grant_estate(settings, rights)),
    };
    Ok(Some(Missing { what, fix }))
}

const WIDE: &str = "SELECT g.rolname::text AS name, m.inherit_option OR m.set_option AS wide FROM pg_auth_members m \
    JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member \
    WHERE u.rolname = current_user AND g.rolname::text = ANY($1) AND (m.inherit_option OR m.set_option) ORDER BY 1";
const WIDE_BEFORE_16: &str = "SELECT g.rolname::text AS name FROM pg_auth_members m \
    JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member \
    WHERE u.rolname = current_user AND g.rolname::text = ANY($1) ORDER BY 1";

/// Groups that own something, by pg_shdepend's index on who is referred to.
const OWNERS: &str = "SELECT g.rolname::text AS name FROM pg_roles g WHERE g.rolname::text = ANY($1) \
    AND EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = g.oid \
      AND s.deptype = 'o') ORDER BY 1";

/// Whoever is a member of an owner may change what it owns, and what is changed stays.
async fn owning_groups(conn: &mut Conn<'_>, groups: &[String]) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for row in conn.rows(OWNERS, &[(&groups, Type::TEXT_ARRAY)]).await? {
        let name: String = column(&row, "name")?;
        let told = "owns objects, which a lease may change, and what it changes outlives it";
        warnings.push(format!("the group `{name}` {told}"));
    }
    Ok(warnings)
}

/// Groups whose rights the broker has itself, and groups that no lease may have.
async fn wide_groups(
    conn: &mut Conn<'_>,
    rights: &Rights,
    groups: &[String],
) -> Result<Vec<String>, Failure> {
    let query = if rights.has_grant_options() { WIDE } else { WIDE_BEFORE_16 };
    let mut warnings = Vec::new();
    for row in conn.rows(query, &[(&groups, Type::TEXT_ARRAY)]).await? {
        let name: String = column(&row, "name")?;
        warnings.push(format!("the broker itself has the rights of `{name}`, which it only needs to give"));
    }
    let told = conn.row(&power::told("$1::text[]"), &[(&groups, Type::TEXT_ARRAY)]).await?;
    let told: Option<String> = told.try_get(0)?;
    warnings.extend(told.map(|told| format!("no lease is minted: {told}")));
    Ok(warnings)
}
