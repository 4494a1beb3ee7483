//! `[broker]`: what this broker is called, which trust domain it serves, and where its key lies.

use std::path::PathBuf;

use leasehold_law::scope::is_name;

use super::table::Table;
use super::trust::{self, Trust};

/// `[broker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its name: the first half of the journal's chain id.
    pub name: String,
    /// Whose SVIDs it trusts.
    pub trust_domain: String,
    /// Where the installation key lies. Read by [`super::read_installation_key`], never by a check.
    pub installation_key: PathBuf,
}

pub(super) fn read(root: &Table<'_>, trust: Trust) -> Option<Broker> {
    root.need("broker")?.read(|table| {
        let name = table.need("name").and_then(|value| {
            let name = value.text()?;
            if is_name(name) {
                return Some(name.to_owned());
            }
            value.problem(format!("`{name}` is not a name: use up to 64 letters, digits, `.`, `-` and `_`"));
            None
        });
        let trust_domain = table.need("trust_domain").and_then(|value| trust::trust_domain(&value, trust));
        let installation_key = table.need("installation_key").and_then(|value| {
            let path = table.context().source.resolve(value.filled()?);
            if !path.exists() {
                let what = format!(
                    "`{}` is not there, and serve needs it; `leasehold init DIR` makes one beside a config to start from",
                    path.display()
                );
                table.context().report.warning(value.place(), what);
            }
            Some(path)
        });
        Some(Broker { name: name?, trust_domain: trust_domain?, installation_key: installation_key? })
    })
}
