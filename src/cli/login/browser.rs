//! Signing in with a browser on this machine (RFC 8252): an authorization code with PKCE (RFC 7636), answered on a loopback
//! port of this program's own.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use oauth2::{AuthorizationCode, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::hidden::Hidden;
use super::issuer::{Granted, Issuer, printable, unusable};
use crate::cli::console::Console;
use crate::cli::problem::{Exit, Problem};

/// Nobody is waited for longer.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// An older sign-in at the issuer does not do, in seconds: as long as an agent may act in it.
const MAX_AGE: &str = "28800";
const PATH: &str = "/callback";
/// What the browser shows; nothing of the request is repeated in it.
const DONE: &str = "<!doctype html><title>leasehold</title><p>Go back to your terminal: it says how it went.";
const STRAY: &str = "<!doctype html><title>leasehold</title><p>This answers no sign-in of this program's.";

pub(super) async fn sign_in(issuer: &Issuer, console: &mut Console) -> Result<Granted, Problem> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|error| no_port(&error))?;
    let port = listener.local_addr().map_err(|error| no_port(&error))?.port();
    let redirect = format!("http://{}:{port}{PATH}", Ipv4Addr::LOCALHOST);
    let redirect = RedirectUrl::new(redirect).map_err(|error| Problem::failed(error.to_string()))?;
    let attempt = Attempt::new(issuer, &redirect)?;
    console.note(&format!("open this in a browser on this machine:\n{}", attempt.url));
    open(&attempt.url, console);
    let code = answer(listener, attempt.expected).await?;
    let exchange = issuer.protocol.exchange_code(AuthorizationCode::new(code.expose().to_owned()));
    let exchange = exchange.set_pkce_verifier(attempt.verifier).set_redirect_uri(Cow::Owned(redirect));
    let tokens = exchange.request_async(&issuer.http).await.map_err(|error| issuer.refused(&error))?;
    issuer.granted(tokens, Some(&attempt.nonce)).await
}

fn no_port(error: &std::io::Error) -> Problem {
    Problem::failed(format!("no port on loopback can be opened: {error}")).next("leasehold login --device")
}

/// One sign-in: where to send the browser, and what only its answer knows.
struct Attempt {
    url: String,
    nonce: String,
    verifier: PkceCodeVerifier,
    expected: Expected,
}

impl Attempt {
    fn new(issuer: &Issuer, redirect: &RedirectUrl) -> Result<Self, Problem> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().secret().clone();
        let ask = issuer.protocol.authorize_url(CsrfToken::new_random).map_err(|_| {
            unusable(&issuer.provider.issuer, "it has no sign-in with a browser")
                .next("leasehold login --device")
        })?;
        let mut ask = ask
            .add_scopes(issuer.scopes())
            .set_pkce_challenge(challenge)
            .set_redirect_uri(Cow::Borrowed(redirect))
            .add_extra_param("nonce", nonce.clone())
            // Core 1.0 section 3.1.2.1: with it the ID token says when the person signed in.
            .add_extra_param("max_age", MAX_AGE);
        if issuer.asks_to_renew() {
            // OpenID Connect Core 1.0, section 11: without it the wish to renew is ignored.
            ask = ask.add_extra_param("prompt", "consent");
        }
        let (url, state) = ask.url();
        let expected = Expected {
            state: state.secret().clone(),
            issuer: issuer.provider.issuer.clone(),
            names_itself: issuer.names_itself(),
        };
        Ok(Self { url: url.into(), nonce, verifier, expected })
    }
}

/// What the answer to a sign-in must hold.
struct Expected {
    state: String,
    issuer: String,
    names_itself: bool,
}

/// What the browser brought.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Code(Hidden),
    Refused(String),
}

impl Expected {
    /// Reads an answer; none where it answers something else, which ends no sign-in: anybody on this machine may knock.
    fn read(&self, query: &str) -> Option<Answer> {
        let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let only = |name: &str| {
            let mut found = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref());
            found.next().filter(|_| found.next().is_none())
        };
        if only("state") != Some(self.state.as_str()) {
            return None;
        }
        // RFC 9207: an issuer that was tricked into answering for another one.
        match only("iss") {
            Some(issuer) if issuer != self.issuer => return None,
            None if self.names_itself => return None,
            Some(_) | None => {}
        }
        match (only("code"), only("error")) {
            (Some(code), None) => Some(Answer::Code(Hidden::new(code.to_owned()))),
            (_, Some(error)) => {
                let more = only("error_description").map(|more| format!(": {more}")).unwrap_or_default();
                Some(Answer::Refused(printable(&format!("{error}{more}"))))
            }
            (None, None) => None,
        }
    }
}

#[derive(Clone)]
struct Desk {
    expected: Arc<Expected>,
    out: mpsc::Sender<Answer>,
}

/// Serves the loopback port until the answer is there.
async fn answer(listener: TcpListener, expected: Expected) -> Result<Hidden, Problem> {
    let (out, mut answers) = mpsc::channel(1);
    let desk = Desk { expected: Arc::new(expected), out };
    let router = Router::new().route(PATH, get(take)).with_state(desk);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let answer = timeout(PATIENCE, answers.recv()).await;
    // The page that says so is on its way, and needs no more than this process's last moments.
    let late = || Problem::failed("nobody signed in").next("try again: leasehold login");
    let code = match answer.map_err(|_| late())?.ok_or_else(late)? {
        Answer::Code(code) => Ok(code),
        Answer::Refused(why) => Err(Problem::new(Exit::DENIED, "the issuer refuses the sign-in").why(why)),
    };
    drop(answers);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        serving.abort();
    });
    code
}

async fn take(State(desk): State<Desk>, RawQuery(query): RawQuery) -> (StatusCode, Html<&'static str>) {
    match desk.expected.read(&query.unwrap_or_default()) {
        Some(answer) => {
            // One answer counts; whoever comes later is told the same.
            let _ = desk.out.try_send(answer);
            (StatusCode::OK, Html(DONE))
        }
        None => (StatusCode::BAD_REQUEST, Html(STRAY)),
    }
}

/// Opens nothing by itself, unless the user says with what.
fn open(url: &str, console: &mut Console) {
    let Some(program) = std::env::var_os("BROWSER").filter(|program| !program.is_empty()) else { return };
    let mut command = tokio::process::Command::new(&program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        console.note(&format!("$BROWSER could not be started: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, names_itself: bool) -> Option<Answer> {
        let expected = Expected { state: "s".into(), issuer: "https://idp.example".into(), names_itself };
        expected.read(query)
    }

    fn code(text: &str) -> Option<Answer> {
        Some(Answer::Code(Hidden::new(text.into())))
    }

    #[test]
    fn only_the_answer_to_this_sign_in_counts() {
        assert_eq!(read("code=c&state=s", false), code("c"));
        assert_eq!(read("code=c%2B1&state=s&iss=https%3A%2F%2Fidp.example", true), code("c+1"));
        assert_eq!(read("code=c&state=s", true), None, "it says that it names itself");
        assert_eq!(read("code=c&state=s&iss=https%3A%2F%2Fother.example", false), None);
        assert_eq!(read("code=c", false), None);
        assert_eq!(read("code=c&state=x", false), None);
        assert_eq!(read("code=c&state=x&state=s", false), None);
        assert_eq!(read("code=c&code=d&state=s", false), None);
        assert_eq!(read("state=s", false), None);
        assert_eq!(read("", false), None);
    }

    #[test]
    fn a_refusal_is_told_without_what_a_terminal_would_obey() {
        let refused = read("error=access_denied&error_description=no%1b%5B2J&state=s", false);
        assert_eq!(refused, Some(Answer::Refused("access_denied: no[2J".into())));
    }
}
