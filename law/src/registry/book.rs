//! The book of agents: the config's registrations, those that were applied, and what was done to either since.
//!
//! What the config says of an identity, by name or by a pattern, counts before what was applied for it.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Drift, Entry, Terms};
use super::pattern::{Pattern, Who};
use super::standing::{Claim, Standing};
use crate::caller::CallerId;
use crate::catalog::{Agent, Catalog, Owner};
use crate::time::Timestamp;

/// What the store keeps beside the config, by whom it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    agents: BTreeMap<CallerId, Entry>,
    patterns: BTreeMap<Pattern, Entry>,
}

/// Where a registration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The config has a table of its own for it.
    Config,
    /// It was applied while the broker ran.
    Applied,
    /// It fits this pattern.
    Pattern(Pattern),
}

/// A registration as it stands.
#[derive(Clone, Debug)]
pub struct View {
    /// Of whom.
    pub who: Who,
    /// Where it comes from.
    pub source: Source,
    /// What it says.
    pub terms: Terms,
    /// How it stands, with what operators did since.
    pub standing: Standing,
    /// What it ran that was not reviewed, each once.
    pub drift: Vec<Drift>,
}

impl Book {
    /// A book of these entries.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut book = Self::default();
        entries.into_iter().for_each(|entry| book.put(entry));
        book
    }

    /// Puts an entry in the place of the one that was there.
    pub fn put(&mut self, entry: Entry) {
        match entry.who.clone() {
            Who::One(id) => drop(self.agents.insert(id, entry)),
            Who::Each(pattern) => drop(self.patterns.insert(pattern, entry)),
        }
    }

    /// What is kept of one.
    #[must_use]
    pub fn entry(&self, who: &Who) -> Option<&Entry> {
        match who {
            Who::One(id) => self.agents.get(id),
            Who::Each(pattern) => self.patterns.get(pattern),
        }
    }

    /// Everything that is kept.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.agents.values().chain(self.patterns.values())
    }

    /// Whether anybody registered this identity.
    #[must_use]
    pub fn knows(&self, catalog: &Catalog, id: &CallerId) -> bool {
        self.owner(catalog, id).is_some()
    }

    /// Who answers for this identity.
    #[must_use]
    pub fn owner<'a>(&'a self, catalog: &'a Catalog, id: &CallerId) -> Option<&'a Owner> {
        if catalog.reserved.contains(id) {
            return None;
        }
        if let Some(agent) = catalog.agents.get(id) {
            return Some(&agent.owner);
        }
        let found = by_config(catalog, id)
            .map(|(_, terms)| terms)
            .or_else(|| self.applied(id).map(|(_, terms)| terms));
        found.map(|terms| &terms.owner)
    }

    /// The agent that an identity is at this moment, for one that says this of itself.
    #[must_use]
    pub fn agent(&self, catalog: &Catalog, id: &CallerId, now: Timestamp, claim: Claim) -> Option<Agent> {
        let View { terms, mut standing, .. } = self.view(catalog, &Who::One(id.clone()))?;
        // The broker's own agent is nobody's to review.
        if terms.owner != Owner::Broker {
            standing.lower(&catalog.rules, now, claim);
        }
        let Terms { owner, groups, autonomy, purpose, .. } = terms;
        Some(Agent { id: id.clone(), owner, groups, autonomy, purpose, standing })
    }

    /// A registration, or what a pattern makes of an identity.
    #[must_use]
    pub fn view(&self, catalog: &Catalog, who: &Who) -> Option<View> {
        let (source, terms) = self.terms(catalog, who)?;
        let by = match &source {
            Source::Pattern(pattern) => self.patterns.get(pattern),
            Source::Config | Source::Applied => None,
        };
        let own = self.entry(who);
        let mut standing = terms.standing();
        for entry in [by, own].into_iter().flatten() {
            overlay(&mut standing, &terms, entry);
        }
        let drift = own.map(|entry| entry.drift.clone()).unwrap_or_default();
        Some(View { who: who.clone(), source, terms, standing, drift })
    }

    /// Every registration, those by name first, and every identity of a pattern of which something is kept. The broker's own
    /// agent is none: nobody reviews or stops it.
    #[must_use]
    pub fn views(&self, catalog: &Catalog) -> Vec<View> {
        let named = catalog.agents.keys().chain(self.agents.keys()).collect::<BTreeSet<_>>();
        let patterns = catalog.patterns.keys().chain(self.patterns.keys()).collect::<BTreeSet<_>>();
        let named = named.into_iter().cloned().map(Who::One);
        let all = named.chain(patterns.into_iter().cloned().map(Who::Each));
        let views = all.filter_map(|who| self.view(catalog, &who));
        views.filter(|view| view.terms.owner != Owner::Broker).collect()
    }

    /// The first pattern, of config or applied, that shares an identity with this one and is another.
    #[must_use]
    pub fn overlapping<'a>(&'a self, catalog: &'a Catalog, pattern: &Pattern) -> Option<&'a Pattern> {
        let applied = self.patterns.iter().filter(|(_, entry)| entry.terms.is_some()).map(|(one, _)| one);
        catalog.patterns.keys().chain(applied).find(|one| *one != pattern && one.overlaps(pattern))
    }

    fn terms(&self, catalog: &Catalog, who: &Who) -> Option<(Source, Terms)> {
        match who {
            // Whatever was applied before they became one: an operator is no agent.
            Who::One(id) if catalog.reserved.contains(id) => None,
            Who::One(id) => {
                if let Some(agent) = catalog.agents.get(id) {
                    return Some((Source::Config, agent.into()));
                }
                let from = |pattern: Option<&Pattern>| match pattern {
                    Some(pattern) => Source::Pattern(pattern.clone()),
                    None => Source::Applied,
                };
                let found = by_config(catalog, id).map(|(pattern, terms)| (Some(pattern), terms));
                let (pattern, terms) = found.or_else(|| self.applied(id))?;
                Some((from(pattern), terms.clone()))
            }
            Who::Each(pattern) => match catalog.patterns.get(pattern) {
                Some(terms) => Some((Source::Config, terms.clone())),
                None => Some((Source::Applied, self.patterns.get(pattern)?.terms.clone()?)),
            },
        }
    }

    /// What was applied for an identity, by name or by a pattern: a name counts before a pattern.
    fn applied(&self, id: &CallerId) -> Option<(Option<&Pattern>, &Terms)> {
        if let Some(terms) = self.agents.get(id).and_then(|entry| entry.terms.as_ref()) {
            return Some((None, terms));
        }
        let patterns = self.patterns.iter().filter(|(pattern, _)| pattern.matches(id));
        patterns.filter_map(|(pattern, entry)| Some((Some(pattern), entry.terms.as_ref()?))).next()
    }
}

/// The config's pattern for an identity: no two patterns share one, so that the first that fits is the only one.
fn by_config<'a>(catalog: &'a Catalog, id: &CallerId) -> Option<(&'a Pattern, &'a Terms)> {
    catalog.patterns.iter().find(|(pattern, _)| pattern.matches(id))
}

/// What was done to a registration since counts where it is stricter, or newer.
fn overlay(standing: &mut Standing, terms: &Terms, entry: &Entry) {
    entry.ruling.iter().for_each(|ruling| standing.impose(ruling));
    let Some(review) = &entry.review else { return };
    standing.reviewed = standing.reviewed.max(Some(review.at));
    if review.manifest.is_some() && review.over == terms.manifest {
        standing.manifest = review.manifest;
    }
}

#[cfg(test)]
mod tests;
