//! Rules that are wider than anybody should want: refused where a grant leads them to production, warned of where only
//! policy can tell.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::catalog::{Floors, Grant};
use leasehold_law::scope::Pair;
use serde_json::Value;

use super::{ENVIRONMENT, Job, words};
use crate::config::names::Names;
use crate::config::problem::Report;
use crate::config::source::Place;
use crate::config::targets::Target;
use crate::identity::ci::{Want, Wanted};

/// Where jobs of a pull request run: what a stranger wrote may be in them.
const PULL_REQUESTS: [&str; 3] = ["refs/pull/1/merge", "refs/pull/1/head", "refs/merge-requests/1/head"];
/// What starts them.
const PULL_REQUEST_EVENTS: [&str; 5] = [
    "pull_request",
    "pull_request_target",
    "pull_request_review",
    "merge_request_event",
    "external_pull_request_event",
];
/// It runs what a stranger asks for with the rights of the repository.
const TARGET: &str = "pull_request_target";

/// What says how far a job reaches.
pub(in crate::config) struct Reach<'a> {
    pub(in crate::config) grants: &'a BTreeMap<Pair, Grant>,
    pub(in crate::config) targets: &'a BTreeMap<String, Target>,
    pub(in crate::config) floors: &'a Floors,
}

/// Whether a job comes to production.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Production {
    /// A grant allows one of its groups there.
    Granted,
    /// A grant leaves it to policy.
    Open,
    /// No grant leads there.
    Never,
}

pub(in crate::config) fn lint(jobs: &Names<Job>, reach: &Reach<'_>, report: &Report) {
    for (name, job) in &jobs.values {
        if let Some(place) = jobs.place(name) {
            let production = reach.of(&job.agent.groups);
            found(job).into_iter().for_each(|what| tell(name, &what, production, (place, report)));
            warn_of_target(name, job, production, (place, report));
        }
    }
}

fn tell(name: &str, what: &str, production: Production, (place, report): (&Place, &Report)) {
    match production {
        Production::Granted => {
            report.problem(place, format!("the rule `{name}` reaches production and {what}"));
        }
        Production::Open => {
            let what = format!("the rule `{name}` {what}; let no policy lead it to production");
            report.warning(place, what);
        }
        Production::Never => {}
    }
}

/// Strangers start it at any time, so that it is never a good idea.
fn warn_of_target(name: &str, job: &Job, production: Production, (place, report): (&Place, &Report)) {
    if production != Production::Granted && events(job).is_some_and(|events| has(events, TARGET)) {
        let what = format!("the rule `{name}` takes `{TARGET}`, which anybody with a fork can start");
        report.warning(place, what);
    }
}

impl Reach<'_> {
    fn of(&self, groups: &BTreeSet<String>) -> Production {
        let there = |grant: &&Grant| {
            let target = self.targets.get(&grant.pair.target);
            target.is_some_and(|target| self.floors.is_production(&target.law.labels))
        };
        let there: Vec<_> = self.grants.values().filter(there).collect();
        if there.iter().any(|grant| !grant.allow.is_disjoint(groups)) {
            Production::Granted
        } else if there.iter().any(|grant| grant.allow.is_empty()) {
            Production::Open
        } else {
            Production::Never
        }
    }
}

/// What no rule that leads to production should do.
fn found(job: &Job) -> Vec<String> {
    let Some(words) = words(job.platform) else { return Vec::new() };
    let refs = wanted(job, words.refs);
    let in_environment = wanted(job, ENVIRONMENT).is_some_and(|wanted| *wanted != Wanted::Nothing);
    let takes = |event: &&str| events(job).is_none_or(|events| has(events, event));
    let mut found = Vec::new();
    if events(job).is_some_and(|events| has(events, TARGET)) {
        found.push(format!("takes `{TARGET}`, which anybody with a fork can start: leave it out"));
    }
    if let Some(refs) = refs
        && PULL_REQUESTS.iter().any(|name| refs.fits(Some(&Value::from(*name))))
        && PULL_REQUEST_EVENTS.iter().any(|event| takes(&event))
    {
        found.push(format!("takes pull requests with its `ref`, {refs}: write it like `refs/heads/main`"));
    }
    if refs.is_none() && !in_environment {
        found.push("pins neither `environment` nor `ref`: whoever may push any branch gets there".to_owned());
    }
    found
}

fn wanted<'a>(job: &'a Job, claim: &str) -> Option<&'a Wanted> {
    job.rule.wants.iter().find(|want: &&Want| want.claim == claim).map(|want| &want.wanted)
}

fn events(job: &Job) -> Option<&[String]> {
    match wanted(job, words(job.platform)?.event)? {
        Wanted::OneOf(events) => Some(events),
        Wanted::Id(_) | Wanted::Exactly(_) | Wanted::Like(_) | Wanted::Nothing => None,
    }
}

fn has(events: &[String], event: &str) -> bool {
    events.iter().any(|known| known == event)
}
