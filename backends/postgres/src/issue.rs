//! Minting: one message, one transaction, one round trip, that lands whole or not at all.

use std::collections::BTreeMap;

use leasehold_backend::{BackendError, Credential, Entropy, Issued, Problem};
use leasehold_law::policy::IssueOrder;
use leasehold_law::secret::Secret;
use leasehold_law::time::{Span, Timestamp};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::Postgres;
use crate::client::{Conn, Lane, Param, column};
use crate::config::Settings;
use crate::error::Failure;
use crate::health;
use crate::lock;
use crate::recipe::{self, RoleRecipe};
use crate::renew::millis;
use crate::scram::{self, Verifier};
use crate::session::MINT;

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
struct Mint<'a> {
    name: &'a str,
    recipe: &'a RoleRecipe,
    verifier: &'a str,
    ttl: Span,
    mint_by: Timestamp,
    accept_superuser: bool,
}

async fn land(backend: &Postgres, mint: &Mint<'_>) -> Result<String, BackendError> {
    let late = || Failure::silent("the mint took longer than `mint_window`").sorted(backend.server.label());
    let landed = timeout(backend.settings.mint_window.as_duration(), async {
        let mut conn = backend.server.conn(Lane::Mints).await?;
        match mint.run(&mut conn).await {
            Ok(oid) => Ok(oid.to_string()),
            Err(failure) => Err(explain(&mut conn, backend, mint.recipe, failure).await),
        }
    });
    landed.await.unwrap_or_else(|_| Err(late()))
}

impl Mint<'_> {
    /// One message; gives the role's OID.
    async fn run(&self, conn: &mut Conn<'_>) -> Result<u32, Failure> {
        let (settings, values): (Vec<_>, Vec<_>) =
            self.recipe.settings.iter().map(|(name, value)| (name, value)).unzip();
        let limit = self.recipe.connection_limit.and_then(|n| i32::try_from(n).ok()).unwrap_or(NO_LIMIT);
        let (key, ttl, label) = (lock::key(self.name), millis(self.ttl), label(self.name));
        let params: [Param<'_>; 11] = [
            (&key, Type::INT8),
            (&self.mint_by.0, Type::INT8),
            (&self.name, Type::TEXT),
            (&self.verifier, Type::TEXT),
            (&self.recipe.member_of, Type::TEXT_ARRAY),
            (&limit, Type::INT4),
            (&ttl, Type::INT8),
            (&label, Type::TEXT),
            (&settings, Type::TEXT_ARRAY),
            (&values, Type::TEXT_ARRAY),
            (&self.accept_superuser, Type::BOOL),
        ];
        column(&conn.call(MINT, &params).await?, "oid")
    }
}

/// What PostgreSQL takes for any number of sessions.
const NO_LIMIT: i32 = -1;

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
