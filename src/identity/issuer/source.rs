//! How what an issuer publishes is read: over `https` with bounds on everything, or from a file.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_jose::Keys;
use leasehold_law::words::with_causes;
use reqwest::{Certificate, Client, StatusCode, redirect};

use super::{Endpoints, IssuerUrl, KeySource};

/// How long a connection to an issuer may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Where to read.
pub(super) enum Source {
    Discovery { client: Client, patience: Duration },
    File { path: PathBuf, patience: Duration },
}

impl Source {
    pub(super) fn open(url: &IssuerUrl, keys: &KeySource, patience: Duration) -> Result<Self, String> {
        Ok(match keys {
            KeySource::Discovery { ca_file } => {
                Self::Discovery { client: client(url, ca_file.as_deref(), patience)?, patience }
            }
            KeySource::File(path) => Self::File { path: path.clone(), patience },
        })
    }

    /// The keys, and what discovery names beside them.
    pub(super) async fn read(&self, url: &IssuerUrl) -> Result<(Keys, Option<Endpoints>), String> {
        match self {
            Self::Discovery { client, patience } => {
                let document = within(*patience, get(client, &url.discovery())).await?;
                let endpoints = Endpoints::read(&document, url)?;
                let keys = within(*patience, get(client, endpoints.keys.as_str())).await?;
                let keys = parse(&keys).map_err(|why| format!("`{}`: {why}", endpoints.keys))?;
                Ok((keys, Some(endpoints)))
            }
            Self::File { path, patience } => {
                let there = path.clone();
                let read = tokio::task::spawn_blocking(move || file(&there));
                let bytes = within(*patience, async { read.await.map_err(|error| error.to_string())? }).await;
                let keys = bytes.and_then(|bytes| parse(&bytes));
                Ok((keys.map_err(|why| format!("`{}`: {why}", path.display()))?, None))
            }
        }
    }
}

/// Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`): they see whom we ask, and nothing more.
fn client(url: &IssuerUrl, ca_file: Option<&Path>, patience: Duration) -> Result<Client, String> {
    provide();
    let mut client = Client::builder()
        .https_only(true)
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT.min(patience))
        .timeout(patience)
        .user_agent("leasehold");
    if url.is_loopback() {
        client = client.no_proxy();
    }
    if let Some(path) = ca_file {
        let roots = roots(path).map_err(|why| format!("`{}`: {why}", path.display()))?;
        client = client.tls_certs_only(roots);
    }
    client.build().map_err(|error| with_causes(&error.without_url()))
}

/// The one provider of cryptography; reqwest takes the one that is installed.
fn provide() {
    // Where another part of the process was first, it installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn roots(path: &Path) -> Result<Vec<Certificate>, String> {
    let pem = file(path)?;
    let roots =
        Certificate::from_pem_bundle(&pem).map_err(|_| "it holds something else than certificates")?;
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

/// A file no longer than a JWK set may be.
fn file(path: &Path) -> Result<Vec<u8>, String> {
    let most = u64::try_from(Keys::MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > Keys::MAX_BYTES { Err(too_long()) } else { Ok(bytes) }
}

fn parse(keys: &[u8]) -> Result<Keys, String> {
    Keys::parse(keys).map_err(|error| error.to_string())
}

fn too_long() -> String {
    format!("it is longer than the {} bytes that are read", Keys::MAX_BYTES)
}

/// The timeouts of the client bound the same; this one bounds whatever else may hang.
async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = || Err(format!("it did not answer within {patience:?}"));
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| late())
}

async fn get(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let told = |error: reqwest::Error| match error.is_timeout() {
        true => format!("`{url}` did not answer in time"),
        false => format!("`{url}`: {}", with_causes(&error.without_url())),
    };
    let mut answer = client.get(url).send().await.map_err(told)?;
    match answer.status() {
        StatusCode::OK => {}
        other if other.is_redirection() => {
            return Err(format!("`{url}` answered {other}; redirects are not followed"));
        }
        other => return Err(format!("`{url}` answered {other}")),
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > Keys::MAX_BYTES {
            return Err(format!("`{url}`: {}", too_long()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
