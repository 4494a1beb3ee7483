//! What Cedar is told: entities, made once per engine where they can be, and one request per question.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema,
};

use super::Question;
use super::fault::CedarError;
use crate::caller::{CallerId, Vouched};
use crate::catalog::{Agent, Catalog, Intent, Target};
use crate::param::{ParamValue, check_params};
use crate::time::{Span, Timestamp};

type Attributes = HashMap<String, RestrictedExpression>;

/// The types of entities, parsed once: a question names three of them.
struct Kind(LazyLock<Result<EntityTypeName, CedarError>>);

static AGENT: Kind = Kind(LazyLock::new(|| type_name("Agent")));
static CI_JOB: Kind = Kind(LazyLock::new(|| type_name("CiJob")));
static KUBE_ACCOUNT: Kind = Kind(LazyLock::new(|| type_name("KubeAccount")));
static PERSONAL_AGENT: Kind = Kind(LazyLock::new(|| type_name("PersonalAgent")));
static PERSON: Kind = Kind(LazyLock::new(|| type_name("Person")));
static PERSON_GROUP: Kind = Kind(LazyLock::new(|| type_name("PersonGroup")));
static AGENT_GROUP: Kind = Kind(LazyLock::new(|| type_name("AgentGroup")));
static TARGET: Kind = Kind(LazyLock::new(|| type_name("Target")));
static TARGET_GROUP: Kind = Kind(LazyLock::new(|| type_name("TargetGroup")));
static ACTION: Kind = Kind(LazyLock::new(|| type_name("Action")));

/// Expressions by what they say: Cedar parses the name of the constructor for each, and the same few are asked for
/// again and again.
struct Parsed<K>(Mutex<BTreeMap<K, RestrictedExpression>>);

static DURATIONS: Parsed<Span> = Parsed(Mutex::new(BTreeMap::new()));
static MOMENTS: Parsed<Timestamp> = Parsed(Mutex::new(BTreeMap::new()));

impl<K: Copy + Ord> Parsed<K> {
    const MOST: usize = 1024;

    fn of(&self, value: K, make: impl FnOnce(K) -> RestrictedExpression) -> RestrictedExpression {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.entry(value).or_insert_with(|| make(value)).clone()
    }
}

fn type_name(name: &str) -> Result<EntityTypeName, CedarError> {
    EntityTypeName::from_str(name).map_err(CedarError::of)
}

impl Kind {
    /// The name of an entity.
    fn uid(&self, id: &str) -> Result<EntityUid, CedarError> {
        Ok(EntityUid::from_type_name_and_id(self.0.clone()?, EntityId::new(id)))
    }
}

/// Who asks, as policy names it. Local users and people ask for nothing, and no policy is about them.
fn principal(id: &CallerId) -> Result<EntityUid, CedarError> {
    let kind = match id {
        CallerId::Agent(_) | CallerId::LocalUser(_) | CallerId::Person(_) | CallerId::Drill => &AGENT,
        CallerId::CiJob(_) => &CI_JOB,
        CallerId::KubeAccount(_) => &KUBE_ACCOUNT,
        CallerId::PersonalAgent(_) => &PERSONAL_AGENT,
    };
    kind.uid(&id.name())
}

/// Every agent, target, person and action of the catalog.
pub(super) fn entities(catalog: &Catalog, schema: &Schema) -> Result<Entities, CedarError> {
    let agents = catalog.agents.values().map(agent_entity);
    let targets = catalog.targets.values().map(target_entity);
    let people = catalog.people.keys().map(|person| person_entity(person, catalog));
    let all = agents.chain(targets).chain(people).collect::<Result<Vec<_>, _>>()?;
    Entities::from_entities(all, Some(schema)).map_err(CedarError::of)
}

/// The entities for an agent whose registration differs from the catalog's.
pub(super) fn entities_for(
    question: &Question<'_>,
    target: &Target,
    catalog: &Catalog,
    schema: &Schema,
) -> Result<Entities, CedarError> {
    let person = question.on_behalf_of.and_then(|person| catalog.name_of(person));
    let person = person.map(|person| person_entity(person, catalog)).transpose()?;
    let all = [agent_entity(question.agent)?, target_entity(target)?].into_iter().chain(person);
    Entities::from_entities(all, Some(schema)).map_err(CedarError::of)
}

/// A person as policy names them: by their name in the config, or by what their issuer calls them, which is no such name
/// and in no group.
fn person_uid(person: &Vouched, catalog: &Catalog) -> Result<EntityUid, CedarError> {
    match catalog.name_of(person) {
        Some(name) => PERSON.uid(name),
        None => PERSON.uid(&person.to_string()),
    }
}

fn agent_entity(agent: &Agent) -> Result<Entity, CedarError> {
    let parents = parents(&AGENT_GROUP, &agent.groups)?;
    let attributes = HashMap::from([
        ("owner".to_owned(), text(&agent.owner.to_string())),
        ("autonomy".to_owned(), text(agent.level().name())),
    ]);
    Entity::new(principal(&agent.id)?, attributes, parents).map_err(CedarError::of)
}

fn person_entity(person: &str, catalog: &Catalog) -> Result<Entity, CedarError> {
    let groups = catalog.groups.iter().filter(|(_, members)| members.contains(person));
    let parents = parents(&PERSON_GROUP, groups.map(|(group, _)| group))?;
    Entity::new(PERSON.uid(person)?, Attributes::new(), parents).map_err(CedarError::of)
}

fn target_entity(target: &Target) -> Result<Entity, CedarError> {
    let parents = parents(&TARGET_GROUP, &target.groups)?;
    let labels = target.labels.iter().map(|(key, value)| (key.clone(), text(value)));
    let attributes = HashMap::from([
        ("owner".to_owned(), text(&target.owner.to_string())),
        ("labels".to_owned(), RestrictedExpression::new_record(labels).map_err(CedarError::of)?),
    ]);
    Entity::new(TARGET.uid(&target.name)?, attributes, parents).map_err(CedarError::of)
}

fn parents<'a>(
    kind: &Kind,
    groups: impl IntoIterator<Item = &'a String>,
) -> Result<HashSet<EntityUid>, CedarError> {
    groups.into_iter().map(|group| kind.uid(group)).collect()
}

/// The question with every fact, checked against the schema and the declared parameters: what does not fit
/// denies.
pub(super) fn request(
    question: &Question<'_>,
    intent: &Intent,
    catalog: &Catalog,
    schema: &Schema,
) -> Result<Request, CedarError> {
    let params = question.params.into_iter().flatten();
    let checked = question.params.map(|params| check_params(&intent.params, params)).unwrap_or_default();
    if let Some(error) = checked.first() {
        return Err(CedarError::of(error));
    }
    let seen = params.filter(|(name, _)| intent.params.get(*name).is_some_and(|spec| spec.reaches_policy()));
    let params = record(seen.map(|(name, value)| (name.as_str(), expression(value))))?;
    let person = question.on_behalf_of.map(|person| person_uid(person, catalog)).transpose()?;
    let context = context(question, params, person)?;
    put(question, context, Some(schema))
}

/// The question without any fact beyond the scope clauses of policies: who, what, where.
pub(super) fn bare_request(question: &Question<'_>) -> Result<Request, CedarError> {
    put(question, Context::empty(), None)
}

fn put(question: &Question<'_>, context: Context, schema: Option<&Schema>) -> Result<Request, CedarError> {
    let agent = principal(&question.agent.id)?;
    let action = ACTION.uid(&question.pair.intent)?;
    let target = TARGET.uid(&question.pair.target)?;
    Request::new(agent, action, target, context, schema).map_err(CedarError::of)
}

fn context(
    question: &Question<'_>,
    params: RestrictedExpression,
    person: Option<EntityUid>,
) -> Result<Context, CedarError> {
    let age = duration(question.task_age.whole_seconds());
    let task = record([("liveness", text(question.liveness)), ("age", age)])?;
    let pairs = [
        ("ttl", duration(question.ttl)),
        ("now", moment(question.now)),
        ("params", params),
        ("task", task),
        ("proof", text(question.proof)),
        ("depth", RestrictedExpression::new_long(i64::from(question.depth))),
        ("renewal", RestrictedExpression::new_bool(question.renewal)),
        ("approvals", RestrictedExpression::new_set([])),
    ];
    let person = person.map(|person| ("on_behalf_of", RestrictedExpression::new_entity_uid(person)));
    let pairs = pairs.into_iter().chain(person).map(|(name, value)| (name.to_owned(), value));
    Context::from_pairs(pairs).map_err(CedarError::of)
}

fn record<'a>(
    fields: impl IntoIterator<Item = (&'a str, RestrictedExpression)>,
) -> Result<RestrictedExpression, CedarError> {
    let fields: Attributes = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    RestrictedExpression::new_record(fields).map_err(CedarError::of)
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn duration(span: Span) -> RestrictedExpression {
    DURATIONS.of(span, |span| RestrictedExpression::new_duration(format!("{}ms", span.0)))
}

/// To the second: nobody writes a policy on less.
fn moment(at: Timestamp) -> RestrictedExpression {
    MOMENTS.of(at.whole_seconds(), |at| RestrictedExpression::new_datetime(at.to_string()))
}

fn expression(value: &ParamValue) -> RestrictedExpression {
    match value {
        ParamValue::Bool(value) => RestrictedExpression::new_bool(*value),
        ParamValue::Int(value) => RestrictedExpression::new_long(*value),
        ParamValue::String(value) => text(value),
        ParamValue::List(items) => RestrictedExpression::new_set(items.iter().map(|item| text(item))),
    }
}
