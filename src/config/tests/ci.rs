//! `[identity.ci]`, `[ci_jobs]`, `[identity.kubernetes]` and `[kube_accounts]`: what is taken, what is refused, and what
//! is worth a warning.

use super::*;

/// A door, issuers, and a rule and an account that reach nothing yet.
const OUTSIDE: &str = r#"
[identity.ci.github]
kind = "github"
[identity.ci.builds]
kind = "generic"
issuer = "https://builds.example"
[identity.kubernetes.prod]
issuer = "https://kube.example"
jwks_file = "prod-keys.json"
[ci_jobs.deploy]
issuer = "github"
owner = "group:data-platform"
groups = ["ci"]
autonomy = "act"
repository_owner_id = 1
repository_id = 123
environment = "prod"
ref = "refs/heads/main"
workflow = "acme/shop/.github/workflows/deploy.yml@refs/heads/*"
events = ["push"]
[ci_jobs.ship]
issuer = "builds"
owner = "group:data-platform"
autonomy = "observe"
claims = { sub = "pipeline:7", protected = true, team = 123 }
[kube_accounts."payments/worker"]
cluster = "prod"
owner = "group:data-platform"
groups = ["workers"]
autonomy = "act"
"#;

fn with(from: &str, to: &str) -> Folder {
    let outside = OUTSIDE.replacen(from, to, 1);
    assert!(from == to || outside != OUTSIDE, "no {from}");
    let listen = EXAMPLE.replace("[operators]", "bearer = \"0.0.0.0:8445\"\n[operators]");
    Folder::with(&format!("{listen}{outside}"))
}

/// Without file and line.
fn texts(found: &[String]) -> Vec<String> {
    found.iter().map(|line| line.splitn(4, ':').nth(3).unwrap().trim().to_owned()).collect()
}

fn refused(from: &str, to: &str) -> Vec<String> {
    texts(&with(from, to).problems(Trust::Production))
}

/// But for what is said of groups that reach nothing, as those here do.
fn warned(from: &str, to: &str) -> Vec<String> {
    let mut found = texts(&with(from, to).warnings());
    found.retain(|what| !what.starts_with("no grant lets in"));
    found
}

#[test]
fn a_quota_names_a_job_or_an_account_as_records_do() {
    let names = ["ci:github|1/123/prod", "ci:builds|ship", "kube:prod|payments/worker"];
    let lines: Vec<_> = names.iter().map(|name| format!("agents.\"{name}\" = {{ live = 3 }}\n")).collect();
    let quotas = format!("[quotas]\n{}[identity.ci.github]", lines.concat());
    let quotas = with("[identity.ci.github]", &quotas).load(Trust::Production).unwrap().config.quotas;
    for name in names {
        assert_eq!(quotas.of(&Holder::Agent(name.parse().unwrap())).live, Some(3), "{name}");
    }
    let wrong = "[quotas]\nagents.\"kube:prod|payments/workers\" = { live = 3 }\n[identity.ci.github]";
    let found = with("[identity.ci.github]", wrong).problems(Trust::Production);
    assert!(found[0].contains("did you mean `kube:prod|payments/worker`?"), "{found:?}");
}

#[test]
fn jobs_and_accounts_are_agents() {
    let folder = with("", "");
    let config = folder.load(Trust::Production).unwrap().config;
    let agents: Vec<_> = config.catalog.agents.keys().map(ToString::to_string).collect();
    let expect = [
        "spiffe://prod.example/agent/triage",
        "ci:builds|ship",
        "ci:github|1/123/prod",
        "kube:prod|payments/worker",
    ];
    assert_eq!(agents, expect);
    assert!(config.catalog.agents[&"ci:github|1/123/prod".parse().unwrap()].groups.contains("ci"));
    let [builds, github] = config.identity.ci.as_slice() else { panic!("two issuers") };
    assert_eq!(github.url.as_str(), "https://token.actions.githubusercontent.com");
    assert_eq!((builds.audience.as_str(), builds.max_life), ("leasehold-ci", Span::from_mins(60)));
    let cluster = &config.identity.kubernetes[0];
    assert_eq!(cluster.keys, crate::identity::issuer::KeySource::File(folder.path("prod-keys.json")));
    assert_eq!(config.kube_accounts[0].name, "payments/worker");
    let claims: Vec<_> = config.ci_jobs[0].wants.iter().map(|want| want.claim.as_str()).collect();
    let order =
        ["repository_owner_id", "repository_id", "environment", "ref", "job_workflow_ref", "event_name"];
    assert_eq!(claims, order, "what weighs most is told first");
    assert_eq!(config.ci_jobs[1].wants[0].claim, "sub");
}

/// Groups of jobs and accounts count where grants name them, and policy names the caller itself.
#[test]
fn grants_and_policies_name_jobs() {
    let folder = with("", "");
    let grant = r#"
[targets.scratch]
backend = "postgres"
owner = "group:data-platform"
labels = { env = "test" }
connect = { host = "db2.internal", port = 5432 }
[[grants]]
intent = "orders.read"
targets = ["scratch"]
allow = ["agents:ci", "agents:workers"]
recipe = { member_of = ["orders_reader"] }
ttl = { default = "10m", max = "15m", life = "1h" }
"#;
    folder.write("conf.d/scratch.toml", grant);
    let policy = r#"@id("jobs-wait")
forbid (principal == CiJob::"github|1/123/prod", action == Action::"orders.read", resource == Target::"scratch")
when { context.ttl > duration("5m") };
@id("accounts-wait")
forbid (principal == KubeAccount::"prod|payments/worker", action == Action::"orders.read", resource == Target::"scratch")
when { context.ttl > duration("5m") };"#;
    folder.write("policies/jobs.cedar", policy);
    assert_eq!(folder.problems(Trust::Production), [""; 0]);
    folder.write("policies/jobs.cedar", &policy.replace("1/123/prod", "1/124/prod"));
    assert_eq!(folder.problems(Trust::Production).len(), 1, "no rule makes that job");
}

#[test]
fn rules_that_are_refused() {
    let check = |from: &str, to: &str, expect: &str| assert_eq!(refused(from, to), [expect], "{to}");
    check("repository_id = 123\n", "", "`ci_jobs.deploy.repository_id` is missing");
    check("repository_owner_id = 1\n", "", "`ci_jobs.deploy.repository_owner_id` is missing");
    let id = |text: &str| format!("`{text}` is not an id: write the one number that it is, without quotes");
    check("repository_id = 123", "repository_id = \"*\"", &id("*"));
    check("repository_id = 123", "repository_id = \"123\"", &id("123"));
    check("repository_id = 123", "repository_id = -1", "`-1` is not an id: ids are positive");
    let name = "can be given to somebody else; `repository_owner_id` and `repository_id` cannot";
    let with_name = "repository_id = 123\nrepository = \"acme/shop\"";
    check("repository_id = 123", with_name, &format!("`repository` {name}"));
    let environment = |text: &str| {
        format!(
            "`{text}` is not an environment: write the one name that it has, of visible letters without spaces"
        )
    };
    check("environment = \"prod\"", "environment = \"*\"", &environment("*"));
    check("environment = \"prod\"", "environment = \"-\"", &environment("-"));
    check("environment = \"prod\"", "environment = \"EU prod\"", &environment("EU prod"));
    let full = |text: &str| format!("`{text}` is not a full ref: write it like `refs/heads/main`");
    check("ref = \"refs/heads/main\"", "ref = \"main\"", &full("main"));
    check("ref = \"refs/heads/main\"", "ref = \"*\"", &full("*"));
    let pattern = "`refs/heads/***` is not a pattern: wildcards are either regular `*` or recursive `**`";
    check("ref = \"refs/heads/main\"", "ref = \"refs/heads/***\"", pattern);
    let events = "`events` names no event: leave it out, or write it like `[\"push\"]`";
    check("events = [\"push\"]", "events = []", events);
    check("events", "event", "unknown key `ci_jobs.deploy.event`; did you mean `events`?");
    check("issuer = \"github\"", "issuer = \"git\"", "no issuer `git` is defined; there is builds, github");
    check("sub = \"pipeline:7\", ", "", "`claims` needs at least `sub`: whose token it is");
    check("team = 123", "team = [1]", "a claim is text, a whole number, or true or false");
    check("team = 123", "team = \"\"", "`ci_jobs.ship.claims.team` is empty");
    let again = "[ci_jobs.again]\nissuer = \"github\"\nowner = \"group:data-platform\"\nautonomy = \"act\"\n\
                 repository_owner_id = 1\nrepository_id = 123\nenvironment = \"prod\"\n[ci_jobs.ship]";
    let twice = "the rules `again` and `deploy` are both for `ci:github|1/123/prod`; an identity has one";
    check("[ci_jobs.ship]", again, twice);
    let wider = "[ci_jobs.wider]\nissuer = \"builds\"\nowner = \"group:data-platform\"\nautonomy = \"act\"\n\
                 claims = { sub = \"pipeline:7\", team = 123 }\n[ci_jobs.ship]";
    let both = "a job could fit both the rules `ship` and `wider`; let a claim tell them apart";
    check("[ci_jobs.ship]", wider, both);
    assert_eq!(refused("[ci_jobs.ship]", &wider.replace("123", "124")), [""; 0]);
}

#[test]
fn issuers_and_accounts_that_are_refused() {
    let check = |from: &str, to: &str, expect: &str| assert_eq!(refused(from, to), [expect], "{to}");
    let https = "is not an issuer: write it like `https://idp.example`, as it stands in its tokens";
    check("https://builds.example", "http://builds.example", &format!("`http://builds.example` {https}"));
    check("https://builds.example", "https://b.example?a=b", &format!("`https://b.example?a=b` {https}"));
    check("issuer = \"https://builds.example\"\n", "", "`identity.ci.builds.issuer` is missing");
    check(
        "kind = \"github\"",
        "kind = \"hub\"",
        "`hub` is no value of `identity.ci.github.kind`; there is generic, github, gitlab",
    );
    check(
        "kind = \"github\"",
        "kind = \"github\"\nmax_life = \"25h\"",
        "a token lives for more than 0 s and at most 1d; this is 1d1h",
    );
    check(
        "kind = \"github\"",
        "kind = \"github\"\naudience = \"a b\"",
        "an audience is up to 256 visible letters without spaces",
    );
    let workloads = "`leasehold` is the audience of workloads; jobs need another, such as `leasehold-ci`, or a token \
                     for one use would do for the other";
    check("kind = \"github\"", "kind = \"github\"\naudience = \"leasehold\"", workloads);
    check(
        "https://kube.example",
        "https://builds.example",
        "`prod` and `builds` are the same issuer, `https://builds.example`",
    );
    let keys = "`ca_file` is for asking the issuer, and `jwks_file` for not asking it; write one of them";
    check("jwks_file", "ca_file = \"ca.pem\"\njwks_file", keys);
    check("cluster = \"prod\"", "cluster = \"dev\"", "no cluster `dev` is defined; there is prod");
    for name in ["worker", "payments/", "Payments/worker", "payments/a/b", "payments/*"] {
        let expect = format!("`{name}` is not a service account: write it like `\"payments/worker\"`");
        check("payments/worker", name, &expect);
    }
    let found = Folder::with(&format!("{EXAMPLE}{OUTSIDE}")).problems(Trust::Production);
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert!(one.ends_with("tokens are accepted, and no door takes them: write `listen.bearer`"), "{one}");
}

/// The example's target is production; its grant of `orders.read` allows `soc`, and that of `orders.purge` nobody.
#[test]
fn rules_that_are_too_wide_for_production() {
    const PINS: &str = "environment = \"prod\"\nref = \"refs/heads/main\"";
    let granted = |pins: &str| {
        let rule = OUTSIDE.replace(PINS, pins).replace("groups = [\"ci\"]", "groups = [\"soc\"]");
        let listen = EXAMPLE.replace("[operators]", "bearer = \"0.0.0.0:8445\"\n[operators]");
        texts(&Folder::with(&format!("{listen}{rule}")).problems(Trust::Production))
    };
    assert_eq!(granted(PINS), [""; 0]);
    assert_eq!(granted("environment = \"prod\""), [""; 0], "an environment has its own protection");
    assert_eq!(granted("ref = \"refs/heads/release/*\""), [""; 0]);
    let any = "pins neither `environment` nor `ref`: whoever may push any branch gets there";
    assert_eq!(granted(""), [format!("the rule `deploy` reaches production and {any}")]);
    assert_eq!(warned(PINS, ""), [format!("the rule `deploy` {any}; let no policy lead it to production")]);

    let pulls = |pattern: &str| {
        format!("takes pull requests with its `ref`, `{pattern}`: write it like `refs/heads/main`")
    };
    for pattern in ["refs/**", "refs/pull/*/merge", "refs/*/*/*", "refs/p*/**"] {
        let pins = format!("ref = \"{pattern}\"\nevents = [\"pull_request\"]");
        let (from, to) = (format!("{PINS}\n"), format!("{pins}\n"));
        let rule = OUTSIDE.replace("events = [\"push\"]\n", "").replace(&from, &to);
        let rule = rule.replace("groups = [\"ci\"]", "groups = [\"soc\"]");
        let listen = EXAMPLE.replace("[operators]", "bearer = \"0.0.0.0:8445\"\n[operators]");
        let found = texts(&Folder::with(&format!("{listen}{rule}")).problems(Trust::Production));
        assert_eq!(
            found,
            [format!("the rule `deploy` reaches production and {}", pulls(pattern))],
            "{pattern}"
        );
    }
    assert_eq!(granted("ref = \"refs/**\""), [""; 0], "`events` leaves pull requests out");

    let target = warned("events = [\"push\"]", "events = [\"pull_request_target\"]");
    assert_eq!(target.len(), 2, "{target:?}");
    assert!(
        target[0].contains("takes `pull_request_target`, which anybody with a fork can start"),
        "{target:?}"
    );
}

#[test]
fn names_that_can_be_given_away_are_warned_of() {
    let found = warned("team = 123", "team = 123, email = \"ana@acme.example\"");
    assert_eq!(found, ["`email` can be given to somebody else; pin an id beside it, if there is one"]);
    assert_eq!(warned("", ""), [""; 0]);
}
