//! The harness of the suite: a real server, and what agents do to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_backend::conformance::{Estate, Failure, Harness, LateLogin, LateMint, Session};
use leasehold_backend::{Backend, BackendError, Credential, Entropy, Issued};
use leasehold_law::catalog::Recipe;
use leasehold_law::policy::IssueOrder;
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::agent::{self, Delayed, Trap};
use super::proxy::Wire;
use super::{Dice, Site, open, recipe, recipe_of};

/// A backend of the shared server.
pub(crate) struct Server {
    pub(crate) site: &'static Site,
    pub(crate) backend: Arc<dyn Backend>,
    recipe: Recipe,
}

impl Server {
    /// One server for all, and connections of each test's own: they die with its runtime.
    pub(crate) async fn shared() -> Self {
        Self::of(&Site::shared().table())
    }

    /// The same server under another table.
    pub(crate) fn of(table: &Map<String, Value>) -> Self {
        let server = Self { site: Site::shared(), backend: open(table), recipe: Recipe::default() };
        server.minting(&recipe())
    }

    /// With another recipe.
    pub(crate) fn minting(self, recipe: &Value) -> Self {
        Self { recipe: recipe_of(recipe), ..self }
    }
}

#[async_trait]
impl Harness for Server {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::new(Dice)
    }

    fn recipe(&self) -> Recipe {
        self.recipe.clone()
    }

    fn bad_recipes(&self) -> Vec<(Recipe, &'static str)> {
        vec![
            (recipe_of(&json!({})), "/member_of"),
            (recipe_of(&json!({ "member_of": ["pg_monitor"] })), "/member_of/0"),
            (recipe_of(&json!({ "member_of": ["a"], "connection_limit": -1 })), "/connection_limit"),
            (recipe_of(&json!({ "member_of": ["a"], "settings": { "role": "boss" } })), "/settings/role"),
            (recipe_of(&json!({ "member_of": ["a"], "grants": [] })), "/grants"),
        ]
    }

    async fn connect(&self, credential: &Credential) -> Result<Option<Box<dyn Session>>, Failure> {
        agent::connect(credential).await
    }

    async fn pass(&self, span: Span) {
        tokio::time::sleep(span.as_duration()).await;
    }

    async fn late_login(&self, credential: &Credential) -> Option<Box<dyn LateLogin>> {
        Some(Box::new(Delayed::start(credential, 3, "").await))
    }

    async fn late_mint(&self, order: IssueOrder) -> Option<Box<dyn LateMint>> {
        let wire = Wire::lay(self.site.cluster.port(), "SCRAM-SHA-256$").await;
        let connect = json!({ "host": "127.0.0.1", "port": wire.port, "dbname": "postgres" });
        let backend = open(&self.site.with("connect", connect));
        let mint = tokio::spawn(async move { backend.issue(&order).await });
        tokio::time::timeout(Duration::from_secs(10), wire.holds()).await.unwrap();
        Some(Box::new(Held { wire, mint }))
    }

    async fn own_something(&self, credential: &Credential) -> Option<Box<dyn Estate>> {
        Some(Box::new(Trap::lay(credential).await))
    }

    async fn disable(&self, principal: &PrincipalName) -> bool {
        let root = self.site.root().await;
        root.batch_execute(&format!("ALTER ROLE {principal} NOLOGIN")).await.is_ok()
    }
}

/// A mint that has not reached the server.
struct Held {
    wire: Wire,
    mint: JoinHandle<Result<Issued, BackendError>>,
}

#[async_trait]
impl LateMint for Held {
    async fn arrive(self: Box<Self>) -> Result<Issued, BackendError> {
        self.wire.let_go();
        self.mint.await.unwrap()
    }
}
