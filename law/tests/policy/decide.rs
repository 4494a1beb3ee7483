use leasehold_law::catalog::{Agent, Autonomy, Floor};
use leasehold_law::drill::Plan;
use leasehold_law::param::{ParamValue, Params};
use leasehold_law::policy::{Answer, ApprovalNeed, Denial, Engine, Near, Verdict};
use leasehold_law::registry::{Lowered, LoweredBy, Status, Terms};
use leasehold_law::time::Span;

use crate::fixture::{Ask, agent, catalog, load};

const POLICIES: &str = r#"
@id("soc-reads")
permit (principal in AgentGroup::"soc", action == Action::"orders.read", resource)
when { context.ttl <= duration("15m") && resource.labels has env };

@id("soc-audits")
permit (principal in AgentGroup::"soc", action == Action::"orders.audit", resource)
when { context.params.reason_code == "audit" };

@id("fixes")
permit (principal, action == Action::"orders.fix", resource == Target::"db-prod") unless { context.task.liveness == "deadline" };

@id("purge-at-night") @unattended("the nightly batch")
permit (principal, action == Action::"orders.purge", resource == Target::"db-dev") when { context.renewal };

@id("purge-with-people") @approvers("1 of target-owner and 1 of group:oncall") @timeout("10m")
permit (principal, action == Action::"orders.purge", resource);

@id("no-mass-reads")
forbid (principal, action == Action::"orders.read", resource)
when { context.params has rows && context.params.rows > 1000 && resource.labels has data };

@id("no-dry-runs")
forbid (principal, action == Action::"orders.read", resource) when { context.params has dry_run && context.params.dry_run };

@id("overflows")
forbid (principal, action == Action::"orders.read", resource)
when { context.depth == 99 && context.depth + 9223372036854775807 > 0 };

@id("ci-never")
forbid (principal in AgentGroup::"ci", action, resource == Target::"db-prod");
"#;

fn engine() -> Engine {
    load(&catalog(), POLICIES).unwrap()
}

fn near(policy: &str, conditions: &[&str]) -> Near {
    Near { policy: policy.into(), conditions: conditions.iter().map(|words| (*words).to_owned()).collect() }
}

/// The answer with its policies, and that verdict and record agree.
fn check(ask: &Ask, answer: Answer, policies: &[&str]) {
    let decision = ask.put(&engine());
    let record = &decision.record;
    assert_eq!(
        (record.answer, record.policies.clone()),
        (answer, policies.iter().map(|p| (*p).into()).collect()),
        "{record:?}"
    );
    match (&decision.verdict, answer) {
        (Verdict::Allow(permit), Answer::Allow) => assert_eq!(permit.decision(), record.id),
        (Verdict::Ask(need), Answer::Ask) => assert_eq!(Some(need), record.need.as_ref()),
        (Verdict::Deny(denial), Answer::Deny) => assert_eq!(Some(denial), record.denial.as_ref()),
        (verdict, answer) => panic!("{verdict:?} is not {answer:?}"),
    }
}

fn check_denied(ask: &Ask, expect: Denial) {
    let record = ask.put(&engine()).record;
    assert_eq!(record.denial, Some(expect));
    assert_eq!(record.answer, Answer::Deny);
}

#[test]
fn permits_allow_where_the_floor_lets_them() {
    check(&Ask::of("orders.read@db-dev"), Answer::Allow, &["soc-reads"]);
    check(&Ask::of("orders.read@db-prod"), Answer::Allow, &["soc-reads"]);
    check(&Ask::of("orders.read@db-dev").ttl("15m"), Answer::Allow, &["soc-reads"]);
    check(&Ask::of("orders.fix@db-dev"), Answer::Allow, &["grant:orders.fix@db-dev"]);
    check(&Ask::of("orders.fix@db-dev").group("ci"), Answer::Allow, &["grant:orders.fix@db-dev"]);
    check(&Ask::of("orders.audit@db-dev").text("reason_code", "audit"), Answer::Allow, &["soc-audits"]);
}

#[test]
fn production_and_irreversible_ask() {
    let check_need = |pair: &str, approvers: &str, minutes: u64| {
        let record = Ask::of(pair).put(&engine()).record;
        let need =
            ApprovalNeed { approvers: approvers.into(), excluded: None, timeout: Span::from_mins(minutes) };
        assert_eq!((record.answer, record.floor, record.need), (Answer::Ask, Floor::Ask, Some(need)));
    };
    check_need("orders.fix@db-prod", "1 of target-owner", 5);
    check_need("orders.purge@db-dev", "1 of target-owner and 1 of group:oncall", 10);
    check(&Ask::of("orders.fix@db-prod"), Answer::Ask, &["fixes"]);
}

#[test]
fn an_unattended_permit_goes_below_the_floor() {
    let renewal = |pair| Ask { renewal: true, ..Ask::of(pair) };
    check(&renewal("orders.purge@db-dev"), Answer::Allow, &["purge-at-night"]);
    check(&Ask::of("orders.purge@db-dev"), Answer::Ask, &["purge-with-people"]);
    check(&renewal("orders.purge@db-prod"), Answer::Ask, &["purge-with-people"]);
}

/// Whatever else runs on that machine as that person may have its proof too: not even an unattended permit is enough.
#[test]
fn an_agent_in_a_person_s_session_asks_beyond_reading_in_production() {
    let text = "@id(\"free\") @unattended(\"a test\") permit (principal, action, resource);";
    let engine = load(&catalog(), text).unwrap();
    let personal =
        |pair| Ask { agent: agent("personal:https://idp.example|00u1/coding", &["soc"]), ..Ask::of(pair) };
    let check = |ask: &Ask, expect: Answer| {
        let record = ask.put(&engine).record;
        assert_eq!(record.answer, expect, "{} {}", ask.agent.id, ask.pair);
        let excluded = (expect == Answer::Ask).then(|| "person:ana".parse().unwrap());
        assert_eq!(record.need.and_then(|need| need.excluded), excluded, "its own person is not asked");
    };
    for pair in ["orders.fix@db-prod", "orders.purge@db-prod"] {
        check(&Ask::of(pair), Answer::Allow);
        check(&personal(pair), Answer::Ask);
    }
    for pair in ["orders.read@db-prod", "orders.read@db-dev", "orders.fix@db-dev"] {
        check(&personal(pair), Answer::Allow);
    }
}

#[test]
fn a_forbid_wins_and_says_which_of_the_agent_s_inputs_it_is_about() {
    let rows = Ask::of("orders.read@db-prod").param("rows", ParamValue::Int(5000));
    let told = [
        "param rows is given; you asked for 5000",
        "param rows > 1000; you asked for 5000",
        "a further condition",
    ];
    check_denied(&rows, Denial::Forbidden { by: vec![near("no-mass-reads", &told)] });
    check(&rows, Answer::Deny, &["no-mass-reads"]);
    check(&Ask::of("orders.read@db-dev").param("rows", ParamValue::Int(5000)), Answer::Allow, &["soc-reads"]);
    let ci = Ask::of("orders.fix@db-prod").group("ci");
    check_denied(&ci, Denial::Forbidden { by: vec![near("ci-never", &[])] });
    let text =
        "@id(\"brief\") forbid (principal, action, resource) when { context.ttl > duration(\"15m\") };";
    let record = Ask::of("orders.fix@db-dev").ttl("1h").put(&load(&catalog(), text).unwrap()).record;
    let by = vec![near("brief", &["ttl > 15m; you asked for 1h"])];
    assert_eq!(record.denial, Some(Denial::Forbidden { by }));
}

#[test]
fn the_nearest_permit_is_named() {
    let check_near = |ask: &Ask, nearest: Option<Near>| check_denied(ask, Denial::NoPermit { nearest });
    check_near(
        &Ask::of("orders.read@db-dev").ttl("1h"),
        Some(near("soc-reads", &["ttl <= 15m; you asked for 1h"])),
    );
    check_near(
        &Ask::of("orders.audit@db-dev").text("reason_code", "triage"),
        Some(near("soc-audits", &["param reason_code == \"audit\"; you asked for \"triage\""])),
    );
    check_near(
        &Ask { liveness: "deadline", ..Ask::of("orders.fix@db-prod") },
        Some(near("fixes", &["task liveness != \"deadline\"; yours is deadline"])),
    );
    check_near(&Ask::of("orders.read@db-dev").group("ci"), None);
    check_near(&Ask::of("orders.read@nowhere"), None);
    check_near(&Ask::of("orders.write@db-dev"), None);
}

#[test]
fn the_permit_with_the_fewest_false_conditions_is_the_nearest() {
    let text = r#"
        @id("a") permit (principal, action, resource) when { context.ttl < duration("1m") && context.renewal };
        @id("b") permit (principal, action, resource) when { principal in AgentGroup::"ci" };
        @id("c") permit (principal, action, resource) when { principal.autonomy == "observe" || context.depth == 0 };
    "#;
    let record = Ask::of("orders.read@db-dev").put(&load(&catalog(), text).unwrap()).record;
    let nearest = Some(near("b", &["agent in group ci"]));
    assert_eq!(record.denial, Some(Denial::NoPermit { nearest }));
}

#[test]
fn conditions_are_told_in_plain_words() {
    let check_words = |condition: &str, expect: &str| {
        let text = format!(
            "@id(\"a\") permit (principal, action == Action::\"orders.read\", resource) {condition};"
        );
        let ask =
            Ask::of("orders.read@db-prod").text("reason_code", "triage").param("rows", ParamValue::Int(7));
        let record = ask.put(&load(&catalog(), &text).unwrap()).record;
        let nearest = Some(near("a", &[expect]));
        assert_eq!(record.denial, Some(Denial::NoPermit { nearest }), "{condition}");
    };
    check_words("unless { context.ttl >= duration(\"90s\") }", "ttl < 1m30s; you asked for 10m");
    check_words("when { context.ttl.toMinutes() < 3 }", "ttl in minutes < 3; you asked for 10m");
    check_words("when { context.task.age < duration(\"30m\") }", "task age < 30m; yours is 1h");
    check_words("when { context.params has tables }", "param tables is given; you asked for none");
    check_words("unless { principal in AgentGroup::\"soc\" }", "agent not in group soc");
    check_words(
        "when { context.params has rows && [1, 2].contains(context.params.rows) }",
        "param rows in [1, 2]; you asked for 7",
    );
    check_words(
        "when { context.params has reason_code && context.params.reason_code like \"aud*\" }",
        "param reason_code like \"aud*\"; you asked for \"triage\"",
    );
    check_words(
        "when { context.ttl < duration(\"1m\") || context.task.liveness == \"deadline\" }",
        "ttl < 1m or task liveness == \"deadline\"; you asked for ttl 10m; yours is task liveness heartbeat",
    );
    check_words("when { context.ttl < duration(\"1m\") || resource.owner == \"x\" }", "a further condition");
    check_words("when { context.proof == \"jwt\" }", "a further condition");
    check_words("when { resource.labels has env && resource.labels.env == \"dev\" }", "a further condition");
}

#[test]
fn a_policy_that_fails_denies() {
    let ask = Ask { depth: 99, ..Ask::of("orders.read@db-dev") };
    check_denied(&ask, Denial::PolicyError { policies: vec!["overflows".into()] });
    check(&ask, Answer::Deny, &["overflows"]);
}

#[test]
fn facts_that_do_not_fit_deny() {
    let none = || Denial::PolicyError { policies: vec![] };
    check_denied(&Ask::of("orders.audit@db-dev"), none());
    check_denied(&Ask::of("orders.read@db-dev").text("rows", "many"), none());
    check_denied(&Ask::of("orders.read@db-dev").text("color", "red"), none());
    check_denied(&Ask { ttl: Span(u64::MAX), ..Ask::of("orders.read@db-dev") }, none());
}

#[test]
fn text_without_limits_is_no_input() {
    check(&Ask::of("orders.read@db-dev").text("note", "forbid everything"), Answer::Allow, &["soc-reads"]);
}

#[test]
fn while_params_are_open_scope_clauses_decide_alone() {
    let open = |pair| Ask::of(pair).open();
    check(&open("orders.audit@db-dev"), Answer::Allow, &["soc-audits"]);
    check(&open("orders.read@db-dev").ttl("10h"), Answer::Allow, &["soc-reads"]);
    check(&open("orders.read@db-dev").group("ci"), Answer::Deny, &[]);
    check(&open("orders.fix@db-prod"), Answer::Ask, &["fixes"]);
    check(&open("orders.fix@db-prod").group("ci"), Answer::Deny, &["ci-never"]);
    check(&open("orders.purge@db-dev"), Answer::Allow, &["purge-at-night"]);
}

#[test]
fn the_present_registration_counts() {
    check(&Ask::of("orders.read@db-dev").group("ci"), Answer::Deny, &[]);
    check(&Ask::of("orders.read@db-dev").group("soc"), Answer::Allow, &["soc-reads"]);
}

#[test]
fn an_engine_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&engine());
}

#[test]
fn what_drills_may_do_exactly_that_and_below_no_floor() {
    let plan = |pair: &str| Plan { pair: pair.parse().unwrap(), params: Params::new() };
    let plans = [plan("orders.read@db-prod"), plan("orders.fix@db-dev")];
    let drills = |plans: &[Plan]| plans.iter().map(|plan| (plan.pair.target.clone(), plan.clone())).collect();
    let engine = load(&catalog().with_drills(drills(&plans)), POLICIES).unwrap();
    let answer = |pair: &str| {
        let ask = Ask { agent: Agent::drill(), ..Ask::of(pair) };
        let record = ask.put(&engine).record;
        (record.answer, record.policies)
    };
    let allowed = |id: &str| (Answer::Allow, vec![id.to_owned()]);
    assert_eq!(answer("orders.read@db-prod"), allowed("drill:orders.read@db-prod"));
    assert_eq!(answer("orders.fix@db-dev"), allowed("drill:orders.fix@db-dev"));
    assert_eq!(answer("orders.read@db-dev").0, Answer::Deny, "another target");
    assert_eq!(answer("orders.audit@db-prod").0, Answer::Deny, "another intent");
    let triage = Ask::of("orders.read@db-prod").group("none").put(&engine).record;
    assert_eq!(triage.answer, Answer::Deny, "another agent");
    let floor = load(&catalog().with_drills(drills(&[plan("orders.fix@db-prod")])), "").unwrap();
    let asked = Ask { agent: Agent::drill(), ..Ask::of("orders.fix@db-prod") }.put(&floor).record;
    assert_eq!(asked.answer, Answer::Ask);
    let asks_owners = r#"@id("x") @approvers("1 of agent-owner") permit (principal, action, resource);"#;
    assert!(load(&catalog().with_drills(drills(&plans)), asks_owners).is_ok(), "no people answer for drills");
    let taken = r#"@id("drill:x") permit (principal, action, resource);"#;
    assert!(load(&catalog(), taken).unwrap_err()[0].what.contains("may not begin with `drill:`"));
}

#[test]
fn autonomy_bounds_what_policy_permits() {
    let free = r#"@id("all") @unattended("a test") permit (principal, action, resource);"#;
    let engine = load(&catalog(), free).unwrap();
    let denial = |autonomy, lowered: &[Lowered], pair: &str, dry_run| {
        let mut ask = Ask { dry_run, ..Ask::of(pair) };
        ask.agent.autonomy = autonomy;
        ask.agent.standing.lowered = lowered.to_vec();
        ask.put(&engine).record.denial
    };
    let beyond = |level, lowered| Some(Denial::BeyondAutonomy { level, lowered });
    use Autonomy::{Act, Observe, Propose};
    let observes = [Lowered { to: Observe, by: LoweredBy::Retired }];
    let (read, fix) = ("orders.read@db-dev", "orders.fix@db-dev");
    assert_eq!(denial(Act, &[], fix, false), None);
    assert_eq!(denial(Observe, &[], read, false), None);
    assert_eq!(denial(Observe, &[], fix, true), beyond(Observe, None));
    assert_eq!(denial(Propose, &[], fix, true), None);
    assert_eq!(denial(Propose, &[], read, false), beyond(Propose, None));
    assert_eq!(denial(Act, &observes, read, false), None);
    assert_eq!(denial(Act, &observes, fix, false), beyond(Observe, Some(LoweredBy::Retired)));
    // What is lowered keeps every bound that it had: an agent that only proposes does not begin to hold.
    assert_eq!(denial(Propose, &observes, read, false), beyond(Propose, None));
    assert_eq!(denial(Propose, &observes, fix, true), beyond(Observe, Some(LoweredBy::Retired)));
}

#[test]
fn who_is_stopped_is_denied_everything_whatever_policy_says() {
    let free = r#"@id("all") @unattended("a test") permit (principal, action, resource);"#;
    let engine = load(&catalog(), free).unwrap();
    for status in Status::ALL {
        let mut ask = Ask { dry_run: true, ..Ask::of("orders.read@db-dev") };
        ask.agent.standing.status = status;
        let denied = status.stops().then_some(Denial::Stopped { status, ruling: None });
        assert_eq!(ask.put(&engine).record.denial, denied, "{status:?}");
    }
}

#[test]
fn policy_sees_the_lowest_level() {
    let text = r#"@id("observers") permit (principal, action == Action::"orders.read", resource)
        when { principal.autonomy == "observe" };"#;
    let engine = load(&catalog(), text).unwrap();
    let mut ask = Ask::of("orders.read@db-dev");
    assert_eq!(ask.put(&engine).record.answer, Answer::Deny);
    ask.agent.standing.lowered = vec![Lowered { to: Autonomy::Observe, by: LoweredBy::Retired }];
    assert_eq!(ask.put(&engine).record.answer, Answer::Allow);
}

#[test]
fn a_policy_may_name_whom_a_pattern_takes_in() {
    let mut catalog = catalog();
    let terms = Terms::from(&catalog.agents.values().next().unwrap().clone());
    let terms = Terms { groups: ["pipelines".to_owned()].into(), ..terms };
    catalog.patterns.insert("spiffe://prod.example/ci/*".parse().unwrap(), terms);
    let of = |who: &str| format!("@id(\"x\") permit (principal {who}, action, resource);");
    assert!(load(&catalog, &of("== Agent::\"spiffe://prod.example/ci/7\"")).is_ok());
    assert!(load(&catalog, &of("in AgentGroup::\"pipelines\"")).is_ok());
    assert!(load(&catalog, &of("== Agent::\"spiffe://prod.example/ci/7/8\"")).is_err());
}

#[test]
fn policy_sees_the_person_that_a_task_acts_for_and_their_groups() {
    const TEXT: &str = r#"
        @id("for-oncall") permit (principal, action == Action::"orders.read", resource)
        when { context has on_behalf_of && context.on_behalf_of in PersonGroup::"oncall" };
        @id("not-for-ben") forbid (principal, action, resource)
        when { context has on_behalf_of && context.on_behalf_of == Person::"ben" };
    "#;
    let engine = load(&catalog(), TEXT).unwrap();
    let check = |ask: Ask, answer: Answer, policies: &[&str]| {
        let record = ask.put(&engine).record;
        assert_eq!((record.answer, record.on_behalf_of), (answer, ask.person));
        assert_eq!(record.policies, policies);
    };
    let read = || Ask::of("orders.read@db-dev");
    check(read(), Answer::Deny, &[]);
    check(read().for_person("ana"), Answer::Allow, &["for-oncall"]);
    check(read().for_person("ben"), Answer::Deny, &["not-for-ben"]);
    // Nobody in the config: whoever it is, it is in no group, whatever it is called at its issuer.
    check(read().for_person("mallory"), Answer::Deny, &[]);
    // An agent whose registration changed since the engine was made brings its entities with each question.
    check(read().group("ci").for_person("ana"), Answer::Allow, &["for-oncall"]);
}
