//! `grants`: what the caller may ask for now.

use clap::Args;
use leasehold_client::v1;
use serde_json::{Value, json};

use super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    view::{self, Word, wire_length},
    whoami::freeze_line,
};

/// `grants`.
#[derive(Debug, Args)]
#[command(after_help = "Example: leasehold grants --target orders-db")]
pub struct GrantsArgs {
    /// Only this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(args: GrantsArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let target = args.target.unwrap_or_default();
    let (grants, more) = pages(args.limit, |page_size, page_token| {
        let request = v1::ListGrantsRequest { page_size, page_token, target: target.clone() };
        let client = &client;
        async move {
            let answer =
                client.persist(|| async { client.leases().list_grants(request.clone()).await }).await?;
            Ok((answer.grants, answer.next_page_token))
        }
    })
    .await?;
    let frozen = client.whoami().await?.frozen;
    session.console.report(&report(&grants, more, frozen.as_ref())).map(|()| Exit::DONE)
}

/// Policy's word, and above it that an operator has stopped the caller, whatever policy says.
fn report(grants: &[v1::Grant], more: bool, frozen: Option<&v1::Freeze>) -> Report {
    let stopped =
        frozen.map(|freeze| format!("you are frozen {}\n", freeze_line(freeze))).unwrap_or_default();
    let rows: Vec<_> = grants.iter().map(row).collect();
    let heading = ["PAIR", "CLASS", "NOW", "TTL", "MOST", "LIFE", "REVOKED", "PARAMS"];
    let table = view::table(&heading, &rows, "nothing may be asked for now");
    Report::new(
        stopped + &table + more_line(more),
        json!({
            "grants": grants.iter().map(grant).collect::<Vec<_>>(), "more": more, "frozen": json::freeze(frozen),
        }),
    )
}

fn row(grant: &v1::Grant) -> Vec<String> {
    vec![
        format!("{}@{}", grant.intent, grant.target),
        grant.class().word(),
        grant.outcome().word(),
        wire_length(grant.ttl_default),
        wire_length(grant.ttl_max),
        wire_length(grant.life),
        grade_words(grant.grade(), grant.window),
        grant.params.iter().map(param_words).collect::<Vec<_>>().join(" "),
    ]
}

/// How surely, and within what time.
pub(crate) fn grade_words(grade: v1::Grade, window: Option<prost_types::Duration>) -> String {
    let window = window.filter(|window| *window != prost_types::Duration::default());
    match window {
        Some(window) => format!("{} within {}", grade.word(), wire_length(Some(window))),
        None => grade.word(),
    }
}

/// `reason_code=triage|audit`, `[limit=int]` where it may be left out.
fn param_words(spec: &v1::ParamSpec) -> String {
    let what = match (spec.one_of.is_empty(), spec.pattern.is_empty()) {
        (false, _) => spec.one_of.join("|"),
        (true, false) => format!("/{}/", spec.pattern),
        (true, true) => bounds(spec),
    };
    let written = format!("{}={what}", spec.name);
    if spec.optional { format!("[{written}]") } else { written }
}

fn bounds(spec: &v1::ParamSpec) -> String {
    match (spec.min, spec.max) {
        (None, None) => spec.r#type().word(),
        (min, max) => {
            let end = |bound: Option<i64>| bound.map(|number| number.to_string()).unwrap_or_default();
            format!("{}..{}", end(min), end(max))
        }
    }
}

fn grant(grant: &v1::Grant) -> Value {
    let param = |spec: &v1::ParamSpec| {
        json!({
            "name": spec.name, "type": json::word(spec.r#type()), "one_of": spec.one_of, "pattern": spec.pattern,
            "min": spec.min, "max": spec.max, "optional": spec.optional,
        })
    };
    json!({
        "intent": grant.intent, "target": grant.target, "class": json::word(grant.class()),
        "outcome": json::word(grant.outcome()), "ttl_default": json::span(grant.ttl_default),
        "ttl_max": json::span(grant.ttl_max), "life": json::span(grant.life), "grade": json::word(grant.grade()),
        "window": json::span(grant.window), "params": grant.params.iter().map(param).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: v1::ParamSpec, expect: &str) {
        assert_eq!(param_words(&v1::ParamSpec { name: "p".into(), ..spec }), expect);
    }

    #[test]
    fn whoever_is_frozen_reads_it_first() {
        let freeze =
            v1::Freeze { revocation: "rev_1".into(), reason: "INC-114".into(), ..v1::Freeze::default() };
        let told = report(&[], false, Some(&freeze));
        assert!(told.text.starts_with("you are frozen by rev_1, reason \"INC-114\""), "{}", told.text);
        assert!(!report(&[], false, None).text.contains("frozen"));
    }

    #[test]
    fn params_are_told_as_they_are_written() {
        let spec = v1::ParamSpec::default;
        check(v1::ParamSpec { one_of: vec!["a".into(), "b".into()], ..spec() }, "p=a|b");
        check(v1::ParamSpec { pattern: "[a-z]+".into(), ..spec() }, "p=/[a-z]+/");
        check(v1::ParamSpec { min: Some(1), optional: true, ..spec() }, "[p=1..]");
        check(v1::ParamSpec { r#type: v1::param_spec::Type::Bool.into(), ..spec() }, "p=bool");
    }
}
