//! What the papers tell people to write is what the program takes.

use leasehold::config::{Config, Trust};
use leasehold::server::kinds;

use crate::world::read;

/// The operator's page has no config of its own: it is about the one that `init` writes.
#[test]
fn the_config_that_init_writes_passes_check() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("leasehold");
    let target = "orders-db=postgres://db1.internal/orders".parse().unwrap();
    let statements = leasehold::init::database::statements();
    let entropy = leasehold::server::entropy();
    leasehold::init::init(&folder, Some(&target), &statements, entropy.as_ref()).unwrap();
    let config = folder.join("leasehold.toml");
    let loaded = Config::load(&config, &kinds(), Trust::Production);
    assert!(loaded.is_ok(), "{:?}", loaded.err());
}

/// Every command that the papers name is one that the program has.
#[test]
fn the_commands_that_the_papers_name_exist() {
    use clap::CommandFactory as _;
    let cli = leasehold::cli::Cli::command();
    let known: Vec<_> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for paper in ["README.md", "docs/operate.md", "docs/guarantees.md", "SECURITY.md"] {
        for line in read(&root.join(paper)).lines().filter(|line| line.trim_start().starts_with("leasehold "))
        {
            let word = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            assert!(known.contains(&word), "{paper}: `{line}`");
        }
    }
}
