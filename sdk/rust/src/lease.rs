//! A lease in the hands of an agent: kept alive, renewed, and honest about its end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use crate::{
    Client, ClientError, Credential, Secret, deadline_of, io::Guard, renewal, retry, system_time,
    task::Ending, v1, wire_duration,
};

/// A lease. Dropped, it is no longer renewed: it ends at its expiry, or with its task.
pub struct Lease {
    client: Client,
    shared: Arc<Shared>,
    _renewal: Guard,
}

/// How a lease is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaseStage {
    /// It works, and is renewed in time.
    Live,
    /// It works until its expiry; the broker has not been reached since then.
    BrokerAway {
        /// Since when.
        since: SystemTime,
        /// Why, in words.
        error: String,
    },
    /// It works until its expiry and is not renewed beyond it.
    Last {
        /// Why, in words.
        reason: String,
    },
    /// Stop using it.
    Ended {
        /// Why, in words.
        cause: String,
    },
}

/// How a lease is doing, and until when.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseStatus {
    /// How it is doing.
    pub stage: LeaseStage,
    /// When it ends unless renewed, by this process's steady clock; early rather than late.
    pub ends: Instant,
    /// Rises when the target could only give a new credential: read [`Lease::credential`] again.
    pub credential: u32,
}

impl Lease {
    pub(crate) fn new(client: Client, answer: Granted) -> Self {
        let Granted { lease, credential, started, ttl } = answer;
        let ends = deadline_of(started, lease.created_at, lease.expires_at);
        let (status, _) = watch::channel(LeaseStatus { stage: LeaseStage::Live, ends, credential: 0 });
        let credential = Mutex::new(Arc::new(Credential::from(credential)));
        let shared = Arc::new(Shared { lease: Mutex::new(lease), credential, status, ttl });
        let renewal = client.io().keep(renewal::keep(
            v1::lease_service_client::LeaseServiceClient::new(client.channel()),
            Arc::clone(&shared),
        ));
        Self { client, shared, _renewal: renewal }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        self.shared.lease().id
    }

    /// The lease as the broker last described it.
    #[must_use]
    pub fn lease(&self) -> v1::Lease {
        self.shared.lease()
    }

    /// The credential. Take it anew when [`LeaseStatus::credential`] has risen.
    #[must_use]
    pub fn credential(&self) -> Arc<Credential> {
        Arc::clone(&lock(&self.shared.credential))
    }

    /// The connection URL of a database lease, password included.
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`] when the lease is not one of a database.
    pub fn dsn(&self) -> Result<Secret, ClientError> {
        self.credential().dsn()
    }

    /// When it ends unless renewed, by the broker's clock.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        system_time(self.shared.lease().expires_at)
    }

    /// How it is doing, now and whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LeaseStatus> {
        self.shared.status.subscribe()
    }

    /// Resolves once the lease must not be used any more, with the cause.
    pub async fn ended(&self) -> String {
        let mut status = self.status();
        let ended = status.wait_for(|now| matches!(now.stage, LeaseStage::Ended { .. })).await;
        match ended.map(|now| now.stage.clone()) {
            Ok(LeaseStage::Ended { cause }) => cause,
            Ok(_) | Err(_) => "the client has stopped".to_owned(),
        }
    }

    /// Gives the lease back and waits up to 10 s for the proof that it is dead.
    ///
    /// # Errors
    /// Any refusal. Still pending is no error: see [`Ending::pending`].
    pub async fn release(self) -> Result<Ending, ClientError> {
        self.release_within(Client::WAIT).await
    }

    /// As [`Lease::release`] with another wait, 0 to 30 s.
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub async fn release_within(self, wait: Duration) -> Result<Ending, ClientError> {
        let request = v1::ReleaseLeaseRequest { lease: self.id(), wait: wire_duration(wait) };
        let answer =
            self.client.persist(|| async { self.client.leases().release_lease(request.clone()).await });
        answer.await.map(|answer| Ending::new(answer.leases, &answer.pending))
    }
}

/// What a request gave.
pub(crate) struct Granted {
    pub(crate) lease: v1::Lease,
    pub(crate) credential: v1::Credential,
    /// Just before it was asked for.
    pub(crate) started: Instant,
    /// What renewals ask for.
    pub(crate) ttl: Option<prost_types::Duration>,
}

/// What the lease, its renewal and the task's watch share.
pub(crate) struct Shared {
    lease: Mutex<v1::Lease>,
    credential: Mutex<Arc<Credential>>,
    status: watch::Sender<LeaseStatus>,
    pub(crate) ttl: Option<prost_types::Duration>,
}

/// Poisoned or not, the value is whole: each is replaced in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn lease(&self) -> v1::Lease {
        lock(&self.lease).clone()
    }

    pub(crate) fn status(&self) -> LeaseStatus {
        self.status.borrow().clone()
    }

    /// Sets the stage. An ended lease stays ended.
    pub(crate) fn set(&self, stage: LeaseStage) {
        self.status.send_if_modified(|status| {
            let change = status.stage != stage && !matches!(status.stage, LeaseStage::Ended { .. });
            if change {
                status.stage = stage;
            }
            change
        });
    }

    pub(crate) fn end(&self, cause: impl Into<String>) {
        self.set(LeaseStage::Ended { cause: cause.into() });
    }

    /// Takes a renewed lease. Both expiries are the broker's, so their difference needs no common clock.
    pub(crate) fn renewed(&self, lease: v1::Lease, credential: Option<v1::Credential>) {
        let expires_at = lease.expires_at;
        let old = std::mem::replace(&mut *lock(&self.lease), lease);
        if let Some(credential) = credential {
            *lock(&self.credential) = Arc::new(Credential::from(credential));
            self.status.send_modify(|status| status.credential += 1);
        }
        let longer = system_time(expires_at).zip(system_time(old.expires_at));
        let longer = longer.and_then(|(new, old)| new.duration_since(old).ok()).unwrap_or_default();
        self.status.send_modify(|status| status.ends += longer);
        self.set(LeaseStage::Live);
    }

    /// Takes the broker's word on the lease, from its watch stream or a list.
    pub(crate) fn observe(&self, seen: &v1::Lease) {
        if self.lease().id == seen.id && !is_usable(seen.state()) {
            self.end(cause_words(seen.cause()));
        }
    }
}

/// Whether a credential in this state still works.
pub(crate) fn is_usable(state: v1::LeaseState) -> bool {
    match state {
        v1::LeaseState::Minting | v1::LeaseState::Active | v1::LeaseState::Renewing => true,
        // A state that this version does not know is no reason to stop.
        v1::LeaseState::Unspecified => true,
        v1::LeaseState::Awaiting
        | v1::LeaseState::Revoking
        | v1::LeaseState::Revoked
        | v1::LeaseState::Residual
        | v1::LeaseState::Lapsed
        | v1::LeaseState::Refused => false,
    }
}

/// A cause as people read it: `TASK_LOST` is "task lost".
pub(crate) fn cause_words(cause: v1::Cause) -> String {
    cause.as_str_name().trim_start_matches("CAUSE_").replace('_', " ").to_lowercase()
}

/// Asks for a lease until it is given, refused for good, or patience ends (RULES R-5).
///
/// A lost answer is asked for again under the same name; where that attempt is spent, its secret is gone and the
/// next attempt supersedes it.
pub(crate) async fn request(
    client: &Client,
    mut request: v1::RequestLeaseRequest,
) -> Result<Granted, ClientError> {
    request.request_id = retry::request_id();
    let mut patience = client.patience();
    loop {
        let started = Instant::now();
        match client.call(client.leases().request_lease(request.clone())).await {
            Ok(answer) => return granted(answer, started, request.ttl),
            Err(error) if error.is("ATTEMPT_SPENT") && request.attempt < 3 => {
                request.attempt = next_attempt(&error, request.attempt);
            }
            Err(error) => client.pause(&mut patience, error).await?,
        }
    }
}

fn next_attempt(error: &ClientError, spent: u32) -> u32 {
    let named = error.refusal().and_then(|refusal| refusal.metadata.get("next_attempt"));
    // Never the same one again, whatever the broker says: that would ask forever.
    named.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default().max(spent.saturating_add(1))
}

fn granted(
    answer: v1::RequestLeaseResponse,
    started: Instant,
    ttl: Option<prost_types::Duration>,
) -> Result<Granted, ClientError> {
    let lease = answer.lease.ok_or(ClientError::BadAnswer("no lease in it"))?;
    let credential = answer.credential.ok_or(ClientError::BadAnswer("no credential in it"))?;
    Ok(Granted { lease, credential, started, ttl })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn stamp(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    pub(crate) fn shared(lease: v1::Lease) -> Arc<Shared> {
        let ends = deadline_of(Instant::now(), lease.created_at, lease.expires_at);
        let (status, _) = watch::channel(LeaseStatus { stage: LeaseStage::Live, ends, credential: 0 });
        let credential = Mutex::new(Arc::new(Credential::from(v1::Credential::default())));
        Arc::new(Shared { lease: Mutex::new(lease), credential, status, ttl: None })
    }

    fn lease(state: v1::LeaseState, expires: i64) -> v1::Lease {
        v1::Lease {
            id: "lease_1".into(),
            state: state.into(),
            created_at: stamp(0),
            expires_at: stamp(expires),
            ..v1::Lease::default()
        }
    }

    #[test]
    fn a_renewal_moves_the_end_by_the_broker_s_difference() {
        let shared = shared(lease(v1::LeaseState::Active, 600));
        let before = shared.status().ends;
        shared.renewed(lease(v1::LeaseState::Active, 900), None);
        assert_eq!(shared.status().ends, before + Duration::from_secs(300));
        assert_eq!(shared.status().credential, 0);
        shared.renewed(lease(v1::LeaseState::Active, 900), Some(v1::Credential::default()));
        assert_eq!(shared.status().credential, 1);
    }

    #[test]
    fn an_ended_lease_stays_ended() {
        let shared = shared(lease(v1::LeaseState::Active, 600));
        let revoked = v1::Lease { cause: v1::Cause::Operator.into(), ..lease(v1::LeaseState::Revoking, 600) };
        shared.observe(&revoked);
        shared.set(LeaseStage::Live);
        assert_eq!(shared.status().stage, LeaseStage::Ended { cause: "operator".into() });
    }

    #[test]
    fn another_s_end_is_not_ours() {
        let shared = shared(lease(v1::LeaseState::Active, 600));
        shared.observe(&v1::Lease { id: "lease_2".into(), ..lease(v1::LeaseState::Revoked, 600) });
        assert_eq!(shared.status().stage, LeaseStage::Live);
    }
}
