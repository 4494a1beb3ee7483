//! The schema that policies are checked against, generated from the catalog.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::catalog::{Catalog, Class, Intent};
use crate::param::{ParamKind, ParamSpec};

/// Who may ask, by how it is proven. All have one shape.
pub(super) const PRINCIPALS: &str = "Agent, CiJob, KubeAccount, PersonalAgent";

/// The schema in Cedar's own syntax: the same text for the same catalog, so that it can be digested.
#[must_use]
pub fn schema_text(catalog: &Catalog) -> String {
    let mut text = format!(
        "entity AgentGroup;\n\
         entity {PRINCIPALS} in [AgentGroup] = {{ owner: String, autonomy: String }};\n\
         entity PersonGroup;\n\
         entity Person in [PersonGroup];\n\
         entity TargetGroup;\n\
         entity Target in [TargetGroup] = {{ owner: String, labels: {{{}}} }};\n",
        record(label_keys(catalog).into_iter().map(|key| (key, true, "String"))),
    );
    for class in Class::ALL {
        let _ = writeln!(text, "action \"class:{}\";", class.name());
    }
    for intent in catalog.intents.values() {
        text.push_str(&action(intent));
    }
    text
}

fn label_keys(catalog: &Catalog) -> BTreeSet<&str> {
    catalog.targets.values().flat_map(|target| target.labels.keys().map(String::as_str)).collect()
}

fn action(intent: &Intent) -> String {
    let seen = intent.params.iter().filter(|(_, spec)| spec.reaches_policy());
    let params = record(seen.map(|(name, spec)| (name.as_str(), spec.optional, cedar_type(spec))));
    format!(
        "action \"{name}\" in [\"class:{class}\"] appliesTo {{ principal: [{PRINCIPALS}], resource: [Target], context: {{\n  \
         ttl: duration, now: datetime, params: {{{params}}}, task: {{ liveness: String, age: duration }},\n  \
         proof: String, depth: Long, renewal: Bool, incident?: {{ open: Bool, severity: Long }},\n  \
         on_behalf_of?: Person, approvals: Set<String>\n}} }};\n",
        name = intent.name,
        class = intent.class.name(),
    )
}

const fn cedar_type(spec: &ParamSpec) -> &'static str {
    match &spec.kind {
        ParamKind::Bool => "Bool",
        ParamKind::Int { .. } => "Long",
        ParamKind::String(_) => "String",
        ParamKind::List(_) => "Set<String>",
    }
}

/// The attributes of a record: name, whether it may be missing, type.
fn record<'a>(attributes: impl Iterator<Item = (&'a str, bool, &'a str)>) -> String {
    let attribute = |(name, optional, kind)| format!("{name:?}{}: {kind}", if optional { "?" } else { "" });
    let attributes: Vec<_> = attributes.map(attribute).collect();
    if attributes.is_empty() { String::new() } else { format!(" {} ", attributes.join(", ")) }
}
