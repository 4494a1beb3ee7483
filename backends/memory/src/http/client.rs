//! The backend that speaks to the service.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_backend::{
    Alive, Backend, BackendError, Capabilities, Claim, Found, GrantView, Health, Issued, Missing, Page,
    Problem, Reaped, Renewed, RevokeOrder, RevokeReport, Statement,
};
use leasehold_law::catalog::Recipe;
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::PrincipalName;
use leasehold_law::secret::Secret;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;

use super::Token;
use super::wire::{ADMIN, Ask, Minted, Pulse, READ};
use crate::backend::{issued, login_of, mint};
use crate::recipe;
use crate::settings::Settings;
use crate::target;

/// Every call ends by then.
const DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 22;

/// A backend for a target behind a service on loopback.
#[derive(Debug)]
pub struct HttpBackend {
    target: String,
    url: String,
    token: Token,
    settings: Settings,
    client: Client,
}

impl HttpBackend {
    /// A backend for the service at `url`, e.g. `http://127.0.0.1:7070`, that plays these settings. Dials nothing.
    ///
    /// # Errors
    /// In words, where no client can be built.
    pub fn new(target: &str, url: &str, token: Token, settings: Settings) -> Result<Self, String> {
        // Who was first in this process stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { target: target.to_owned(), url: url.to_owned(), token, settings, client })
    }

    async fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, BackendError> {
        let token = String::from_utf8_lossy(self.token.secret().expose());
        let request = self.client.post(format!("{}{ADMIN}", self.url)).bearer_auth(token).json(ask);
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(refused("the token is not the service's")),
            other => return Err(self.transient(&other)),
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.transient(&error)).flatten()
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        request.send().await.map_err(|error| self.transient(&error.without_url()))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, BackendError> {
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transient(&error.without_url()))?
        {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.transient(&"an answer that is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transient(&self, what: &dyn fmt::Display) -> BackendError {
        BackendError::Transient { target: self.target.clone(), what: what.to_string() }
    }
}

fn refused(what: &str) -> BackendError {
    BackendError::Refused { what: what.to_owned(), fix: None }
}

#[async_trait]
impl Backend for HttpBackend {
    fn capabilities(&self) -> Capabilities {
        self.settings.0.clone()
    }

    fn check_recipe(&self, recipe: &Recipe) -> Vec<Problem> {
        recipe::problems(recipe)
    }

    async fn issue(&self, order: &IssueOrder) -> Result<Issued, BackendError> {
        let minted: Minted = self.ask(&Ask::Mint(mint(order, &self.settings.0)?)).await?;
        let public = BTreeMap::from([("service".to_owned(), self.url.clone())]);
        let secret = Secret::new(minted.secret.into_bytes());
        Ok(issued(order.principal().to_string(), public, target::Minted { handle: minted.handle, secret }))
    }

    async fn renew(&self, order: &RenewOrder) -> Result<Renewed, BackendError> {
        let name = order.principal().to_string();
        self.ask(&Ask::Renew { name, ttl: order.ttl(), by: order.renew_by() }).await
    }

    async fn lookup(&self, name: &PrincipalName) -> Result<Option<Found>, BackendError> {
        self.ask(&Ask::Find { name: name.to_string() }).await
    }

    async fn revoke(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport> {
        let mut reports = Vec::with_capacity(orders.len());
        for RevokeOrder { principal, handle, recipe: _ } in orders {
            let ask = Ask::Revoke { name: principal.to_string(), handle: handle.clone() };
            reports.push(self.ask(&ask).await.unwrap_or_else(RevokeReport::failed));
        }
        reports
    }

    async fn late_sessions(&self) -> Result<Vec<String>, BackendError> {
        self.ask(&Ask::LateSessions).await
    }

    async fn reap(&self, handles: &[String]) -> Result<Vec<Reaped>, BackendError> {
        self.ask(&Ask::Reap { handles: handles.to_vec() }).await
    }

    async fn probe(&self, issued: &Issued) -> Result<Alive, BackendError> {
        let (name, secret) = login_of(&issued.credential);
        let request = self.client.get(format!("{}{READ}", self.url));
        let response = self.send(request.basic_auth(name, Some(String::from_utf8_lossy(secret)))).await?;
        match response.status() {
            StatusCode::OK => Ok(Alive::Alive),
            StatusCode::UNAUTHORIZED => Ok(Alive::Refused),
            other => Err(self.transient(&other)),
        }
    }

    async fn owner(&self) -> Result<Option<Claim>, BackendError> {
        self.ask(&Ask::Owner).await
    }

    async fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError> {
        self.ask(&Ask::Claim { claim: claim.clone(), instead_of: instead_of.cloned() }).await
    }

    async fn setup(&self, _grants: &[GrantView<'_>]) -> Result<Vec<Statement>, BackendError> {
        Ok(Vec::new())
    }

    async fn list_principals(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        let after = after.map(str::to_owned);
        self.ask(&Ask::List { prefix: prefix.to_owned(), after, limit }).await
    }

    /// A service that plays another grade than config says would break what operators are told of a revocation.
    async fn health(&self, _grants: &[GrantView<'_>]) -> Result<Health, BackendError> {
        let Pulse { mut health, grade } = self.ask(&Ask::Health).await?;
        if grade != self.settings.0.grade {
            let word = format!("{grade:?}").to_lowercase();
            let what = format!("the service is of grade {word}, which is not what config says");
            health.missing_privileges.push(Missing { what, fix: format!("grade = \"{word}\"") });
        }
        Ok(health)
    }
}
