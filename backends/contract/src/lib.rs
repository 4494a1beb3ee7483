//! The contract between the broker and what it mints against.
//!
//! A backend is small and has no opinions: it mints under a name that it is given, and unmakes what it is told to.
//! Records, retries, policy and time-outs of whole calls are the broker's.

pub mod capability;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod kind;
pub mod order;

use async_trait::async_trait;
use leasehold_law::policy::{IssueOrder, RenewOrder};
use leasehold_law::principal::PrincipalName;

/// The most calls of [`Backend::revoke`] that a broker makes to one target at a time, the one that is kept for security
/// among them: a backend that pools connections has as many for revocations, or a storm of expiries holds up incidents.
pub const REVOKE_CALLS: usize = 5;

pub use capability::{Capabilities, Findable};
pub use error::BackendError;
pub use kind::{BackendKind, Entropy, KindError, Problem};
pub use order::{
    Alive, Claim, Credential, Found, GrantView, Health, Issued, Missing, Page, Principal, Reaped, Renewed,
    RevokeOrder, RevokeReport, Statement,
};

/// A target that credentials are minted in.
///
/// # Contract
/// Every call ends within the deadline that the backend was configured with; none retries a mint. Names arrive
/// whole and are quoted by the backend. Nothing that holds a secret is logged or put into an error.
#[async_trait]
pub trait Backend: Send + Sync {
    /// What this target can do. A value: it never changes while the target is configured.
    fn capabilities(&self) -> Capabilities;

    /// What is wrong with a recipe, by JSON pointer into it.
    fn check_recipe(&self, recipe: &leasehold_law::catalog::Recipe) -> Vec<Problem>;

    /// Mints under the order's name, before its `mint_by` by the target's clock, in one step that either lands whole
    /// or not at all.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] where the name exists. After [`BackendError::Transient`] the outcome is unknown:
    /// the caller revokes, and never calls again for the same lease.
    async fn issue(&self, order: &IssueOrder) -> Result<Issued, BackendError>;

    /// Moves the end of a principal that is there and not disabled, before `renew_by`.
    ///
    /// # Errors
    /// [`BackendError::Absent`] where it is gone, [`BackendError::Conflict`] where it is disabled.
    async fn renew(&self, order: &RenewOrder) -> Result<Renewed, BackendError>;

    /// What the target holds by that name.
    ///
    /// # Errors
    /// Where the target does not answer or does not let the broker see.
    async fn lookup(&self, name: &PrincipalName) -> Result<Option<Found>, BackendError>;

    /// Disables, cuts sessions, removes and reads back, in that order, each of these; one report an order, in their
    /// order. What fails in one never stops another, and what was reached is kept. Absent is no error.
    async fn revoke(&self, orders: &[RevokeOrder]) -> Vec<RevokeReport>;

    /// The handles of sessions whose principal is no longer there, whoever made it: normally none. Asked every second,
    /// so it costs what there are sessions, and not what there are principals. Empty where no session can outlive its
    /// principal.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn late_sessions(&self) -> Result<Vec<String>, BackendError>;

    /// Ends the sessions of these handles, unless a handle's principal may log in. Called for those of
    /// [`Backend::late_sessions`] that were the broker's own.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn reap(&self, handles: &[String]) -> Result<Vec<Reaped>, BackendError>;

    /// Whether what was issued still works. For conformance and drills, never for the road.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn probe(&self, issued: &Issued) -> Result<Alive, BackendError>;

    /// Which installation has claimed the target.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn owner(&self) -> Result<Option<Claim>, BackendError>;

    /// Claims the target, in the place of the claim that was read there.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] where another stands by now, and where the target does not answer or refuses.
    async fn claim(&self, claim: &Claim, instead_of: Option<&Claim>) -> Result<(), BackendError>;

    /// Whose the target is from now on: a backend that keeps connections uses none, but for [`Backend::owner`] and
    /// [`Backend::claim`], that leads to a server without this claim, in this term or a later one. What is not found on
    /// another server is not dead.
    fn expect(&self, _claim: &Claim) {}

    /// The statements with which an administrator gives the broker the least that these grants need, for this
    /// server's version. No password stands in them.
    ///
    /// # Errors
    /// Where the server's version cannot be read.
    async fn setup(&self, grants: &[GrantView<'_>]) -> Result<Vec<Statement>, BackendError>;

    /// Principals whose names begin with `prefix`, in order, after `after`, at most `limit`.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn list_principals(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, BackendError>;

    /// The target's time, and the privileges that the broker lacks in it for these grants.
    ///
    /// # Errors
    /// Where the target does not answer.
    async fn health(&self, grants: &[GrantView<'_>]) -> Result<Health, BackendError>;
}
