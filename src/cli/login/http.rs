//! HTTP to an issuer: https only, no redirects, everything bounded.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use leasehold_law::words::with_causes;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::{Certificate, Client, redirect};

use crate::cli::problem::{Exit, Problem};

/// Every call ends by then.
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// Why a call to an issuer came to nothing. The query of its URL and the body are in none of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct HttpError(String);

/// A client for one issuer.
#[derive(Clone, Debug)]
pub(super) struct Http(Client);

impl Http {
    /// A client that trusts these certificates, or the system's where there are none.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, Problem> {
        // Nothing happens where there is a provider already: it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(DEADLINE)
            .connect_timeout(CONNECT_DEADLINE);
        if let Some(file) = ca_file {
            builder = builder.tls_certs_only(certificates(file)?);
        }
        let client = builder.build().map_err(|error| Problem::failed(words(error)))?;
        Ok(Self(client))
    }

    /// What lies at a URL.
    pub(super) async fn fetch(&self, url: &str) -> Result<Vec<u8>, Problem> {
        let unreachable = |why: String| {
            Problem::new(Exit::UNREACHABLE, format!("`{url}` does not answer as an issuer's does")).why(why)
        };
        let request = http::Request::get(url).header(http::header::ACCEPT, "application/json");
        let request = request.body(Vec::new()).map_err(|error| Problem::usage(error.to_string()))?;
        let answer = self.send(request).await.map_err(|error| unreachable(error.to_string()))?;
        match answer.status() {
            http::StatusCode::OK => Ok(answer.into_body()),
            other => Err(unreachable(format!("it answers {other}"))),
        }
    }

    /// One call, as the protocol's library makes it.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(told)?;
        let mut answer = self.0.execute(request).await.map_err(told)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(HttpError(format!("its answer is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

fn told(error: reqwest::Error) -> HttpError {
    HttpError(words(error))
}

/// An error with its causes; its URL is left out, since a query may hold what is secret.
fn words(error: reqwest::Error) -> String {
    with_causes(&error.without_url())
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Problem> {
    let unusable =
        |why: String| Problem::usage(format!("`{}` holds no certificates to trust", file.display())).why(why);
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(words(error)))?;
    if found.is_empty() { Err(unusable("it is no PEM file of certificates".to_owned())) } else { Ok(found) }
}
