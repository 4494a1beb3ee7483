//! `[ci_jobs]`: which jobs of which platform are one caller, by what their platform says of them (RULES R-20).

mod claims;
mod lint;
mod words;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::Agent;

use super::agents::{Facts, Owners};
use super::issuers::Issuers;
use super::names::Names;
use super::problem::Report;
use super::table::{Table, Value};
use crate::identity::ci::{CiIssuer, Platform, Rule, Want, Wanted};

pub(super) use lint::{Reach, lint};
use words::{ENVIRONMENT, GITHUB, GITLAB, Words};

/// A rule for jobs, and the agent that such a job is.
pub(super) struct Job {
    pub(super) rule: Rule,
    pub(super) agent: Agent,
    platform: Platform,
}

const fn words(platform: Platform) -> Option<&'static Words> {
    match platform {
        Platform::Github => Some(&GITHUB),
        Platform::Gitlab => Some(&GITLAB),
        Platform::Generic => None,
    }
}

pub(super) fn read(
    parts: &[Table<'_>],
    issuers: &Issuers,
    owners: &Owners<'_>,
    report: &Report,
) -> Names<Job> {
    let jobs = Names::collect(parts, ("ci_jobs", "rule"), Table::named, |name, value| {
        job(name, value, issuers, owners)
    });
    apart(&jobs, report);
    jobs
}

fn job(name: &str, value: &Value<'_>, issuers: &Issuers, owners: &Owners<'_>) -> Option<Job> {
    let table = value.table()?;
    let facts = Facts::read(&table, owners);
    let Some(issuer) = table.need("issuer").and_then(|value| issuer(&value, issuers)) else {
        // What else the rule may say is up to its issuer.
        table.finish_open();
        return None;
    };
    let platform = issuer.platform;
    let wants = match words(platform) {
        Some(words) => claims::of_platform(&table, words),
        None => claims::of_any(&table),
    };
    table.finish();
    let wants = wants?;
    let id = identity(name, issuer, &wants, value)?;
    let rule = Rule { name: name.to_owned(), issuer: issuer.name.clone(), id: id.clone(), wants };
    Some(Job { rule, agent: facts?.of(id), platform })
}

fn issuer<'i>(value: &Value<'_>, issuers: &'i Issuers) -> Option<&'i CiIssuer> {
    let name = value.text()?;
    issuers.ci.check(name, value.place(), value.context().report);
    issuers.ci.values.get(name)
}

/// `github|OWNER ID/REPOSITORY ID/ENVIRONMENT`, with `-` for no environment; `ISSUER|RULE` where the platform has no such
/// ids.
fn identity(rule: &str, issuer: &CiIssuer, wants: &[Want], value: &Value<'_>) -> Option<CallerId> {
    let part = |claim: &str| match &wants.iter().find(|want| want.claim == claim)?.wanted {
        Wanted::Id(id) => Some(id.to_string()),
        Wanted::Exactly(text) => Some(text.to_string()),
        Wanted::Nothing => Some("-".to_owned()),
        Wanted::Like(_) | Wanted::OneOf(_) => None,
    };
    let name = match words(issuer.platform) {
        Some(Words { ids: [owner, repository], .. }) => {
            format!("{}/{}/{}", part(owner)?, part(repository)?, part(ENVIRONMENT)?)
        }
        None => rule.to_owned(),
    };
    let id = Vouched::new(&issuer.name, &name);
    id.map(CallerId::CiJob).map_err(|_| value.problem(format!("`{name}` is too long for an identity"))).ok()
}

/// A job is one caller: no two rules may take it.
fn apart(jobs: &Names<Job>, report: &Report) {
    for (index, (name, job)) in jobs.values.iter().enumerate() {
        for (other, theirs) in jobs.values.iter().take(index) {
            let (Some(place), rule) = (jobs.place(name), &job.rule) else { continue };
            if rule.id == theirs.rule.id {
                let what = format!(
                    "the rules `{other}` and `{name}` are both for `{}`; an identity has one",
                    rule.id
                );
                report.problem(place, what);
            } else if rule.overlaps(&theirs.rule) {
                let what = format!(
                    "a job could fit both the rules `{other}` and `{name}`; let a claim tell them apart"
                );
                report.problem(place, what);
            }
        }
    }
}
