//! `propose`: what would be decided, with nothing minted.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use leasehold_client::{Pair, v1, wire_duration};
use serde_json::json;

use super::{
    console::Report,
    grants::grade_words,
    json, parse,
    problem::{Exit, Problem},
    session::Session,
    view::{self, Word, wire_length},
};

/// `propose`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold propose orders.read@orders-db --ttl 10m --param reason_code=triage"
)]
pub struct ProposeArgs {
    /// What, and where.
    #[arg(value_name = "INTENT@TARGET", value_parser = parse::pair)]
    pair: Pair,
    #[command(flatten)]
    ask: AskArgs,
    /// A task of yours, whose scope then counts too.
    #[arg(long, value_name = "TASK", env = "LEASEHOLD_TASK")]
    task: Option<String>,
}

/// What a request says beside its pair.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskArgs {
    /// The lifetime, as 10m, at most 1d; the grant's default otherwise.
    #[arg(long, value_name = "DURATION", value_parser = parse::ttl)]
    pub(crate) ttl: Option<Duration>,
    /// A parameter of the intent; `leasehold grants` lists what each takes. May be given again.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    pub(crate) params: Vec<(String, String)>,
}

impl AskArgs {
    /// The parameters, typed.
    pub(crate) fn params(&self) -> BTreeMap<String, v1::ParamValue> {
        let typed = |text: &str| v1::ParamValue { kind: Some(parse::param_value(text)) };
        self.params.iter().map(|(name, value)| (name.clone(), typed(value))).collect()
    }
}

pub(crate) async fn run(args: ProposeArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.agents().await?;
    let request = v1::ProposeRequest {
        intent: args.pair.intent.clone(),
        target: args.pair.target.clone(),
        params: args.ask.params(),
        ttl: args.ask.ttl.and_then(wire_duration),
        task: args.task.unwrap_or_default(),
    };
    // Each proposal is a journal entry: asked once.
    let answer = client.call(client.leases().propose(request)).await?;
    let decision = answer.decision.clone().unwrap_or_default();
    session.console.report(&report(&args.pair, &answer, &decision))?;
    Ok(exit(decision.outcome()))
}

fn exit(outcome: v1::decision::Outcome) -> Exit {
    match outcome {
        v1::decision::Outcome::Allow => Exit::DONE,
        v1::decision::Outcome::Ask => Exit::WAITING,
        v1::decision::Outcome::Deny => Exit::DENIED,
        v1::decision::Outcome::Unspecified => Exit::FAILED,
    }
}

fn report(pair: &Pair, answer: &v1::ProposeResponse, decision: &v1::Decision) -> Report {
    let policies = decision.policies.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", ");
    let by = if policies.is_empty() { String::new() } else { format!(" by {policies}") };
    let reasons: Vec<_> = decision.reasons.iter().map(|one| one.text.as_str()).collect();
    let next: Vec<_> =
        decision.reasons.iter().map(|one| one.next.as_str()).filter(|next| !next.is_empty()).collect();
    let limit = decision.limited_by().word();
    let ttl = wire_length(decision.ttl);
    let text = view::fields(&[
        ("decision", format!("{}{by}  ({})", decision.outcome().word(), decision.id)),
        ("pair", pair.to_string()),
        ("why", reasons.join("; ")),
        ("next", next.join("; ")),
        ("would mint", decision.would_mint.clone()),
        ("would ask", decision.would_ask.clone()),
        (
            "ttl",
            if matches!(limit.as_str(), "" | "asked") { ttl } else { format!("{ttl}, limited by {limit}") },
        ),
        ("revoked", grade_words(answer.grade(), answer.window)),
    ]);
    let json = json!({
        "pair": pair.to_string(), "decision": json::decision(decision), "grade": json::word(answer.grade()),
        "window": json::span(answer.window),
    });
    Report::new(text, json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_says_what_would_be_minted() {
        let decision = v1::Decision {
            id: "dec_4k2m".into(),
            outcome: v1::decision::Outcome::Allow.into(),
            policies: vec!["grant:orders.read@orders-db".into()],
            would_mint: "one role in orders-db".into(),
            limited_by: v1::Limit::Asked.into(),
            ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            ..v1::Decision::default()
        };
        let answer = v1::ProposeResponse {
            decision: Some(decision.clone()),
            grade: v1::Grade::Exact.into(),
            window: None,
        };
        let pair = "orders.read@orders-db".parse().unwrap();
        insta::assert_snapshot!(report(&pair, &answer, &decision).text);
    }
}
