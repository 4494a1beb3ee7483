//! An issuer of tokens: which keys it signs with now, and where its other endpoints are (OpenID Connect Discovery 1.0).
//!
//! What it published is kept and asked for again where a token names a key that is not known. Anybody may make up such
//! a token, so that an issuer is asked by one at a time and at most once in [`PAUSE`].

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use leasehold_jose::{Claims, Keys, Peek, Rules, token};
use leasehold_law::time::{Span, Timestamp};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use super::Now;
use super::bearer::TokenRefused;

mod address;
mod discovery;
mod source;
#[cfg(test)]
mod tests;

pub use address::{IssuerUrl, IssuerUrlError};
pub use discovery::Endpoints;
use source::Source;

/// How soon an issuer is asked again, whether it answered or not.
pub const PAUSE: Span = Span::from_secs(30);
/// How old what it published may be before it is asked again, so that a key that it withdrew is forgotten.
pub const REFRESH: Span = Span::from_mins(60);
/// How long its keys are used while it cannot be asked.
pub const KEEP: Span = Span::from_mins(24 * 60);
/// How many may wait for one issuer. Each holds a place in which another's token could be judged.
const WAITING: usize = 16;
/// How long it may take to answer one question.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// From the issuer itself.
    Discovery {
        /// Whom its certificate must be from, instead of the system's roots: a file of PEM.
        ca_file: Option<PathBuf>,
    },
    /// From a file that holds a JWK set, for an issuer that cannot be asked.
    File(PathBuf),
}

/// Why an issuer's keys cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// It cannot be asked at all.
    #[error("the issuer `{issuer}` cannot be asked: {why}")]
    Setup {
        /// The issuer.
        issuer: String,
        /// What is wrong on this side.
        why: String,
    },
    /// It did not answer, or not with what it must.
    #[error("the issuer `{issuer}` did not give its keys: {why}")]
    Away {
        /// The issuer.
        issuer: String,
        /// What happened.
        why: String,
    },
    /// It does not publish the key as far as is known, and is asked only so often.
    #[error("the issuer `{issuer}` has no such key as far as is known, and is asked once in {PAUSE}")]
    Paused {
        /// The issuer.
        issuer: String,
    },
}

/// An issuer. Asked for the first time when its first token comes.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    url: IssuerUrl,
    source: Source,
    now: Now,
    known: ArcSwapOption<Known>,
    /// Whoever holds it may ask.
    turn: Arc<Mutex<Turn>>,
    waiting: Semaphore,
}

/// What the issuer published.
struct Known {
    keys: Arc<Keys>,
    endpoints: Option<Arc<Endpoints>>,
    read_at: Timestamp,
}

/// How the issuer was asked last.
#[derive(Default)]
struct Turn {
    at: Option<Timestamp>,
    failed: Option<String>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuer").field(&self.0.url.as_str()).finish()
    }
}

impl Issuer {
    /// An issuer whose keys come from there. Dials nothing.
    ///
    /// # Errors
    /// Where `ca_file` cannot be read or holds no certificate, or the system has no roots.
    pub fn new(url: IssuerUrl, keys: &KeySource, now: Now) -> Result<Self, IssuerError> {
        Self::with_patience(url, keys, now, PATIENCE)
    }

    fn with_patience(
        url: IssuerUrl,
        keys: &KeySource,
        now: Now,
        patience: Duration,
    ) -> Result<Self, IssuerError> {
        let source = Source::open(&url, keys, patience)
            .map_err(|why| IssuerError::Setup { issuer: url.to_string(), why })?;
        let (known, turn, waiting) = (ArcSwapOption::empty(), Arc::default(), Semaphore::new(WAITING));
        Ok(Self(Arc::new(Shared { url, source, now, known, turn, waiting })))
    }

    /// What it calls itself.
    #[must_use]
    pub fn url(&self) -> &IssuerUrl {
        &self.0.url
    }

    /// Verifies a token of this issuer by these rules, whatever issuer they name.
    ///
    /// # Errors
    /// The first rule that does not hold; [`TokenRefused::is_ours`] where the keys cannot be had now.
    pub async fn verify(&self, token: &str, peek: &Peek, rules: Rules<'_>) -> Result<Claims, TokenRefused> {
        let keys = self.keys(&peek.key_id).await?;
        Ok(token::read(token, &keys, &Rules { issuer: Some(self.0.url.as_str()), ..rules })?)
    }

    /// Its keys. Where this key is not among them, it was asked for it just now.
    ///
    /// # Errors
    /// Where it cannot be asked, or was asked a moment ago.
    pub async fn keys(&self, key_id: &str) -> Result<Arc<Keys>, IssuerError> {
        let known = self.look(|known| known.keys.holds(key_id)).await?;
        Ok(known.keys.clone())
    }

    /// Where its other endpoints are; none where its keys come from a file.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub async fn endpoints(&self) -> Result<Option<Arc<Endpoints>>, IssuerError> {
        let known = self.look(|_| true).await?;
        Ok(known.endpoints.clone())
    }

    /// How many keys it has.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub async fn count(&self) -> Result<usize, IssuerError> {
        Ok(self.look(|_| true).await?.keys.len())
    }

    /// What it published, asked for again where that will not do.
    async fn look(&self, will_do: impl Fn(&Known) -> bool) -> Result<Arc<Known>, IssuerError> {
        if let Some(known) = self.0.known().filter(|known| will_do(known)) {
            self.refresh(&known);
            return Ok(known);
        }
        let issuer = self.0.url.to_string();
        let Ok(_place) = self.0.waiting.try_acquire() else { return Err(IssuerError::Paused { issuer }) };
        let turn = self.0.turn.clone().lock_owned().await;
        // Whoever had the turn before may have brought it.
        if let Some(known) = self.0.known().filter(|known| will_do(known)) {
            return Ok(known);
        }
        if turn.is_over((self.0.now)()) {
            let why = turn.failed.clone();
            return Err(why.map_or(IssuerError::Paused { issuer: issuer.clone() }, |why| {
                IssuerError::Away { issuer, why }
            }));
        }
        // In a task of its own: a caller that goes away does not waste the turn.
        let asked = tokio::spawn(self.0.clone().ask(turn)).await;
        match asked.map_err(|error| error.to_string()).flatten() {
            Ok(known) => Ok(known),
            Err(why) => Err(IssuerError::Away { issuer, why }),
        }
    }

    /// Asks again in the background where what is known is getting old; meanwhile it is used.
    fn refresh(&self, known: &Known) {
        let now = (self.0.now)();
        if now.since(known.read_at) < REFRESH {
            return;
        }
        if let Ok(turn) = self.0.turn.clone().try_lock_owned()
            && !turn.is_over(now)
        {
            tokio::spawn(self.0.clone().ask(turn));
        }
    }
}

impl Turn {
    /// Whether the issuer must not be asked again yet.
    fn is_over(&self, now: Timestamp) -> bool {
        self.at.is_some_and(|at| now.since(at) < PAUSE)
    }
}

impl Shared {
    /// What is known, if it is not too old to be used.
    fn known(&self) -> Option<Arc<Known>> {
        let now = (self.now)();
        self.known.load_full().filter(|known| now.since(known.read_at) < KEEP)
    }

    async fn ask(self: Arc<Self>, mut turn: OwnedMutexGuard<Turn>) -> Result<Arc<Known>, String> {
        turn.at = Some((self.now)());
        let read = self.source.read(&self.url).await;
        turn.failed = read.as_ref().err().cloned();
        match read {
            Ok((keys, endpoints)) => {
                let known = Arc::new(Known {
                    keys: Arc::new(keys),
                    endpoints: endpoints.map(Arc::new),
                    read_at: (self.now)(),
                });
                self.known.store(Some(known.clone()));
                Ok(known)
            }
            Err(why) => {
                tracing::warn!(issuer = self.url.as_str(), why, "the keys of an issuer could not be read");
                Err(why)
            }
        }
    }
}

impl From<IssuerError> for TokenRefused {
    fn from(error: IssuerError) -> Self {
        let next = match &error {
            IssuerError::Setup { .. } => "tell whoever runs this broker",
            IssuerError::Away { .. } => {
                "call again in half a minute; if it stays so, tell whoever runs this broker"
            }
            IssuerError::Paused { .. } => "call again in half a minute, with a fresh token",
        };
        Self::later(error.to_string(), next)
    }
}
