//! When to ask again: only where that is safe, only so long, and never in step with others.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::ClientError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Tries of one call, the first included.
const TRIES: u32 = 12;
/// Of these, those behind a refusal that said that it was too much: whoever goes on asking makes it no better.
const TRIES_OVER_QUOTA: u32 = 3;

/// How long, and how often, one call may still be repeated.
///
/// For calls that are safe to repeat: reads, and those named by a request id (RULES R-5).
pub(crate) struct Patience {
    until: Instant,
    left: u32,
    left_over_quota: u32,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        let until = Instant::now() + limit;
        Self { until, left: TRIES - 1, left_over_quota: TRIES_OVER_QUOTA, pause: FIRST_PAUSE }
    }

    /// How long to wait before the next try; nothing when there should be none.
    pub(crate) fn next(&mut self, error: &ClientError) -> Option<Duration> {
        let pause = jittered(self.pause_for(error)?);
        if self.left == 0 || Instant::now() + pause > self.until {
            return None;
        }
        self.left -= 1;
        Some(pause)
    }

    fn pause_for(&mut self, error: &ClientError) -> Option<Duration> {
        if error.is_away() {
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            return Some(pause);
        }
        let refusal = error.refusal()?;
        // Without a delay the broker does not say that asking again could help.
        let delay = refusal.retry_after?.max(FIRST_PAUSE);
        if refusal.code == Code::ResourceExhausted {
            self.left_over_quota = self.left_over_quota.checked_sub(1)?;
            return Some(delay);
        }
        matches!(refusal.code, Code::Unavailable | Code::Aborted).then_some(delay)
    }
}

/// Between the pause and half as much again, never less: the broker's delay is a promise about it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let [low, high, ..] = random_bytes();
    pause + pause.mul_f64(f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX) / 2.0)
}

/// A name for a request that nobody else will choose: 128 random bits in hexadecimal.
#[must_use]
pub fn request_id() -> String {
    random_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let source = rustls::crypto::ring::default_provider().secure_random;
    if source.fill(&mut bytes).is_err() {
        // Without the system's randomness no handshake succeeds either: nothing is ever sent under this name.
        tracing::error!("the system gives no randomness");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Refusal;

    fn refused(code: Code, retry_after: Option<Duration>) -> ClientError {
        ClientError::Refused(Box::new(Refusal {
            code,
            reason: String::new(),
            message: String::new(),
            decision: None,
            why: None,
            next: None,
            retry_after,
            violations: Vec::new(),
            help: Vec::new(),
            metadata: BTreeMap::new(),
        }))
    }

    fn check(error: ClientError, again: bool) {
        let text = format!("{error:?}");
        assert_eq!(Patience::new(Duration::from_secs(30)).next(&error).is_some(), again, "{text}");
    }

    #[test]
    fn only_what_is_safe_is_asked_again() {
        let second = Some(Duration::from_secs(1));
        check(refused(Code::Unavailable, second), true);
        check(refused(Code::Aborted, second), true);
        check(refused(Code::ResourceExhausted, second), true);
        check(refused(Code::Unavailable, None), false);
        check(refused(Code::ResourceExhausted, None), false);
        check(refused(Code::PermissionDenied, second), false);
        check(refused(Code::Unavailable, Some(Duration::from_secs(60))), false);
        check(ClientError::Broken("reset".into()), true);
        check(ClientError::Invalid("x".into()), false);
    }

    #[test]
    fn patience_ends() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        let tries =
            (0..100).take_while(|_| patience.next(&ClientError::Broken(String::new())).is_some()).count();
        assert_eq!(tries, 11);
    }

    #[test]
    fn a_quota_is_asked_a_few_times_and_not_before_it_said() {
        let mut patience = Patience::new(Duration::from_secs(3600));
        let delay = Duration::from_secs(2);
        let pauses: Vec<_> =
            (0..100).map_while(|_| patience.next(&refused(Code::ResourceExhausted, Some(delay)))).collect();
        assert_eq!(pauses.len(), 3);
        assert!(pauses.iter().all(|pause| *pause >= delay), "{pauses:?}");
        assert!(patience.next(&ClientError::Broken(String::new())).is_some(), "other tries are left");
    }

    #[test]
    fn a_pause_is_never_shorter_than_asked() {
        let second = Duration::from_secs(1);
        assert!((0..100).map(|_| jittered(second)).all(|pause| pause >= second && pause <= second * 3 / 2));
    }

    #[test]
    fn request_ids_differ_and_are_allowed() {
        let (one, two) = (request_id(), request_id());
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
    }
}
