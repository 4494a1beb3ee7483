use leasehold_law::policy::{PolicyProblem, PolicySource};

use crate::fixture::{catalog, load};

fn problems(text: &str) -> Vec<String> {
    let found = load(&catalog(), text).err().unwrap_or_default();
    found.into_iter().map(|PolicyProblem { line, what, .. }| format!("{line}: {what}")).collect()
}

#[test]
fn annotations_are_checked() {
    let check = |text: &str, expect: &[&str]| assert_eq!(problems(text), expect, "{text}");
    let permit = "permit (principal, action, resource);";
    let on = |annotations: &str| format!("{annotations} {permit}");
    check(&on("@id(\"a\")"), &[]);
    check(&on("@id(\"a\") @approvers(\"1 of target-owner and 2 of group:oncall\") @timeout(\"10m\")"), &[]);
    check(&on("@id(\"a\") @unattended(\"night batch\")"), &[]);
    check(permit, &["1: a policy needs a name: write `@id(\"...\")` before it"]);
    check(&on("@id(\"\")"), &["1: a policy needs a name: write `@id(\"...\")` before it"]);
    check(
        &on("@id(\"grant:a@b\")"),
        &["1: `@id` may not begin with `grant:`: those are the permits of grants"],
    );
    check(
        &on("@id(\"a\")\n@aprovers(\"1 of target-owner\")"),
        &["2: unknown annotation `@aprovers`; did you mean `@approvers`?"],
    );
    check(&on("@id(\"a\") @reviewers(\"ana\")"), &["1: unknown annotation `@reviewers`"]);
    check(
        "@id(\"a\") @approvers(\"1 of target-owner\") forbid (principal, action, resource);",
        &["1: `@approvers` belongs on a permit, not on a forbid"],
    );
    check(&on("@id(\"a\") @unattended"), &["1: `@unattended` needs a reason: write `@unattended(\"why\")`"]);
    check(
        &on("@id(\"a\") @unattended(\" \")"),
        &["1: `@unattended` needs a reason: write `@unattended(\"why\")`"],
    );
    check(&on("@id(\"a\") @timeout(\"5m\")"), &["1: `@timeout` needs `@approvers`"]);
    check(
        &on("@id(\"a\") @approvers(\"1 of target-owner\") @timeout(\"soon\")"),
        &["1: `@timeout`: `soon` is not a length of time; write it like `90s`, `15m` or `1h30m`"],
    );
    check(
        &on("@id(\"a\") @approvers(\"1 of target-owner\") @unattended(\"x\")"),
        &["1: `@unattended` and `@approvers` contradict each other"],
    );
    check(
        &format!("{}\n{}", on("@id(\"a\")"), on("@id(\"a\")")),
        &["2: `@id(\"a\")` stands already in x.cedar line 1"],
    );
}

#[test]
fn approvers_must_exist_and_be_enough() {
    let check = |approvers: &str, resource: &str, expect: &[&str]| {
        let text = format!("@id(\"a\") @approvers(\"{approvers}\") permit (principal, action, {resource});");
        assert_eq!(problems(&text), expect, "{approvers}");
    };
    let form = "names no approvers; write `N of WHO`, joined by ` and `, where WHO is target-owner, \
                agent-owner, group:NAME or person:NAME";
    check("1 of person:ben and 1 of agent-owner", "resource", &[]);
    check("anyone", "resource", &[&format!("1: `@approvers`: `anyone` {form}")]);
    check("", "resource", &[&format!("1: `@approvers`: `` {form}")]);
    check("3 of group:oncall", "resource", &["1: `@approvers`: `group:oncall` has 2, and 3 are needed"]);
    check("1 of group:on-call", "resource", &["1: `@approvers`: `group:on-call` is not in the config"]);
    check("1 of person:eve", "resource", &["1: `@approvers`: `person:eve` is not in the config"]);
    check(
        "2 of target-owner",
        "resource == Target::\"db-prod\"",
        &["1: `@approvers`: target-owner of target `db-prod`: `group:data-platform` has 1, and 2 are needed"],
    );
}

#[test]
fn names_must_be_in_the_config() {
    let check = |scope: &str, condition: &str, expect: &[&str]| {
        let text = format!("@id(\"a\") permit ({scope}) when {{ {condition} }};");
        assert_eq!(problems(&text), expect, "{text}");
    };
    check(
        "principal in AgentGroup::\"soc\", action in Action::\"class:irreversible\", resource",
        "context.renewal",
        &[],
    );
    check("principal, action, resource in TargetGroup::\"databases\"", "context.renewal", &[]);
    check(
        "principal in AgentGroup::\"sox\", action, resource",
        "context.renewal",
        &["1: `AgentGroup::\"sox\"`: the config has no such group of agents; did you mean `soc`?"],
    );
    check(
        "principal, action == Action::\"orders.raed\", resource",
        "context.renewal",
        &[
            "1: `Action::\"orders.raed\"`: the config has no such intent or class; did you mean `orders.read`?",
        ],
    );
    check(
        "principal, action, resource",
        "resource == Target::\"db-prd\"",
        &["1: `Target::\"db-prd\"`: the config has no such target; did you mean `db-prod`?"],
    );
    check(
        "principal == Agent::\"spiffe://prod.example/agent/triag\", action, resource",
        "context.renewal",
        &["1: `Agent::\"spiffe://prod.example/agent/triag\"`: the config has no such agent; did you mean \
           `spiffe://prod.example/agent/triage`?"],
    );
}

#[test]
fn a_policy_that_does_not_fit_the_schema_is_refused() {
    let check = |condition: &str, expect: &str| {
        let text = format!(
            "@id(\"a\")\nforbid (principal, action == Action::\"orders.read\", resource)\nwhen {{ {condition} }};"
        );
        let found = problems(&text);
        assert!(found.iter().any(|what| what.starts_with("3: ") && what.contains(expect)), "{found:?}");
    };
    check(
        "context.tttl > duration(\"5m\")",
        "attribute `tttl` in context for Action::\"orders.read\" not found",
    );
    check("context.ttl > 5", "unexpected type");
    check("resource.labels.env == \"prod\"", "env");
    check("context.params.note == \"x\"", "note");
    let impossible =
        problems("@id(\"a\") forbid (principal, action, resource) when { resource.labels has evn };");
    assert!(impossible.iter().any(|what| what.contains("impossible")), "{impossible:?}");
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = "// one\n@id(\"a\") permit (principal, action, resource) when { context.x };\n\
                permit (principal action, resource);\n\n\
                @id(\"b\") permit (principal == ?principal, action, resource);\n\
                @id(\"a\")\n@unattended permit (principal, action, resource);";
    let lines: Vec<_> =
        problems(text).iter().map(|what| what.split_once(':').unwrap().0.to_owned()).collect();
    assert_eq!(lines, ["2", "3", "5", "6", "7"], "{:#?}", problems(text));
}

#[test]
fn a_policy_may_look_at_incidents() {
    let text = r#"
        @id("purge-needs-owner-and-oncall")
        @approvers("1 of target-owner and 1 of group:oncall") @timeout("5m")
        permit (principal in AgentGroup::"soc", action in Action::"class:irreversible", resource)
        when { context has incident && context.incident.open && context.incident.severity <= 2 };
        @id("hand-over")
        forbid (principal, action, resource) when { context has on_behalf_of && context.on_behalf_of == Person::"ben" };
        @id("before")
        forbid (principal, action, resource) when { context.now < datetime("2026-01-01") || context.approvals.contains("x") };
    "#;
    assert_eq!(problems(text), [""; 0]);
}

#[test]
fn a_class_without_intents_is_no_mistake() {
    let mut catalog = catalog();
    catalog.intents.retain(|_, intent| intent.name == "orders.fix");
    let text = "@id(\"a\") permit (principal, action in Action::\"class:irreversible\", resource);";
    assert!(load(&catalog, text).is_ok(), "{:?}", load(&catalog, text).err());
}

#[test]
fn a_grant_names_groups_that_exist() {
    let mut catalog = catalog();
    for grant in catalog.grants.values_mut() {
        grant.allow.insert("socs".into());
    }
    let found = load(&catalog, "").err().unwrap();
    let expect = "`allow` names `socs`: the config has no such group of agents; did you mean `soc`?";
    let expect = PolicyProblem { source: "grant orders.fix@db-dev".into(), line: 1, what: expect.into() };
    assert_eq!(found, [expect]);
}

#[test]
fn the_digest_tells_policy_sets_apart() {
    let digest = |name: &str, text: &str| {
        let source = PolicySource { name: name.into(), text: text.into() };
        leasehold_law::policy::Engine::load(&catalog(), &[source]).unwrap().digest().to_owned()
    };
    assert_eq!(digest("a", "").len(), 64);
    assert_eq!(digest("a", ""), digest("a", ""));
    assert_ne!(digest("a", ""), digest("a", "//"));
    assert_ne!(digest("a\n", ""), digest("a", "\n"), "a name does not run into a text");
}
