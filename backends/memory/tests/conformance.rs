//! The suite, in the same process, for a target of each grade.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend::conformance::{Failure, Harness, LateLogin, LateMint, Session};
use leasehold_backend::{Backend, BackendError, Credential, Entropy, Findable, Issued};
use leasehold_law::catalog::Recipe;
use leasehold_law::lease::Grade;
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
