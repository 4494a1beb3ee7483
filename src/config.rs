//! Config: TOML files in, one checked value out, or every problem at once with its file and line (OPS-1).
//!
//! Nothing here dials, opens a port or reads a secret. Each table has its own file; they are read in the order in
//! which one refers to another.

mod agents;
mod apply;
mod broker;
mod digest;
mod drill;
mod files;
mod grants;
mod identity;
mod include;
mod intents;
mod json;
mod key;
mod listen;
mod names;
mod operators;
mod people;
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

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use leasehold_backend::BackendKind;
use leasehold_law::caller::CallerId;
use leasehold_law::catalog::{Catalog, Floors, Intent};
use leasehold_law::policy::{Engine, PolicySource};
use leasehold_law::quota::Quotas;
use leasehold_law::registry::{Pattern, Registration, Rules, Who};
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
pub use people::Person;
pub use problem::Problem;
pub use roles::Role;
pub use source::Place;
pub use store::{SharedStore, Store};
pub use sweep::Sweep;
pub use targets::Target;
pub use tasks::Tasks;
pub use trust::{DEV_SUFFIX, Trust};

use agents::Owners;
use grants::Grants;
use names::Names;
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
    pub people: BTreeMap<String, Person>,
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
    let operators = operators::read(root, domain);
    let identity = identity::read(root, domain);
    bearers_have_a_door(root, listen.as_ref(), identity.as_ref(), report);
    let store = store::read(root);
    let tasks = tasks::read(root);
    let sweep = sweep::read(root);
    let drill = drill::read(root);
    let policy::Policy { sources, floors } = policy::read(root);
    let rules = registry::read(root);
    let reserved = reserved(&operators, identity.as_ref(), domain);
    let before = report.count();
    let defined =
        Defined::read(parts, kinds, trust, &Home { domain, reserved: &reserved, rules: &rules }, report);
    agents::warn_unreviewed(&defined.agents, &rules, report);
    let world =
        quotas::World { agents: &defined.agents, patterns: &defined.patterns(), targets: &defined.targets };
    let quotas = quotas::read(root, &world);
    // Policies over half a catalog would be blamed for what the catalog lacks.
    let catalog = (report.count() == before).then(|| Catalog {
        rules,
        reserved,
        ..defined.catalog(floors, drill, report)
    });
    let places = policy::Places { main: root.place(), grants: &defined.grants.places };
    let engine = catalog.as_ref().and_then(|catalog| policy::load(catalog, &sources, &places, report));
    let (catalog, engine) = (catalog?, engine?);
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
        targets,
        catalog: Arc::new(catalog),
        policies: sources,
        engine: Arc::new(engine),
        recipes: defined.grants.recipes,
    })
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
             `jwt = {}` in [identity.spiffe]",
        ),
        (None, true) => {
            report
                .problem(root.place(), "tokens are accepted, and no door takes them: write `listen.bearer`");
        }
        (Some(_), true) | (None, false) => {}
    }
}

/// Who and where the broker is.
struct Home<'a> {
    domain: Option<&'a str>,
    reserved: &'a BTreeSet<CallerId>,
    rules: &'a Rules,
}

/// Operators, and the broker itself.
fn reserved(operators: &Operators, identity: Option<&Identity>, domain: Option<&str>) -> BTreeSet<CallerId> {
    let default = domain.and_then(|domain| format!("spiffe://{domain}/leasehold").parse().ok());
    let own = identity.and_then(|identity| identity.spiffe.id.clone()).or(default);
    operators.keys().cloned().chain(own.map(CallerId::Agent)).collect()
}

/// What every file may define, in the order in which one refers to another.
struct Defined {
    people: Names<Person>,
    groups: Names<BTreeSet<String>>,
    agents: Names<Registration>,
    targets: Names<Target>,
    intents: Names<Intent>,
    grants: Grants,
}

impl Defined {
    fn read(
        parts: &[Table<'_>],
        kinds: &[Box<dyn BackendKind>],
        trust: Trust,
        home: &Home<'_>,
        report: &Report,
    ) -> Self {
        let people = people::read_people(parts, report);
        let groups = people::read_groups(parts, &people);
        let owners = Owners { people: &people, groups: &groups };
        let world = agents::World { owners: &owners, trust_domain: home.domain, reserved: home.reserved };
        let agents = agents::read(parts, world);
        let targets = targets::read(parts, &targets::World { owners: &owners, kinds, trust });
        let intents = intents::read(parts);
        let world = grants::World {
            agents: &agents,
            groups: &home.rules.groups,
            intents: &intents,
            targets: &targets,
        };
        let grants = grants::read(parts, &world);
        Self { people, groups, agents, targets, intents, grants }
    }

    fn patterns(&self) -> Vec<Pattern> {
        let patterns = self.agents.values.values().filter_map(|one| agents::pattern(&one.who));
        patterns.cloned().collect()
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
            people: self.people.values.keys().cloned().collect(),
            groups: self.groups.values.clone(),
            agents: agents.into_iter().map(|(id, terms)| (id.clone(), terms.agent(id))).collect(),
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
