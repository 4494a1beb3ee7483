//! Each platform by its environment, and a real server in GitHub's place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use leasehold_jose::SigningKey;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn detected(variables: &[(&str, &str)]) -> Option<Platform> {
    let table: BTreeMap<_, _> = variables.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    Platform::detect_from(|key| table.get(key).cloned())
}

/// Answers like GitHub's service, one answer after another, and keeps what it was asked.
async fn service(answers: &[(&str, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, body)| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        })
        .collect();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            heard.lock().unwrap().push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (url, asked)
}

async fn ask(answers: &[(&str, &str)]) -> (Result<String, TokenSourceError>, Vec<String>) {
    let (url, asked) = service(answers).await;
    let variables =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "leave")];
    let platform = detected(&variables).unwrap();
    let token = platform.token("leasehold-ci").await.map(|token| token.as_str().to_owned());
    let asked = asked.lock().unwrap().clone();
    (token, asked)
}

#[test]
fn the_environment_says_where_a_process_runs() {
    let check = |variables: &[(&str, &str)], expect: Option<(&str, &str)>| {
        let platform = detected(variables);
        let found = platform.as_ref().map(|platform| (platform.name(), platform.usual_audience()));
        assert_eq!(found, expect, "{variables:?}");
    };
    let github = Some(("GitHub Actions", "leasehold-ci"));
    let gitlab = Some(("GitLab CI", "leasehold-ci"));
    check(&[], None);
    check(&[("GITHUB_ACTIONS", "true")], github);
    check(&[("GITHUB_ACTIONS", "")], None);
    check(&[("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "y")], github);
    check(&[("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x")], None);
    check(&[("GITLAB_CI", "true")], gitlab);
    check(&[("LEASEHOLD_ID_TOKEN", "t")], gitlab);
    check(&[("LEASEHOLD_ID_TOKEN_VARIABLE", "MINE"), ("MINE", "t")], gitlab);
    check(&[("LEASEHOLD_ID_TOKEN_VARIABLE", "MINE"), ("LEASEHOLD_ID_TOKEN", "t")], None);
    check(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], Some(("Kubernetes", "leasehold")));
    check(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("GITLAB_CI", "true")], gitlab);
}

#[tokio::test]
async fn a_github_job_asks_for_its_audience() {
    let (token, asked) = ask(&[("200 OK", r#"{"count":1,"value":"a.b.c"}"#)]).await;
    assert_eq!(token.unwrap(), "a.b.c");
    assert!(
        asked[0].starts_with("GET /token?api-version=2.0&audience=leasehold-ci HTTP/1.1\r\n"),
        "{asked:?}"
    );
    assert!(asked[0].contains("authorization: Bearer leave\r\n"), "{asked:?}");
}

#[tokio::test]
async fn github_is_asked_again_where_that_may_help() {
    let (token, asked) = ask(&[("503 Service Unavailable", ""), ("200 OK", r#"{"value":"a.b.c"}"#)]).await;
    assert_eq!((token.unwrap().as_str(), asked.len()), ("a.b.c", 2));
    let refused = async |status: &str, body: &str| ask(&[(status, body)]).await.0.unwrap_err().what;
    let told = |why: &str| format!("GitHub gave this job no ID token: {why}");
    assert_eq!(refused("401 Unauthorized", "").await, told("it answered 401 Unauthorized"));
    assert_eq!(refused("302 Found", "").await, told("it answered 302 Found"));
    assert_eq!(refused("200 OK", "{}").await, told("its answer holds no token"));
    assert_eq!(refused("200 OK", r#"{"value":7}"#).await, told("its answer holds no token"));
    assert_eq!(refused("200 OK", &" ".repeat(1 << 20)).await, told("its answer is too long"));
}

#[tokio::test]
async fn a_job_without_a_token_is_told_what_to_write() {
    let refused = async |variables: &[(&str, &str)]| {
        let refused = detected(variables).unwrap().token("leasehold-ci").await.unwrap_err();
        format!("{}\n{}", refused.what, refused.next)
    };
    let github = "this GitHub Actions job may not ask for an ID token\n\
                  write into the job, or above all jobs:\npermissions:\n  id-token: write\n  contents: read\n\
                  a pull request from a fork never gets one: run it after the merge, or on a branch of the repository";
    assert_eq!(refused(&[("GITHUB_ACTIONS", "true")]).await, github);
    let gitlab = "this GitLab job has no ID token in `LEASEHOLD_ID_TOKEN`\n\
                  write into the job:\nid_tokens:\n  LEASEHOLD_ID_TOKEN:\n    aud: leasehold-ci\n\
                  LEASEHOLD_ID_TOKEN_VARIABLE names another variable";
    assert_eq!(refused(&[("GITLAB_CI", "true")]).await, gitlab);
    let pod = refused(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).await;
    assert!(pod.starts_with("the token in `/var/run/secrets/tokens/leasehold` cannot be read"), "{pod}");
    assert!(pod.contains("`audience: leasehold-ci`"), "{pod}");
    let plain = ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://evil.example/");
    let plain = refused(&[plain, ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "leave")]).await;
    assert!(plain.contains("`ACTIONS_ID_TOKEN_REQUEST_URL` is not an https URL"), "{plain}");
}

#[tokio::test]
async fn a_gitlab_job_has_one_token() {
    let key = SigningKey::generate().unwrap();
    let token = |end: i64| key.token("k1", &json!({ "sub": "job", "exp": end })).unwrap();
    let fresh = token(now().0 / 1000 + 600);
    let platform = detected(&[("LEASEHOLD_ID_TOKEN", &fresh)]).unwrap();
    assert_eq!(platform.token("leasehold-ci").await.unwrap().as_str(), fresh);
    assert!(!format!("{platform:?}").contains(&fresh), "no token is shown");
    let over = detected(&[("LEASEHOLD_ID_TOKEN", &token(1_795_000_000))]).unwrap();
    let told = over.token("leasehold-ci").await.unwrap_err().what;
    assert_eq!(told, "the ID token of this GitLab job ended at 2026-11-18T11:06:40.000Z");
}
