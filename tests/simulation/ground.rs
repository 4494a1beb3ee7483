//! What operators of the world defined: three agents, four targets, and two versions of the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::catalog::{
    Agent, Autonomy, Catalog, Class, Grant, Intent, Owner, Recipe, Target, TtlRule,
};
use leasehold_law::drill::Plan;
use leasehold_law::lease::Grade;
use leasehold_law::param::Params;
use leasehold_law::policy::{Engine, PolicySource};
use leasehold_law::quota::{Quota, Quotas};
use leasehold_law::registry::Standing;
use leasehold_law::scope::Pair;
use leasehold_law::subject::Subject;
use leasehold_law::time::Span;

/// The targets, by grade: two that kill, one that only shuts the door, one that can do nothing.
pub(crate) const TARGETS: [(&str, Grade); 4] =
    [("orders", Grade::Exact), ("stock", Grade::Exact), ("cache", Grade::Coarse), ("feed", Grade::None)];
/// What agents ask for, the likeliest first; the last is denied.
pub(crate) const PAIRS: [&str; 7] =
    ["read@orders", "read@stock", "write@orders", "write@stock", "read@cache", "read@feed", "purge@orders"];
/// What tasks refer to.
pub(crate) const REF: &str = "run";
pub(crate) const RUNS: u64 = 3;
/// How many live leases an agent may have.
pub(crate) const LIVE_AT_MOST: usize = 6;
const AGENTS: [&str; 3] = ["triage", "build", "report"];

/// One version of what operators defined.
pub(crate) struct Ground {
    pub(crate) catalog: Catalog,
    pub(crate) engine: Arc<Engine>,
    /// What decisions rest on, each with what stands for its digest.
    pub(crate) digests: BTreeMap<Subject, String>,
}

/// How many versions there are.
pub(crate) const VERSIONS: usize = 2;

/// The n-th version, loaded once for all worlds.
pub(crate) fn ground(version: usize) -> &'static Ground {
    static GROUNDS: [OnceLock<Ground>; VERSIONS] = [const { OnceLock::new() }; VERSIONS];
    let version = version % VERSIONS;
    GROUNDS[version].get_or_init(|| Ground::load(version))
}

pub(crate) fn agents() -> Vec<CallerId> {
    AGENTS.iter().map(|name| format!("spiffe://sim.leasehold.test/agent/{name}").parse().unwrap()).collect()
}

/// Whom agents act for: somebody of the config, and somebody else.
pub(crate) fn people() -> Vec<Vouched> {
    ["ana", "00u7"].iter().map(|name| Vouched::new("https://idp.example", name).unwrap()).collect()
}

/// Who answers for an agent: a group for one of them.
pub(crate) fn owner_of(agent: &CallerId) -> Owner {
    if *agent == CallerId::Drill {
        return Owner::Broker;
    }
    let owner = if agent.to_string().ends_with("report") { "group:data" } else { "person:ana" };
    owner.parse().unwrap()
}

/// What an agent may use.
pub(crate) fn quotas() -> Quotas {
    let live = Some(LIVE_AT_MOST as u64);
    Quotas { agent: Quota { live, ..Quota::default() }, ..Quotas::default() }
}

impl Ground {
    /// In the second version `build` is out of the group that may write.
    fn load(version: usize) -> Self {
        let catalog = catalog(version == 0);
        let sources = [PolicySource { name: "sim.cedar".to_owned(), text: POLICY.to_owned() }];
        let engine = Engine::load(&catalog, &sources);
        let engine = engine.unwrap_or_else(|problems| panic!("the policy does not load: {problems:?}"));
        let mut digests = BTreeMap::from([(Subject::Policy, format!("policy {version}"))]);
        digests
            .extend(TARGETS.iter().map(|(name, _)| (Subject::Target((*name).to_owned()), "same".to_owned())));
        digests.extend(agents().into_iter().map(|id| {
            let digest = format!("agent {}", version * usize::from(id.to_string().ends_with("build")));
            (Subject::Agent(id), digest)
        }));
        Self { catalog, engine: Arc::new(engine), digests }
    }
}

const POLICY: &str = r#"
@id("reads-are-brief")
forbid (principal in AgentGroup::"readers", action == Action::"read", resource)
when { context.ttl > duration("30m") };
"#;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn catalog(build_writes: bool) -> Catalog {
    let agent = |id: CallerId| Agent {
        groups: match id.to_string().ends_with("build") && !build_writes {
            true => set(&["readers"]),
            false => set(&["readers", "writers"]),
        },
        owner: owner_of(&id),
        id,
        autonomy: Autonomy::Act,
        purpose: String::new(),
        standing: Standing::default(),
    };
    let target = |(name, _): &(&str, Grade)| Target {
        name: (*name).to_owned(),
        owner: "group:data".parse::<Owner>().unwrap(),
        labels: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        groups: BTreeSet::new(),
    };
    let intent =
        |(name, class): (&str, Class)| Intent { name: name.to_owned(), class, params: BTreeMap::new() };
    let intents = [("read", Class::ReadOnly), ("write", Class::Reversible), ("purge", Class::Irreversible)];
    Catalog {
        people: BTreeMap::from([("ana".to_owned(), "https://idp.example|ana".parse().unwrap())]),
        groups: BTreeMap::from([("data".to_owned(), set(&["ana"]))]),
        agents: agents().into_iter().map(agent).map(|agent| (agent.id.clone(), agent)).collect(),
        targets: TARGETS.iter().map(target).map(|target| (target.name.clone(), target)).collect(),
        intents: intents.into_iter().map(intent).map(|intent| (intent.name.clone(), intent)).collect(),
        grants: PAIRS.iter().map(|pair| grant(pair)).map(|grant| (grant.pair.clone(), grant)).collect(),
        ..Catalog::default()
    }
    .with_drills(drills())
}

/// What an operator drills: the two that kill, and one that cannot, which is refused.
fn drills() -> BTreeMap<String, Plan> {
    let plan = |pair: &str| Plan { pair: pair.parse().unwrap(), params: Params::new() };
    let plans = ["read@orders", "read@stock", "read@cache"].map(plan);
    plans.into_iter().map(|plan| (plan.pair.target.clone(), plan)).collect()
}

/// Short lives, so that many leases come to their end in a world.
fn grant(pair: &str) -> Grant {
    let pair: Pair = pair.parse().unwrap();
    let group = if pair.intent == "write" { "writers" } else { "readers" };
    let [default, max, life] = [20, 60, 150].map(Span::from_secs);
    let role = serde_json::Map::from_iter([("role".to_owned(), pair.intent.clone().into())]);
    Grant { pair, recipe: Recipe(role), ttl: TtlRule { default, max, life }, allow: set(&[group]) }
}
