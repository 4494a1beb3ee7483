//! `leasehold identity spire-entries`: the registration entries that a config needs in SPIRE, as commands to fill in.

use std::fmt::Write as _;
use std::path::Path;

use leasehold_law::caller::{CallerId, SpiffeId};
use serde_json::{Value, json};

use super::{StartError, kinds, spiffe_settings};
use crate::config::{Config, Trust};

/// Stands where a person writes the SPIFFE ID of the node's agent. No agent has it, so that nothing comes of it alone.
const PARENT: &str = "PARENT";
/// Stands where a person writes what tells the workload from others on its node. It matches nobody.
const SELECTOR: &str = "unix:uid:UID";

/// The entries of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireEntries {
    parent: String,
    entries: Vec<Entry>,
    elsewhere: Vec<SpiffeId>,
    /// Each workload that fits one needs an entry of its own.
    patterns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    what: &'static str,
    id: SpiffeId,
    /// The trust domains whose bundles the workload needs.
    federates_with: Vec<String>,
}

/// Reads a config and says what SPIRE must know for it. Asks nobody.
///
/// # Errors
/// Every problem of the config, or a parent that is no SPIFFE ID.
pub fn spire_entries(path: &Path, trust: Trust, parent: Option<&str>) -> Result<SpireEntries, StartError> {
    let config = Config::load(path, &kinds(), trust).map_err(StartError::Config)?.config;
    let own = &config.broker.trust_domain;
    let parent = match parent {
        Some(id) => parsed(id)?.to_string(),
        None => format!("spiffe://{own}/{PARENT}"),
    };
    let broker = Entry {
        what: "broker",
        id: spiffe_settings(&config, trust)?.id,
        federates_with: config.identity.spiffe.federates_with.iter().cloned().collect(),
    };
    let agents = config.catalog.agents.keys().filter_map(|id| entry("agent", id));
    let operators = config.operators.keys().filter_map(|id| entry("operator", id));
    let (ours, theirs): (Vec<_>, Vec<_>) =
        agents.chain(operators).partition(|entry| entry.id.trust_domain() == own);
    let entries = [broker].into_iter().chain(ours).collect();
    let elsewhere = theirs.into_iter().map(|entry| entry.id).collect();
    let patterns = config.catalog.patterns.keys().map(ToString::to_string).collect();
    Ok(SpireEntries { parent, entries, elsewhere, patterns })
}

fn parsed(parent: &str) -> Result<SpiffeId, StartError> {
    let wrong =
        |_| StartError::Host(format!("`{parent}` is not a SPIFFE ID: spire-server agent list has them"));
    parent.parse().map_err(wrong)
}

fn entry(what: &'static str, id: &CallerId) -> Option<Entry> {
    let CallerId::Agent(id) = id else { return None };
    Some(Entry { what, id: id.clone(), federates_with: vec![] })
}

impl SpireEntries {
    /// For a shell, once the placeholders are filled in.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.to_fill_in().to_owned();
        for entry in &self.entries {
            let command = entry.arguments(&self.parent).join(" \\\n  ");
            // Writing to a string does not fail.
            let _ = write!(text, "\n# {}\n{command}\n", entry.what);
        }
        for id in &self.elsewhere {
            let _ = write!(text, "\n# {id} is registered in the SPIRE of {}\n", id.trust_domain());
        }
        for pattern in &self.patterns {
            let _ =
                write!(text, "\n# agent: an entry like those above for each workload that fits {pattern}\n");
        }
        text
    }

    fn to_fill_in(&self) -> &'static str {
        if self.parent.ends_with(PARENT) {
            "# Fill in PARENT: the SPIRE agent of the workload's host, as `spire-server agent list` has it (or --parent-id).\n\
             # Fill in UID in each entry: the account that the workload runs under. What else selects one: docs/spire.md\n"
        } else {
            "# Fill in UID in each entry: the account that the workload runs under. What else selects one: docs/spire.md\n"
        }
    }

    /// For a program.
    #[must_use]
    pub fn json(&self) -> Value {
        let entry = |entry: &Entry| {
            json!({
                "what": entry.what, "spiffe_id": entry.id.as_str(), "parent_id": self.parent,
                "selectors": [SELECTOR], "federates_with": entry.federates_with,
                "command": entry.arguments(&self.parent).join(" "),
            })
        };
        json!({
            "entries": self.entries.iter().map(entry).collect::<Vec<_>>(),
            "patterns": self.patterns,
            "elsewhere": self.elsewhere.iter().map(SpiffeId::as_str).collect::<Vec<_>>(),
        })
    }
}

impl Entry {
    fn arguments(&self, parent: &str) -> Vec<String> {
        let mut arguments = vec![
            "spire-server entry create".to_owned(),
            format!("-parentID {parent}"),
            format!("-spiffeID {}", self.id),
            format!("-selector {SELECTOR}"),
        ];
        arguments.extend(self.federates_with.iter().map(|name| format!("-federatesWith spiffe://{name}")));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[broker]
name = "b"
trust_domain = "prod.example"
installation_key = "installation.key"
[listen]
agents = "127.0.0.1:0"
admin = ["unix:admin.sock"]
[operators]
"uid:0" = ["admin"]
"spiffe://prod.example/operator/ir" = ["revoker"]
[identity.spiffe]
workload_api = "unix:/run/spire/agent.sock"
federates_with = ["partner.example"]
[store]
sqlite = "leases.db"
[people]
ana = { issuer = "https://idp.example", subject = "ana" }
[agents."spiffe://prod.example/agent/triage"]
owner = "person:ana"
autonomy = "act"
[agents."spiffe://prod.example/agent/ci-*"]
owner = "person:ana"
autonomy = "act"
[agents."spiffe://partner.example/agent/x"]
owner = "person:ana"
autonomy = "act"
"#;

    fn entries(parent: Option<&str>) -> SpireEntries {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leasehold.toml");
        std::fs::write(&path, CONFIG).unwrap();
        spire_entries(&path, Trust::Production, parent).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn each_identity_of_the_own_trust_domain_has_a_command() {
        insta::assert_snapshot!(entries(None).text());
    }

    #[test]
    fn a_parent_is_put_where_one_is_needed() {
        let told = entries(Some("spiffe://prod.example/node/1"));
        assert!(!told.text().contains(PARENT), "{}", told.text());
        let json = told.json();
        assert_eq!(json["entries"][0]["parent_id"], "spiffe://prod.example/node/1");
        assert_eq!(json["entries"][0]["federates_with"], json!(["partner.example"]));
        assert_eq!(json["elsewhere"], json!(["spiffe://partner.example/agent/x"]));
        assert_eq!(json["entries"].as_array().unwrap().len(), 3);
    }
}
