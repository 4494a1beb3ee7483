//! One small installation, and the questions that its agent asks.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_law::caller::Vouched;
use leasehold_law::catalog::{
    Agent, Autonomy, Catalog, Class, Floors, Grant, Intent, Owner, Recipe, Target, TtlRule,
};
use leasehold_law::id::DecisionId;
use leasehold_law::param::{ParamKind, ParamSpec, ParamValue, Params, TextRule};
use leasehold_law::policy::{Decision, Engine, PolicyProblem, PolicySource, Question};
use leasehold_law::registry::Standing;
use leasehold_law::scope::Pair;
use leasehold_law::time::{Span, Timestamp};

pub(crate) const TRIAGE: &str = "spiffe://prod.example/agent/triage";

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

pub(crate) fn agent(id: &str, groups: &[&str]) -> Agent {
    Agent {
        id: id.parse().unwrap(),
        owner: owner("person:ana"),
        groups: set(groups),
        autonomy: Autonomy::Act,
        purpose: String::new(),
        standing: Standing::default(),
    }
}

fn target(name: &str, env: &str, owned_by: &str) -> Target {
    let labels = [("env", env), ("data", "customer")];
    let labels = labels.iter().filter(|(key, _)| *key == "env" || env == "prod");
    Target {
        name: name.into(),
        owner: owner(owned_by),
        labels: labels.map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        groups: set(&["databases"]),
    }
}

fn intent(name: &str, class: Class, params: Vec<(&str, ParamKind, bool)>) -> Intent {
    let spec = |(name, kind, optional): (&str, _, _)| (name.to_owned(), ParamSpec { kind, optional });
    Intent { name: name.into(), class, params: params.into_iter().map(spec).collect() }
}

fn grant(pair: &str, allow: &[&str]) -> (Pair, Grant) {
    let pair: Pair = pair.parse().unwrap();
    let [default, max, life] = [10, 15, 60].map(Span::from_mins);
    let ttl = TtlRule { default, max, life };
    (pair.clone(), Grant { pair, recipe: Recipe::default(), ttl, allow: set(allow) })
}

/// `db-prod` is production; `orders.read` takes parameters of every kind that policy sees, and one that it does not.
/// What the issuer calls a person.
pub(crate) fn person(name: &str) -> Vouched {
    Vouched::new("https://idp.example", name).unwrap()
}

pub(crate) fn catalog() -> Catalog {
    let codes = TextRule::Enum(vec!["triage".into(), "audit".into()]);
    let read = intent(
        "orders.read",
        Class::ReadOnly,
        vec![
            ("reason_code", ParamKind::String(codes), true),
            ("rows", ParamKind::Int { min: None, max: None }, true),
            ("dry_run", ParamKind::Bool, true),
            ("tables", ParamKind::List(TextRule::Pattern("t-*".into())), true),
            ("note", ParamKind::String(TextRule::Free), true),
        ],
    );
    let audit_code = ParamKind::String(TextRule::Enum(vec!["triage".into(), "audit".into()]));
    let intents = [
        read,
        intent("orders.audit", Class::ReadOnly, vec![("reason_code", audit_code, false)]),
        intent("orders.fix", Class::Reversible, vec![]),
        intent("orders.purge", Class::Irreversible, vec![]),
    ];
    let targets = [target("db-dev", "dev", "person:ana"), target("db-prod", "prod", "group:data-platform")];
    let agents = [agent(TRIAGE, &["soc"]), agent("spiffe://prod.example/agent/build", &["ci"])];
    Catalog {
        people: ["ana", "ben"].map(|name| (name.to_owned(), person(name))).into(),
        groups: BTreeMap::from([
            ("data-platform".into(), set(&["ana"])),
            ("oncall".into(), set(&["ana", "ben"])),
        ]),
        agents: agents.into_iter().map(|agent| (agent.id.clone(), agent)).collect(),
        targets: targets.into_iter().map(|target| (target.name.clone(), target)).collect(),
        intents: intents.into_iter().map(|intent| (intent.name.clone(), intent)).collect(),
        grants: BTreeMap::from([grant("orders.fix@db-dev", &["soc", "ci"])]),
        floors: Floors::default(),
        drills: BTreeMap::new(),
        ..Catalog::default()
    }
}

pub(crate) fn load(catalog: &Catalog, text: &str) -> Result<Engine, Vec<PolicyProblem>> {
    Engine::load(catalog, &[PolicySource { name: "x.cedar".into(), text: text.into() }])
}

/// A question in the making; [`Ask::of`] has what most of them share.
pub(crate) struct Ask {
    pub(crate) agent: Agent,
    pub(crate) pair: Pair,
    pub(crate) params: Option<Params>,
    pub(crate) ttl: Span,
    pub(crate) liveness: &'static str,
    pub(crate) renewal: bool,
    pub(crate) depth: u32,
    pub(crate) dry_run: bool,
    pub(crate) person: Option<Vouched>,
}

impl Ask {
    /// Triage asks for ten minutes, without parameters, in a task of an hour's age.
    pub(crate) fn of(pair: &str) -> Self {
        Self {
            agent: agent(TRIAGE, &["soc"]),
            pair: pair.parse().unwrap(),
            params: Some(Params::new()),
            ttl: Span::from_mins(10),
            liveness: "heartbeat",
            renewal: false,
            depth: 1,
            dry_run: false,
            person: None,
        }
    }

    pub(crate) fn ttl(self, text: &str) -> Self {
        Self { ttl: text.parse().unwrap(), ..self }
    }

    pub(crate) fn param(mut self, name: &str, value: ParamValue) -> Self {
        self.params.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.param(name, ParamValue::String(value.to_owned()))
    }

    pub(crate) fn open(self) -> Self {
        Self { params: None, ..self }
    }

    pub(crate) fn group(mut self, group: &str) -> Self {
        self.agent.groups = set(&[group]);
        self
    }

    pub(crate) fn for_person(self, name: &str) -> Self {
        Self { person: Some(person(name)), ..self }
    }

    pub(crate) fn put(&self, engine: &Engine) -> Decision {
        engine.decide(&Question {
            id: DecisionId::derive(Timestamp(1_795_000_000_000), 7),
            agent: &self.agent,
            pair: &self.pair,
            params: self.params.as_ref(),
            ttl: self.ttl,
            now: Timestamp(1_795_000_000_000),
            liveness: self.liveness,
            task_age: Span::from_mins(60),
            proof: "x509-svid",
            on_behalf_of: self.person.as_ref(),
            depth: self.depth,
            renewal: self.renewal,
            dry_run: self.dry_run,
            guards: &[],
        })
    }
}
