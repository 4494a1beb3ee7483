//! A file for `agents apply`: the tables `[agents."..."]` of a config, for a broker that runs; in TOML, or the same in
//! JSON.

mod in_json;

use std::collections::BTreeSet;

use leasehold_law::catalog::Catalog;
use leasehold_law::registry::{Book, Registration, Who};

use super::agents::{self, Owners};
use super::identity::TrustDomains;
use super::include;
use super::names::Names;
use super::problem::{Problem, Report, did_you_mean};
use super::source::Source;
use super::table::{self, Context, Entry, Table, Value};
use in_json::from_json;

/// What an applied registration must fit.
pub struct Ground<'a> {
    /// What the config defines: none of it is defined again, and nothing beyond its groups and owners is used.
    pub catalog: &'a Catalog,
    /// What was applied before.
    pub book: &'a Book,
    /// The broker's trust domain.
    pub trust_domain: Option<&'a str>,
    /// Those that the config federates with.
    pub federated: &'a BTreeSet<String>,
}

/// Reads a file, under the name that its sender gave it.
///
/// # Errors
/// Every problem, sorted by line.
pub fn read_agents(file: &str, text: &str, ground: &Ground<'_>) -> Result<Vec<Registration>, Vec<Problem>> {
    let report = Report::default();
    let is_json = text.trim_start().starts_with('{');
    let source = Source::of(file, if is_json { from_json(file, text)? } else { text.to_owned() });
    let tree = table::parse(&source, &report);
    let root = Table::root(Context { source: &source, report: &report }, tree.get_ref());
    let registrations = read(&root, ground, &report);
    include::refuse_config_tables(&root);
    root.finish();
    let read = report.verdict(Some(registrations)).map(|(registrations, _)| registrations);
    read.map_err(
        |problems| if is_json { problems.into_iter().map(without_place).collect() } else { problems },
    )
}

fn read(root: &Table<'_>, ground: &Ground<'_>, report: &Report) -> Vec<Registration> {
    let catalog = ground.catalog;
    let top = root.place();
    let owners = Owners {
        people: &Names::known("person", catalog.people.keys(), top),
        groups: &Names::known("group", catalog.groups.keys(), top),
    };
    let trusted = TrustDomains { own: ground.trust_domain, federated: ground.federated };
    let world = agents::World { owners: &owners, trusted, reserved: &catalog.reserved };
    let entries = root.need("agents").and_then(|value| value.table()).map(|table| table.entries());
    let mut read: Vec<Registration> = Vec::new();
    for Entry { name, place, value } in entries.unwrap_or_default() {
        let Some(registration) = agents::registration(name, &value, world) else { continue };
        check_groups(&registration, &value, catalog);
        let taken = taken(&registration.who, ground).or_else(|| {
            let one = agents::pattern(&registration.who)?;
            let mut others = read.iter().filter_map(|other| agents::pattern(&other.who));
            others.find(|other| other.overlaps(one)).map(|other| agents::overlap(one, other))
        });
        taken.into_iter().for_each(|what| report.problem(&place, what));
        read.push(registration);
    }
    read
}

/// Why whoever is named cannot be registered by a file.
fn taken(who: &Who, ground: &Ground<'_>) -> Option<String> {
    let Ground { catalog, book, .. } = ground;
    match who {
        Who::One(id) if catalog.agents.contains_key(id) => {
            Some(format!("the config defines `{id}`: change it there, and restart the broker"))
        }
        Who::One(id) => {
            let pattern = catalog.patterns.keys().find(|pattern| pattern.matches(id))?;
            Some(format!(
                "`{id}` is registered by the config's `{pattern}`: give it a table of its own there"
            ))
        }
        Who::Each(pattern) if catalog.patterns.contains_key(pattern) => {
            Some(format!("the config defines `{pattern}`: change it there, and restart the broker"))
        }
        Who::Each(pattern) => book.overlapping(catalog, pattern).map(|other| agents::overlap(pattern, other)),
    }
}

/// A group that no policy can name gives nothing; one that a policy names is in the config.
fn check_groups(registration: &Registration, value: &Value<'_>, catalog: &Catalog) {
    for group in &registration.terms.groups {
        if !catalog.agent_groups().any(|known| known == group) {
            let hint = did_you_mean(group, catalog.agent_groups());
            value.problem(format!(
                "the config knows no group of agents `{group}`{hint}; [registry] groups names those for applied agents"
            ));
        }
    }
}

/// Where it stands in the JSON is not known: the message names the key.
fn without_place(problem: Problem) -> Problem {
    Problem { line: 1, column: None, ..problem }
}

#[cfg(test)]
mod tests;
