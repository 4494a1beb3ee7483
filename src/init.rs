//! `leasehold init`: a folder to start from, which passes `check` as it is. Asks nothing, overwrites nothing.

pub mod database;
mod target;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use leasehold_backend::{Entropy, Statement};

use crate::config::{KeyError, KeyKind, write_installation_key};
pub use target::{TargetSpec, TargetSpecError};

/// The trust domain that the example is about.
const TRUST_DOMAIN: &str = "prod.example";
const KEY: &str = "installation.key";

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// These files are there already; nothing was written.
    #[error(
        "nothing was written, since these are there already: {}\n  \
         next: leasehold check --config FILE tells whether they are whole; name another folder to start anew",
        paths(.0)
    )]
    Exists(Vec<PathBuf>),
    /// A file could not be written; those before it were removed again.
    #[error("`{path}`: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The key could not be made; nothing else was left behind.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was made, and what people do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The files, in the order in which they were written.
    pub files: Vec<PathBuf>,
    /// What to do next, in order.
    pub next: Vec<String>,
}

/// As the command prints it.
impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "wrote {}", file.display())?;
        }
        writeln!(f, "next:")?;
        for (number, step) in (1..).zip(&self.next) {
            writeln!(f, "  {number}. {step}")?;
        }
        Ok(())
    }
}

/// Fills a folder. With a target, `setup` holds the statements with which its administrator gives the broker the least
/// that it needs; they are written beside the config, and nothing is run.
///
/// # Errors
/// Where any of the files exists (all of them are named) or cannot be written; then none is left behind.
pub fn init(
    dir: &Path,
    target: Option<&TargetSpec>,
    setup: &[Statement],
    entropy: &dyn Entropy,
) -> Result<Made, InitError> {
    let dir = std::path::absolute(dir).map_err(|error| io_error(dir, error))?;
    let texts = texts(&dir, target, setup);
    let key = dir.join(KEY);
    let files: Vec<_> = texts.iter().map(|(path, _)| path.clone()).chain([key.clone()]).collect();
    let existing: Vec<_> = files.iter().filter(|path| path.symlink_metadata().is_ok()).cloned().collect();
    if !existing.is_empty() {
        return Err(InitError::Exists(existing));
    }
    let mut written = Undo::default();
    for folder in [dir.join("conf.d"), dir.join("policies")] {
        fs::create_dir_all(&folder).map_err(|error| io_error(&folder, error))?;
    }
    for (path, text) in texts {
        write_new(&path, &text).map_err(|error| io_error(&path, error))?;
        written.0.push(path);
    }
    write_installation_key(&key, KeyKind::Production, entropy)?;
    written.keep();
    Ok(Made { files, next: next(&dir, target) })
}

/// The files by path, but for the key.
fn texts(dir: &Path, target: Option<&TargetSpec>, setup: &[Statement]) -> Vec<(PathBuf, String)> {
    let example = TargetSpec::example();
    let shown = target.unwrap_or(&example);
    let fill = |template: &str| {
        template
            .replace("{{dir}}", &dir.display().to_string())
            .replace("{{trust_domain}}", TRUST_DOMAIN)
            .replace("{{target}}", &shown.name)
            .replace("{{connect}}", &shown.connect())
            .replace("{{tls}}", shown.tls())
    };
    let mut texts = vec![
        (dir.join("leasehold.toml"), fill(include_str!("init/leasehold.toml"))),
        (dir.join("conf.d/README.toml"), fill(include_str!("init/conf.d.toml"))),
        (dir.join("policies/leasehold.cedar"), fill(include_str!("init/leasehold.cedar"))),
        (dir.join("leasehold.service"), fill(include_str!("init/leasehold.service"))),
    ];
    if let Some(target) = target {
        texts.push((dir.join(format!("{}.sql", target.name)), sql(target, setup)));
    }
    texts
}

fn sql(target: &TargetSpec, setup: &[Statement]) -> String {
    let mut sql = format!(
        "-- Gives Leasehold the least that it needs in `{}`. Read it, then run it as an administrator.\n\
         -- Then set the password of the broker's role, with psql: \\password leasehold\n",
        target.name
    );
    for Statement { why, text, .. } in setup.iter().filter(|statement| !statement.undo) {
        let why = why.replace('\n', "\n-- ");
        let text = text.trim_end().trim_end_matches(';');
        sql.push_str(&format!("\n-- {why}\n{text};\n"));
    }
    for Statement { text, .. } in setup.iter().filter(|statement| statement.undo) {
        sql.push_str(&format!("\n-- To take it back later, when no lease is left:\n--   {text}\n"));
    }
    sql
}

fn next(dir: &Path, target: Option<&TargetSpec>) -> Vec<String> {
    let shown = dir.display();
    let mut steps = vec![format!(
        "in {shown}/leasehold.toml put your trust domain, your Workload API, your people and your agents"
    )];
    match target {
        Some(target) => steps.extend([
            format!("read {shown}/{0}.sql and run it in `{0}` as an administrator", target.name),
            format!(
                "put the password of its role `leasehold` into {shown}/{}.password, mode 0600",
                target.name
            ),
        ]),
        None => steps.push("replace the target `example-db` by yours".to_owned()),
    }
    steps.extend([
        format!("leasehold check --config {shown}/leasehold.toml"),
        format!(
            "leasehold identity spire-entries --config {shown}/leasehold.toml prints the registration entries to make in \
             SPIRE (docs/spire.md)"
        ),
        format!("copy {shown}/{KEY} to where your store's backups are not"),
        format!(
            "useradd --system leasehold; chown -R leasehold: {shown}; \
             systemctl enable --now {shown}/leasehold.service"
        ),
    ]);
    steps
}

/// Files that are removed again unless everything could be written.
#[derive(Default)]
struct Undo(Vec<PathBuf>);

impl Undo {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for path in &self.0 {
            // Nothing better can be done about a file that stays; the error that led here is on its way.
            drop(fs::remove_file(path));
        }
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())
}

fn io_error(path: &Path, error: io::Error) -> InitError {
    InitError::Io { path: path.to_owned(), error }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::testing::{Sevens, kinds};
    use crate::config::{Config, Loaded, Trust, read_installation_key};

    fn spec() -> TargetSpec {
        "local=postgres://db1.internal:5433/orders?sslrootcert=/etc/ssl/db-ca.pem".parse().unwrap()
    }

    fn setup() -> Vec<Statement> {
        let statement =
            |why: &str, text: &str| Statement { why: why.to_owned(), text: text.to_owned(), undo: false };
        vec![
            statement("what agents may do", "CREATE ROLE leasehold_read NOLOGIN"),
            statement("the broker's\nown role", "CREATE ROLE leasehold LOGIN CREATEROLE;"),
            Statement { undo: true, ..statement("takes it back", "DROP ROLE leasehold;") },
        ]
    }

    fn load(dir: &Path) -> Loaded {
        Config::load(&dir.join("leasehold.toml"), &kinds(), Trust::Production).unwrap()
    }

    #[test]
    fn what_init_makes_passes_check() {
        for target in [None, Some(spec())] {
            let dir = tempfile::tempdir().unwrap();
            init(dir.path(), target.as_ref(), &setup(), &Sevens).unwrap();
            let Loaded { config, warnings } = load(dir.path());
            assert_eq!(warnings, []);
            assert_eq!(config.policies.len(), 1);
            assert_eq!(config.catalog.grants.len(), 1);
            read_installation_key(&config.broker.installation_key, Trust::Production).unwrap();
            assert_eq!(fs::metadata(dir.path().join(KEY)).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_stands_in_comments_is_good_config_too() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), None, &[], &Sevens).unwrap();
        let file = dir.path().join("leasehold.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (before, sample) = text.split_once("# [quotas]").unwrap();
        let (sample, after) = sample.split_once("\n\n").unwrap();
        let sample = sample.replace("\n# ", "\n");
        fs::write(&file, format!("{before}[quotas]{sample}\n\n{after}")).unwrap();
        let quotas = load(dir.path()).config.quotas;
        assert_eq!(
            (quotas.agent.live, quotas.owner.live, quotas.target.live),
            (Some(100), Some(1000), Some(5000))
        );
        assert!(quotas.agent.rate.is_some() && quotas.target.rate.is_some());
    }

    #[test]
    fn a_target_from_a_url_stands_in_the_config() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), Some(&spec()), &setup(), &Sevens).unwrap();
        let config = load(dir.path()).config;
        let table = &config.targets["local"].table;
        assert_eq!(table["connect"]["host"], "db1.internal");
        assert_eq!(table["connect"]["port"], 5433);
        assert_eq!(table["admin"]["password_file"], dir.path().join("local.password").to_str().unwrap());
    }

    #[test]
    fn its_files_and_words_are_stable() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path(), Some(&spec()), &setup(), &Sevens).unwrap();
        let stable = |text: &str| text.replace(dir.path().to_str().unwrap(), "/etc/leasehold");
        insta::assert_snapshot!("summary", stable(&made.to_string()));
        let texts = made
            .files
            .iter()
            .filter(|path| !path.ends_with(KEY))
            .map(|path| format!("==> {}\n{}", path.display(), fs::read_to_string(path).unwrap()));
        insta::assert_snapshot!("files", stable(&texts.collect::<Vec<_>>().join("\n")));
    }

    #[test]
    fn nothing_is_overwritten_and_everything_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["leasehold.toml", KEY] {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        let error = init(dir.path(), None, &[], &Sevens).unwrap_err();
        let InitError::Exists(paths) = error else { panic!("{error}") };
        assert_eq!(paths, [dir.path().join("leasehold.toml"), dir.path().join(KEY)]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::read_to_string(dir.path().join(KEY)).unwrap(), "mine");
    }

    #[test]
    fn what_fails_half_way_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        // Root may write anywhere; a file where a folder should be stops root too.
        fs::write(dir.path().join("policies"), "a file").unwrap();
        init(dir.path(), None, &[], &Sevens).unwrap_err();
        fs::remove_file(dir.path().join("policies")).unwrap();
        init(dir.path(), None, &[], &NoEntropy).unwrap_err();
        assert!(!dir.path().join("leasehold.toml").exists());
        init(dir.path(), None, &[], &Sevens).unwrap();
    }

    /// A source that has run dry.
    #[derive(Debug)]
    struct NoEntropy;

    impl Entropy for NoEntropy {
        fn fill(&self, _: &mut [u8]) -> Result<(), leasehold_backend::kind::EntropyError> {
            Err(leasehold_backend::kind::EntropyError)
        }

        fn now(&self) -> leasehold_law::time::Timestamp {
            leasehold_law::time::Timestamp(0)
        }
    }
}
