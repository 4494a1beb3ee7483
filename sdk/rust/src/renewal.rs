//! Keeps one lease alive: renews at two thirds of what is left, again and again, until its life ends.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::line::Line;
use tokio::time::{sleep, sleep_until, timeout};

use crate::{
    ClientError, LeaseStage,
    lease::{Shared, is_usable},
    retry::{jittered, request_id},
    system_time, v1,
    v1::lease_service_client::LeaseServiceClient,
};

/// How long one renewal may take.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Between tries while the broker is away. Below a minute, so that its return is seen soon.
const AWAY_PAUSE: Duration = Duration::from_secs(3);
/// A renewal that gains less is not worth another: the life is reached.
const LEAST_GAIN: Duration = Duration::from_secs(1);

type Leases = LeaseServiceClient<Line>;

/// Runs until the lease has ended, and says so.
pub(crate) async fn keep(mut leases: Leases, shared: Arc<Shared>) {
    while let Some(pause) = until_renewal(&shared) {
        sleep(pause).await;
        let name = request_id();
        if !renew_until_answered(&mut leases, &shared, &name).await {
            break;
        }
    }
    sleep_until(shared.status().ends.into()).await;
    shared.end("expired");
}

/// Two thirds of what is left; `None` once the lease is on its last stretch, or over.
fn until_renewal(shared: &Shared) -> Option<Duration> {
    let status = shared.status();
    let left = status.ends.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    if status.stage != LeaseStage::Live {
        return None;
    }
    let lease = shared.lease();
    let life = system_time(lease.life_ends_at).zip(system_time(lease.expires_at));
    let room = life.map(|(life, expiry)| life.duration_since(expiry).unwrap_or_default());
    if room.is_some_and(|room| room < LEAST_GAIN) {
        shared.set(LeaseStage::Last { reason: "its full life is reached".to_owned() });
        return None;
    }
    Some(left * 2 / 3)
}

/// Asks under one name until there is an answer or the lease is over; says whether to go on renewing.
async fn renew_until_answered(leases: &mut Leases, shared: &Shared, name: &str) -> bool {
    let mut away_since = None;
    loop {
        let old = shared.lease();
        let error = match renew(leases, shared, name).await {
            Ok(lease) => return gained(shared, &old, &lease),
            Err(error) => error,
        };
        let Some(pause) = pause_after(&error) else { return stop_after(leases, shared, &error).await };
        if is_passing(&error) {
            let since = *away_since.get_or_insert_with(SystemTime::now);
            shared.set(LeaseStage::BrokerAway { since, error: error.to_string() });
        }
        if Instant::now() + pause >= shared.status().ends || ended(shared) {
            return false;
        }
        sleep(jittered(pause)).await;
    }
}

async fn renew(leases: &mut Leases, shared: &Shared, name: &str) -> Result<v1::Lease, ClientError> {
    let lease = shared.lease().id;
    let request = v1::RenewLeaseRequest { lease, ttl: shared.ttl, request_id: name.to_owned() };
    let answer = timeout(CALL_LIMIT, leases.renew_lease(request)).await;
    let answer = answer.map_err(|_| ClientError::Late(CALL_LIMIT))??.into_inner();
    let lease = answer.lease.ok_or(ClientError::BadAnswer("no lease in it"))?;
    shared.renewed(lease.clone(), answer.credential);
    Ok(lease)
}

/// A renewal that gained nothing is the last: another limit than ours holds the end where it is.
fn gained(shared: &Shared, old: &v1::Lease, new: &v1::Lease) -> bool {
    let gain = system_time(new.expires_at).zip(system_time(old.expires_at));
    let gain = gain.and_then(|(new, old)| new.duration_since(old).ok()).unwrap_or_default();
    if gain < LEAST_GAIN {
        shared.set(LeaseStage::Last { reason: "no limit allows more".to_owned() });
    }
    gain >= LEAST_GAIN
}

/// Whether the broker was not asked, or no answer came. A handshake that is refused is among these: identities have bad
/// moments on either side, and a lease that still lives loses nothing by another try.
fn is_passing(error: &ClientError) -> bool {
    error.is_away() || matches!(error, ClientError::Connect(_) | ClientError::Token(_))
}

fn pause_after(error: &ClientError) -> Option<Duration> {
    if is_passing(error) {
        return Some(AWAY_PAUSE);
    }
    error.refusal().and_then(|refusal| refusal.retry_after).map(|delay| delay.max(Duration::from_millis(100)))
}

/// A refusal for good: read once what became of the lease, since an earlier answer may have been lost.
async fn stop_after(leases: &mut Leases, shared: &Shared, error: &ClientError) -> bool {
    let request = v1::GetLeaseRequest { lease: shared.lease().id };
    if let Ok(Ok(found)) = timeout(CALL_LIMIT, leases.get_lease(request)).await {
        let (old, found) = (shared.lease(), found.into_inner());
        shared.observe(&found);
        if error.is("ATTEMPT_SPENT") && is_usable(found.state()) {
            shared.renewed(found.clone(), None);
            return gained(shared, &old, &found);
        }
    }
    shared.set(LeaseStage::Last { reason: error.to_string() });
    false
}

fn ended(shared: &Shared) -> bool {
    matches!(shared.status().stage, LeaseStage::Ended { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::tests::{shared, stamp};

    fn lease(expires: i64, life: i64) -> v1::Lease {
        v1::Lease {
            created_at: stamp(0),
            expires_at: stamp(expires),
            life_ends_at: stamp(life),
            ..v1::Lease::default()
        }
    }

    #[test]
    fn a_refused_handshake_is_tried_again() {
        let alert = "received fatal alert: DecodeError".to_owned();
        let refused = crate::ChannelError::Refused { addr: "broker".to_owned(), alert };
        assert_eq!(pause_after(&ClientError::Connect(refused)), Some(AWAY_PAUSE));
        assert_eq!(pause_after(&ClientError::BadAnswer("empty")), None);
    }

    #[test]
    fn renewal_comes_at_two_thirds() {
        let pause = until_renewal(&shared(lease(600, 3600))).unwrap();
        assert!(pause <= Duration::from_secs(400) && pause > Duration::from_secs(390), "{pause:?}");
    }

    #[test]
    fn a_full_life_is_not_renewed() {
        let shared = shared(lease(600, 600));
        assert_eq!(until_renewal(&shared), None);
        assert_eq!(shared.status().stage, LeaseStage::Last { reason: "its full life is reached".into() });
    }

    #[test]
    fn a_renewal_without_gain_is_the_last() {
        let shared = shared(lease(600, 3600));
        assert!(gained(&shared, &lease(600, 3600), &lease(900, 3600)));
        assert!(!gained(&shared, &lease(900, 3600), &lease(900, 3600)));
        assert_eq!(until_renewal(&shared), None);
    }
}
