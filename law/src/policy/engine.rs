//! The engine: loads a policy set whole, and answers questions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use cedar_policy::{
    AuthorizationError, Authorizer, Decision as Effect, Entities, PolicyId, PolicySet, Request, Schema,
};
use ring::digest;
use serde::Serialize;

use super::approvers::Approvers;
use super::conjunct::Conjunct;
use super::facts;
use super::fault::CedarError;
use super::load::{Loaded, fault, load};
use super::memo::{Facts, Memo, Moving};
use super::rule::{Bar, Rule, names, takes_in};
use super::source::{PolicyProblem, PolicySource};
use super::{Answer, ApprovalNeed, Decision, DecisionRecord, Denial, Near, Permit, Question, Verdict};
use crate::caller::CallerId;
use crate::catalog::{Agent, Autonomy, Catalog, Class, Floor, Intent, Target};
use crate::hex::Hex;

/// A policy set that passed every check, with everything that it is decided from.
///
/// It has no clock and no randomness: the same question gets the same answer. Share it in an `Arc`.
#[derive(Debug)]
pub struct Engine {
    catalog: Catalog,
    schema: Schema,
    entities: Entities,
    rules: HashMap<PolicyId, Rule>,
    slices: BTreeMap<String, Slice>,
    authorizer: Authorizer,
    memo: Memo,
    digest: String,
}

/// The policies that can have a say in one intent: those that name it or its class, and every unscoped one.
#[derive(Debug)]
struct Slice {
    policies: PolicySet,
    /// The same policies as permits by their scope clauses alone.
    scopes: PolicySet,
    /// What of time some of them may look at.
    moving: Moving,
}

/// What policy says, before it is written down.
struct Judgement {
    outcome: Outcome,
    /// The names of the policies that determined it.
    policies: Vec<String>,
}

enum Outcome {
    Allow,
    Ask(ApprovalNeed),
    Deny(Denial),
}

/// A question, with what the catalog knows of its pair.
struct Case<'a> {
    question: &'a Question<'a>,
    intent: &'a Intent,
    slice: &'a Slice,
    entities: Cow<'a, Entities>,
    bar: Bar,
}

impl Engine {
    /// Loads a policy set.
    ///
    /// # Errors
    /// Every problem at once, in the order of files and lines.
    pub fn load(catalog: &Catalog, sources: &[PolicySource]) -> Result<Self, Vec<PolicyProblem>> {
        let Loaded { schema, schema_text, rules } = load(catalog, sources)?;
        let entities =
            facts::entities(catalog, &schema).map_err(|error| vec![fault("the catalog", &error)])?;
        let slices = slices(catalog, &rules).map_err(|error| vec![fault("the policy set", &error)])?;
        Ok(Self {
            digest: digest_of(catalog, sources, &schema_text),
            slices,
            rules: rules.into_iter().map(|rule| (rule.policy.id().clone(), rule)).collect(),
            catalog: catalog.clone(),
            authorizer: Authorizer::new(),
            memo: Memo::default(),
            schema,
            entities,
        })
    }

    /// The digest of the policy set and the catalog.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Answers a question. What config does not define is denied, and so is all that fails (law 4).
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        match self.case(question) {
            None => self.decision(question, Floor::Ask, no_permit(None)),
            Some(Err(_)) => self.decision(question, Floor::Ask, policy_error(Vec::new())),
            Some(Ok(case)) => {
                let barred = bar(question, case.intent.class);
                let judgement = barred.map_or_else(|| self.judge(&case), denied);
                self.decision(question, case.bar.floor, judgement)
            }
        }
    }

    /// `None` where the catalog does not know the pair.
    fn case<'a>(&'a self, question: &'a Question<'a>) -> Option<Result<Case<'a>, CedarError>> {
        let intent = self.catalog.intents.get(&question.pair.intent)?;
        let target = self.catalog.targets.get(&question.pair.target)?;
        let slice = self.slices.get(&intent.name)?;
        let bar = self.bar(question.agent, intent, target);
        let entities = self.entities_for(question, target);
        Some(entities.map(|entities| Case { question, intent, slice, entities, bar }))
    }

    /// The floor; for an agent on a person's own machine, whose proof whatever else runs there as that person may have
    /// too, people are always asked beyond reading in production, and its own person is not among them.
    fn bar(&self, agent: &Agent, intent: &Intent, target: &Target) -> Bar {
        let floors = &self.catalog.floors;
        let is_personal = matches!(agent.id, CallerId::PersonalAgent(_));
        let excluded = is_personal.then(|| agent.owner.clone());
        if is_personal && intent.class > Class::ReadOnly && floors.is_production(&target.labels) {
            return Bar { floor: Floor::Ask, always: true, excluded };
        }
        Bar { floor: floors.of(intent.class, &target.labels), always: false, excluded }
    }

    /// The prepared entities, unless the agent's registration changed since they were made.
    fn entities_for(
        &self,
        question: &Question<'_>,
        target: &Target,
    ) -> Result<Cow<'_, Entities>, CedarError> {
        let prepared = self.catalog.agents.get(&question.agent.id);
        if prepared.is_some_and(|prepared| looks_like(prepared, question.agent)) {
            return Ok(Cow::Borrowed(&self.entities));
        }
        facts::entities_for(question, target, &self.catalog, &self.schema).map(Cow::Owned)
    }

    fn judge(&self, case: &Case<'_>) -> Judgement {
        let judged = match case.question.params {
            Some(_) => self.judge_again(case),
            None => self.judge_scopes(case),
        };
        judged.unwrap_or_else(|_: CedarError| policy_error(Vec::new()))
    }

    /// Allows what was allowed on the same facts.
    fn judge_again(&self, case: &Case<'_>) -> Result<Judgement, CedarError> {
        let facts = Facts::of(case.question, case.slice.moving);
        if let Some(policies) = facts.as_ref().and_then(|facts| self.memo.recall(facts)) {
            return Ok(Judgement { outcome: Outcome::Allow, policies });
        }
        let request = facts::request(case.question, case.intent, &self.catalog, &self.schema)?;
        let judgement = self.judge_whole(case, &request);
        if let (Some(facts), Outcome::Allow) = (facts, &judgement.outcome) {
            self.memo.keep(facts, &judgement.policies);
        }
        Ok(judgement)
    }

    fn judge_whole(&self, case: &Case<'_>, request: &Request) -> Judgement {
        let response = self.authorizer.is_authorized(request, &case.slice.policies, &case.entities);
        let failed: Vec<_> = response.diagnostics().errors().map(failed_policy).collect();
        let rules = self.known(response.diagnostics().reason());
        match response.decision() {
            // Cedar leaves a policy out that fails: a forbid that overflows would allow (RULES R-13).
            Effect::Allow | Effect::Deny if !failed.is_empty() => {
                policy_error(names(self.known(failed.into_iter())))
            }
            Effect::Allow => weigh(&rules, &case.bar),
            Effect::Deny if !rules.is_empty() => forbidden(&rules, case.question),
            Effect::Deny => no_permit(self.nearest(case, request)),
        }
    }

    /// Required parameters are not fixed yet: only a forbid without conditions is sure to hold.
    fn judge_scopes(&self, case: &Case<'_>) -> Result<Judgement, CedarError> {
        let matching = self.in_scope(case, &facts::bare_request(case.question)?);
        let (permits, forbids): (Vec<_>, Vec<_>) = matching.into_iter().partition(|rule| rule.is_permit());
        let forbids: Vec<_> = forbids.into_iter().filter(|rule| rule.is_unconditional()).collect();
        Ok(if forbids.is_empty() { weigh(&permits, &case.bar) } else { forbidden(&forbids, case.question) })
    }

    /// The permit whose scope matches and that fails by the fewest conditions.
    fn nearest(&self, case: &Case<'_>, request: &Request) -> Option<Near> {
        let permits = self.in_scope(case, request).into_iter().filter(|rule| rule.is_permit());
        let failing = permits.map(|rule| {
            let fails = |conjunct: &&Conjunct| !conjunct.holds(request, &case.entities);
            (rule, rule.conjuncts.iter().filter(fails).collect::<Vec<_>>())
        });
        let (rule, conjuncts) = failing.min_by_key(|(_, conjuncts)| conjuncts.len())?;
        Some(rule.near(conjuncts, case.question))
    }

    /// The rules whose scope clauses match, whatever their effect and conditions.
    fn in_scope(&self, case: &Case<'_>, request: &Request) -> Vec<&Rule> {
        let response = self.authorizer.is_authorized(request, &case.slice.scopes, &case.entities);
        self.known(response.diagnostics().reason())
    }

    /// The rules behind Cedar's ids, sorted.
    fn known<'a>(&self, ids: impl Iterator<Item = &'a PolicyId>) -> Vec<&Rule> {
        let mut rules: Vec<_> = ids.filter_map(|id| self.rules.get(id)).collect();
        rules.sort_by(|a, b| a.policy.id().cmp(b.policy.id()));
        rules
    }

    fn decision(&self, question: &Question<'_>, floor: Floor, judgement: Judgement) -> Decision {
        let Judgement { outcome, policies } = judgement;
        let (answer, denial, need) = match &outcome {
            Outcome::Allow => (Answer::Allow, None, None),
            Outcome::Ask(need) => (Answer::Ask, None, Some(need.clone())),
            Outcome::Deny(denial) => (Answer::Deny, Some(denial.clone()), None),
        };
        let record = DecisionRecord {
            id: question.id,
            answer,
            agent: question.agent.clone(),
            pair: question.pair.clone(),
            params: question.params.cloned(),
            ttl: question.ttl,
            at: question.now,
            liveness: question.liveness.to_owned(),
            task_age: question.task_age,
            proof: question.proof.to_owned(),
            on_behalf_of: question.on_behalf_of.cloned(),
            renewal: question.renewal,
            dry_run: question.dry_run,
            policies,
            policy_digest: self.digest.clone(),
            floor,
            denial,
            need,
        };
        Decision { verdict: verdict(question, outcome), record }
    }
}

impl Slice {
    fn of<'a>(rules: impl Iterator<Item = &'a Rule> + Clone) -> Result<Self, CedarError> {
        Ok(Self {
            policies: PolicySet::from_policies(rules.clone().map(|rule| rule.policy.clone()))
                .map_err(CedarError::of)?,
            scopes: PolicySet::from_policies(rules.clone().map(|rule| rule.scope.clone()))
                .map_err(CedarError::of)?,
            moving: rules.map(|rule| rule.moving).fold(Moving::default(), Moving::or),
        })
    }
}

fn slices(catalog: &Catalog, rules: &[Rule]) -> Result<BTreeMap<String, Slice>, CedarError> {
    let slice = |intent: &Intent| {
        let rules = rules.iter().filter(|rule| takes_in(&rule.policy, intent));
        Ok((intent.name.clone(), Slice::of(rules)?))
    };
    catalog.intents.values().map(slice).collect()
}

fn failed_policy(error: &AuthorizationError) -> &PolicyId {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
    }
}

fn verdict(question: &Question<'_>, outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Allow => Verdict::Allow(Permit::new(question)),
        Outcome::Ask(need) => Verdict::Ask(need),
        Outcome::Deny(denial) => Verdict::Deny(denial),
    }
}

/// Whether policy sees the same of both.
fn looks_like(one: &Agent, other: &Agent) -> bool {
    (&one.owner, &one.groups, one.level()) == (&other.owner, &other.groups, other.level())
}

/// What stands in the way before policy is asked: the agent's status, and every level of autonomy that holds for it.
fn bar(question: &Question<'_>, class: Class) -> Option<Denial> {
    let Agent { autonomy, standing, .. } = question.agent;
    if standing.status.stops() {
        return Some(Denial::Stopped { status: standing.status, ruling: standing.ruling.clone() });
    }
    let lowered = standing.lowered.iter().map(|lowered| (lowered.to, Some(lowered.by.clone())));
    let (level, lowered) = [(*autonomy, None)]
        .into_iter()
        .chain(lowered)
        .find(|(level, _)| !permits(*level, question, class))?;
    Some(Denial::BeyondAutonomy { level, lowered })
}

/// Whether a level of autonomy leaves room for this (REQUIREMENTS POL-4).
const fn permits(level: Autonomy, question: &Question<'_>, class: Class) -> bool {
    match level {
        Autonomy::Observe => matches!(class, Class::ReadOnly),
        Autonomy::Propose => question.dry_run,
        Autonomy::Act => true,
    }
}

/// Permits that need nobody allow; otherwise the one that asks the fewest people says whom to ask.
fn weigh(permits: &[&Rule], bar: &Bar) -> Judgement {
    let (asking, free): (Vec<_>, Vec<_>) = permits.iter().copied().partition(|rule| rule.need(bar).is_some());
    if !free.is_empty() {
        return Judgement { outcome: Outcome::Allow, policies: names(free) };
    }
    let needs = asking.into_iter().filter_map(|rule| Some((rule, rule.need(bar)?)));
    match needs.min_by_key(|(_, need)| people(need)) {
        Some((rule, need)) => Judgement { outcome: Outcome::Ask(need), policies: names([rule]) },
        None => no_permit(None),
    }
}

fn people(need: &ApprovalNeed) -> usize {
    need.approvers.parse::<Approvers>().map_or(usize::MAX, |approvers| approvers.people())
}

fn forbidden(forbids: &[&Rule], question: &Question<'_>) -> Judgement {
    let by = forbids.iter().map(|rule| rule.near(&rule.conjuncts, question)).collect();
    Judgement { outcome: Outcome::Deny(Denial::Forbidden { by }), policies: names(forbids.iter().copied()) }
}

fn no_permit(nearest: Option<Near>) -> Judgement {
    denied(Denial::NoPermit { nearest })
}

fn denied(denial: Denial) -> Judgement {
    Judgement { outcome: Outcome::Deny(denial), policies: Vec::new() }
}

fn policy_error(policies: Vec<String>) -> Judgement {
    let denial = Denial::PolicyError { policies: policies.clone() };
    Judgement { outcome: Outcome::Deny(denial), policies }
}

/// Hexadecimal SHA-256 over every source, the catalog and the schema, each behind its length.
fn digest_of(catalog: &Catalog, sources: &[PolicySource], schema: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(bytes);
    };
    for source in sources {
        part(source.name.as_bytes());
        part(source.text.as_bytes());
    }
    let Catalog { people, groups, agents, patterns, rules, reserved, .. } = catalog;
    let Catalog { targets, intents, grants, floors, drills, .. } = catalog;
    part(&json(&(people, groups, floors)));
    part(&json(&agents.values().collect::<Vec<_>>()));
    part(&json(&(patterns.iter().collect::<Vec<_>>(), rules, reserved)));
    part(&json(&(targets, intents)));
    part(&json(&grants.values().collect::<Vec<_>>()));
    part(&json(drills));
    part(schema.as_bytes());
    Hex(context.finish().as_ref()).to_string()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalog::{Autonomy, Owner};
    use crate::id::DecisionId;
    use crate::param::{ParamKind, ParamSpec, ParamValue, Params};
    use crate::registry::Standing;
    use crate::scope::Pair;
    use crate::time::{Span, Timestamp};

    const POLICIES: &str = r#"
        @id("all-short") forbid (principal, action, resource) when { context.ttl > duration("1h") };
        @id("reads") permit (principal, action in Action::"class:read-only", resource);
        @id("one") permit (principal, action == Action::"a.write", resource) when { context.task.age < duration("2h") };
        @id("some") permit (principal, action in [Action::"a.write", Action::"b.purge"], resource in TargetGroup::"g");
        @id("overflows") forbid (principal, action == Action::"b.purge", resource)
        when { context.depth + 9223372036854775807 > 0 };
        @id("never-x") forbid (principal, action, resource == Target::"x") unless { context.renewal };
    "#;

    fn owner() -> Owner {
        Owner::Person("ana".into())
    }

    fn agent() -> Agent {
        Agent {
            id: "uid:1".parse().unwrap(),
            owner: owner(),
            groups: BTreeSet::new(),
            autonomy: Autonomy::Act,
            purpose: String::new(),
            standing: Standing::default(),
        }
    }

    fn catalog() -> Catalog {
        let intent = |name: &str, class| {
            (name.to_owned(), Intent { name: name.into(), class, params: BTreeMap::new() })
        };
        let target = |name: &str, group: &str| {
            let groups = BTreeSet::from([group.to_owned()]);
            (name.to_owned(), Target { name: name.into(), owner: owner(), labels: BTreeMap::new(), groups })
        };
        Catalog {
            people: BTreeMap::from([("ana".to_owned(), "https://idp.example|ana".parse().unwrap())]),
            agents: BTreeMap::from([(agent().id, agent())]),
            targets: BTreeMap::from([target("x", "g"), target("y", "g"), target("z", "h")]),
            intents: BTreeMap::from([
                intent("a.read", Class::ReadOnly),
                intent("a.write", Class::Reversible),
                intent("b.purge", Class::Irreversible),
            ]),
            ..Catalog::default()
        }
    }

    /// Every question that can make a difference to a policy above.
    fn records(engine: &Engine) -> Vec<DecisionRecord> {
        let (agent, none) = (agent(), Params::new());
        let mut records = Vec::new();
        for intent in ["a.read", "a.write", "b.purge"] {
            for target in ["x", "y", "z"] {
                for bits in 0..16_u32 {
                    let bit = |place: u32| bits >> place & 1 == 1;
                    let pair = Pair { intent: intent.into(), target: target.into() };
                    let question = Question {
                        params: bit(0).then_some(&none),
                        ttl: Span::from_mins(if bit(1) { 5 } else { 90 }),
                        task_age: Span::from_mins(if bit(2) { 5 } else { 180 }),
                        renewal: bit(3),
                        ..question(&agent, &pair, &none)
                    };
                    records.push(engine.decide(&question).record);
                }
            }
        }
        records
    }

    #[test]
    fn a_slice_answers_as_the_full_set_does() {
        let source = PolicySource { name: "x.cedar".into(), text: POLICIES.into() };
        let mut engine = Engine::load(&catalog(), &[source]).unwrap();
        assert!(engine.slices.values().all(|slice| slice.policies.num_of_policies() < 6));
        let sliced = records(&engine);
        for name in ["a.read", "a.write", "b.purge"] {
            engine.slices.insert(name.into(), Slice::of(engine.rules.values()).unwrap());
        }
        engine.memo = Memo::default();
        assert_eq!(sliced, records(&engine));
        let answers: BTreeSet<_> = sliced.iter().map(|record| format!("{:?}", record.answer)).collect();
        assert_eq!(answers.len(), 3, "the questions see every kind of answer: {answers:?}");
    }

    const BY_FACT: &str = r#"
        @id("fact-1") permit (principal, action, resource);
        @id("fact-2") forbid (principal, action, resource) when { context.ttl > duration("1h") };
        @id("fact-3") forbid (principal, action, resource) when { context.now > datetime("2030-01-01") };
        @id("fact-4") forbid (principal, action, resource) when { context.task.age > duration("2h") };
        @id("fact-5") forbid (principal, action, resource) when { context.task.liveness == "deadline" };
        @id("fact-6") forbid (principal, action, resource) when { context.proof == "jwt-svid" };
        @id("fact-7") forbid (principal, action, resource) when { context.depth > 1 };
        @id("fact-8") forbid (principal, action, resource) when { context.renewal };
        @id("fact-9") forbid (principal, action, resource) when { context has on_behalf_of };
        @id("fact-10") forbid (principal, action, resource == Target::"z");
        @id("fact-11") forbid (principal, action == Action::"a.write", resource);
        @id("fact-12") forbid (principal, action, resource) when { principal.owner == "person:ben" };
        @id("fact-13") forbid (principal, action, resource) when { principal.autonomy == "observe" };
        @id("fact-15") forbid (principal == Agent::"spiffe://prod.example/agent/other", action, resource);
        @id("fact-16") forbid (principal, action == Action::"a.read", resource)
        when { context.params has limit && context.params.limit > 5 };
        @id("fact-14") forbid (principal in AgentGroup::"out", action, resource);
    "#;

    /// What a fact was, and what it is asked with next.
    fn each_fact_changed<'a>(base: &Question<'a>, others: &'a Others) -> Vec<(&'static str, Question<'a>)> {
        let base = || base.clone();
        vec![
            ("ttl", Question { ttl: Span::from_mins(90), ..base() }),
            ("now", Question { now: Timestamp(2_000_000_000_000), ..base() }),
            ("age", Question { task_age: Span::from_mins(180), ..base() }),
            ("liveness", Question { liveness: "deadline", ..base() }),
            ("proof", Question { proof: "jwt-svid", ..base() }),
            ("depth", Question { depth: 2, ..base() }),
            ("renewal", Question { renewal: true, ..base() }),
            ("person", Question { on_behalf_of: Some(&others.person), ..base() }),
            ("target", Question { pair: &others.target, ..base() }),
            ("intent", Question { pair: &others.intent, ..base() }),
            ("owner", Question { agent: &others.owned, ..base() }),
            ("autonomy", Question { agent: &others.observing, ..base() }),
            ("groups", Question { agent: &others.grouped, ..base() }),
            ("agent", Question { agent: &others.other, ..base() }),
            ("params", Question { params: Some(&others.params), ..base() }),
        ]
    }

    struct Others {
        person: crate::caller::Vouched,
        target: Pair,
        intent: Pair,
        owned: Agent,
        observing: Agent,
        grouped: Agent,
        other: Agent,
        params: Params,
    }

    #[test]
    fn what_was_allowed_once_is_no_answer_to_another_question() {
        let source = PolicySource { name: "x.cedar".into(), text: BY_FACT.into() };
        let other = "spiffe://prod.example/agent/other".parse().unwrap();
        let outside = Agent { id: other, groups: BTreeSet::from(["out".to_owned()]), ..agent() };
        let mut catalog = catalog();
        catalog.agents.insert(outside.id.clone(), outside.clone());
        let limit = ParamSpec { kind: ParamKind::Int { min: None, max: None }, optional: true };
        catalog.intents.get_mut("a.read").unwrap().params.insert("limit".to_owned(), limit);
        let engine = Engine::load(&catalog, &[source]).unwrap();
        let pair = |intent: &str, target: &str| Pair { intent: intent.into(), target: target.into() };
        let others = Others {
            person: "https://idp.example|ana".parse().unwrap(),
            target: pair("a.read", "z"),
            intent: pair("a.write", "y"),
            owned: Agent { owner: Owner::Person("ben".into()), ..agent() },
            observing: Agent { autonomy: Autonomy::Observe, ..agent() },
            grouped: Agent { groups: outside.groups.clone(), ..agent() },
            other: Agent { groups: BTreeSet::new(), ..outside },
            params: Params::from([("limit".to_owned(), ParamValue::Int(9))]),
        };
        let (agent, none, pair) = (agent(), Params::new(), pair("a.read", "y"));
        let base = question(&agent, &pair, &none);
        for (fact, changed) in each_fact_changed(&base, &others) {
            for _ in 0..2 {
                assert_eq!(engine.decide(&base).record.answer, Answer::Allow, "before {fact}");
                assert_ne!(engine.decide(&changed).record.answer, Answer::Allow, "{fact}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_remembered_is_recorded_like_a_new_one() {
        let source = PolicySource { name: "x.cedar".into(), text: POLICIES.into() };
        let mut engine = Engine::load(&catalog(), &[source]).unwrap();
        let new = records(&engine);
        engine.slices.values_mut().for_each(|slice| slice.policies = PolicySet::new());
        let again = records(&engine);
        let is_whole = |record: &&DecisionRecord| record.params.is_some() && record.answer == Answer::Allow;
        let allowed: Vec<_> = new.iter().filter(is_whole).collect();
        assert!(!allowed.is_empty());
        assert_eq!(allowed, again.iter().filter(is_whole).collect::<Vec<_>>(), "no policy is asked again");
    }

    fn question<'a>(agent: &'a Agent, pair: &'a Pair, params: &'a Params) -> Question<'a> {
        Question {
            id: DecisionId::derive(Timestamp(1), 1),
            agent,
            pair,
            params: Some(params),
            ttl: Span::from_mins(5),
            now: Timestamp(1),
            liveness: "heartbeat",
            task_age: Span::from_mins(5),
            proof: "x509-svid",
            on_behalf_of: None,
            depth: 1,
            renewal: false,
            dry_run: false,
            guards: &[],
        }
    }
}
