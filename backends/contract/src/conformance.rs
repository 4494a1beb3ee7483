//! The suite that every backend runs: one named case for each promise of the contract, and its negative where a
//! capability is not there.
//!
//! A backend's `tests/conformance.rs` implements [`Harness`] and says `leasehold_backend::conformance!(harness())`,
//! which makes one `#[tokio::test]` per case. Cases may run side by side on one target.

mod bench;
pub mod issue;
pub mod renew;
pub mod revoke;
pub mod view;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_law::catalog::Recipe;
use leasehold_law::policy::IssueOrder;
use leasehold_law::principal::PrincipalName;
use leasehold_law::time::Span;

use crate::{Backend, BackendError, Credential, Entropy, Issued};
pub use bench::{Bench, Leased};

/// A target as the suite needs it: its backend, and what agents and time do to it.
///
/// The methods with a body are ways around a revocation that some targets have; a target that has one must
/// override it.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The backend under test.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Random bits and the broker's clock.
    fn entropy(&self) -> Arc<dyn Entropy>;

    /// A recipe that mints.
    fn recipe(&self) -> Recipe;

    /// Recipes that cannot be minted, each with the pointer of what is wrong.
    fn bad_recipes(&self) -> Vec<(Recipe, &'static str)>;

    /// Logs in as an agent does; `None` where the target refuses the login.
    ///
    /// # Errors
    /// Where no answer came at all: that proves nothing.
    async fn connect(&self, credential: &Credential) -> Result<Option<Box<dyn Session>>, Failure>;

    /// Lets time pass by the target's clock: a simulated one is moved, a real one is waited for.
    async fn pass(&self, span: Span);

    /// A login that has passed the target's check and is not to be seen yet (RULES R-7).
    async fn late_login(&self, _credential: &Credential) -> Option<Box<dyn LateLogin>> {
        None
    }

    /// A mint that is under way and that the target has not carried out yet (RULES R-4).
    async fn late_mint(&self, _order: IssueOrder) -> Option<Box<dyn LateMint>> {
        None
    }

    /// Makes something in the target, as the agent, that would do harm in powerful hands (RULES R-8).
    async fn own_something(&self, _credential: &Credential) -> Option<Box<dyn Estate>> {
        None
    }

    /// Has an administrator of the target refuse the principal's logins; false where nobody can.
    async fn disable(&self, _principal: &PrincipalName) -> bool {
        false
    }
}

/// An open session of an agent.
#[async_trait]
pub trait Session: Send + Sync {
    /// Whether the target still serves it, by a round trip.
    async fn works(&self) -> bool;
}

/// A login that passed the check.
#[async_trait]
pub trait LateLogin: Send {
    /// Goes on to the end of the login; `None` if the target ended it before.
    async fn arrive(self: Box<Self>) -> Option<Box<dyn Session>>;
}

/// A mint that is held up on its way.
#[async_trait]
pub trait LateMint: Send {
    /// Goes on, and gives the target's answer.
    async fn arrive(self: Box<Self>) -> Result<Issued, BackendError>;
}

/// What an agent made.
#[async_trait]
pub trait Estate: Send + Sync {
    /// Whether it is gone, or with an owner without power.
    ///
    /// # Errors
    /// Says who has it.
    async fn is_powerless(&self) -> Result<(), Failure>;
}

/// Why a case does not hold.
pub struct Failure(String);

/// Whether a case holds.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure, in words.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs one case, and afterwards revokes whatever it minted.
///
/// # Errors
/// Where the case does not hold.
pub async fn run<C>(harness: &dyn Harness, case: C) -> Outcome
where
    C: AsyncFnOnce(&Bench<'_>) -> Outcome,
{
    let bench = Bench::of(harness)?;
    let outcome = case(&bench).await;
    bench.clear().await;
    outcome
}

/// Fails a case unless something holds.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::conformance::Failure::new(format!($($words)+)));
        }
    };
}
pub(crate) use ensure;

/// Makes one `#[tokio::test]` for each case out of an async expression that gives a [`Harness`].
#[macro_export]
macro_rules! conformance {
    ($harness:expr) => {
        $crate::conformance! { @each $harness;
            issue::an_issued_credential_works
            issue::a_taken_name_is_a_conflict_and_leaves_the_first_alone
            issue::a_mint_after_its_time_lands_nothing
            issue::a_late_mint_cannot_land_after_its_revocation
            issue::the_target_enforces_the_end_where_it_says_so
            issue::a_bad_recipe_is_told_by_pointer
            issue::no_secret_shows_in_debug_or_in_what_is_public
            revoke::a_revoked_credential_is_as_dead_as_the_grade_says
            revoke::an_open_session_is_cut
            revoke::revoking_twice_is_no_error
            revoke::revoking_what_is_not_there_gives_the_target_s_time
            revoke::reports_keep_their_order_and_one_bad_order_stops_no_other
            revoke::a_revoked_name_is_found_by_nobody_else
            revoke::a_session_that_was_just_logging_in_is_reaped
            revoke::what_an_agent_made_falls_into_no_powerful_hands
            revoke::reaping_leaves_strangers_alone
            renew::a_renewal_moves_the_end
            renew::a_renewal_after_its_time_moves_nothing
            renew::what_is_absent_is_not_renewed
            renew::what_is_revoked_is_not_renewed
            renew::what_is_disabled_is_not_renewed
            view::lookup_tells_the_end_and_the_sessions
            view::principals_are_listed_in_order_and_by_pages
            view::a_prefix_is_taken_literally
            view::a_claim_reads_back_and_so_does_another_s
            view::health_tells_the_time_and_lacks_nothing
            view::capabilities_do_not_change
        }
    };
    (@each $harness:expr; $($group:ident::$case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            let harness = $harness.await;
            let outcome = $crate::conformance::run(&harness, $crate::conformance::$group::$case).await;
            outcome.unwrap();
        }
    )*};
}

#[cfg(test)]
mod tests {
    /// A case that is not in the list would never run.
    #[test]
    fn every_case_is_listed() {
        let list = include_str!("conformance.rs");
        let files = [
            ("issue", include_str!("conformance/issue.rs")),
            ("renew", include_str!("conformance/renew.rs")),
            ("revoke", include_str!("conformance/revoke.rs")),
            ("view", include_str!("conformance/view.rs")),
        ];
        for (group, text) in files {
            let cases = text.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
            for case in cases {
                assert!(list.contains(&format!("{group}::{case}\n")), "{group}::{case} never runs");
            }
        }
    }
}
