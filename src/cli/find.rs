//! `find`: from any name to who answers for it, and the commands that stop it.

use clap::Args;
use leasehold_client::{Client, v1};
use serde_json::{Value, json};

use super::{
    console::Report,
    json,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    view::Word,
};

/// `find`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: leasehold find lh06jr1k4t0b8s2c9q3m5v7ha1b2c3d4\n         leasehold find run=8812"
)]
pub struct FindArgs {
    /// A principal (`lh...`, a role in a database's log), the id of a lease, task, decision or revocation, an agent's name,
    /// a person's or a group's (`person:ana`), or a label KEY=VALUE of tasks.
    #[arg(value_name = "NAME")]
    text: String,
    #[command(flatten)]
    limit: LimitArgs,
}

pub(crate) async fn run(args: FindArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let (hits, more) = hits(&client, &args.text, args.limit).await?;
    let text: String = hits.iter().map(describe).collect::<Vec<_>>().join("\n");
    let text = if hits.is_empty() { nothing(&args.text) } else { text };
    let json = json!({"hits": hits.iter().map(hit).collect::<Vec<_>>(), "more": more});
    session.console.report(&Report::new(text + more_line(more), json))?;
    Ok(if hits.is_empty() { Exit::FAILED } else { Exit::DONE })
}

/// That it is not known, and what is.
fn nothing(text: &str) -> String {
    format!("nothing is known by `{text}`; {FOUND_BY}\n")
}

/// What there is to be found.
pub(crate) const FOUND_BY: &str = "\
whole names are, of these kinds:
  lh06jr...                            a principal, as a target's own log has it
  lease_... task_... dec_... rev_...   an id
  spiffe://... ci:... person:ana       an agent, a person or a group, as leasehold agents list has them
  KEY=VALUE                            a label of tasks";

/// What a text was found as.
pub(crate) async fn hits(
    client: &Client,
    text: &str,
    limit: LimitArgs,
) -> Result<(Vec<v1::FindHit>, bool), Problem> {
    let read = pages(limit, |page_size, page_token| {
        let request = v1::FindRequest { text: text.to_owned(), page_size, page_token };
        async move {
            let answer = client.persist(|| async { client.audit().find(request.clone()).await }).await?;
            Ok((answer.hits, answer.next_page_token))
        }
    });
    Ok(read.await?)
}

/// The way up, from the name in the target to the person; then how to stop it.
fn describe(hit: &v1::FindHit) -> String {
    let state = hit.lease_state().word();
    let lease = if state.is_empty() { hit.lease.clone() } else { format!("{} ({state})", hit.lease) };
    let principal = match (hit.principal.is_empty(), hit.target.is_empty()) {
        (false, false) => format!("{} in {}", hit.principal, hit.target),
        (_, _) => hit.principal.clone(),
    };
    let way = [&principal, &lease, &hit.task, &hit.agent, &hit.owner, &hit.person];
    let way: Vec<_> = way.into_iter().filter(|step| !step.is_empty()).cloned().collect();
    let stop: String = hit.stop_commands.iter().map(|command| format!("  stop: {command}\n")).collect();
    format!("{}: {}\n{stop}", hit.kind().word(), way.join(" -> "))
}

fn hit(hit: &v1::FindHit) -> Value {
    json!({
        "kind": json::word(hit.kind()), "principal": hit.principal, "target": hit.target, "lease": hit.lease,
        "lease_state": json::word(hit.lease_state()), "task": hit.task, "agent": hit.agent, "owner": hit.owner,
        "person": hit.person, "stop_commands": hit.stop_commands,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_leads_to_a_person_and_to_the_brakes() {
        let hit = v1::FindHit {
            kind: v1::FindKind::Principal.into(),
            lease: "lease_1".into(),
            task: "task_1".into(),
            agent: "spiffe://prod.example/agent/triage".into(),
            owner: "person:ana".into(),
            person: String::new(),
            stop_commands: vec!["leasehold revoke --lease lease_1 --reason R".into()],
            principal: "lh9fk2".into(),
            target: "orders-db".into(),
            lease_state: v1::LeaseState::Active.into(),
        };
        insta::assert_snapshot!(describe(&hit));
    }

    #[test]
    fn where_nothing_is_found_it_is_said_what_could_be() {
        insta::assert_snapshot!(nothing("orders"));
    }
}
