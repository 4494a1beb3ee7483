//! What a client comes with: the session's own token and key, or, for an agent, ones of its own.

use leasehold_client::bearer::{Fetched, TokenSource, TokenSourceError};
use leasehold_jose::ProofKey;
use zeroize::Zeroizing;

use super::hidden::Hidden;
use super::kept::{Kept, Sessions};
use crate::cli::problem::Problem;

/// Tokens of a person's session.
#[derive(Clone)]
pub(crate) struct Tokens {
    sessions: Sessions,
    kept: Kept,
    agent: Option<String>,
}

impl Tokens {
    /// Those that the person's own commands share, with the session's key: the broker binds a token to its first key.
    pub(super) fn of_the_person(sessions: Sessions, kept: Kept) -> Self {
        Self { sessions, kept, agent: None }
    }

    /// Those of one agent: each is fetched for this process alone, and so is the key.
    pub(super) fn of_an_agent(sessions: Sessions, kept: Kept, agent: &str) -> Self {
        Self { sessions, kept, agent: Some(agent.to_owned()) }
    }

    async fn token(&self) -> Result<Hidden, Problem> {
        match self.agent {
            None => Ok(self.sessions.fresh(self.kept.clone()).await?.token().clone()),
            Some(_) => self.sessions.another(&self.kept).await,
        }
    }
}

impl TokenSource for Tokens {
    fn fetch(&self) -> Fetched<'_> {
        // In a task of its own: whoever stops waiting must not stop a renewal that the issuer has begun.
        let tokens = self.clone();
        Box::pin(async {
            let token = tokio::spawn(async move { tokens.token().await }).await;
            let token = token.map_err(|error| told(Problem::failed(error.to_string())))?.map_err(told)?;
            Ok(Zeroizing::new(token.expose().to_owned()))
        })
    }

    fn key(&self) -> Result<ProofKey, TokenSourceError> {
        match self.agent {
            None => self.kept.key().map_err(told),
            Some(_) => ProofKey::generate().map_err(|error| told(Problem::failed(error.to_string()))),
        }
    }

    fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }
}

fn told(problem: Problem) -> TokenSourceError {
    let why = problem.why.map(|why| format!(": {why}")).unwrap_or_default();
    let next = problem.next.unwrap_or_else(|| "leasehold whoami shows your session".into());
    TokenSourceError { what: format!("{}{why}", problem.what), next: next.into() }
}
