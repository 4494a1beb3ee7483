//! Jobs that fit and jobs that do not, a line each with the exact refusal.

use std::sync::Arc;

use leasehold_jose::token;
use serde_json::{Value, json};

use super::*;
use crate::dev::issuer::{Answer, DevIssuer};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const AUDIENCE: &str = "leasehold-ci";

fn want(claim: &str, wanted: Wanted) -> Want {
    Want { claim: claim.to_owned(), wanted }
}

fn text(value: &str) -> Wanted {
    Wanted::Exactly(Scalar::Text(value.to_owned()))
}

fn rule(name: &str, issuer: &str, id: &str, wants: Vec<Want>) -> Rule {
    let id = format!("ci:{issuer}|{id}").parse().unwrap();
    Rule { name: name.to_owned(), issuer: issuer.to_owned(), id, wants }
}

/// `deploy` is for the main branch in production, `test` for pushes without an environment.
fn github_rules() -> Vec<Rule> {
    let ids = || vec![want("repository_owner_id", Wanted::Id(1)), want("repository_id", Wanted::Id(123))];
    let with = |mut more: Vec<Want>| {
        let mut wants = ids();
        wants.append(&mut more);
        wants
    };
    let workflow = "acme/shop/.github/workflows/deploy.yml@refs/heads/*";
    vec![
        rule(
            "deploy",
            "github",
            "1/123/prod",
            with(vec![
                want("environment", text("prod")),
                want("ref", text("refs/heads/main")),
                want("job_workflow_ref", Wanted::Like(workflow.parse().unwrap())),
            ]),
        ),
        rule(
            "test",
            "github",
            "1/123/-",
            with(vec![
                want("environment", Wanted::Nothing),
                want("ref", Wanted::Like("refs/heads/**".parse().unwrap())),
                want("event_name", Wanted::OneOf(vec!["push".to_owned(), "workflow_dispatch".to_owned()])),
            ]),
        ),
    ]
}

fn generic_rules() -> Vec<Rule> {
    let wants = vec![
        want("sub", text("pipeline:7")),
        want("protected", Wanted::Exactly(Scalar::Bool(true))),
        want("team", Wanted::Exactly(Scalar::Integer(123))),
    ];
    vec![rule("ship", "builds", "ship", wants)]
}

/// An issuer and what is made of its tokens.
struct World {
    issuer: DevIssuer,
    tokens: CiTokens,
}

impl World {
    async fn new(name: &str, platform: Platform, rules: &[Rule]) -> Self {
        let issuer = DevIssuer::start().await.unwrap();
        let settings = CiIssuer {
            name: name.to_owned(),
            platform,
            url: issuer.url().parse().unwrap(),
            keys: KeySource::Discovery { ca_file: Some(issuer.ca_file()) },
            audience: AUDIENCE.to_owned(),
            max_life: Span::from_mins(60),
        };
        let now: Now = Arc::new(|| NOW);
        Self { issuer, tokens: CiTokens::new(&[settings], rules, &now).unwrap() }
    }

    async fn github() -> Self {
        Self::new("github", Platform::Github, &github_rules()).await
    }

    async fn told(&self, claims: &Value) -> Result<Vouch, TokenRefused> {
        let token = self.issuer.token(claims.clone()).unwrap();
        let peek = token::peek(&token).unwrap();
        assert!(self.tokens.is_mine(&peek));
        self.tokens.verify(&token, &peek, NOW).await
    }

    /// Whose job it is, or why it is nobody's.
    async fn said(&self, claims: &Value) -> String {
        match self.told(claims).await {
            Ok(vouch) => vouch.id.to_string(),
            Err(refused) => refused.what,
        }
    }
}

/// As GitHub writes a token: ids are text.
fn github_job() -> Value {
    let now = NOW.0 / 1000;
    json!({
        "aud": AUDIENCE, "iat": now - 5, "nbf": now - 300, "exp": now + 300, "jti": "4",
        "sub": "repo:acme/shop:environment:prod",
        "repository": "acme/shop", "repository_id": "123",
        "repository_owner": "acme", "repository_owner_id": "1",
        "environment": "prod", "ref": "refs/heads/main", "event_name": "push",
        "job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
        "run_id": "8812", "actor": "ana",
    })
}

/// That job, but for some claims; `null` takes one away.
fn but(mut job: Value, other: &[(&str, Value)]) -> Value {
    for (name, value) in other {
        job[name] = value.clone();
        if value.is_null() {
            job.as_object_mut().unwrap().remove(*name);
        }
    }
    job
}

#[tokio::test]
async fn a_job_is_whose_rule_it_fits() {
    let world = World::github().await;
    let vouch = world.told(&github_job()).await.unwrap();
    assert_eq!(vouch.id.to_string(), "ci:github|1/123/prod");
    assert_eq!(vouch.proven_by, ProvenBy::CiToken);
    assert_eq!(vouch.expires_at, NOW + Span::from_secs(300));
    let test = but(github_job(), &[("environment", Value::Null), ("ref", json!("refs/heads/feature/x"))]);
    assert_eq!(world.said(&test).await, "ci:github|1/123/-");
    let empty = but(test, &[("environment", json!(""))]);
    assert_eq!(world.said(&empty).await, "ci:github|1/123/-");
}

#[tokio::test]
async fn jobs_that_fit_no_rule() {
    let world = World::github().await;
    let check = async |other: &[(&str, Value)], expect: &str| {
        let expect = format!("no rule in [ci_jobs] fits this job: {expect}");
        assert_eq!(world.said(&but(github_job(), other)).await, expect, "{other:?}");
    };
    check(&[("repository_id", json!("456"))], "repository_id is 456, rule `deploy` wants 123").await;
    check(&[("repository_id", json!(123))], "repository_id is the number 123, rule `deploy` wants 123").await;
    check(&[("repository_id", json!("0123"))], "repository_id is 0123, rule `deploy` wants 123").await;
    check(&[("repository_id", json!("123 "))], "repository_id is `123 `, rule `deploy` wants 123").await;
    check(&[("repository_id", json!("*"))], "repository_id is `*`, rule `deploy` wants 123").await;
    check(&[("repository_id", json!(["123"]))], "repository_id is a list, rule `deploy` wants 123").await;
    check(&[("repository_id", Value::Null)], "repository_id is missing, rule `deploy` wants 123").await;
    check(&[("repository_owner_id", json!("2"))], "repository_owner_id is 2").await;
    check(&[("environment", json!("Prod"))], "environment is `Prod`, rule `deploy` wants `prod`").await;
    check(&[("environment", json!("staging"))], "environment is `staging`, rule `deploy` wants `prod`").await;
    check(
        &[("ref", json!("refs/heads/main2"))],
        "ref is `refs/heads/main2`, rule `deploy` wants `refs/heads/main`",
    )
    .await;
    check(
        &[("ref", json!("refs/tags/main"))],
        "ref is `refs/tags/main`, rule `deploy` wants `refs/heads/main`",
    )
    .await;
    let evil = json!("evil/shop/.github/workflows/deploy.yml@refs/heads/main");
    let wants = "rule `deploy` wants `acme/shop/.github/workflows/deploy.yml@refs/heads/*`";
    let expect =
        format!("job_workflow_ref is `evil/shop/.github/workflows/deploy.yml@refs/heads/main`, {wants}");
    check(&[("job_workflow_ref", evil)], &expect).await;
    let deeper = json!("acme/shop/.github/workflows/deploy.yml@refs/heads/a/b");
    let expect =
        format!("job_workflow_ref is `acme/shop/.github/workflows/deploy.yml@refs/heads/a/b`, {wants}");
    check(&[("job_workflow_ref", deeper)], &expect).await;
    let none = ("environment", Value::Null);
    check(
        &[none.clone(), ("ref", json!("refs/pull/7/merge"))],
        "ref is `refs/pull/7/merge`, rule `test` wants `refs/heads/**`",
    )
    .await;
    let event = ("event_name", json!("pull_request_target"));
    check(
        &[none, event],
        "event_name is `pull_request_target`, rule `test` wants `push` or `workflow_dispatch`",
    )
    .await;
    let long = format!("refs/heads/a\n{}", "b".repeat(500));
    let shown = format!("ref is `refs/heads/a\\n{}`, rule `deploy` wants `refs/heads/main`", "b".repeat(106));
    check(&[("ref", json!(long))], &shown).await;
}

/// Anybody has an account at a public platform, and with it tokens of jobs for every audience.
#[tokio::test]
async fn a_stranger_s_job_reads_no_rule_off_its_refusal() {
    let world = World::github().await;
    let other = [("repository_owner_id", json!("666")), ("repository_id", json!("667"))];
    let refused = world.told(&but(github_job(), &other)).await.unwrap_err();
    assert_eq!(refused.what, "no rule in [ci_jobs] fits this job: repository_owner_id is 666");
    assert!(!refused.next.contains("deploy"), "{refused:?}");
}

#[tokio::test]
async fn claims_of_any_platform_are_of_the_type_that_is_written() {
    let world = World::new("builds", Platform::Generic, &generic_rules()).await;
    let now = NOW.0 / 1000;
    let job = json!({
        "aud": AUDIENCE, "iat": now, "exp": now + 60, "sub": "pipeline:7", "protected": true, "team": 123,
    });
    assert_eq!(world.said(&job).await, "ci:builds|ship");
    let check = async |name: &str, value: Value, expect: &str| {
        let expect = format!("no rule in [ci_jobs] fits this job: {expect}");
        assert_eq!(world.said(&but(job.clone(), &[(name, value.clone())])).await, expect, "{name} = {value}");
    };
    check("team", json!("123"), "team is `123`, rule `ship` wants the number 123").await;
    check("team", json!(123.5), "team is the number 123.5, rule `ship` wants the number 123").await;
    check("team", json!(null), "team is missing, rule `ship` wants the number 123").await;
    check("protected", json!("true"), "protected is `true`, rule `ship` wants true").await;
    check("protected", json!(1), "protected is the number 1, rule `ship` wants true").await;
    check("protected", json!({}), "protected is an object, rule `ship` wants true").await;
    check("sub", json!("pipeline:8"), "sub is `pipeline:8`").await;
}

#[tokio::test]
async fn no_rule_and_two_rules_are_no_identity() {
    let world = World::new("github", Platform::Github, &[]).await;
    assert_eq!(world.said(&github_job()).await, "no rule in [ci_jobs] is for the issuer `github`");
    let mut rules = generic_rules();
    rules.push(rule("other", "builds", "other", vec![want("sub", text("pipeline:7"))]));
    let world = World::new("builds", Platform::Generic, &rules).await;
    let now = NOW.0 / 1000;
    let job =
        json!({ "aud": AUDIENCE, "exp": now + 60, "sub": "pipeline:7", "protected": true, "team": 123 });
    assert_eq!(world.said(&job).await, "two rules in [ci_jobs] fit this job: `ship` and `other`");
}

/// The signature is checked before any claim is told.
#[tokio::test]
async fn a_token_is_judged_before_its_claims() {
    let world = World::github().await;
    let told = async |other: &[(&str, Value)]| world.told(&but(github_job(), other)).await.unwrap_err();
    let refused = told(&[("aud", json!("https://github.com/acme"))]).await;
    assert_eq!(refused.what, "the token's audience is not exactly `leasehold-ci`");
    assert_eq!(refused.next, "ask your issuer for a token with that audience and no other");
    let late = told(&[("exp", json!(NOW.0 / 1000 + 4000))]).await;
    assert!(late.what.starts_with("the token lives for"), "{late:?}");
    let forger = World::github().await;
    let forged = forger.issuer.token(but(github_job(), &[("iss", json!(world.issuer.url()))])).unwrap();
    let peek = token::peek(&forged).unwrap();
    let refused = world.tokens.verify(&forged, &peek, NOW).await.unwrap_err();
    assert_eq!(refused.what, "the token's signature is not its issuer's");
    let away = World::github().await;
    away.issuer.set("/keys", Some(Answer::Broken));
    assert!(away.told(&github_job()).await.unwrap_err().is_ours, "nobody's fault but ours");
}

#[tokio::test]
async fn tokens_of_others_are_left_to_others() {
    let hub = World::github().await;
    let lab = World::new("gitlab", Platform::Gitlab, &[]).await;
    let peek = |issuer: &str, audience: &str| Peek {
        key_id: "k1".to_owned(),
        issuer: Some(issuer.to_owned()),
        subject: None,
        audiences: vec![audience.to_owned()],
        expires_at: None,
    };
    assert!(hub.tokens.is_mine(&peek(hub.issuer.url(), "else")), "a wrong audience is worth naming");
    assert!(lab.tokens.is_mine(&peek(lab.issuer.url(), AUDIENCE)));
    assert!(!lab.tokens.is_mine(&peek(lab.issuer.url(), "people")), "people may sign in there");
    assert!(!hub.tokens.is_mine(&peek(&format!("{}/", hub.issuer.url()), AUDIENCE)));
}
