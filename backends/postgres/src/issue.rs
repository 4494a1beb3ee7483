//! Minting: one message, one transaction, one round trip, that lands whole or not at all.

use std::collections::BTreeMap;

use leasehold_backend::{BackendError, Credential, Entropy, Issued, Problem};
use leasehold_law::policy::IssueOrder;
use leasehold_law::secret::Secret;
use leasehold_law::time::{Span, Timestamp};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::Postgres;
use crate::client::{Conn, Lane};
use crate::config::Settings;
use crate::error::{Failure, TOO_LATE, TOO_POWERFUL};
use crate::health;
use crate::lock;
use crate::power;
use crate::quote::{block, ident, idents, literal};
use crate::recipe::{self, RoleRecipe};
use crate::scram::{self, Verifier};

/// The kind of credential.
pub(crate) const KIND: &str = "postgres";

/// Mints under the order's name.
pub(crate) async fn issue(backend: &Postgres, order: &IssueOrder) -> Result<Issued, BackendError> {
    let recipe = recipe::parse(order.recipe()).map_err(|problems| bad_recipe(&problems))?;
    let (password, verifier) = make_secret(&backend.settings, &*backend.entropy)?;
    let mint = Mint {
        name: order.principal().as_str(),
        recipe: &recipe,
        verifier: verifier
            .checked()
            .ok_or_else(|| BackendError::BadRecipe("malformed verifier".to_owned()))?,
        ttl: order.ttl(),
        mint_by: order.mint_by(),
        accept_superuser: backend.settings.accept_superuser.is_some(),
    };
    let handle = land(backend, &mint).await?;
    let public = public_part(&backend.settings, mint.name, order.expires_at());
    let secret = BTreeMap::from([("password".to_owned(), password)]);
    Ok(Issued { credential: Credential { kind: KIND.to_owned(), public, secret }, handle: Some(handle) })
}

/// One role that is to be made.
pub(crate) struct Mint<'a> {
    pub(crate) name: &'a str,
    pub(crate) recipe: &'a RoleRecipe,
    pub(crate) verifier: &'a str,
    pub(crate) ttl: Span,
    pub(crate) mint_by: Timestamp,
    pub(crate) accept_superuser: bool,
}

async fn land(backend: &Postgres, mint: &Mint<'_>) -> Result<String, BackendError> {
    let late = || Failure::silent("the mint took longer than `mint_window`").sorted(backend.server.label());
    let landed = timeout(backend.settings.mint_window.as_duration(), async {
        let mut conn = backend.server.conn(Lane::Mints).await?;
        match conn.run_for_value(&mint.sql()).await {
            Ok(oid) => oid.ok_or_else(|| Failure::silent("no oid came back").sorted(conn.label())),
            Err(failure) => Err(explain(&mut conn, backend, mint.recipe, failure).await),
        }
    });
    landed.await.unwrap_or_else(|_| Err(late()))
}

impl Mint<'_> {
    /// The whole mint. The clock is looked at under the lock, and the end is computed from the server's clock.
    pub(crate) fn sql(&self) -> String {
        let body = format!(
            "DECLARE {declare} BEGIN {lock} {in_time} {no_superuser} {powerless} {create} {comment} {settings} END",
            lock = lock::perform(self.name),
            in_time = in_time(self.mint_by),
            no_superuser = self.no_superuser(),
            declare = power::DECLARE,
            powerless = power::refuse(&self.recipe.member_of),
            create = self.create(),
            comment = format_args!("COMMENT ON ROLE {} IS {};", ident(self.name), literal(&label(self.name))),
            settings = self.settings(),
        );
        format!("{}; SELECT oid FROM pg_roles WHERE rolname = {}", block(&body), literal(self.name))
    }

    fn create(&self) -> String {
        let limit =
            self.recipe.connection_limit.map(|n| format!("CONNECTION LIMIT {n} ")).unwrap_or_default();
        let groups = idents(self.recipe.member_of.iter().map(String::as_str));
        let head = format!(
            "CREATE ROLE {} LOGIN {limit}PASSWORD {} IN ROLE {groups} VALID UNTIL ",
            ident(self.name),
            literal(self.verifier),
        );
        execute_until(&head, self.ttl)
    }

    fn settings(&self) -> String {
        let set = |(name, value): &(String, String)| {
            let name = name.split('.').map(ident).collect::<Vec<_>>().join(".");
            format!("ALTER ROLE {} SET {name} = {value};", ident(self.name))
        };
        self.recipe.settings.iter().map(set).collect()
    }

    fn no_superuser(&self) -> String {
        if self.accept_superuser {
            return String::new();
        }
        let told = "'the broker logs in as a superuser, and the target has no `accept_superuser`'";
        format!("IF current_setting('is_superuser') = 'on' THEN {} END IF;", raise(TOO_POWERFUL, told))
    }
}

/// Fails a block past a moment by the server's clock.
pub(crate) fn in_time(by: Timestamp) -> String {
    let (secs, millis) = (by.0.div_euclid(1000), by.0.rem_euclid(1000));
    let told = raise(TOO_LATE, "'too late'");
    format!("IF clock_timestamp() >= to_timestamp({secs}.{millis:03}) THEN {told} END IF;")
}

/// Runs a statement of a block that ends in a moment `ttl` from now by the server's clock.
pub(crate) fn execute_until(head: &str, ttl: Span) -> String {
    let until = format!("clock_timestamp() + interval '{} milliseconds'", ttl.0);
    format!("EXECUTE {} || quote_literal({until});", literal(head))
}

/// Fails a block with a code of ours. `told` is an SQL expression.
pub(crate) fn raise(code: &str, told: &str) -> String {
    format!("RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = {told};")
}

/// The comment on a role. Every login can read it.
pub(crate) fn label(name: &str) -> String {
    format!("minted by leasehold as {name}")
}

fn make_secret(settings: &Settings, entropy: &dyn Entropy) -> Result<(Secret, Verifier), BackendError> {
    let made = scram::make_password(entropy).and_then(|password| {
        let verifier = Verifier::make(&password, settings.scram_iterations, entropy)?;
        Ok((password, verifier))
    });
    made.map_err(|error| BackendError::Transient {
        target: "the broker's own host".to_owned(),
        what: error.to_string(),
    })
}

fn public_part(settings: &Settings, user: &str, expires: Timestamp) -> BTreeMap<String, String> {
    let route = &settings.agents;
    [
        ("host", route.host.clone()),
        ("port", route.port.to_string()),
        ("dbname", route.dbname.clone()),
        ("user", user.to_owned()),
        ("sslmode", settings.agents_tls.sslmode().to_owned()),
        ("expires", expires.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What the server's refusal of a mint means: a group or setting that is not there is the recipe's fault, and a missing
/// privilege is named with the statement that gives it.
async fn explain(
    conn: &mut Conn<'_>,
    backend: &Postgres,
    recipe: &RoleRecipe,
    failure: Failure,
) -> BackendError {
    let recipes =
        [SqlState::UNDEFINED_OBJECT, SqlState::INVALID_PARAMETER_VALUE, SqlState::CANT_CHANGE_RUNTIME_PARAM];
    if recipes.iter().any(|state| failure.is(state)) {
        return BackendError::BadRecipe(failure.text());
    }
    if !failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return failure.sorted(conn.label());
    }
    let missing = health::missing(conn, &backend.settings, &recipe.member_of).await.unwrap_or_default();
    let fix = missing.into_iter().next().map(|missing| missing.fix);
    BackendError::Refused { what: failure.text(), fix }
}

fn bad_recipe(problems: &[Problem]) -> BackendError {
    let told: Vec<_> =
        problems.iter().map(|problem| format!("{} {}", problem.pointer, problem.what)).collect();
    BackendError::BadRecipe(told.join("; "))
}
