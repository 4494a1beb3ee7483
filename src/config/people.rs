//! `[people]` and `[groups]`: who answers for agents and targets, and will be asked.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::Vouched;

use super::names::Names;
use super::problem::Report;
use super::table::{Table, Value};

/// People by name, each by what their issuer calls them and never by e-mail (RULES R-15).
pub(super) fn read_people(parts: &[Table<'_>], report: &Report) -> Names<Vouched> {
    let people = Names::collect(parts, ("people", "person"), Table::named, |_, value| person(value));
    let mut seen: BTreeMap<&Vouched, &str> = BTreeMap::new();
    for (name, person) in &people.values {
        if let (Some(first), Some(place)) = (seen.insert(person, name), people.place(name)) {
            report.problem(place, format!("`{name}` and `{first}` are the same issuer and subject"));
        }
    }
    people
}

fn person(value: &Value<'_>) -> Option<Vouched> {
    value.read(|table| {
        let issuer = table.need("issuer").and_then(|value| {
            let issuer = value.filled()?;
            if !issuer.starts_with("https://") {
                value.problem(format!("`{issuer}` is not an issuer: write it like `https://idp.example`"));
            }
            Some(issuer.to_owned())
        });
        let subject = table.need("subject").and_then(|value| value.filled().map(str::to_owned));
        let (issuer, subject) = (issuer?, subject?);
        let person = Vouched::new(&issuer, &subject).ok();
        if person.is_none() {
            value.problem("issuer and subject are visible ASCII, up to 1023 characters together");
        }
        person
    })
}

pub(super) fn read_groups(parts: &[Table<'_>], people: &Names<Vouched>) -> Names<BTreeSet<String>> {
    Names::collect(parts, ("groups", "group"), Table::named, |_, value| Some(members(value, people)))
}

fn members(list: &Value<'_>, people: &Names<Vouched>) -> BTreeSet<String> {
    let members = list.texts();
    members.iter().for_each(|(name, place)| people.check(name, place, list.context().report));
    members.into_iter().map(|(name, _)| name.to_owned()).collect()
}
