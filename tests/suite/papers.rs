//! What the papers tell people to write is what the program takes.

use std::path::{Path, PathBuf};

use leasehold::config::{Config, Trust};
use leasehold::server::{check, kinds};
use toml::{Table, Value};

use crate::site::{ADMIN, GROUP, Site, login, login_config, works};
use crate::world::{DOMAIN, Setup, World, read};

/// What the fragments of other pages mention, and the README's config has no need of.
const MENTIONED: &str = r#"
[groups]
data-platform = ["ana"]
oncall = ["ana"]
[agents."spiffe://prod.example/agent/example"]
owner = "person:ana"
autonomy = "act"
"#;

/// The config that `init` writes into a folder, as the operator's page has it written.
fn made_by_init(folder: &Path) -> PathBuf {
    let target = "orders-db=postgres://db1.internal/orders".parse().unwrap();
    let statements = leasehold::init::database::statements();
    let entropy = leasehold::server::entropy();
    leasehold::init::init(folder, Some(&target), &statements, entropy.as_ref()).unwrap();
    folder.join("leasehold.toml")
}

/// The operator's page has no config of its own: it is about the one that `init` writes.
#[test]
fn the_operator_s_first_minutes_use_the_names_that_init_makes() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::load(&made_by_init(&dir.path().join("leasehold")), &kinds(), Trust::Production);
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let page = read(&root().join("docs/operate.md"));
    let first = page.split("## When something is wrong").next().unwrap();
    let mut known: Vec<_> = config.catalog.agents.keys().map(ToString::to_string).collect();
    known.push(config.identity.spiffe.id.unwrap().to_string());
    let named: Vec<_> = first.split([' ', '`', '\n']).filter(|word| word.starts_with("spiffe://")).collect();
    let ours: Vec<_> = named.iter().filter(|id| !id.contains("/spire/agent/")).collect();
    assert!(
        ours.len() >= 3 && ours.iter().all(|id| known.contains(&(**id).to_owned())),
        "{ours:?}: {known:?}"
    );
    let pair = first.split("--lease ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(config.catalog.grants.contains_key(&pair.parse().unwrap()), "{pair}");
}

/// The README's first config is whole; what else is fenced as config is a part of one, and holds beside it.
#[tokio::test]
async fn every_config_in_the_papers_passes_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leasehold.toml");
    let configs = configs();
    let whole = table(&configs.first().unwrap().1);
    for (paper, fenced) in &configs {
        let config = merged(merged(whole.clone(), table(MENTIONED), 0), table(fenced), 0);
        std::fs::write(&file, config.to_string()).unwrap();
        let checked = check(&file, Trust::Production, false).await;
        assert!(checked.problems.is_empty(), "{paper}: {:?}\n{fenced}", checked.problems);
    }
    assert!(configs.len() >= 4, "the papers hold more than {} configs", configs.len());
}

/// Only where things are is put as it is here; what is defined is the README's.
#[tokio::test]
async fn a_lease_is_issued_from_the_readme_s_config() {
    let site = Site::shared();
    let (_, fenced) = configs().swap_remove(0);
    let fenced = fenced.replace("prod.example", DOMAIN).replace("orders_reader", GROUP);
    let here = format!(
        r#"
        [listen]
        agents = "127.0.0.1:0"
        admin = ["unix:admin/admin.sock"]
        [identity.spiffe]
        workload_api = "unix:dev/leasehold.sock"
        [store]
        sqlite = "store/leases.db"
        [targets.orders-db]
        connect = {{ host = "127.0.0.1", port = {}, dbname = "postgres" }}
        tls = "disable"
        admin = {{ user = "{ADMIN}", password_file = "{}" }}
        "#,
        site.port(),
        site.password_file().display()
    );
    let config = merged(table(&fenced), table(&here), 0).to_string();
    let mut world = World::with(Setup { config, ..Setup::default() }).await;
    let mut agent = world.agent("triage").await;
    let task = agent.open(&["orders.read@orders-db"]).await.unwrap();
    let granted = agent.lease(&task, "orders.read@orders-db").await.unwrap();
    let config = login_config(&granted.credential.unwrap());
    let session = login(&config).await.unwrap();
    assert!(works(&session).await);
    agent.complete(&task).await.unwrap();
    assert!(login(&config).await.is_err());
    world.stop().await;
}

/// Every command that the papers name is one that the program has.
#[test]
fn the_commands_that_the_papers_name_exist() {
    use clap::CommandFactory as _;
    let cli = leasehold::cli::Cli::command();
    let known: Vec<_> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for paper in ["README.md", "docs/operate.md", "docs/guarantees.md", "SECURITY.md"] {
        for line in
            read(&root().join(paper)).lines().filter(|line| line.trim_start().starts_with("leasehold "))
        {
            let word = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            assert!(known.contains(&word), "{paper}: `{line}`");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is fenced as TOML, each with the paper that it stands in: the README's first.
fn configs() -> Vec<(String, String)> {
    let mut papers = vec![root().join("README.md")];
    papers.extend(pages(&root().join("docs")));
    let fenced = |paper: &PathBuf| {
        let name = paper.strip_prefix(root()).unwrap().display().to_string();
        let text = read(paper);
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        blocks.map(|block| (name.clone(), block)).collect::<Vec<_>>()
    };
    papers.iter().flat_map(fenced).collect()
}

/// The pages of a folder and of those in it, by name.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn table(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A config with a part of it put otherwise, entry by entry. A store is one or the other.
fn merged(mut whole: Table, part: Table, depth: usize) -> Table {
    for (key, value) in part {
        match (whole.remove(&key), value) {
            (Some(Value::Table(known)), Value::Table(new)) if depth < 2 && key != "store" => {
                whole.insert(key, Value::Table(merged(known, new, depth + 1)));
            }
            (_, value) => drop(whole.insert(key, value)),
        }
    }
    whole
}
