//! Groups of agents that nothing lets in: a slip of the pen, as a rule, which no request would explain.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::catalog::Grant;
use leasehold_law::policy::PolicySource;
use leasehold_law::scope::Pair;

use super::agents::Groups;
use super::problem::Report;
use crate::near::nearest;

/// What may let a group in.
pub(super) struct World<'a> {
    pub(super) grants: &'a BTreeMap<Pair, Grant>,
    pub(super) policies: &'a [PolicySource],
}

/// Warns of each once, where it is first named.
pub(super) fn warn(groups: &Groups<'_>, world: &World<'_>, report: &Report) {
    let allowed: BTreeSet<_> =
        world.grants.values().flat_map(|grant| &grant.allow).map(String::as_str).collect();
    for (group, place) in groups.iter().filter(|(group, _)| !allowed.contains(*group)) {
        // Whatever a policy does with it: what it names it may let in.
        let quoted = format!("\"{group}\"");
        if world.policies.iter().any(|policy| policy.text.contains(&quoted)) {
            continue;
        }
        let near = nearest(group, allowed.iter().copied());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        report.warning(
            place,
            format!(
                "no grant lets in `agents:{group}`, and no policy names it: being in it, an agent may ask for nothing{hint}"
            ),
        );
    }
}
