//! A session as it lies on this machine: one file for each issuer, mode 0600 in a folder of 0700 (docs/identity.md, "People").
//!
//! Beside the tokens lies the key that the broker binds them to (RFC 9449): whoever reads the one has the other anyway, and
//! commands of one session are many processes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use leasehold_jose::{ProofKey, SigningKey};
use leasehold_law::time::{Span, Timestamp};
use ring::digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hidden::Hidden;
use super::issuer::{Granted, Issuer, now};
use super::provider::{Provider, folder};
use crate::cli::problem::{Exit, Problem};

/// A token this close to its end is renewed before it is used.
const MARGIN: Span = Span::from_secs(60);
/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// Another process that renews holds the lock no longer than its calls to the issuer may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A person's session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) provider: Provider,
    /// Whom the issuer calls so.
    pub(crate) subject: String,
    pub(crate) signed_in_at: Timestamp,
    /// The end of the token.
    pub(crate) expires_at: Timestamp,
    id_token: Hidden,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Hidden>,
    key: Hidden,
}

/// The folder of all sessions of this user.
#[derive(Clone, Debug)]
pub(crate) struct Sessions(PathBuf);

/// Held while a session changes, so that two processes never spend one token to renew with.
struct Lock {
    _file: File,
}

impl Kept {
    /// A session that begins now, with a key of its own.
    pub(super) fn begin(provider: Provider, granted: Granted) -> Result<Self, Problem> {
        let key = SigningKey::new_pkcs8().map_err(|error| Problem::failed(error.to_string()))?;
        let Granted { subject, expires_at, id_token, refresh_token } = granted;
        let key = Hidden::new(BASE64_STANDARD.encode(&*key));
        Ok(Self { provider, subject, signed_in_at: now(), expires_at, id_token, refresh_token, key })
    }

    /// Whether it goes on after its token's end.
    pub(crate) fn renews(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// What the broker takes: the ID token.
    pub(crate) fn token(&self) -> &Hidden {
        &self.id_token
    }

    /// The key that the broker binds the token to.
    pub(crate) fn key(&self) -> Result<ProofKey, Problem> {
        let pkcs8 = BASE64_STANDARD.decode(self.key.expose()).map(Zeroizing::new).ok();
        let key = pkcs8.and_then(|pkcs8| ProofKey::from_pkcs8(&pkcs8).ok());
        key.ok_or_else(|| Problem::failed("the key of your session is damaged").next("leasehold login"))
    }

    /// Whether its token is good for a while at this moment.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now + MARGIN < self.expires_at
    }

    fn is_over(&self) -> Problem {
        let what = format!("your session at `{}` is over", self.provider.issuer);
        Problem::new(Exit::DENIED, what).next("leasehold login")
    }

    /// A token that the issuer grants now. The session goes on with what it is to be renewed with from here, which is written
    /// before anything else can fail: the issuer may have spent what was there.
    async fn grant(&mut self, sessions: &Sessions) -> Result<Granted, Problem> {
        let with = self.refresh_token.clone().ok_or_else(|| {
            self.is_over().why("its issuer gave nothing to renew it with (`offline_access`)")
        })?;
        let issuer = Issuer::discover(self.provider.clone()).await?;
        let (tokens, next) = issuer.renewed(&with).await?;
        if next.is_some() {
            self.refresh_token = next;
            sessions.write(self)?;
        }
        let granted = issuer.granted(tokens, None).await?;
        if granted.subject != self.subject {
            return Err(self.is_over().why("its issuer renewed it for somebody else"));
        }
        Ok(granted)
    }
}

impl Sessions {
    /// This user's, at `$XDG_STATE_HOME/leasehold/sessions`.
    pub(crate) fn own() -> Result<Self, Problem> {
        let folder = folder("XDG_STATE_HOME", ".local/state");
        let folder =
            folder.ok_or_else(|| Problem::failed("there is no place for a session: HOME is not set"));
        folder.map(|folder| Self(folder.join("sessions")))
    }

    /// The session of an issuer, or the only one there is.
    pub(crate) fn find(&self, issuer: Option<&str>) -> Result<Option<Kept>, Problem> {
        if let Some(issuer) = issuer {
            return self.read(&self.path(issuer));
        }
        let mut all = self.all()?;
        match (all.pop(), all.is_empty()) {
            (one, true) => Ok(one),
            (_, false) => Err(Problem::usage("you are signed in at more than one issuer")
                .next("say which: export LEASEHOLD_ISSUER=https://idp.example")),
        }
    }

    /// Every session.
    pub(crate) fn all(&self) -> Result<Vec<Kept>, Problem> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&self.0, &error)),
        };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|word| word == "json"));
        paths.sort();
        paths.iter().filter_map(|path| self.read(path).transpose()).collect()
    }

    /// Writes a session over the one that is there.
    pub(super) async fn put(&self, kept: &Kept) -> Result<(), Problem> {
        let _lock = self.lock(&kept.provider.issuer).await?;
        self.write(kept)
    }

    /// A session whose token is good for a while, renewed where it must be.
    pub(crate) async fn fresh(&self, kept: Kept) -> Result<Kept, Problem> {
        if kept.is_fresh(now()) {
            return Ok(kept);
        }
        let _lock = self.lock(&kept.provider.issuer).await?;
        let mut kept = self.again(&kept)?;
        if !kept.is_fresh(now()) {
            let granted = kept.grant(self).await?;
            (kept.id_token, kept.expires_at) = (granted.id_token, granted.expires_at);
            self.write(&kept)?;
        }
        Ok(kept)
    }

    /// A token beside the session's own, for an agent: it is in this process's memory only.
    pub(crate) async fn another(&self, kept: &Kept) -> Result<Hidden, Problem> {
        let _lock = self.lock(&kept.provider.issuer).await?;
        let mut kept = self.again(kept)?;
        Ok(kept.grant(self).await?.id_token)
    }

    /// Ends a session: at its issuer where that can be asked to, and here in any case. Says what the issuer did not do.
    pub(crate) async fn end(&self, kept: &Kept) -> Result<Option<Problem>, Problem> {
        let _lock = self.lock(&kept.provider.issuer).await?;
        let kept = self.again(kept)?;
        fs::remove_file(self.path(&kept.provider.issuer)).map_err(|error| unusable(&self.0, &error))?;
        let Some(refresh_token) = &kept.refresh_token else { return Ok(None) };
        let revoked = match Issuer::discover(kept.provider.clone()).await {
            Ok(issuer) => issuer.revoke(refresh_token).await,
            Err(problem) => Err(problem),
        };
        Ok(match revoked {
            Ok(true) => None,
            Ok(false) => Some(Problem::failed("the issuer has no way to revoke a token (RFC 7009)")),
            Err(problem) => Some(problem),
        })
    }

    /// The session as it is now; it may have been renewed or ended by another process.
    fn again(&self, kept: &Kept) -> Result<Kept, Problem> {
        self.read(&self.path(&kept.provider.issuer))?.ok_or_else(|| kept.is_over())
    }

    fn path(&self, issuer: &str) -> PathBuf {
        let digest = digest::digest(&digest::SHA256, issuer.as_bytes());
        let name: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.0.join(name).with_extension("json")
    }

    fn read(&self, path: &Path) -> Result<Option<Kept>, Problem> {
        let file = match OpenOptions::new().read(true).custom_flags(libc_nofollow()).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, &error)),
        };
        is_private(path, &file)?;
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| unusable(path, &error))?;
        let damaged = |_| {
            Problem::failed(format!("`{}` is no session that this program wrote", path.display()))
                .next("remove it, and sign in anew: leasehold login")
        };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Replaced in one step, so that no reader sees half of it.
    fn write(&self, kept: &Kept) -> Result<(), Problem> {
        let path = self.path(&kept.provider.issuer);
        let failed = |error: io::Error| unusable(&path, &error);
        let text = serde_json::to_vec(kept).map(Zeroizing::new);
        let text = text.map_err(|error| Problem::failed(error.to_string()))?;
        let next = path.with_extension("next");
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&next, &path).map_err(failed)
    }

    async fn lock(&self, issuer: &str) -> Result<Lock, Problem> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|error| unusable(&self.0, &error))?;
        let folder = File::open(&self.0).map_err(|error| unusable(&self.0, &error))?;
        is_private(&self.0, &folder)?;
        let path = self.path(issuer).with_extension("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|error| unusable(&path, &error))?;
        let busy = || Problem::failed("another process has held your session for too long");
        tokio::time::timeout(LOCK_PATIENCE, taken(&file, &path)).await.map_err(|_| busy())??;
        Ok(Lock { _file: file })
    }
}

/// The lock goes with the file, or with the process.
async fn taken(file: &File, path: &Path) -> Result<(), Problem> {
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(unusable(path, &error.into())),
        }
    }
}

/// Nobody else can read or change it.
fn is_private(path: &Path, file: &File) -> Result<(), Problem> {
    let found = file.metadata().map_err(|error| unusable(path, &error))?;
    let (mode, own) = (found.mode() & 0o777, rustix::process::geteuid().as_raw());
    if found.uid() == own && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Problem::failed(format!("`{}` is open to others", path.display()))
        .why(format!("its owner is uid {} and its mode {mode:04o}; a session is yours alone", found.uid()))
        .next("leasehold logout, then sign in anew: what lay there may have been read"))
}

fn libc_nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::failed(format!("`{}` cannot be used", path.display())).why(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(issuer: &str) -> Kept {
        let provider =
            Provider { issuer: issuer.into(), client_id: "leasehold".into(), ..Provider::default() };
        let granted = Granted {
            subject: "00u1".into(),
            expires_at: now() + Span::from_mins(30),
            id_token: Hidden::new("t0ken-1".into()),
            refresh_token: Some(Hidden::new("t0ken-2".into())),
        };
        Kept::begin(provider, granted).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_session_is_found_again_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions(dir.path().join("a/b"));
        assert!(sessions.find(None).unwrap().is_none());
        let one = kept("https://one.example");
        sessions.put(&one).await.unwrap();
        let found = sessions.find(None).unwrap().unwrap();
        assert_eq!((found.token(), &found.subject), (one.token(), &one.subject));
        let thumbprints = [&found, &one].map(|kept| kept.key().unwrap().thumbprint().clone());
        assert_eq!(thumbprints[0], thumbprints[1]);
        let path = sessions.path("https://one.example");
        assert_eq!((mode(&path), mode(&sessions.0)), (0o600, 0o700));
        assert!(!format!("{found:?}").contains("t0ken"), "it shows no token");
        assert!(sessions.fresh(found).await.unwrap().is_fresh(now()), "no issuer is asked");
    }

    #[tokio::test]
    async fn which_of_several_sessions_must_be_said() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions(dir.path().join("s"));
        sessions.put(&kept("https://one.example")).await.unwrap();
        sessions.put(&kept("https://two.example")).await.unwrap();
        assert!(sessions.find(None).unwrap_err().what.contains("more than one"));
        let two = sessions.find(Some("https://two.example")).unwrap().unwrap();
        assert_eq!(two.provider.issuer, "https://two.example");
        assert!(sessions.find(Some("https://three.example")).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_session_that_others_can_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions(dir.path().join("s"));
        sessions.put(&kept("https://one.example")).await.unwrap();
        let path = sessions.path("https://one.example");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(sessions.find(None).unwrap_err().what.contains("open to others"));
        fs::write(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(sessions.find(None).unwrap_err().what.contains("no session"));
    }

    #[tokio::test]
    async fn a_session_without_a_way_to_renew_ends_with_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions(dir.path().join("s"));
        let mut one = kept("https://one.example");
        (one.refresh_token, one.expires_at) = (None, now() + Span::from_secs(1));
        sessions.put(&one).await.unwrap();
        let problem = sessions.fresh(one).await.unwrap_err();
        assert_eq!(problem.exit, Exit::DENIED);
        assert!(problem.what.contains("is over"), "{}", problem.what);
    }
}
