//! Where there is no PostgreSQL: the memory target as a small service beside the broker, asked by its own administrator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_backend::Entropy;
use leasehold_client::Credential;
use leasehold_law::lease::Grade;
use leasehold_memory::http::{Token, serve};
use leasehold_memory::{MemoryTarget, SessionId, Settings};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::ground::{Ground, Role, Session};
use super::story::{Failure, Patience, Seen, ensure};
use crate::dev::files::write_private;
use crate::dev::proxy::StallingProxy;

/// A query that is cut, is cut long before.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// The target, its service, and the wire that the broker speaks over.
pub(super) struct Memory {
    target: Arc<MemoryTarget>,
    service: JoinHandle<std::io::Result<()>>,
    wire: StallingProxy,
    token_file: PathBuf,
}

impl Memory {
    pub(super) async fn start(dir: &Path, entropy: Arc<dyn Entropy>) -> Seen<Self> {
        let token_file = dir.join("orders-db.token");
        let mut bits = [0; 16];
        entropy.fill(&mut bits)?;
        let token: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&token_file, &token)?;
        let token = Token::new(token.as_bytes()).ok_or_else(|| Failure::new("no token"))?;
        let target = Arc::new(MemoryTarget::new(Settings::of(Grade::Exact), entropy));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let wire = StallingProxy::open(listener.local_addr()?).await?;
        let service = tokio::spawn(serve(listener, target.clone(), token));
        Ok(Self { target, service, wire, token_file })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.service.abort();
    }
}

fn login_of(credential: &Credential) -> Seen<(&str, &[u8])> {
    let user = credential.part("user").ok_or_else(|| Failure::new("a credential without a user"))?;
    let password =
        credential.expose("password").ok_or_else(|| Failure::new("a credential without a password"))?;
    Ok((user, password))
}

#[async_trait]
impl Ground for Memory {
    fn name(&self) -> String {
        "the memory target".to_owned()
    }

    fn prompt(&self) -> &'static str {
        "target>"
    }

    fn witness(&self) -> &'static str {
        "the target's own list, read beside the broker"
    }

    fn target_toml(&self) -> String {
        format!(
            "[targets.orders-db]\nbackend = \"memory\"\nowner = \"group:data\"\nlabels = {{ env = \"demo\" }}\n\
             service = \"http://{}\"\ntoken_file = \"{}\"\n",
            self.wire.address(),
            self.token_file.display()
        )
    }

    fn recipe_toml(&self, group: &str) -> String {
        format!("{{ role = \"{group}\" }}")
    }

    fn wire(&self) -> (&StallingProxy, &'static str) {
        (&self.wire, "{\"mint\":")
    }

    async fn leased(&self) -> Seen<Vec<Role>> {
        let accounts = self.target.accounts().into_iter();
        let role = |(name, account): (String, leasehold_memory::Account)| Role {
            name,
            alive: account.disabled.is_none(),
            groups: vec![account.role],
            bounds: "its end is set".to_owned(),
        };
        Ok(accounts.map(role).collect())
    }

    async fn login(&self, credential: &Credential) -> Seen<Box<dyn Session>> {
        let (user, password) = login_of(credential)?;
        let id = self.target.login(user, password).ok_or_else(|| Failure::new("the login was refused"))?;
        let (target, user) = (self.target.clone(), user.to_owned());
        Ok(Box::new(Open { target, id, user }))
    }

    async fn accepts(&self, credential: &Credential) -> Seen<bool> {
        let (user, password) = login_of(credential)?;
        Ok(self.target.accepts(user, password))
    }
}

/// An open session.
struct Open {
    target: Arc<MemoryTarget>,
    id: SessionId,
    user: String,
}

#[async_trait]
impl Session for Open {
    async fn read(&self) -> Seen {
        let known = self.target.accounts().remove(&self.user).filter(|_| self.target.serves(self.id));
        let account = known.ok_or_else(|| Failure::new("the session is not served"))?;
        Ok(format!("served as {}", account.role))
    }

    async fn delete(&self) -> Seen<Option<String>> {
        Ok(None)
    }

    async fn work_until_cut(&self) -> Seen {
        ensure(self.target.serves(self.id), || "the session was never served".to_owned())?;
        let mut patience = Patience::new("the session is cut", PATIENCE);
        while self.target.serves(self.id) {
            patience.next().await?;
        }
        Ok("session ended by the target".to_owned())
    }

    async fn answers(&self) -> bool {
        self.target.serves(self.id)
    }
}
