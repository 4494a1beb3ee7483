//! `[people]` and `[groups]`: who answers for agents and targets, and will be asked.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::{CallerId, CallerIdError, Vouched};

use super::names::Names;
use super::problem::Report;
use super::table::{Table, Value};

/// A person, by what their issuer calls them and never by e-mail (RULES R-15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    /// Who vouches for them: an `https` URL.
    pub issuer: String,
    /// Their name there.
    pub subject: String,
}

impl Person {
    /// Who they are when they sign in.
    ///
    /// # Errors
    /// Where the subject is not visible ASCII, as OpenID Connect has it.
    pub fn caller(&self) -> Result<CallerId, CallerIdError> {
        Vouched::new(&self.issuer, &self.subject).map(CallerId::Person)
    }

    /// Who an agent of theirs is, on their own machine.
    ///
    /// # Errors
    /// As [`Person::caller`].
    pub fn agent(&self, name: &str) -> Result<CallerId, CallerIdError> {
        Vouched::new(&self.issuer, &format!("{}/{name}", self.subject)).map(CallerId::PersonalAgent)
    }
}

pub(super) fn read_people(parts: &[Table<'_>], report: &Report) -> Names<Person> {
    let people = Names::collect(parts, ("people", "person"), Table::named, |_, value| person(value));
    let mut seen: BTreeMap<&Person, &str> = BTreeMap::new();
    for (name, person) in &people.values {
        if let (Some(first), Some(place)) = (seen.insert(person, name), people.place(name)) {
            report.problem(place, format!("`{name}` and `{first}` are the same issuer and subject"));
        }
    }
    people
}

fn person(value: &Value<'_>) -> Option<Person> {
    value.read(|table| {
        let issuer = table.need("issuer").and_then(|value| {
            let issuer = value.filled()?;
            if !issuer.starts_with("https://") {
                value.problem(format!("`{issuer}` is not an issuer: write it like `https://idp.example`"));
            }
            Some(issuer.to_owned())
        });
        let subject = table.need("subject").and_then(|value| value.filled().map(str::to_owned));
        Some(Person { issuer: issuer?, subject: subject? })
    })
}

pub(super) fn read_groups(parts: &[Table<'_>], people: &Names<Person>) -> Names<BTreeSet<String>> {
    Names::collect(parts, ("groups", "group"), Table::named, |_, value| Some(members(value, people)))
}

fn members(list: &Value<'_>, people: &Names<Person>) -> BTreeSet<String> {
    let members = list.texts();
    members.iter().for_each(|(name, place)| people.check(name, place, list.context().report));
    members.into_iter().map(|(name, _)| name.to_owned()).collect()
}
