//! The suite, in the same process, for a target of each grade.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend::conformance::{Failure, Harness, LateLogin, LateMint, Session, run};
use leasehold_backend::{Backend, BackendError, Credential, Entropy, Findable, Issued};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::{Grade, Reached, Sessions};
use leasehold_law::policy::IssueOrder;
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;
use leasehold_memory::{Call, Fault, Gate, MemoryBackend, MemoryTarget, Rule, SessionId, Settings};
use support::Fixed;
use tokio::task::JoinHandle;

struct InProcess {
    clock: Arc<Fixed>,
    target: Arc<MemoryTarget>,
}

impl InProcess {
    fn new(settings: Settings) -> Self {
        let clock = Arc::new(Fixed::default());
        Self { target: Arc::new(MemoryTarget::new(settings, clock.clone())), clock }
    }
}

#[async_trait]
impl Harness for InProcess {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::new(self.target.clone()))
    }

    fn entropy(&self) -> Arc<dyn Entropy> {
        self.clock.clone()
    }

    fn recipe(&self) -> Recipe {
        support::good_recipe()
    }

    fn bad_recipes(&self) -> Vec<(Recipe, &'static str)> {
        support::bad_recipes()
    }

    async fn connect(&self, credential: &Credential) -> Result<Option<Box<dyn Session>>, Failure> {
        let id = self.target.login(&credential.public["user"], credential.secret["password"].expose());
        Ok(id.map(|id| Box::new(Open { target: self.target.clone(), id }) as Box<dyn Session>))
    }

    async fn pass(&self, span: Span) {
        self.clock.advance(span);
    }

    async fn late_login(&self, credential: &Credential) -> Option<Box<dyn LateLogin>> {
        let id =
            self.target.begin_login(&credential.public["user"], credential.secret["password"].expose())?;
        Some(Box::new(Open { target: self.target.clone(), id }))
    }

    async fn late_mint(&self, order: IssueOrder) -> Option<Box<dyn LateMint>> {
        let gate = Gate::default();
        self.target.faults.add(Rule::once(Call::Issue, Fault::Hold(gate.clone())));
        let backend = self.backend();
        let call = tokio::spawn(async move { backend.issue(&order).await });
        gate.arrival().await;
        Some(Box::new(Held { gate, call }))
    }

    async fn disable(&self, principal: &PrincipalName) -> bool {
        self.target.disable(principal.as_str())
    }
}

struct Open {
    target: Arc<MemoryTarget>,
    id: SessionId,
}

#[async_trait]
impl Session for Open {
    async fn works(&self) -> bool {
        self.target.serves(self.id)
    }
}

#[async_trait]
impl LateLogin for Open {
    async fn arrive(self: Box<Self>) -> Option<Box<dyn Session>> {
        self.target.arrive(self.id);
        Some(self)
    }
}

struct Held {
    gate: Gate,
    call: JoinHandle<Result<Issued, BackendError>>,
}

#[async_trait]
impl LateMint for Held {
    async fn arrive(self: Box<Self>) -> Result<Issued, BackendError> {
        self.gate.open();
        self.call.await.unwrap()
    }
}

mod exact {
    use super::*;
    leasehold_backend::conformance!(async { InProcess::new(Settings::of(Grade::Exact)) });
}

mod coarse {
    use super::*;
    leasehold_backend::conformance!(async { InProcess::new(Settings::of(Grade::Coarse)) });
}

mod none {
    use super::*;
    leasehold_backend::conformance!(async { InProcess::new(Settings::of(Grade::None)) });
}

/// The least that a target can do: nothing found, listed, ended or renewed.
mod poorest {
    use super::*;

    fn poorest() -> InProcess {
        let Settings(mut capabilities) = Settings::of(Grade::None);
        capabilities.findable = Findable::No;
        capabilities.enforces_expiry = false;
        capabilities.lists = false;
        InProcess::new(Settings(capabilities))
    }

    leasehold_backend::conformance!(async { poorest() });
}

/// What a script makes of calls, seen from both sides.
mod faults {
    use super::*;

    #[tokio::test]
    async fn a_late_mint_lands_when_it_is_told_to_unless_its_time_is_over() {
        let harness = InProcess::new(Settings::default());
        harness.target.faults.add(Rule::times(Call::Issue, 2, Fault::late()));
        let outcome = run(&harness, async |bench| {
            let order = bench.order(Span::from_mins(1)).await?;
            assert!(bench.backend.issue(&order).await.unwrap_err().outcome_unknown());
            assert!(bench.backend.lookup(order.principal()).await?.is_none());
            assert_eq!(harness.target.land(), Ok(1));
            assert!(bench.backend.lookup(order.principal()).await?.is_some());
            let second = bench.order(Span::from_mins(1)).await?;
            assert!(bench.backend.issue(&second).await.is_err());
            harness.pass(Span::from_mins(1)).await;
            assert_eq!(harness.target.land(), Err(BackendError::TooLate));
            assert_eq!(harness.target.land(), Ok(0));
            Ok(())
        });
        outcome.await.unwrap();
    }

    #[tokio::test]
    async fn a_revocation_that_stops_half_way_keeps_what_it_reached() {
        let harness = InProcess::new(Settings::default());
        let outcome = run(&harness, async |bench| {
            let leased = bench.issue().await?;
            let session = harness.connect(&leased.issued.credential).await?.unwrap();
            let stop = Fault::StopAt(Reached::Disabled, Sessions::Reaping);
            harness.target.faults.add(Rule::once(Call::Revoke, stop).on(leased.principal().as_str()));
            let report = bench.revoke(leased.revocation()).await?;
            assert_eq!((report.reached, report.sessions), (Reached::Disabled, Sessions::Reaping));
            assert!(session.works().await && report.error.is_some());
            assert!(harness.target.login(leased.principal().as_str(), b"any").is_none());
            bench.kill(leased.revocation()).await?;
            assert!(!session.works().await);
            Ok(())
        });
        outcome.await.unwrap();
    }

    #[tokio::test]
    async fn a_target_that_is_down_changes_nothing_and_one_bad_name_stops_no_other() {
        let harness = InProcess::new(Settings::default());
        let outcome = run(&harness, async |bench| {
            let (stuck, other) = (bench.issue().await?, bench.issue().await?);
            harness
                .target
                .faults
                .add(Rule::always(Call::Revoke, Fault::down()).on(stuck.principal().as_str()));
            let reports = bench.backend.revoke(&[stuck.revocation(), other.revocation()]).await;
            let reached: Vec<_> = reports.iter().map(|report| report.reached).collect();
            assert_eq!(reached, [Reached::None, Reached::Removed]);
            assert_eq!(harness.target.accounts().len(), 1);
            harness.target.faults.clear();
            Ok(())
        });
        outcome.await.unwrap();
        assert!(harness.target.accounts().is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_is_held_comes_after_the_deed() {
        let harness = InProcess::new(Settings::default());
        let gate = Gate::default();
        harness.target.faults.add(Rule::once(Call::Issue, Fault::HoldAnswer(gate.clone())));
        let outcome = run(&harness, async |bench| {
            let order = bench.order(Span::from_mins(1)).await?;
            let backend = bench.backend.clone();
            let call = tokio::spawn(async move { backend.issue(&order).await });
            gate.arrival().await;
            assert!(!call.is_finished() && harness.target.accounts().len() == 1);
            gate.open();
            assert!(call.await.unwrap().is_ok());
            Ok(())
        });
        outcome.await.unwrap();
    }

    #[tokio::test]
    async fn the_target_s_clock_can_be_wrong() {
        let harness = InProcess::new(Settings::default());
        harness.target.set_clock_offset(-90_000);
        let health = harness.backend().health(&[]).await.unwrap();
        assert_eq!(health.target_now, harness.clock.now().shifted(-90_000));
    }

    #[tokio::test]
    async fn a_coarse_target_ends_sessions_when_its_window_is_over() {
        let harness = InProcess::new(Settings::of(Grade::Coarse));
        let outcome = run(&harness, async |bench| {
            let leased = bench.issue().await?;
            let session = harness.connect(&leased.issued.credential).await?.unwrap();
            bench.revoke(leased.revocation()).await?;
            assert!(session.works().await);
            harness.pass(bench.backend.capabilities().window).await;
            assert!(!session.works().await);
            Ok(())
        });
        outcome.await.unwrap();
    }
}
