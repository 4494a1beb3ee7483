//! The person that a task acts for: their token when it opens, and each newer one with a heartbeat.

use std::sync::Arc;
use std::time::Duration;

use leasehold_jose::token;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::bearer::{PATIENCE, TokenSource, TokenSourceError};
use crate::time::now;
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

    /// A token that the broker has not judged yet, where the one it has is over within `soon`. Where none can be had, the
    /// task goes on with that one, for as long as it lasts.
    pub(super) async fn newer(&self, soon: Duration) -> Option<Zeroizing<String>> {
        if !self.is_over_within(soon) {
            return None;
        }
        match fetch(&*self.source).await {
            Ok(token) => Some(token).filter(|token| *token != self.judged),
            Err(error) => {
                tracing::warn!(%error, "no newer token of the person that the task acts for");
                None
            }
        }
    }

    /// A token that does not say when it ends may end at any time.
    fn is_over_within(&self, soon: Duration) -> bool {
        let end = token::peek(&self.judged).ok().and_then(|peek| peek.expires_at);
        let soon = i64::try_from(soon.as_millis()).unwrap_or(i64::MAX);
        end.is_none_or(|end| end <= now().shifted(soon))
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
