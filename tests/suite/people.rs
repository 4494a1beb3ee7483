//! People who sign in, at a certified OpenID provider that nobody here wrote (npm `oidc-provider`), through its own pages.

mod at_the_broker;
mod issuer;
mod pages;
mod renewals;
mod terminal;

use std::time::Duration;

use serde_json::Value;

use issuer::Provider;
use pages::Browser;
use terminal::Terminal;

/// Long enough that no test meets the end of a token by accident.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_person_signs_in_by_code_and_out() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let terminal = Terminal::new(&provider);
    let mut login = terminal.start(&["login", "--device"]);
    let page = login.reads("or open ").await;
    Browser::new(&provider).signs_in(&page, "ana").await;
    let told = login.succeeds().await;
    assert!(told.contains("`ana`") && told.contains("renewed by itself"), "{told}");

    let file = terminal.session();
    assert!(file.contains("id_token") && file.contains("refresh_token"));
    assert!(!shows_a_token(&told, &file), "a token was printed");
    let whoami = terminal.start(&["whoami", "--admin"]).ends().await;
    assert_eq!(whoami.code, Some(5), "no broker runs here");
    assert!(whoami.err.contains("signed in as `ana`"), "{}", whoami.err);

    let refresh = field(&file, "refresh_token");
    let out = terminal.start(&["logout", "--output", "json"]).succeeds().await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["revoked"], true);
    assert!(terminal.sessions().is_empty());
    assert_eq!(provider.renews(&refresh).await, 400, "the issuer has forgotten it");
    let again = terminal.start(&["logout"]).succeeds().await;
    assert!(again.contains("not signed in"));
}

#[tokio::test]
async fn a_person_signs_in_with_a_browser() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let terminal = Terminal::new(&provider);
    let mut login = terminal.start(&["login", "--browser"]);
    let page = login.reads("https://").await;
    let page = format!("https://{page}");
    assert!(
        page.contains("code_challenge_method=S256") && page.contains("state=") && page.contains("nonce=")
    );
    Browser::new(&provider).signs_in(&page, "ben").await;
    let told = login.succeeds().await;
    assert!(told.contains("`ben`"), "{told}");
}

#[tokio::test]
async fn a_sign_in_that_was_refused_leaves_nothing() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let terminal = Terminal::new(&provider);
    let mut login = terminal.start(&["login", "--browser"]);
    let page = format!("https://{}", login.reads("https://").await);
    Browser::new(&provider).refuses(&page).await;
    let ended = login.ends().await;
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("access_denied"), "{}", ended.err);
    assert!(terminal.sessions().is_empty());
}

#[tokio::test]
async fn an_issuer_that_is_another_is_not_signed_in_to() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let terminal = Terminal::new(&provider);
    let trailing = format!("{}/", provider.url);
    let ca = provider.ca.display().to_string();
    let other = ["login", "--issuer", &trailing, "--client-id", "leasehold", "--ca-file", &ca];
    let ended = terminal.start(&other).ends().await;
    assert!(ended.err.contains("to the letter"), "{}", ended.err);
    assert!(terminal.sessions().is_empty());
}

#[tokio::test]
async fn a_file_without_a_certificate_is_no_root() {
    let Some(provider) = Provider::start(HOUR).await else { return };
    let terminal = Terminal::new(&provider);
    let ended = terminal.start(&["login", "--ca-file", "/dev/null"]).ends().await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(terminal.sessions().is_empty());
}

/// A terminal at which this person has signed in.
async fn signed_in(provider: &Provider, person: &str) -> Terminal {
    let terminal = Terminal::new(provider);
    let mut login = terminal.start(&["login", "--browser"]);
    let page = format!("https://{}", login.reads("https://").await);
    Browser::new(provider).signs_in(&page, person).await;
    login.succeeds().await;
    terminal
}

/// A member of the one session.
fn field(file: &str, name: &str) -> String {
    let session: Value = serde_json::from_str(file).unwrap();
    session[name].as_str().unwrap().to_owned()
}

fn shows_a_token(text: &str, file: &str) -> bool {
    ["id_token", "refresh_token", "key"].iter().any(|name| text.contains(&field(file, name)))
}
