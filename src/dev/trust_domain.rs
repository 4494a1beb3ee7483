//! A dev trust domain: one Workload API socket per identity, so that dev, tests and production run one code path.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    DevError,
    authority::{Authority, DevBundle},
    ca::{DevCa, DevSvid, Shape},
    workload_api::{self, Material},
};
use crate::identity::{Now, listener::bind_unix, unix::Access};

/// Lifetime of a dev SVID where nothing else is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);

/// A trust domain in a folder: its key, and the sockets of its identities.
pub struct DevTrustDomain {
    dir: PathBuf,
    authority: Arc<Authority>,
    ttl: Duration,
    now: Now,
    served: Mutex<Vec<Weak<Shared>>>,
}

impl fmt::Debug for DevTrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevTrustDomain")
            .field("dir", &self.dir)
            .field("ca", &self.ca())
            .finish_non_exhaustive()
    }
}

impl DevTrustDomain {
    /// Opens the trust domain in `dir`, made on first use. SVIDs live for `ttl` and rotate at half of it.
    ///
    /// # Errors
    /// As [`DevCa::load_or_create`], or [`DevError::Token`].
    pub fn open(dir: &Path, trust_domain: &str, ttl: Duration, now: Now) -> Result<Self, DevError> {
        let authority = Arc::new(Authority::open(dir, trust_domain, now.clone())?);
        Ok(Self { dir: dir.to_owned(), authority, ttl, now, served: Mutex::default() })
    }

    /// The certificate authority that signs now.
    pub fn ca(&self) -> Arc<DevCa> {
        self.authority.ca()
    }

    /// Its bundles, for a trust domain that federates with it.
    pub fn bundle(&self) -> DevBundle {
        self.authority.bundle()
    }

    /// A token with any claims at all, signed with the key of its JWT-SVIDs.
    ///
    /// # Errors
    /// [`DevError::Token`] where the claims are no JSON.
    pub fn sign_token(&self, claims: &impl Serialize) -> Result<String, DevError> {
        self.authority.sign(claims)
    }

    /// The folder of its key and sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// First step of a roll: the next authority and the next key of JWT-SVIDs are in every bundle, and sign nothing.
    ///
    /// # Errors
    /// [`DevError::Certificate`] or [`DevError::Token`]; nothing has changed then.
    pub fn publish_next_keys(&self) -> Result<(), DevError> {
        self.authority.publish_next()?;
        self.renew_all()
    }

    /// Second step of a roll: every identity is signed anew with the keys that were published last, as after a taint.
    ///
    /// # Errors
    /// [`DevError::Certificate`] should signing fail.
    pub fn activate_next_keys(&self) -> Result<(), DevError> {
        self.authority.activate();
        self.renew_all()
    }

    /// Last step of a roll: the keys that no longer sign are in no bundle any more, as SPIRE's `revoke` does it.
    ///
    /// # Errors
    /// [`DevError::Certificate`] should signing fail.
    pub fn withdraw_old_keys(&self) -> Result<(), DevError> {
        self.authority.withdraw_old();
        self.renew_all()
    }

    fn renew_all(&self) -> Result<(), DevError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.retain(|shared| shared.strong_count() > 0);
        served.iter().filter_map(Weak::upgrade).try_for_each(|shared| shared.renew())
    }

    /// Serves `spiffe://<trust domain><path>` on `<dir>/<name>.sock` for as long as the answer is held.
    ///
    /// # Errors
    /// [`DevError::BadName`], [`DevError::Certificate`] for a path that fits into no certificate, or
    /// [`DevError::Listen`].
    pub async fn serve(&self, name: &str, path: &str) -> Result<DevIdentity, DevError> {
        check_name(name)?;
        let socket = self.dir.join(format!("{name}.sock"));
        let shared = Arc::new(Shared::new(self, path)?);
        self.served.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&shared));
        let listener = bind_unix(&socket, Access::Owner).await?;
        let api = workload_api::serve(listener, shared.material.subscribe(), self.authority.clone());
        let tasks = [tokio::spawn(api), tokio::spawn(rotate(shared.clone()))];
        Ok(DevIdentity { id: self.id_of(path), socket, shared, tasks })
    }

    #[cfg(test)]
    pub(super) fn authority(&self) -> Arc<Authority> {
        self.authority.clone()
    }

    fn id_of(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.ca().trust_domain())
    }
}

fn check_name(name: &str) -> Result<(), DevError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=64).contains(&name.len()) && name.chars().all(plain) {
        true => Ok(()),
        false => Err(DevError::BadName { name: name.to_owned() }),
    }
}

/// One identity and its Workload API; dropping it ends the service, as a stopped SPIRE agent would.
pub struct DevIdentity {
    id: String,
    socket: PathBuf,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl fmt::Debug for DevIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevIdentity")
            .field("id", &self.id)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Drop for DevIdentity {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl DevIdentity {
    /// The SPIFFE ID served.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The address for `SPIFFE_ENDPOINT_SOCKET` and `workload_api`.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    #[cfg(test)]
    pub(super) fn subscribe(&self) -> watch::Receiver<Material> {
        self.shared.material.subscribe()
    }

    /// Signs anew and hands out at once, as happens by itself at half life.
    ///
    /// # Errors
    /// [`DevError::Certificate`] should signing fail; the old SVID stays.
    pub fn rotate(&self) -> Result<(), DevError> {
        self.shared.renew()
    }

    /// Takes the identity away: the Workload API answers "no identity issued" until [`DevIdentity::restore`].
    pub fn withdraw(&self) {
        self.shared.change(|material| material.issued = false);
    }

    /// Gives the identity back, freshly signed.
    ///
    /// # Errors
    /// [`DevError::Certificate`] should signing fail; the identity stays withdrawn.
    pub fn restore(&self) -> Result<(), DevError> {
        self.shared.renew()?;
        self.shared.change(|material| material.issued = true);
        Ok(())
    }

    /// Lets the same socket issue a second identity of the trust domain; it comes before those already there.
    ///
    /// # Errors
    /// [`DevError::Certificate`] where the path fits into no certificate.
    pub fn also(&self, path: &str) -> Result<(), DevError> {
        self.shared.sign(path)?;
        self.shared.paths.lock().unwrap_or_else(PoisonError::into_inner).insert(0, path.to_owned());
        self.shared.renew()
    }

    /// Hands out the bundles of a foreign trust domain, or stops doing so when `bundle` is none.
    pub fn federate(&self, trust_domain: &str, bundle: Option<&DevBundle>) {
        let key = format!("spiffe://{trust_domain}");
        self.shared.change(|material| match bundle {
            Some(bundle) => drop(material.federated.insert(key, bundle.clone())),
            None => drop(material.federated.remove(&key)),
        });
    }
}

struct Shared {
    authority: Arc<Authority>,
    ttl: Duration,
    now: Now,
    paths: Mutex<Vec<String>>,
    material: watch::Sender<Material>,
}

impl Shared {
    fn new(domain: &DevTrustDomain, path: &str) -> Result<Self, DevError> {
        let bundle = domain.bundle();
        let trust_domain = format!("spiffe://{}", domain.ca().trust_domain());
        let empty =
            Material { issued: true, svids: vec![], trust_domain, bundle, federated: BTreeMap::new() };
        let shared = Self {
            authority: domain.authority.clone(),
            ttl: domain.ttl,
            now: domain.now.clone(),
            paths: Mutex::new(vec![path.to_owned()]),
            material: watch::Sender::new(empty),
        };
        shared.renew()?;
        Ok(shared)
    }

    fn sign(&self, path: &str) -> Result<DevSvid, DevError> {
        self.authority.ca().sign(path, Shape::Good, (self.now)(), self.ttl)
    }

    fn renew(&self) -> Result<(), DevError> {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let svids = paths.iter().map(|path| self.sign(path)).collect::<Result<_, _>>()?;
        let bundle = self.authority.bundle();
        self.change(|material| (material.svids, material.bundle) = (svids, bundle));
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Material)) {
        self.material.send_modify(change);
    }
}

async fn rotate(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.ttl / 2).await;
        if let Err(error) = shared.renew() {
            tracing::warn!(%error, "cannot rotate a dev identity");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_file_names() {
        let check = |name: &str, good: bool| assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        check("broker", true);
        check("agent-7", true);
        check("", false);
        check("../up", false);
        check("a.b", false);
        check("Ümlaut", false);
        check(&"a".repeat(65), false);
    }
}
