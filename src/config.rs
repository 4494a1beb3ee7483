//! Config: TOML files in, one checked value out, or every problem at once with its file and line (OPS-1).
//!
//! Nothing here dials, opens a port or reads a secret. Each table has its own file; they are read in the order in
//! which one refers to another.

mod agents;
mod apply;
mod broker;
mod ci_jobs;
mod digest;
mod drill;
mod files;
mod grants;
mod identity;
mod idle_groups;
mod include;
mod intents;
mod issuers;
mod json;
mod key;
mod kube_accounts;
mod listen;
mod named_files;
mod names;
mod operators;
mod people;
mod people_issuers;
mod personal;
mod policy;
mod problem;
mod quotas;
mod registry;
mod roles;
mod source;
mod store;
mod sweep;
mod table;
mod targets;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;
mod twice;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use leasehold_backend::BackendKind;
use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::{Agent, Catalog, Floors, Intent};
use leasehold_law::policy::{Engine, PolicySource};
use leasehold_law::quota::Quotas;
use leasehold_law::registry::{Registration, Rules, Who};
use leasehold_law::scope::Pair;
use leasehold_law::time::Span;

pub use apply::{Ground, read_agents};
pub use broker::Broker;
pub use digest::Digests;
pub use drill::{Drill, DrillChoice};
pub use identity::{Identity, Spiffe};
pub use json::Lines;
pub use key::{KeyError, KeyKind, read_installation_key, write_installation_key};
pub use listen::{AdminAddr, Listen};
pub use operators::Operators;
pub use people_issuers::PeopleIssuer;
pub use problem::Problem;
pub use roles::Role;
pub use source::Place;
pub use store::{SharedStore, Store};
pub use sweep::Sweep;
pub use targets::Target;
pub use tasks::Tasks;
pub use trust::{DEV_SUFFIX, Trust};

use crate::identity::{ci, kube};
use agents::Owners;
use ci_jobs::Job;
use grants::Grants;
use issuers::Issuers;
use kube_accounts::KubeAccount;
use names::Names;
use personal::Personal;
use problem::Report;
use source::Source;
use table::{Context, Table};

/// Everything that operators say, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[broker]`.
    pub broker: Broker,
    /// `[listen]`.
    pub listen: Listen,
    /// `[operators]`.
    pub operators: Operators,
    /// `[identity]`.
    pub identity: Identity,
    /// `[store]`.
    pub store: Store,
    /// `[store] retention`: how long leases and tasks stay in their tables after they are over.
    pub retention: Span,
    /// `[tasks]`.
    pub tasks: Tasks,
    /// `[sweep]`.
    pub sweep: Sweep,
    /// `[drill]`.
    pub drill: Drill,
    /// `[quotas]`.
    pub quotas: Quotas,
    /// `[people]`, with what the catalog does not hold.
    pub people: BTreeMap<String, Vouched>,
    /// `[ci_jobs]`: which jobs are whom.
    pub ci_jobs: Vec<ci::Rule>,
    /// `[kube_accounts]`: which service accounts are whom.
    pub kube_accounts: Vec<kube::Account>,
    /// `[targets]`, with what their backends need.
    pub targets: BTreeMap<String, Target>,
    /// What policy is checked against and decides from.
    pub catalog: Arc<Catalog>,
    /// The texts of the policies.
    pub policies: Vec<PolicySource>,
    /// The policies, loaded.
    pub engine: Arc<Engine>,
    /// What decisions rest on, as digests (RULES R-1).
    pub digests: Digests,
    recipes: BTreeMap<Pair, Lines>,
}

/// A config, and what works in it but is not what one would want.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// By file and line.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Loads the config at `path`, with every file that it includes. `kinds` are the backends that are built in.
    ///
    /// Dials nothing and reads no secret: the installation key and the password files are opened when the broker
    /// starts.
    ///
    /// # Errors
    /// Every problem, sorted by file and line.
    pub fn load(path: &Path, kinds: &[Box<dyn BackendKind>], trust: Trust) -> Result<Loaded, Vec<Problem>> {
        let report = Report::default();
        let config = match Source::read(path) {
            Ok(main) => read(&main, kinds, trust, &report),
            Err(error) => {
                report.unreadable(path, &error);
                None
            }
        };
        report.verdict(config).map(|(config, warnings)| Loaded { config, warnings })
    }

    /// Where a JSON pointer into the recipe of a grant leads.
    #[must_use]
    pub fn recipe_place(&self, pair: &Pair, pointer: &str) -> Option<&Place> {
        self.recipes.get(pair).map(|lines| lines.place(pointer))
    }
}

/// Reads the main file and what it includes.
fn read(main: &Source, kinds: &[Box<dyn BackendKind>], trust: Trust, report: &Report) -> Option<Config> {
    let tree = table::parse(main, report);
    let root = Table::root(Context { source: main, report }, tree.get_ref());
    let sources = include::read(&root);
    let trees: Vec<_> = sources.iter().map(|source| (source, table::parse(source, report))).collect();
    let included = trees.iter().map(|(source, tree)| Table::root(Context { source, report }, tree.get_ref()));
    let mut parts: Vec<_> = included.inspect(include::refuse_main_tables).collect();
    parts.insert(0, root);
    let config = check(&parts, kinds, trust, report);
    parts.into_iter().for_each(Table::finish);
    config
}

/// Checks the tables of all files; the first part is the main file.
fn check(
    parts: &[Table<'_>],
    kinds: &[Box<dyn BackendKind>],
    trust: Trust,
    report: &Report,
) -> Option<Config> {
    let root = parts.first()?;
    let broker = broker::read(root, trust);
    let domain = broker.as_ref().map(|broker| broker.trust_domain.as_str());
    let listen = listen::read(root, trust);
    let (identity, issuers) = identity::read(root, domain, trust);
    bearers_have_a_door(root, listen.as_ref(), identity.as_ref(), report);
    let store = store::read(root);
    let tasks = tasks::read(root);
    let (sweep, drill) = (sweep::read(root), drill::read(root));
    let policy::Policy { sources, floors } = policy::read(root);
    let (rules, reserved) = (registry::read(root), reserved(root, identity.as_ref(), domain));
    let before = report.count();
    let federated =
        identity.as_ref().map(|identity| identity.spiffe.federates_with.clone()).unwrap_or_default();
    let trusted = identity::TrustDomains { own: domain, federated: &federated };
    let world = World {
        kinds,
        trust,
        trusted,
        issuers: &issuers,
        floors: &floors,
        reserved: &reserved,
        rules: &rules,
    };
    let defined = Defined::read(parts, &world, report);
    let operators = operators::read(root, &defined.people, domain);
    personal::have_a_door(root, &defined.personal, listen.as_ref(), identity.as_ref());
    defined.warn(root, &rules, &sources, report);
    let quotas = defined.quotas(root);
    // Policies over half a catalog would be blamed for what the catalog lacks.
    let catalog = (report.count() == before).then(|| Catalog {
        rules,
        reserved,
        ..defined.catalog(floors, drill, report)
    });
    let catalog = catalog?;
    let engine = defined.engine(root, &catalog, &sources, report)?;
    let (store, retention) = store?;
    let (targets, people) = (defined.targets.values, defined.people.values);
    let beside = digest::Beside { targets: &targets, people: &people, sources: &sources };
    Some(Config {
        broker: broker?,
        listen: listen?,
        operators,
        identity: identity?,
        store,
        retention,
        tasks,
        sweep,
        drill,
        quotas,
        digests: digest::digests(&catalog, &beside),
        people,
        ci_jobs: defined.jobs.values.into_values().map(|job| job.rule).collect(),
        kube_accounts: defined.accounts.values.into_values().map(|account| account.account).collect(),
        targets,
        catalog: Arc::new(catalog),
        policies: sources,
        engine: Arc::new(engine),
        recipes: defined.grants.recipes,
    })
}

fn by_id(agent: Agent) -> (CallerId, Agent) {
    (agent.id.clone(), agent)
}

/// A door for tokens and the tokens that it takes come together.
fn bearers_have_a_door(
    root: &Table<'_>,
    listen: Option<&Listen>,
    identity: Option<&Identity>,
    report: &Report,
) {
    let (Some(listen), Some(identity)) = (listen, identity) else { return };
    match (listen.bearer, identity.takes_tokens()) {
        (Some(_), false) => report.problem(
            root.place(),
            "`listen.bearer` is a door for tokens, and no kind of token is accepted; write \
             `jwt = {}` in [identity.spiffe], an [identity.ci.NAME], an [identity.kubernetes.NAME] or [identity.people]",
        ),
        (None, true) if identity.takes_only_people() && listen.has_people_s_door() => {}
        // Their tokens come in the requests of agents.
        (None, true) if identity.takes_only_people() && identity.agents_act_for_people() => {}
        (None, true) => {
            report
                .problem(root.place(), no_door(identity));
        }
        (Some(_), true) | (None, false) => {}
    }
}

/// People's commands come to the operators' door, their agents and everybody else to another.
fn no_door(identity: &Identity) -> &'static str {
    if identity.takes_only_people() {
        "tokens are accepted, and no door takes them: write `certificate`, `key` and a TCP address under `admin` in [listen], \
         for people's own agents `listen.bearer`"
    } else {
        "tokens are accepted, and no door takes them: write `listen.bearer`"
    }
}

/// Operators, and the broker itself.
fn reserved(root: &Table<'_>, identity: Option<&Identity>, domain: Option<&str>) -> BTreeSet<CallerId> {
    let default = domain.and_then(|domain| format!("spiffe://{domain}/leasehold").parse().ok());
    let own = identity.and_then(|identity| identity.spiffe.id.clone()).or(default);
    operators::ids(root).chain(own.map(CallerId::Agent)).collect()
}

/// What every file may define, in the order in which one refers to another.
struct Defined {
    people: Names<Vouched>,
    groups: Names<BTreeSet<String>>,
    agents: Names<Registration>,
    personal: Names<Personal>,
    jobs: Names<Job>,
    accounts: Names<KubeAccount>,
    targets: Names<Target>,
    intents: Names<Intent>,
    grants: Grants,
}

/// What the main file and the build say, which definitions are read against.
struct World<'a> {
    kinds: &'a [Box<dyn BackendKind>],
    trust: Trust,
    trusted: identity::TrustDomains<'a>,
    issuers: &'a Issuers,
    floors: &'a Floors,
    /// Operators and the broker itself: none of them is ever an agent.
    reserved: &'a BTreeSet<CallerId>,
    rules: &'a Rules,
}

impl Defined {
    fn read(parts: &[Table<'_>], world: &World<'_>, report: &Report) -> Self {
        let World { kinds, trust, trusted, issuers, floors, reserved, rules } = *world;
        let people = people::read_people(parts, report);
        let groups = people::read_groups(parts, &people);
        let owners = Owners { people: &people, groups: &groups };
        let mut agents = agents::read(parts, agents::World { owners: &owners, trusted, reserved });
        let personal = personal::read(parts, &owners);
        let jobs = ci_jobs::read(parts, issuers, &owners, report);
        let accounts = kube_accounts::read(parts, issuers, &owners);
        agents.join(&jobs, |job| agents::named(&job.agent));
        agents.join(&accounts, |account| agents::named(&account.agent));
        let targets = targets::read(parts, &targets::World { owners: &owners, kinds, trust });
        let intents = intents::read(parts);
        let world = grants::World {
            agents: &agents,
            personal: &personal,
            groups: &rules.groups,
            intents: &intents,
            targets: &targets,
        };
        let grants = grants::read(parts, &world);
        let reach = ci_jobs::Reach { grants: &grants.values, targets: &targets.values, floors };
        ci_jobs::lint(&jobs, &reach, report);
        Self { people, groups, agents, personal, jobs, accounts, targets, intents, grants }
    }

    fn personal_agents(&self) -> impl Iterator<Item = Agent> {
        self.personal.values.values().flat_map(|personal| personal.agents.iter().cloned())
    }

    /// Warns of what works and most likely is not what was meant.
    fn warn(&self, root: &Table<'_>, rules: &Rules, policies: &[PolicySource], report: &Report) {
        agents::warn_unreviewed(&self.agents, rules, report);
        people_issuers::warn_unregistered(root, &self.agents);
        self.warn_idle_groups(root, rules, policies, report);
    }

    fn warn_idle_groups(&self, root: &Table<'_>, rules: &Rules, policies: &[PolicySource], report: &Report) {
        let registry =
            root.get("registry").map_or_else(|| root.place().clone(), |value| value.place().clone());
        let mut groups: agents::Groups<'_> =
            rules.groups.iter().map(|group| (group.as_str(), &registry)).collect();
        for (group, place) in agents::groups(&self.agents).chain(personal::groups(&self.personal)) {
            groups.entry(group).or_insert(place);
        }
        idle_groups::warn(&groups, &idle_groups::World { grants: &self.grants.values, policies }, report);
    }

    fn engine(
        &self,
        root: &Table<'_>,
        catalog: &Catalog,
        sources: &[PolicySource],
        report: &Report,
    ) -> Option<Engine> {
        let places = policy::Places { main: root.place(), grants: &self.grants.places };
        policy::load(catalog, sources, &places, report)
    }

    fn quotas(&self, root: &Table<'_>) -> Quotas {
        let patterns = self.agents.values.values().filter_map(|one| agents::pattern(&one.who));
        let patterns: Vec<_> = patterns.cloned().collect();
        let personal = self.personal_agents().map(|agent| agent.id).collect();
        let (agents, targets) = (&self.agents, &self.targets);
        quotas::read(root, &quotas::World { agents, personal: &personal, patterns: &patterns, targets })
    }

    fn catalog(&self, floors: Floors, drill: Drill, report: &Report) -> Catalog {
        let (mut agents, mut patterns) = (BTreeMap::new(), BTreeMap::new());
        for Registration { who, terms } in self.agents.values.values().cloned() {
            match who {
                Who::One(id) => drop(agents.insert(id, terms)),
                Who::Each(pattern) => drop(patterns.insert(pattern, terms)),
            }
        }
        let catalog = Catalog {
            people: self.people.values.clone(),
            groups: self.groups.values.clone(),
            agents: agents
                .into_iter()
                .map(|(id, terms)| terms.agent(id))
                .chain(self.personal_agents())
                .map(by_id)
                .collect(),
            patterns,
            rules: Rules::default(),
            reserved: BTreeSet::new(),
            targets: self.targets.values.iter().map(|(name, t)| (name.clone(), t.law.clone())).collect(),
            intents: self.intents.values.clone(),
            grants: self.grants.values.clone(),
            floors,
            drills: BTreeMap::new(),
        };
        let plans = drill::plans(&catalog, &self.targets.values, drill, report);
        catalog.with_drills(plans)
    }
}
