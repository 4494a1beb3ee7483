//! Brokers killed in the middle of the road, and what the next start makes of it.
//!
//! Each case: an agent does something, the broker dies with SIGKILL at one exact place, another starts on what is left.
//! Then no role is there without a live lease, every lease stands as it should, and the journal's chain is whole.

use std::collections::HashMap;
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread::JoinHandle;

use leasehold_proto::v1;
use tokio_postgres::Client as Session;
use tonic::Status;

use crate::child::{PAIR, Rig};
use crate::proxy::{Hold, Wire};
use crate::site::{Site, login, login_config, works};
use crate::world::{Client, PATIENCE, eventually, fresh_id, lease_request, seconds};

/// What the agent or the operator is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Issue,
    Renew,
    Release,
    Complete,
    Revoke,
}

/// Where the broker dies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// While a message is on the wire between broker and target. A held question is lost with its sender.
    Wire(Hold),
    /// As [`Place::Wire`]; the question arrives when its sender is dead.
    Late(&'static str),
    /// As [`Place::Late`]; the question arrives when the next broker has called the lease dead.
    TooLate(&'static str),
    /// At a fault point.
    #[cfg_attr(not(feature = "fault-points"), expect(dead_code, reason = "these cases need the feature"))]
    Point(&'static str),
}

/// How the lease stands once the next broker has looked after it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// Dead, for this cause.
    Dead(v1::Cause),
    /// Dead for this cause, and it was never minted.
    NeverMinted(v1::Cause),
    /// Alive for this many minutes.
    Alive(i64),
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash(pub(crate) Act, pub(crate) Place, pub(crate) Then);

/// The cases of one module. They run side by side: most of their time is the wait until no mint can land any more.
pub(crate) struct Crashes(LazyLock<HashMap<&'static str, Mutex<Option<JoinHandle<()>>>>, Start>);

type Start = Box<dyn FnOnce() -> HashMap<&'static str, Mutex<Option<JoinHandle<()>>>> + Send>;

impl Crashes {
    /// Begins all of `cases` when the first of them is asked for.
    pub(crate) fn new(cases: &'static [(&'static str, Crash)]) -> Self {
        let start = move || {
            let begin = |(name, crash): &(&'static str, Crash)| {
                let crash = *crash;
                let thread = std::thread::Builder::new().name((*name).to_owned());
                (*name, Mutex::new(Some(thread.spawn(move || run(crash)).unwrap())))
            };
            cases.iter().map(begin).collect()
        };
        Self(LazyLock::new(Box::new(start)))
    }

    /// Waits for one case, and fails as it did.
    pub(crate) fn outcome(&self, name: &str) {
        let case = self.0[name].lock().unwrap().take().expect("each case is asked for once");
        if let Err(panic) = case.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A test for each case.
macro_rules! crashes {
    ($($name:ident: $act:ident, $place:expr, $then:expr;)*) => {
        const CASES: &[(&str, Crash)] = &[$((stringify!($name), Crash(Act::$act, $place, $then))),*];
        static CRASHES: LazyLock<Crashes> = LazyLock::new(|| Crashes::new(CASES));
        $(#[test] fn $name() { CRASHES.outcome(stringify!($name)); })*
    };
}
pub(crate) use crashes;

/// How many brokers run at a time.
const ABREAST: usize = 8;

/// A place among those that run.
struct Turn;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn take() -> Self {
        let running = RUNNING.0.lock().unwrap();
        *RUNNING.1.wait_while(running, |running| *running >= ABREAST).unwrap() += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap() -= 1;
        RUNNING.1.notify_one();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(crash: Crash) {
    let _turn = Turn::take();
    let site = Site::shared();
    let wire = Wire::lay(site.port()).await;
    let mut rig = Rig::new(site, wire.port).await;
    let before = Before::the_crash(&mut rig, &wire, crash).await;
    if let Place::Late(_) = crash.1 {
        wire.let_go();
    }
    rig.start(&[]).await;
    settles(&rig, site, crash.2).await;
    if let Place::TooLate(_) = crash.1 {
        wire.let_go();
        wire.answered().await;
        settles(&rig, site, crash.2).await;
    }
    before.is_consistent(&rig, crash).await;
    ends_clean(&mut rig, site, &before).await;
}

/// What the agent had when its broker died.
struct Before {
    task: v1::Task,
    session: Option<Session>,
}

impl Before {
    /// The agent acts, and the broker dies at the place.
    async fn the_crash(rig: &mut Rig, wire: &Wire, Crash(act, place, _): Crash) -> Self {
        let point = if let Place::Point(name) = place { name } else { "none" };
        rig.start(&[("LEASEHOLD_FAULT_POINT", point)]).await;
        let mut agent = rig.agent().await;
        let task = agent.open(&[PAIR]).await.unwrap();
        let mut session = None;
        let mut lease = String::new();
        if act != Act::Issue {
            let granted = agent.lease(&task, PAIR).await.unwrap();
            session = Some(login(&login_config(&granted.credential.unwrap())).await.unwrap());
            lease = granted.lease.unwrap().id;
        }
        match place {
            Place::Wire(hold) => wire.hold(hold),
            Place::Late(words) | Place::TooLate(words) => wire.hold(Hold::Question(words)),
            Place::Point(_) => {}
        }
        let admin = rig.admin().await;
        let acting = tokio::spawn(perform(act, agent, admin, task.clone(), lease));
        if let Place::Point(_) = place {
            let status = rig.exit().await;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        } else {
            wire.holds().await;
            rig.kill().await;
        }
        assert!(acting.await.unwrap().is_err(), "{act:?} was answered before the broker died");
        Self { task, session }
    }

    /// The task ends only where its end was asked for, and a dead lease leaves no session.
    async fn is_consistent(&self, rig: &Rig, Crash(act, _, then): Crash) {
        let mut admin = rig.admin().await;
        let request = v1::GetTaskRequest { task: self.task.id.clone() };
        if act == Act::Complete {
            eventually("the task has ended", || async {
                let task = admin.clone().tasks.get_task(request.clone()).await.unwrap().into_inner();
                task.state() == v1::TaskState::Ended && task.cause() == v1::Cause::TaskCompleted
            })
            .await;
        } else {
            let task = admin.tasks.get_task(request).await.unwrap().into_inner();
            assert_eq!(task.state(), v1::TaskState::Open);
        }
        if let Some(session) = &self.session {
            assert_eq!(works(session).await, matches!(then, Then::Alive(_)), "the session");
        }
    }
}

async fn perform(
    act: Act,
    mut agent: Client,
    mut admin: Client,
    task: v1::Task,
    lease: String,
) -> Result<(), Status> {
    match act {
        Act::Issue => agent.leases.request_lease(lease_request(&task, PAIR)).await.map(drop),
        Act::Renew => {
            let request = v1::RenewLeaseRequest { lease, ttl: seconds(1200), request_id: fresh_id() };
            agent.leases.renew_lease(request).await.map(drop)
        }
        Act::Release => {
            let request = v1::ReleaseLeaseRequest { lease, wait: seconds(20) };
            agent.leases.release_lease(request).await.map(drop)
        }
        Act::Complete => agent.complete(&task).await.map(drop),
        Act::Revoke => {
            let kind = v1::selector::Kind::Agent("spiffe://suite.leasehold.test/agent/triage".into());
            let request = v1::RevokeRequest {
                selector: Some(v1::Selector { kind: Some(kind) }),
                reason: "a test".into(),
                wait: seconds(20),
                ..v1::RevokeRequest::default()
            };
            let mut progress = admin.revocations.revoke(request).await?.into_inner();
            while !progress.message().await?.ok_or_else(|| Status::unknown("ended early"))?.done {}
            Ok(())
        }
    }
}

/// The one lease comes to stand as it should, and the target holds what the broker says.
async fn settles(rig: &Rig, site: &Site, then: Then) {
    let stands = |lease: &v1::Lease| match then {
        Then::Dead(cause) => lease.state() == v1::LeaseState::Revoked && lease.cause() == cause,
        Then::NeverMinted(cause) => {
            let proof = lease.proof() == v1::Proof::NeverMinted;
            lease.state() == v1::LeaseState::Revoked && lease.cause() == cause && proof
        }
        Then::Alive(_) => lease.state() == v1::LeaseState::Active,
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut beat = tokio::time::interval(std::time::Duration::from_millis(100));
    let lease = loop {
        beat.tick().await;
        let leases = rig.leases().await;
        match leases.as_slice() {
            [lease] if stands(lease) => break lease.clone(),
            _ => assert!(tokio::time::Instant::now() < until, "not {then:?}: {leases:#?}\n{}", rig.log()),
        }
    };
    let roles = site.roles(&rig.mark).await;
    let Then::Alive(minutes) = then else {
        assert_eq!(roles, Vec::<String>::new(), "roles without a live lease");
        return;
    };
    assert_eq!(roles, [lease.principal.clone()]);
    let remaining = site.remaining(&lease.principal).await;
    let expected = minutes * 60_000;
    assert!((expected - 60_000..=expected + 1000).contains(&remaining), "{remaining} ms, not {minutes} min");
    let ends_in = lease.expires_at.unwrap().seconds - lease.created_at.unwrap().seconds;
    assert!((minutes * 60 - 5..=minutes * 60 + 60).contains(&ends_in), "{ends_in} s, not {minutes} min");
}

/// Whatever is left of the task ends with it, and the journal is whole.
async fn ends_clean(rig: &mut Rig, site: &Site, before: &Before) {
    let mut agent = rig.agent().await;
    let ended = agent.complete(&before.task).await.unwrap();
    assert_eq!(ended.pending, Vec::<String>::new());
    assert_eq!(site.roles(&rig.mark).await, Vec::<String>::new(), "roles after the end of the task");
    if let Some(session) = &before.session {
        assert!(!works(session).await, "a session outlived its task");
    }
    rig.journal().await;
}
