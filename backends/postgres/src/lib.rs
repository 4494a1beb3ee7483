//! PostgreSQL as a target: one role per lease.
//!
//! A role is minted in one transaction with a verifier made here, and unmade in an order that leaves no session and
//! no login behind. Why each step is where it is: `docs/backends/postgres.md`.

mod case;
mod claim;
mod client;
mod config;
mod dial;
mod error;
mod fields;
mod health;
mod issue;
mod lock;
mod look;
mod owned;
mod power;
mod privilege;
mod quote;
mod reap;
mod recipe;
mod renew;
mod revoke;
mod scram;
mod session;
mod sessions;
mod setup;
#[cfg(feature = "throwaway")]
pub mod throwaway;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use leasehold_backend::{
    Alive, Backend, BackendError, BackendKind, Capabilities, Claim, Entropy, Findable, Found, GrantView,
    Health, Issued, KindError, Page, Problem, Reaped, Renewed, RevokeOrder, RevokeReport, Statement,
};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::Grade;
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;
use serde_json::{Map, Value};

use crate::client::{Server, is_refusal};
use crate::config::{Route, Settings};

/// `backend = "postgres"`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresKind;

/// One PostgreSQL server and database that leases are minted in.
#[derive(Debug)]
pub struct Postgres {
    settings: Settings,
    server: Server,
    entropy: Arc<dyn Entropy>,
    /// How many revocations saw to what roles own.
    turns: AtomicUsize,
}

impl BackendKind for PostgresKind {
    fn name(&self) -> &'static str {
        issue::KIND
    }

    fn check(&self, table: &Map<String, Value>) -> Vec<Problem> {
        config::parse(table).err().unwrap_or_default()
    }

    fn open(
        &self,
        target: &str,
        table: &Map<String, Value>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<dyn Backend>, KindError> {
        let settings = config::parse(table)?;
        let server = Server::open(target, &settings)?;
        Ok(Arc::new(Postgres { settings, server, entropy, turns: AtomicUsize::new(0) }))
    }
}

#[async_trait]
impl Backend for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            grade: Grade::Exact,
            window: Span::ZERO,
            findable: Findable::ByName,
            enforces_expiry: true,
            renewal: true,
            max_natural_life: None,
            lists: true,
            lasts: true,
        }
    }

    fn check_recipe(&self, recipe: &Recipe) -> Vec<Problem> {
        recipe::parse(recipe).err().unwrap_or_default()
    }

    async fn issue(&self, order: &IssueOrder) -> Result<Issued, BackendError> {
        issue::issue(self, order).await
    }

    async fn renew(&self, order: &RenewOrder) -> Result<Renewed, BackendError> {
        renew::renew(self, order).await
    }

    async fn lookup(&self, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
        look::lookup(self, name).await
    }

    async fn revoke(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        revoke::revoke(self, orders).await
    }

    async fn late_sessions(&self) -> Result<Vec<String>, BackendError> {
        reap::late(self).await
    }

    async fn reap(&self, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
        reap::reap(self, handles).await
    }

    /// By the route that agents take.
    async fn probe(&self, issued: &Issued) -> Result<Alive, BackendError> {
        let public = |key: &str| issued.credential.public.get(key).cloned().unwrap_or_default();
        let agents = &self.settings.agents;
        let port = public("port").parse().unwrap_or(agents.port);
        let route = Route { host: public("host"), port, dbname: public("dbname") };
        let password =
            issued.credential.secret.get("password").map(|secret| secret.expose()).unwrap_or_default();
        match self.server.login(&route, self.settings.agents_tls, &public("user"), password).await {
            Ok(()) => Ok(Alive::Alive),
            Err(failure) if is_refusal(&failure) => Ok(Alive::Refused),
            Err(failure) => Err(failure.sorted(self.server.label())),
        }
    }

    async fn owner(&self) -> Result<Option<Claim>, BackendError> {
        claim::owner(self).await
    }

    async fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError> {
        claim::claim(self, claim, instead_of).await
    }

    fn expect(&self, claim: &Claim) {
        self.server.expect(claim);
    }

    async fn setup(&self, grants: &[GrantView<'_>]) -> Result<Vec<Statement>, BackendError> {
        setup::setup(self, grants).await
    }

    async fn list_principals(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        look::list(self, prefix, after, limit).await
    }

    async fn health(&self, grants: &[GrantView<'_>]) -> Result<Health, BackendError> {
        health::health(self, grants).await
    }
}
