//! The names that policies may use. Strict validation takes a misspelt entity id for one that nobody has, so
//! the ids are compared with the catalog here (RULES R-13).

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::EntityUid;

use crate::caller::CallerId;
use crate::catalog::{Catalog, Class};
use crate::registry::Pattern;

/// The ids of each entity type, with the word for one of them.
#[derive(Debug)]
pub(super) struct Names {
    ids: BTreeMap<&'static str, (&'static str, BTreeSet<String>)>,
    patterns: Vec<Pattern>,
}

impl Names {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let targets = catalog.targets.values();
        let classes = Class::ALL.iter().map(|class| class_action(*class));
        let called = |pick: fn(&CallerId) -> bool| {
            catalog.agents.keys().filter(|id| pick(id)).map(CallerId::name).collect::<BTreeSet<_>>()
        };
        let ids = BTreeMap::from([
            ("Agent", ("agent", called(|id| matches!(id, CallerId::Agent(_) | CallerId::Drill)))),
            ("CiJob", ("job", called(|id| matches!(id, CallerId::CiJob(_))))),
            ("KubeAccount", ("service account", called(|id| matches!(id, CallerId::KubeAccount(_))))),
            ("PersonalAgent", ("personal agent", called(|id| matches!(id, CallerId::PersonalAgent(_))))),
            ("AgentGroup", ("group of agents", catalog.agent_groups().map(ToOwned::to_owned).collect())),
            ("Person", ("person", catalog.people.keys().cloned().collect())),
            ("PersonGroup", ("group of people", catalog.groups.keys().cloned().collect())),
            ("Target", ("target", catalog.targets.keys().cloned().collect())),
            ("TargetGroup", ("group of targets", targets.flat_map(|target| target.groups.clone()).collect())),
            ("Action", ("intent or class", catalog.intents.keys().cloned().chain(classes).collect())),
        ]);
        Self { ids, patterns: catalog.patterns.keys().cloned().collect() }
    }

    /// Why an entity of a policy names nothing. A type that does not exist is for validation to refuse.
    pub(super) fn problem(&self, uid: &EntityUid) -> Option<String> {
        let (noun, ids) = self.ids.get(uid.type_name().to_string().as_str())?;
        let id: &str = uid.id().as_ref();
        let hint = || did_you_mean(id, ids.iter().map(String::as_str), "");
        let known = ids.contains(id) || (*noun == "agent" && self.fits_pattern(id));
        (!known).then(|| format!("`{uid}`: the config has no such {noun}{}", hint()))
    }

    fn fits_pattern(&self, id: &str) -> bool {
        id.parse().is_ok_and(|id| self.patterns.iter().any(|pattern| pattern.matches(&id)))
    }
}

/// The action that stands for a class.
pub(super) fn class_action(class: Class) -> String {
    format!("class:{}", class.name())
}

/// `; did you mean X?` with the name that is nearest, if one is near; nothing otherwise.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, sign: &str) -> String {
    let near = known.into_iter().map(|name| (edits(word, name), name)).min();
    match near {
        Some((edits, name)) if edits * 3 <= word.chars().count() => format!("; did you mean `{sign}{name}`?"),
        Some(_) | None => String::new(),
    }
}

/// How many characters must be put in, taken out or changed to make `to` from `from` (Levenshtein's distance).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for ((b, above), diagonal) in to.chars().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_if_it_is_near() {
        let known = ["approvers", "id", "timeout"];
        let check = |word: &str, expect: &str| assert_eq!(did_you_mean(word, known, "@"), expect, "{word}");
        check("aprovers", "; did you mean `@approvers`?");
        check("timeuot", "; did you mean `@timeout`?");
        check("reviewers", "");
        check("x", "");
    }

    #[test]
    fn edits_are_counted() {
        let check = |from, to, expect| assert_eq!(edits(from, to), expect, "{from} {to}");
        check("", "", 0);
        check("", "abc", 3);
        check("abc", "", 3);
        check("kitten", "sitting", 3);
    }
}
