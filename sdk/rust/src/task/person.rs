//! The person that a task acts for: their token when it opens, and each newer one with a heartbeat.

use std::sync::Arc;

use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::bearer::{PATIENCE, TokenSource, TokenSourceError};
use crate::{ClientError, v1};

/// Where the tokens of a person come from, and the last one that the broker has judged.
pub(super) struct Person {
    source: Arc<dyn TokenSource>,
    judged: Zeroizing<String>,
}

impl Person {
    /// With the token that a task opens with.
    pub(super) async fn first(source: Arc<dyn TokenSource>) -> Result<Self, ClientError> {
        let judged = fetch(&*source).await.map_err(ClientError::Token)?;
        Ok(Self { source, judged })
    }

    /// The token, as it is sent.
    pub(super) fn wire(&self) -> v1::OnBehalfOf {
        wire(&self.judged)
    }

    /// A token that the broker has not judged yet. Where none can be had, the task goes on with the one it has, for as long
    /// as that lasts.
    pub(super) async fn newer(&self) -> Option<Zeroizing<String>> {
        match fetch(&*self.source).await {
            Ok(token) => Some(token).filter(|token| *token != self.judged),
            Err(error) => {
                tracing::warn!(%error, "no newer token of the person that the task acts for");
                None
            }
        }
    }

    /// It is not sent again.
    pub(super) fn judged(&mut self, token: Zeroizing<String>) {
        self.judged = token;
    }
}

pub(super) fn wire(token: &Zeroizing<String>) -> v1::OnBehalfOf {
    v1::OnBehalfOf { token: token.as_str().to_owned() }
}

async fn fetch(source: &dyn TokenSource) -> Result<Zeroizing<String>, TokenSourceError> {
    timeout(PATIENCE, source.fetch()).await.unwrap_or_else(|_| Err(TokenSourceError::late()))
}
