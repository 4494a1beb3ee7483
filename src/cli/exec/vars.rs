//! The environment of the command: where the target is, and where its secret lies.

use std::collections::BTreeMap;

use leasehold_client::{Credential, Lease, Secret};
use zeroize::Zeroizing;

use super::{
    super::{
        deliver::{pgpass, public_variables, variable},
        parse::NamedPair,
        problem::Problem,
    },
    Folder, How,
};

/// One variable. It has no `Debug`: with `--as env` it may be a secret.
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: Zeroizing<String>,
}

impl Variable {
    pub(crate) fn shown(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Zeroizing::new(value.into()) }
    }

    fn secret(name: String, value: &Secret) -> Self {
        Self { name, value: Zeroizing::new(value.expose().to_owned()) }
    }
}

/// The variables of all leases, their files written. Two leases that set the same one are refused.
pub(crate) fn all(
    leases: &[(NamedPair, Lease)],
    folder: &Folder,
    how: How,
) -> Result<Vec<Variable>, Problem> {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut variables = Vec::new();
    for (place, (named, lease)) in leases.iter().enumerate() {
        let credential = lease.credential();
        write(folder, place, &credential)?;
        for one in of(named.name.as_deref(), &credential, folder, place, how)? {
            if let Some(other) = owners.insert(one.name.clone(), named.pair.to_string()) {
                return Err(clash(&other, &named.pair.to_string()));
            }
            variables.push(one);
        }
    }
    Ok(variables)
}

/// Two leases that would set the same variable.
pub(crate) fn clash(one: &str, other: &str) -> Problem {
    Problem::usage(format!("`{one}` and `{other}` would set the same variables"))
        .next(format!("name them: --lease ONE={one} --lease TWO={other}"))
}

/// Writes the secrets of one lease; again after the target gave a new credential.
pub(crate) fn write(folder: &Folder, place: usize, credential: &Credential) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        Problem::failed("a secret could not be put in its file").why(error.to_string())
    };
    if is_database(credential) {
        let line = pgpass(credential)?;
        folder.put(&file_name(place, "pgpass"), line.as_bytes()).map_err(failed)?;
        return Ok(());
    }
    for name in credential.secret_names() {
        let secret = credential.expose(name).unwrap_or_default();
        folder.put(&file_name(place, name), secret).map_err(failed)?;
    }
    Ok(())
}

fn is_database(credential: &Credential) -> bool {
    credential.kind() == "postgres"
}

/// Names of parts come from the broker: only their letters and digits make a file name.
fn file_name(place: usize, part: &str) -> String {
    let clean: String = part.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{place}-{clean}")
}

fn of(
    prefix: Option<&str>,
    credential: &Credential,
    folder: &Folder,
    place: usize,
    how: How,
) -> Result<Vec<Variable>, Problem> {
    let named = |name: &str| prefix.map_or(name.to_owned(), |prefix| format!("{prefix}_{name}"));
    let path = |part: &str| folder.path(&file_name(place, part)).display().to_string();
    let mut all: Vec<_> = public_variables(credential)
        .into_iter()
        .map(|(name, value)| Variable::shown(&named(&name), value))
        .collect();
    if is_database(credential) {
        all.push(Variable::shown(&named("PGPASSFILE"), path("pgpass")));
        all.push(Variable::shown(&named("DATABASE_URL"), credential.dsn_without_password()?));
    }
    for part in credential.secret_names() {
        let name = named(&variable(credential.kind(), part));
        if !is_database(credential) {
            all.push(Variable::shown(&format!("{name}_FILE"), path(part)));
        }
        if how == How::Env {
            all.push(Variable::secret(name, &credential.secret(part)?));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use leasehold_client::v1;

    use super::*;
    use crate::cli::deliver::tests::postgres;

    fn check(prefix: Option<&str>, credential: &Credential, how: How, expect: &[(&str, &str)]) {
        let folder = Folder::make().ok().unwrap();
        let root = folder.path("").display().to_string();
        let found = of(prefix, credential, &folder, 0, how).ok().unwrap();
        let mut found: Vec<_> =
            found.iter().map(|one| (one.name.clone(), one.value.replace(&root, "DIR/"))).collect();
        found.sort();
        let expect: Vec<_> =
            expect.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_database_is_found_by_libpq_s_variables() {
        let base = [
            ("DATABASE_URL", "postgresql://lh9fk2@db1.internal:6432/orders"),
            ("PGDATABASE", "orders"),
            ("PGHOST", "db1.internal"),
            ("PGPASSFILE", "DIR/0-pgpass"),
            ("PGPORT", "6432"),
            ("PGUSER", "lh9fk2"),
        ];
        check(None, &postgres("s3cret"), How::Files, &base);
        let mut with_secret = base.to_vec();
        with_secret.insert(4, ("PGPASSWORD", "s3cret"));
        check(None, &postgres("s3cret"), How::Env, &with_secret);
    }

    #[test]
    fn what_the_command_sees_is_in_the_help() {
        let folder = Folder::make().ok().unwrap();
        for one in of(None, &postgres("s3cret"), &folder, 0, How::Env).ok().unwrap() {
            assert!(super::super::HELP.contains(&one.name), "{}", one.name);
        }
    }

    #[test]
    fn a_name_goes_before_each_variable() {
        let secret = BTreeMap::from([("token".to_owned(), b"s3cret".to_vec())]);
        let public = BTreeMap::from([("url".to_owned(), "http://m".to_owned())]);
        let credential = Credential::from(v1::Credential { kind: "memory".into(), public, secret });
        let expect = [("M_MEMORY_TOKEN_FILE", "DIR/0-token"), ("M_MEMORY_URL", "http://m")];
        check(Some("M"), &credential, How::Files, &expect);
    }

    #[test]
    fn a_part_s_name_cannot_leave_the_folder() {
        assert_eq!(file_name(1, "../../etc/x"), "1-______etc_x");
    }
}
