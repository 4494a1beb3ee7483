//! `leasehold check`: all problems of a config at once, and with `--online` what it names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold_backend::{Entropy, GrantView};
use leasehold_law::caller::CallerId;
use leasehold_law::words::count;

use super::assemble::{abandoned, grants_of, look};
use super::{Start, clock, lines, spiffe_settings};
use crate::config::{Config, Loaded, Problem, Trust};
use crate::entropy::SystemEntropy;
use crate::identity::Now;
use crate::identity::issuer::{Endpoints, Issuer, IssuerError, IssuerUrl, KeySource};
use crate::identity::spiffe::SpiffeIdentity;

/// How long the Workload API, the store and each target may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What keeps the broker from serving, with file and line where it stands in the config.
    pub problems: Vec<String>,
    /// What works but is not what one would want.
    pub warnings: Vec<String>,
    /// What was found to be good.
    pub good: Vec<String>,
    /// Whether the config itself is good.
    pub config_is_good: bool,
}

/// Checks a config; with `online`, looks into its store and dials its targets and its Workload API too. Reads no
/// secret unless it does.
pub async fn check(path: &Path, trust: Trust, online: bool) -> Checked {
    let start = Start::on_host(trust);
    let Loaded { config, warnings } = match Config::load(path, &start.kinds, trust) {
        Ok(loaded) => loaded,
        Err(problems) => return Checked { problems: texts(&problems), ..Checked::default() },
    };
    let mut checked = Checked { warnings: texts(&warnings), config_is_good: true, ..Checked::default() };
    checked.good.push(format!(
        "{}: {}, {}, {}",
        path.display(),
        count(config.targets.len(), "target"),
        count(config.catalog.grants.len(), "grant"),
        agents(&config)
    ));
    checked.warnings.extend(config.unreadable_files());
    if online {
        check_identity(&config, trust, &mut checked).await;
        check_issuers(&config, &start, &mut checked).await;
        check_store(&config, trust, &mut checked).await;
        check_targets(&config, &start, &mut checked).await;
    }
    checked
}

/// Those that the config registers; the one that drills is the broker's own.
fn agents(config: &Config) -> String {
    let named = config.catalog.agents.keys().filter(|id| **id != CallerId::Drill).count();
    match config.catalog.patterns.len() {
        0 => count(named, "agent"),
        patterns => format!("{}, {} of agents", count(named, "agent"), count(patterns, "pattern")),
    }
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

async fn check_identity(config: &Config, trust: Trust, checked: &mut Checked) {
    let settings = match spiffe_settings(config, trust) {
        Ok(settings) => crate::identity::spiffe::SpiffeSettings { sync_timeout: PATIENCE, ..settings },
        Err(error) => return checked.problems.push(error.to_string()),
    };
    match SpiffeIdentity::connect(&settings).await {
        Ok(_) => checked.good.push(format!("Workload API: {} is issued", settings.id)),
        Err(error) => checked.problems.push(format!("Workload API: {error}")),
    }
}

/// Whoever vouches for jobs, service accounts and people is asked for its keys.
async fn check_issuers(config: &Config, start: &Start, checked: &mut Checked) {
    let clock = clock(start.time.clone(), None);
    let now: Now = Arc::new(move || clock.now());
    let identity = &config.identity;
    for issuer in &identity.ci {
        check_issuer(&issuer.name, &issuer.url, &issuer.keys, &now, checked).await;
    }
    for cluster in &identity.kubernetes {
        check_issuer(&cluster.name, &cluster.url, &cluster.keys, &now, checked).await;
    }
    for people in &identity.people {
        let keys = KeySource::Discovery { ca_file: people.ca_file.clone() };
        let found = check_issuer("people", &people.issuer, &keys, &now, checked).await;
        if found.is_some_and(|endpoints| !endpoints.lets_people_in()) {
            checked.warnings.push(format!(
                "people: `{}` names no place to sign in: `leasehold login` needs its `token_endpoint`, and beside it \
                 `device_authorization_endpoint` or `authorization_endpoint`",
                people.issuer
            ));
        }
    }
}

/// What an issuer publishes, where it publishes anything.
async fn check_issuer(
    name: &str,
    url: &IssuerUrl,
    keys: &KeySource,
    now: &Now,
    checked: &mut Checked,
) -> Option<Arc<Endpoints>> {
    let asked = async {
        let issuer = Issuer::new(url.clone(), keys, now.clone())?;
        Ok::<_, IssuerError>((issuer.count().await?, issuer.endpoints().await?))
    };
    match asked.await {
        Ok((0, endpoints)) => {
            checked.problems.push(format!("{name}: `{url}` has no key that could have signed a token"));
            endpoints
        }
        Ok((count, endpoints)) => {
            let plural = if count == 1 { "" } else { "s" };
            checked.good.push(format!("{name}: `{url}` has {count} key{plural}"));
            endpoints
        }
        Err(error) => {
            checked.problems.push(format!("{name}: {error}"));
            None
        }
    }
}

/// What `serve` would refuse the store for, in its words. It takes nothing from the broker that may be serving.
async fn check_store(config: &Config, trust: Trust, checked: &mut Checked) {
    match tokio::time::timeout(PATIENCE, look(config, trust)).await {
        Ok(Ok(None)) => checked.good.push("store: there is none yet; serve makes it".to_owned()),
        Ok(Ok(Some(live))) => {
            checked.good.push(match live.len() {
                0 => "store: no lease lives".to_owned(),
                _ => format!("store: leases live in {}", live.join(", ")),
            });
            checked.problems.extend(abandoned(config, live).map(|error| error.to_string()));
        }
        Ok(Err(error)) => checked.problems.push(error.to_string()),
        Err(_) => checked.problems.push(format!("store: no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn check_targets(config: &Config, start: &Start, checked: &mut Checked) {
    let entropy: Arc<dyn Entropy> = SystemEntropy::new(clock(start.time.clone(), None));
    for (name, target) in &config.targets {
        let Some(kind) = start.kinds.iter().find(|kind| kind.name() == target.backend) else { continue };
        let backend = match kind.open(name, &target.table, entropy.clone()) {
            Ok(backend) => backend,
            Err(found) => {
                let found: Vec<_> = found.iter().map(|problem| target.problem(problem)).collect();
                checked.problems.push(lines(&found));
                continue;
            }
        };
        let grants = grants_of(config, name);
        let views: Vec<_> = grants.iter().map(|(pair, recipe)| GrantView { pair, recipe }).collect();
        match tokio::time::timeout(PATIENCE, backend.health(&views)).await {
            Ok(Ok(health)) => note_health(name, &health, checked),
            Ok(Err(error)) => checked.problems.push(format!("{name}: {error}")),
            Err(_) => checked.problems.push(format!("{name}: no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

fn note_health(name: &str, health: &leasehold_backend::Health, checked: &mut Checked) {
    let lacks = health.missing_privileges.iter();
    checked
        .problems
        .extend(lacks.map(|missing| format!("{name}: lacks {}\n  next: {}", missing.what, missing.fix)));
    checked.warnings.extend(health.warnings.iter().map(|warning| format!("{name}: {warning}")));
    if health.missing_privileges.is_empty() {
        checked.good.push(format!("{name}: {}", health.version));
    }
}
