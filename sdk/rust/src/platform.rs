//! Where a job of a CI platform, or a pod, finds its own token: what the platform put into its environment.

mod github;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_jose::token;
use zeroize::Zeroizing;

use crate::bearer::{Fetched, FileTokens};
use crate::time::now;
use crate::{TokenSource, TokenSourceError};
use github::Github;

/// The variable with the ID token of a GitLab job, unless [`VARIABLE`] names another.
const GITLAB_TOKEN: &str = "LEASEHOLD_ID_TOKEN";
/// Names the variable with the ID token of a GitLab job.
const VARIABLE: &str = "LEASEHOLD_ID_TOKEN_VARIABLE";
/// Where a pod's projected token is, if nothing else is said.
const KUBERNETES_TOKEN: &str = "/var/run/secrets/tokens/leasehold";
/// What brokers ask of jobs and of workloads, if nothing else is said.
const CI_AUDIENCE: &str = "leasehold-ci";
pub(crate) const WORKLOADS: &str = "leasehold";

/// Where this process runs, and what it has to ask for a token with.
#[derive(Clone)]
pub struct Platform(Kind);

#[derive(Clone)]
enum Kind {
    Github(Github),
    Gitlab(Gitlab),
    Kubernetes(PathBuf),
}

/// A job of GitLab: the platform gives it one token, which lives as long as the job may.
#[derive(Clone)]
struct Gitlab {
    variable: String,
    token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Platform").field(&self.name()).finish()
    }
}

impl Platform {
    /// The platform that this process runs on, by its environment; none on a machine like any other.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Self::detect_from(|key| std::env::var(key).ok())
    }

    /// As [`Platform::detect`], from any table of variables. An empty variable counts as unset.
    pub fn detect_from(lookup: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let given = |key: &str| lookup(key).filter(|value| !value.is_empty());
        let is = |key: &str| given(key).is_some_and(|value| value == "true");
        let github = Github::from_lookup(given);
        let variable = given(VARIABLE).unwrap_or_else(|| GITLAB_TOKEN.to_owned());
        let gitlab = Gitlab { token: given(&variable).map(Zeroizing::new), variable };
        let kind = if is("GITHUB_ACTIONS") || github.may_ask() {
            Kind::Github(github)
        } else if is("GITLAB_CI") || gitlab.token.is_some() {
            Kind::Gitlab(gitlab)
        } else if given("KUBERNETES_SERVICE_HOST").is_some() {
            Kind::Kubernetes(PathBuf::from(KUBERNETES_TOKEN))
        } else {
            return None;
        };
        Some(Self(kind))
    }

    /// What people call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.0 {
            Kind::Github(_) => "GitHub Actions",
            Kind::Gitlab(_) => "GitLab CI",
            Kind::Kubernetes(_) => "Kubernetes",
        }
    }

    /// The audience that brokers ask of its tokens, if nothing else is said.
    #[must_use]
    pub const fn usual_audience(&self) -> &'static str {
        match self.0 {
            Kind::Github(_) | Kind::Gitlab(_) => CI_AUDIENCE,
            Kind::Kubernetes(_) => WORKLOADS,
        }
    }

    /// A token for this audience that is good now. Only GitHub makes one for whatever audience is asked; elsewhere it is
    /// written where the token is ordered.
    ///
    /// # Errors
    /// Where the platform gives none: why, and what to write.
    pub async fn token(&self, audience: &str) -> Result<Zeroizing<String>, TokenSourceError> {
        match &self.0 {
            Kind::Github(github) => github.token(audience).await,
            Kind::Gitlab(gitlab) => gitlab.token(audience),
            Kind::Kubernetes(file) => FileTokens::new(file, "the platform").fetch().await.map_err(|error| {
                let next = format!(
                    "mount a projected `serviceAccountToken` with `audience: {audience}` there, or let \
                     LEASEHOLD_TOKEN_FILE name where it is"
                );
                TokenSourceError { next, ..error }
            }),
        }
    }

    /// Its tokens for this audience, one after another.
    pub(crate) fn tokens(self, audience: &str) -> Arc<dyn TokenSource> {
        Arc::new(PlatformTokens { platform: self, audience: audience.to_owned() })
    }
}

struct PlatformTokens {
    platform: Platform,
    audience: String,
}

impl TokenSource for PlatformTokens {
    fn fetch(&self) -> Fetched<'_> {
        Box::pin(self.platform.token(&self.audience))
    }
}

impl Gitlab {
    fn token(&self, audience: &str) -> Result<Zeroizing<String>, TokenSourceError> {
        let Self { variable, token } = self;
        let Some(token) = token else {
            return Err(TokenSourceError {
                what: format!("this GitLab job has no ID token in `{variable}`"),
                next: format!(
                    "write into the job:\nid_tokens:\n  {variable}:\n    aud: {audience}\n{VARIABLE} names another \
                     variable"
                ),
            });
        };
        let end = token::peek(token).ok().and_then(|peek| peek.expires_at);
        match end.filter(|end| *end <= now()) {
            Some(end) => Err(TokenSourceError {
                what: format!("the ID token of this GitLab job ended at {end}"),
                next: "GitLab makes one for each job, which ends with the job's `timeout`: raise that, or split the job"
                    .to_owned(),
            }),
            None => Ok(token.clone()),
        }
    }
}
