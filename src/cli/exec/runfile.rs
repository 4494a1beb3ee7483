//! `leasehold.run.toml`: what a repository's commands lease. It is committed, so it may not say who to trust.

use std::{fs, io, path::Path};

use serde::Deserialize;

use super::super::{
    parse::{self, NamedPair},
    problem::Problem,
};

const NAME: &str = "leasehold.run.toml";
/// No repository is nested deeper.
const DEPTH: usize = 64;

/// What the file may hold; anything else is refused, so that no clone of a repository names a broker, an identity
/// or a key.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunFile {
    #[serde(default)]
    pub(crate) leases: Vec<String>,
    pub(crate) purpose: Option<String>,
}

impl RunFile {
    /// Looks in `from` and above, up to the root of the repository; nowhere above where there is no repository.
    pub(crate) fn find(from: &Path) -> Result<Option<Self>, Problem> {
        for (place, dir) in from.ancestors().take(DEPTH).enumerate() {
            let inside = place == 0 || from.ancestors().take(DEPTH).any(|above| above.join(".git").exists());
            if !inside {
                return Ok(None);
            }
            match fs::read_to_string(dir.join(NAME)) {
                Ok(text) => return Self::read(&text, &dir.join(NAME)).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&dir.join(NAME), &error.to_string())),
            }
            if dir.join(".git").exists() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn read(text: &str, path: &Path) -> Result<Self, Problem> {
        toml::from_str(text).map_err(|error| {
            unreadable(path, error.message()).next("it may hold `leases` and `purpose`, and nothing else")
        })
    }

    /// Its leases, read as on the command line.
    pub(crate) fn leases(&self) -> Result<Vec<NamedPair>, Problem> {
        let read = |text: &String| parse::named_pair(text).map_err(|what| unreadable(Path::new(NAME), &what));
        self.leases.iter().map(read).collect()
    }
}

fn unreadable(path: &Path, why: &str) -> Problem {
    Problem::usage(format!("cannot use `{}`", path.display())).why(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, good: bool) {
        assert_eq!(
            RunFile::read(text, Path::new(NAME)).and_then(|file| file.leases()).is_ok(),
            good,
            "{text}"
        );
    }

    #[test]
    fn it_holds_leases_and_purpose_only() {
        check("", true);
        check("leases = ['A=orders.read@orders-db,ttl=5m']\npurpose = 'nightly'", true);
        check("leases = ['nonsense']", false);
        check("broker = '127.0.0.1:1'", false);
        check("identity = 'x'", false);
        check("key = 'x'", false);
    }

    #[test]
    fn it_is_found_upwards_to_the_repository_root() {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("repository");
        let deep = repository.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(repository.join(".git")).unwrap();
        fs::write(root.path().join(NAME), "purpose = 'outside'").unwrap();
        assert_eq!(RunFile::find(&deep).ok().unwrap(), None);
        fs::write(repository.join(NAME), "purpose = 'inside'").unwrap();
        let found = RunFile::find(&deep).ok().unwrap().unwrap();
        assert_eq!(found.purpose.as_deref(), Some("inside"));
    }

    #[test]
    fn outside_a_repository_only_the_own_folder_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(root.path().join(NAME), "purpose = 'above'").unwrap();
        assert_eq!(RunFile::find(&inner).ok().unwrap(), None);
        assert!(RunFile::find(root.path()).ok().unwrap().is_some());
    }
}
