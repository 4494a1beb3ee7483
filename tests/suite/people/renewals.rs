//! An issuer that spends each token to renew with, and then something fails.

use leasehold::dev::issuer::{Answer, DevIssuer};
use leasehold_law::time::{Span, Timestamp};
use serde_json::{Value, json};

use super::field;
use super::terminal::Terminal;

/// What an issuer grants, with what to renew it with next.
fn grants(issuer: &DevIssuer, id_token: &str, next: &str) {
    let granted = json!({
        "access_token": "unused", "token_type": "bearer", "expires_in": 3600,
        "id_token": id_token, "refresh_token": next,
    });
    issuer.set("/token", Some(Answer::Json(granted)));
}

fn claims(now: Timestamp) -> Value {
    let seconds = |at: Timestamp| at.0 / 1000;
    json!({"sub": "ana", "aud": "leasehold", "iat": seconds(now), "exp": seconds(now + Span::from_mins(60))})
}

/// The old one is spent: a session that forgot the new one would be over.
#[tokio::test]
async fn what_a_session_is_renewed_with_next_is_kept_though_the_rest_of_the_answer_is_no_good() {
    let issuer = DevIssuer::start().await.unwrap();
    let mut terminal = Terminal::at(issuer.url(), &issuer.ca_file());
    let asked = json!({
        "device_code": "d", "user_code": "USER-CODE", "expires_in": 600, "interval": 1,
        "verification_uri": "https://idp.example/device",
    });
    issuer.set("/device", Some(Answer::Json(asked)));
    let now = leasehold::clock::TimeSource::wall(&leasehold::clock::SystemTime);
    grants(&issuer, &issuer.token(claims(now)).unwrap(), "the-first");
    terminal.start(&["login", "--device"]).succeeds().await;
    assert_eq!(field(&terminal.session(), "refresh_token"), "the-first");

    grants(&issuer, "no-token", "the-second");
    // Any server that shows a certificate will do: nothing is asked of it before there is a token.
    let ca = issuer.ca_file().display().to_string();
    terminal.env = vec![("LEASEHOLD_ADDR", issuer.url().to_owned()), ("LEASEHOLD_CA_FILE", ca)];
    let exec = ["exec", "--agent", "coding", "--lease", "orders.read@orders", "--", "true"];
    let ended = terminal.start(&exec).ends().await;
    assert_ne!(ended.code, Some(0));
    assert_eq!(issuer.asked("/token"), 2, "it was renewed once: {}", ended.err);
    assert_eq!(field(&terminal.session(), "refresh_token"), "the-second", "{}", ended.err);
    assert!(!format!("{}{}", ended.out, ended.err).contains("the-"), "a token was printed");
}
