//! The files that a config names, and that the broker reads when it starts: which of them cannot be read now.

use std::path::Path;

use leasehold_backend::Problem as BackendProblem;
use rustix::fs::{Access, access};

use super::{Config, Store, Target};
use crate::identity::issuer::KeySource;

impl Config {
    /// What stands in the way of reading the files that the config names. None is opened. Whoever asks may be another
    /// user than the broker, and a file may still come: these are warnings, until the broker starts.
    #[must_use]
    pub fn unreadable_files(&self) -> Vec<String> {
        let elsewhere = self.files_beside_targets().into_iter();
        let elsewhere = elsewhere.filter_map(|(key, path)| Some(format!("`{key}`: {}", unreadable(path)?)));
        elsewhere.chain(self.targets.values().flat_map(Target::unreadable_files)).collect()
    }

    fn files_beside_targets(&self) -> Vec<(String, &Path)> {
        // One that is not there was told when the config was read, with its line.
        let key = Some(self.broker.installation_key.as_path()).filter(|path| path.exists());
        let mut files = vec![("broker.installation_key".to_owned(), key)];
        match &self.store {
            Store::Sqlite(_) => {}
            Store::Postgres(shared) => {
                files.push(("store.postgres.url_file".to_owned(), Some(&shared.url_file)));
                files.push(("store.postgres.sslrootcert".to_owned(), shared.sslrootcert.as_deref()));
            }
        }
        if let Some(web) = &self.listen.certificate {
            files.push(("listen.certificate".to_owned(), Some(&web.certificate)));
            files.push(("listen.key".to_owned(), Some(&web.key)));
        }
        let people = self.identity.people.iter();
        files.extend(people.map(|one| (format!("identity.people: {}", one.issuer), one.ca_file.as_deref())));
        let ci = self.identity.ci.iter();
        files.extend(ci.map(|one| (format!("identity.ci.{}", one.name), file_of(&one.keys))));
        let clusters = self.identity.kubernetes.iter();
        files.extend(clusters.map(|one| (format!("identity.kubernetes.{}", one.name), file_of(&one.keys))));
        files.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
    }
}

fn file_of(keys: &KeySource) -> Option<&Path> {
    match keys {
        KeySource::Discovery { ca_file } => ca_file.as_deref(),
        KeySource::File(path) => Some(path),
    }
}

impl Target {
    /// As [`Config::unreadable_files`], with file and line.
    fn unreadable_files(&self) -> Vec<String> {
        let told = |(pointer, path): (String, &str)| {
            let what = unreadable(Path::new(path))?;
            Some(self.problem(&BackendProblem::new(&pointer, what)).to_string())
        };
        self.files().into_iter().filter_map(told).collect()
    }
}

fn unreadable(path: &Path) -> Option<String> {
    let error = access(path, Access::READ_OK).err()?;
    Some(format!("`{}` cannot be read: {error}; the broker reads it when it starts", path.display()))
}
