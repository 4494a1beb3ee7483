//! What a target shows from outside, without any word of the broker.

use async_trait::async_trait;
use leasehold_client::Credential;

use super::story::Seen;
use crate::dev::proxy::StallingProxy;

/// A principal, as the target's own administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    /// Whether it can log in.
    pub(super) alive: bool,
    /// What it is allowed by: its groups.
    pub(super) groups: Vec<String>,
    /// Its other bounds, in words.
    pub(super) bounds: String,
}

/// A target with people around it who trust nobody.
#[async_trait]
pub(super) trait Ground: Send + Sync {
    /// What it is, e.g. `PostgreSQL 15`.
    fn name(&self) -> String;

    /// What stands before its answers to a separate administrator.
    fn prompt(&self) -> &'static str;

    /// What these answers are.
    fn witness(&self) -> &'static str;

    /// Its `[targets.orders-db]`.
    fn target_toml(&self) -> String;

    /// The recipe of a lease on a group.
    fn recipe_toml(&self, group: &str) -> String;

    /// The wire between broker and target, and the words on it that mint.
    fn wire(&self) -> (&StallingProxy, &'static str);

    /// Every leased principal.
    async fn leased(&self) -> Seen<Vec<Role>>;

    /// Logs in and stays.
    async fn login(&self, credential: &Credential) -> Seen<Box<dyn Session>>;

    /// Whether a login works now.
    async fn accepts(&self, credential: &Credential) -> Seen<bool>;

    /// What an attacker needs; none where the target knows no such attack.
    fn attacker(&self) -> Option<&dyn Attacker> {
        None
    }
}

/// An agent's open session.
#[async_trait]
pub(super) trait Session: Send + Sync {
    /// Reads the orders; says what came.
    async fn read(&self) -> Seen;

    /// Tries to delete them: the refusal in the target's words; none where there is nothing to delete.
    async fn delete(&self) -> Seen<Option<String>>;

    /// Works until it is cut, and says how that was told.
    async fn work_until_cut(&self) -> Seen;

    /// Whether it still answers.
    async fn answers(&self) -> bool;
}

/// A client that logs in just before its lease is revoked, and shows itself long after.
#[async_trait]
pub(super) trait Attacker: Send + Sync {
    /// Lets it log in to a role that is ended in the plain way, and says what it read after that.
    async fn control(&self) -> Seen<u64>;

    /// Begins a login, and waits until the server has let it in and does not show it yet.
    async fn begin(&self, credential: &Credential) -> Seen<Box<dyn Late>>;

    /// How many logins are half-way.
    async fn half_way(&self) -> Seen<usize>;
}

/// A login that is half-way.
#[async_trait]
pub(super) trait Late: Send {
    /// Waits for its end; the rows that it read, or the server's refusal.
    async fn outcome(self: Box<Self>) -> Seen<Result<u64, String>>;
}
