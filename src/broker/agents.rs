//! The registry of agents while the broker runs: applied, suspended, reviewed, and drifting from what was reviewed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leasehold_law::caller::CallerId;
use leasehold_law::catalog::Owner;
use leasehold_law::manifest::Digest;
use leasehold_law::reason::Reason;
use leasehold_law::registry::{
    Act, Book, Drift, Entry, LoweredBy, Registration, Review, Ruling, Source, Status, View, Who,
};
use leasehold_law::subject::Subject;
use leasehold_law::task::{Task, TaskState};

use super::decide::{TRIES, TaskFacts};
use super::refused::Refused;
use super::{Broker, Inner};
use crate::ledger::{LedgerError, Registering};
use crate::registry::Registry;

/// Who does something to the registry, and why.
#[derive(Clone, Debug)]
pub struct Order {
    /// The operator.
    pub by: CallerId,
    /// The reason given.
    pub reason: String,
}

/// Whose agents somebody may see, and do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of all.
    Everybody,
    /// Those of these owners.
    Of(BTreeSet<Owner>),
}

impl Whose {
    /// Whether an agent of this owner is among them.
    #[must_use]
    pub fn holds(&self, owner: &Owner) -> bool {
        match self {
            Self::Everybody => true,
            Self::Of(owners) => owners.contains(owner),
        }
    }
}

/// What became of registrations.
#[derive(Debug)]
pub struct Reregistered {
    /// Each, with what was done to it; nothing, where it was so already.
    pub agents: Vec<(Who, Option<Act>)>,
    /// How many live leases no longer stood, and end.
    pub ended: usize,
}

impl Broker {
    /// The registry as the store has it now, whichever broker changed it last.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn fresh_registry(&self) -> Result<Arc<Registry>, Refused> {
        self.inner.reload_agents(None).await?;
        Ok(self.registry())
    }

    /// A registration as the store has it now, of those that somebody may see.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn registration(&self, whose: &Whose, who: &Who) -> Result<View, Refused> {
        let view = self.fresh_registry().await?.registration(who);
        view.filter(|view| whose.holds(&view.terms.owner)).ok_or_else(|| Refused::not_registered(who))
    }

    /// Registers agents, or registers them anew. What is registered so already is left alone.
    ///
    /// # Errors
    /// Where the registry is no longer the one that they were checked against, or cannot be written.
    pub async fn apply_agents(
        &self,
        registry: &Registry,
        order: Order,
        agents: Vec<Registration>,
        dry_run: bool,
    ) -> Result<Reregistered, Refused> {
        let (mut told, mut changed) = (Vec::new(), Vec::new());
        for one in agents {
            let who = one.who.clone();
            let applied = self.applied(registry, &order, one);
            told.push((who, applied.as_ref().map(|one| one.act)));
            changed.extend(applied);
        }
        let ended = if dry_run { 0 } else { self.register(registry, changed).await? };
        Ok(Reregistered { agents: told, ended })
    }

    /// The change that a table makes; nothing, where it is registered so already. Who applies it has looked at it now.
    fn applied(&self, registry: &Registry, order: &Order, one: Registration) -> Option<Registering> {
        let Registration { who, mut terms } = one;
        let known = registry.book().entry(&who).cloned().unwrap_or_else(|| Entry::of(who));
        let act = match &known.terms {
            None => Act::Registered,
            Some(old) => {
                let reviewed = terms.reviewed.or(old.reviewed);
                if *old == (leasehold_law::registry::Terms { reviewed, ..terms.clone() }) {
                    return None;
                }
                Act::Changed
            }
        };
        terms.reviewed = terms.reviewed.or(Some(self.now()));
        let details = BTreeMap::from([
            ("owner".to_owned(), terms.owner.to_string()),
            ("groups".to_owned(), terms.groups.iter().cloned().collect::<Vec<_>>().join(" ")),
            ("autonomy".to_owned(), terms.autonomy.name().to_owned()),
            ("status".to_owned(), terms.status.name().to_owned()),
        ]);
        Some(order.on(Entry { terms: Some(terms), ..known }, act, details))
    }

    /// Gives an agent a status. Giving it again is no change.
    ///
    /// # Errors
    /// Where it is not registered, what stands already is stricter, or its registration or quarantine holds it.
    pub async fn set_agent_status(
        &self,
        order: Order,
        who: &Who,
        status: Status,
    ) -> Result<Reregistered, Refused> {
        let registry = self.fresh_registry().await?;
        let view = registered(&registry, who)?;
        let known = registry.book().entry(who).cloned().unwrap_or_else(|| Entry::of(who.clone()));
        let has = known.ruling.as_ref().map_or(Status::Active, |ruling| ruling.status);
        if status == Status::Active {
            may_resume(&view, &known)?;
        } else if has > status {
            return Err(stands(
                who,
                format!("it is {}, which is stricter than {}", has.name(), status.name()),
            )
            .next(format!("leasehold agents resume {who} --reason R, then again")));
        }
        if has == status {
            return Ok(Reregistered { agents: vec![(who.clone(), None)], ended: 0 });
        }
        let act = Act::giving(status);
        let change =
            order.on(Entry { ruling: Some(order.ruling(status, self)), ..known }, act, BTreeMap::new());
        let ended = self.register(&registry, vec![change]).await?;
        Ok(Reregistered { agents: vec![(who.clone(), Some(act))], ended })
    }

    /// Says that somebody looked at an agent and found it right; with a manifest, that this is what it may run. It must be
    /// one of those that are theirs to review, by the registry that the review is compared with (RULES R-1).
    ///
    /// # Errors
    /// Where it is not registered or not theirs, the reviewer is the agent itself, or it acts in its owner's own session.
    pub async fn review_agent(
        &self,
        order: Order,
        whose: &Whose,
        who: &Who,
        manifest: Option<Digest>,
    ) -> Result<Reregistered, Refused> {
        if who.takes_in(&order.by) {
            return Err(stands(who, "nobody reviews itself").next("somebody else reviews it"));
        }
        let registry = self.fresh_registry().await?;
        let view = registered(&registry, who)?;
        if !whose.holds(&view.terms.owner) {
            return Err(Refused::not_registered(who));
        }
        // It runs in the account of its person, whose session it could use (RULES R-15).
        if *whose != Whose::Everybody && matches!(who, Who::One(CallerId::PersonalAgent(_))) {
            return Err(stands(who, "it acts in the session of its owner, who therefore cannot review it")
                .next("an admin reviews it"));
        }
        let known = registry.book().entry(who).cloned().unwrap_or_else(|| Entry::of(who.clone()));
        let before = known.review.clone().filter(|_| manifest.is_none());
        let over = before.as_ref().map_or(view.terms.manifest, |review| review.over);
        let accepted = manifest.or(before.and_then(|review| review.manifest));
        let review = Review { at: self.now(), by: order.by.to_string(), manifest: accepted, over };
        let details =
            manifest.map(|digest| ("manifest".to_owned(), digest.to_string())).into_iter().collect();
        let reviewed = Entry { review: Some(review), drift: Vec::new(), ..known };
        let mut changed = vec![order.on(reviewed, Act::Reviewed, details)];
        changed.extend(members_that_drift(&registry, who).map(|entry| {
            order.on(Entry { drift: Vec::new(), ..entry.clone() }, Act::Reviewed, BTreeMap::new())
        }));
        let agents = changed.iter().map(|one| (one.entry.who.clone(), Some(one.act))).collect();
        let ended = self.register(&registry, changed).await?;
        Ok(Reregistered { agents, ended })
    }

    /// Suspends every agent of an owner who leaves.
    ///
    /// # Errors
    /// Where the config knows no such owner, or it cannot be written.
    pub async fn offboard_owner(&self, order: Order, owner: &Owner) -> Result<Reregistered, Refused> {
        let registry = self.fresh_registry().await?;
        let catalog = registry.catalog();
        let known = match owner {
            Owner::Person(name) => catalog.people.contains_key(name),
            Owner::Group(name) => catalog.groups.contains_key(name),
            Owner::Broker => false,
        };
        if !known {
            return Err(Refused::not_found("owner", owner));
        }
        let (mut told, mut changed) = (Vec::new(), Vec::new());
        for view in registry.registrations().into_iter().filter(|view| view.terms.owner == *owner) {
            let stops = view.standing.status.stops();
            told.push((view.who.clone(), (!stops).then_some(Act::Suspended)));
            if !stops {
                let known = registry.book().entry(&view.who).cloned().unwrap_or_else(|| Entry::of(view.who));
                let entry = Entry { ruling: Some(order.ruling(Status::Suspended, self)), ..known };
                let details = BTreeMap::from([("offboarded".to_owned(), owner.to_string())]);
                changed.push(order.on(entry, Act::Suspended, details));
            }
        }
        let ended = self.register(&registry, changed).await?;
        Ok(Reregistered { agents: told, ended })
    }

    /// Whether an open task does not say that it runs what was reviewed.
    #[must_use]
    pub fn drifts(&self, task: &Task) -> bool {
        task.state == TaskState::Open && self.inner.drift(task).is_some()
    }

    /// What drifts, in words, and how many registrations are lowered or stopped, by the store's present word.
    pub(super) async fn lowered_agents(&self) -> Result<(Vec<String>, u64), Refused> {
        let registry = self.fresh_registry().await?;
        let (rules, now) = (&registry.catalog().rules, self.now());
        let (mut drifting, mut lowered) = (Vec::new(), 0);
        for View { who, standing, drift, .. } in registry.registrations() {
            if let Some(Drift { claimed, at, .. }) = drift.last() {
                let runs = claimed.map_or("nothing".to_owned(), |digest| digest.to_string());
                drifting.push(format!("{who} says that it runs {runs} since {at}"));
            }
            let standing = standing.lowered_by(rules, now);
            lowered += u64::from(standing.status.stops() || !standing.lowered.is_empty());
        }
        Ok((drifting, lowered))
    }

    /// Writes what changed and re-decides the live leases that it touches, in a task that no caller can cancel.
    async fn register(&self, registry: &Registry, changed: Vec<Registering>) -> Result<usize, Refused> {
        if changed.is_empty() {
            return Ok(0);
        }
        let who: Vec<_> = changed.iter().map(|one| one.entry.who.clone()).collect();
        let (inner, guard) = (self.inner.clone(), registry.book_guard());
        let registered = self.inner.owned.spawn(async move {
            inner.ledger.record_registrations(changed, guard).await?;
            inner.reload_agents(None).await?;
            inner.reassess_agents(&who).await
        });
        registered.await.map_err(|error| Refused::internal(&error))?
    }
}

impl Order {
    fn on(&self, entry: Entry, act: Act, details: BTreeMap<String, String>) -> Registering {
        Registering { entry, act, by: self.by.to_string(), reason: self.reason.clone(), details }
    }

    fn ruling(&self, status: Status, broker: &Broker) -> Ruling {
        Ruling { status, by: self.by.to_string(), reason: self.reason.clone(), at: broker.now() }
    }
}

/// A registration that operators may do something to.
fn registered(registry: &Registry, who: &Who) -> Result<View, Refused> {
    let view = registry.registration(who).filter(|view| view.terms.owner != Owner::Broker);
    view.ok_or_else(|| Refused::not_registered(who))
}

fn stands(who: &Who, why: impl Into<String>) -> Refused {
    Refused::new(Reason::RegistrationStands, format!("nothing is changed for {who}"))
        .why(why)
        .detail("agent", who)
}

/// Whether anything but the last ruling over it keeps an agent from working again.
fn may_resume(view: &View, known: &Entry) -> Result<(), Refused> {
    let who = &view.who;
    if view.terms.status != Status::Active {
        let status = view.terms.status.name();
        let place = match &view.source {
            Source::Config => format!("change status under [agents.\"{who}\"] in the config"),
            Source::Applied => "change status in its file, and apply that".to_owned(),
            Source::Pattern(pattern) => format!("change status where `{pattern}` is registered"),
        };
        return Err(stands(who, format!("its registration says that it is {status}")).next(place));
    }
    let own = known.ruling.as_ref().map_or(Status::Active, |ruling| ruling.status);
    if let (Source::Pattern(pattern), true) = (&view.source, own < view.standing.status) {
        let status = view.standing.status.name();
        return Err(stands(who, format!("every agent of `{pattern}` is {status}"))
            .next(format!("leasehold agents resume '{pattern}' --reason R")));
    }
    match &known.ruling {
        Some(ruling) if own == Status::Quarantined && view.standing.reviewed <= Some(ruling.at) => Err(
            stands(who, format!("it is in quarantine since {}, and nobody has reviewed it since", ruling.at))
                .next(format!("leasehold agents review {who} --reason R, then again")),
        ),
        Some(_) | None => Ok(()),
    }
}

/// Of a pattern, the identities that drift under it.
fn members_that_drift<'a>(registry: &'a Registry, who: &'a Who) -> impl Iterator<Item = &'a Entry> {
    let drifting = registry.book().entries().filter(|entry| !entry.drift.is_empty() && entry.who != *who);
    drifting.filter(move |entry| {
        let source = registry.registration(&entry.who).map(|view| view.source);
        matches!((source, who), (Some(Source::Pattern(of)), Who::Each(pattern)) if of == *pattern)
    })
}

impl Inner {
    /// Reads registrations again, unless they have this version here already. The version is read before and after:
    /// what lies between two equal ones is that version's.
    pub(super) async fn reload_agents(&self, unless: Option<u64>) -> Result<(), Refused> {
        let _turn = self.reloading.lock().await;
        if unless == Some(self.registry.load().book_version()) {
            return Ok(());
        }
        let store = self.ledger.store();
        for _ in 0..TRIES {
            let before = store.versions(&[Subject::Agents]).await?;
            let book = Arc::new(Book::new(store.registered().await?));
            if store.versions(&[Subject::Agents]).await? == before {
                let version = before.first().copied().unwrap_or_default();
                self.registry.rcu(|registry| registry.with_book(book.clone(), version));
                return Ok(());
            }
        }
        Err(Refused::contended("the registry of agents keeps changing"))
    }

    /// What an agent runs that nobody has reviewed goes on record: once for each manifest, not for each task. In a task that
    /// no caller can cancel: the live leases of that agent are decided again.
    pub(super) async fn note_drift(self: &Arc<Self>, task: &Task) {
        if self.drift(task).is_none() {
            return;
        }
        let (inner, task) = (self.clone(), task.clone());
        let noted = self.owned.spawn(async move { inner.put_drift_on_record(&task).await });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "that an agent drifts is not on record");
        }
    }

    async fn put_drift_on_record(self: &Arc<Self>, task: &Task) {
        for _ in 0..TRIES {
            match self.try_note_drift(task).await {
                Ok(()) => return,
                Err(LedgerError::Stale(_)) => drop(self.reload_agents(None).await),
                Err(error) => {
                    tracing::warn!(agent = %task.terms.agent, %error, "that an agent drifts is not on record");
                    return;
                }
            }
        }
    }

    async fn try_note_drift(self: &Arc<Self>, task: &Task) -> Result<(), LedgerError> {
        let Some((claimed, reviewed)) = self.drift(task) else { return Ok(()) };
        let who = Who::One(task.terms.agent.clone());
        // Another broker may have noted it.
        if self.knows_drift(&who, claimed) || self.reload_agents(None).await.is_err() {
            return Ok(());
        }
        let registry = self.registry.load_full();
        let mut entry = registry.book().entry(&who).cloned().unwrap_or_else(|| Entry::of(who.clone()));
        if self.knows_drift(&who, claimed) || entry.drift.len() >= Entry::MOST_DRIFTS {
            return Ok(());
        }
        entry.drift.push(Drift { claimed, task: task.terms.id, at: self.clock.now() });
        let mut details = BTreeMap::from([
            ("reviewed".to_owned(), reviewed.to_string()),
            ("task".to_owned(), task.terms.id.to_string()),
        ]);
        details.extend(claimed.map(|digest| ("claimed".to_owned(), digest.to_string())));
        let by = task.terms.agent.to_string();
        let noted = Registering { entry, act: Act::Drifted, by, reason: String::new(), details };
        self.ledger.record_registrations(vec![noted], registry.book_guard()).await?;
        let again = async {
            self.reload_agents(None).await?;
            self.reassess_agents(&[who]).await
        };
        if let Err(error) = again.await {
            tracing::warn!(agent = %task.terms.agent, %error, "the leases of an agent that drifts are not re-decided");
        }
        Ok(())
    }

    /// What a task says that it runs, and what was reviewed, where they differ.
    fn drift(&self, task: &Task) -> Option<(Option<Digest>, Digest)> {
        let now = self.clock.now();
        let agent = self.registry.load().agent(&task.terms.agent, now, TaskFacts::of(task, now).claim)?;
        agent.standing.lowered.into_iter().find_map(|lowered| match lowered.by {
            LoweredBy::Drift { claimed, reviewed } => Some((claimed, reviewed)),
            LoweredBy::Retired | LoweredBy::Unreviewed { .. } => None,
        })
    }

    fn knows_drift(&self, who: &Who, claimed: Option<Digest>) -> bool {
        let registry = self.registry.load();
        let known = registry.book().entry(who).map(|entry| entry.drift.as_slice()).unwrap_or_default();
        known.iter().any(|drift| drift.claimed == claimed)
    }

    /// Decides the live leases of every registration again of which the store keeps something: what a broker that fell may
    /// not have seen through. Beside everything else, since that may be all of them; what is new is decided by what is kept.
    pub(super) fn reassess_kept(self: &Arc<Self>) {
        let kept: Vec<_> = self.registry.load().book().entries().map(|entry| entry.who.clone()).collect();
        if kept.is_empty() {
            return;
        }
        let inner = self.clone();
        self.owned.spawn(async move {
            if let Err(error) = inner.reassess_agents(&kept).await {
                tracing::warn!(%error, "leases of registrations that changed could not all be decided again");
            }
        });
    }
}
