//! A job of GitHub Actions, which may ask its runner's service for a token for any audience.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url, redirect};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::TokenSourceError;

const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// How long one answer may take, and how often it is asked for where that may help.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What the runner gave the job, where the workflow says `permissions: id-token: write`.
#[derive(Clone)]
pub(super) struct Github(Option<Leave>);

/// Leave to ask for tokens.
#[derive(Clone)]
struct Leave {
    url: String,
    token: Zeroizing<String>,
}

/// Why a try gave no token.
enum Miss {
    /// It may go better the next time.
    Passing(String),
    Final(String),
}

impl Github {
    pub(super) fn from_lookup(given: impl Fn(&str) -> Option<String>) -> Self {
        let leave = || Some(Leave { url: given(REQUEST_URL)?, token: Zeroizing::new(given(REQUEST_TOKEN)?) });
        Self(leave())
    }

    pub(super) const fn may_ask(&self) -> bool {
        self.0.is_some()
    }

    pub(super) async fn token(&self, audience: &str) -> Result<Zeroizing<String>, TokenSourceError> {
        let Some(leave) = &self.0 else {
            return Err(TokenSourceError {
                what: "this GitHub Actions job may not ask for an ID token".to_owned(),
                next: "write into the job, or above all jobs:\npermissions:\n  id-token: write\n  contents: read\n\
                       a pull request from a fork never gets one: run it after the merge, or on a branch of the \
                       repository"
                    .to_owned(),
            });
        };
        let told = |why: String| TokenSourceError {
            what: format!("GitHub gave this job no ID token: {why}"),
            next: "run the job again; githubstatus.com says whether Actions is well".to_owned(),
        };
        let url = leave.ask_at(audience).map_err(told)?;
        let client = client(&url).map_err(told)?;
        let mut tries = 1;
        loop {
            match leave.ask(&client, &url).await {
                Ok(token) => return Ok(token),
                Err(Miss::Passing(_)) if tries < TRIES => tries += 1,
                Err(Miss::Passing(why) | Miss::Final(why)) => return Err(told(why)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Leave {
    /// The runner's URL has a query already. It comes from the environment: the leave that goes there is a secret.
    fn ask_at(&self, audience: &str) -> Result<Url, String> {
        let mut url = Url::parse(&self.url).map_err(|_| format!("`{REQUEST_URL}` is not a URL"))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(format!("`{REQUEST_URL}` is not an https URL"));
        }
        url.query_pairs_mut().append_pair("audience", audience);
        Ok(url)
    }

    async fn ask(&self, client: &Client, url: &Url) -> Result<Zeroizing<String>, Miss> {
        let passing = |error: reqwest::Error| Miss::Passing(error.without_url().to_string());
        let request = client.get(url.clone()).bearer_auth(self.token.as_str());
        let mut answer = request.header("accept", "application/json").send().await.map_err(passing)?;
        match answer.status() {
            StatusCode::OK => {}
            other if other.is_server_error() || other == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Miss::Passing(format!("it answered {other}")));
            }
            other => return Err(Miss::Final(format!("it answered {other}"))),
        }
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(passing)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Miss::Final("its answer is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        read(&body).ok_or_else(|| Miss::Final("its answer holds no token".to_owned()))
    }
}

fn read(body: &[u8]) -> Option<Zeroizing<String>> {
    let mut answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
    match answer.remove("value")? {
        Value::String(token) => Some(Zeroizing::new(token)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`), as runners in companies need them.
fn client(url: &Url) -> Result<Client, String> {
    // Where another part of the process was first, it installed one that does no less.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .user_agent("leasehold");
    if is_loopback(url) {
        client = client.no_proxy();
    }
    client.build().map_err(|error| error.without_url().to_string())
}

fn is_loopback(url: &Url) -> bool {
    let ip = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok());
    url.host_str() == Some("localhost") || ip.is_some_and(|ip| ip.is_loopback())
}
