//! What is counted as it happens, by the names under which monitoring finds it. Nothing is counted where nobody
//! listens for metrics.
//!
//! Labels are what operators wrote (targets), what this code wrote (methods, reasons, states), and nothing that a
//! caller can choose: a caller must not be able to make series.

use leasehold_law::lease::{Lease, LeaseState};
use leasehold_law::reason::Reason;
use metrics::{counter, histogram};
use tokio::time::Instant;
use tonic::Code;

/// Calls answered, by method and gRPC code.
pub const RPCS: &str = "leasehold_rpcs_total";
/// How long calls took until their answer began, by method.
pub const RPC_SECONDS: &str = "leasehold_rpc_seconds";
/// Calls refused, by reason.
pub const REFUSALS: &str = "leasehold_refusals_total";
/// Handshakes and tokens refused, by reason: by strangers, so that they are no calls.
pub const STRANGERS_REFUSED: &str = "leasehold_strangers_refused_total";
/// Leases that came into a state, by target and state.
pub const LEASES: &str = "leasehold_leases_total";
/// From the record that condemns a lease to the proof that it is dead, by target.
pub const REVOCATION_SECONDS: &str = "leasehold_revocation_seconds";
/// Leases that may be alive, by target.
pub const LEASES_LIVE: &str = "leasehold_leases_live";
/// Leases whose revocation has failed at least once, by target.
pub const LEASES_STUCK: &str = "leasehold_leases_stuck";
/// Leases that are being revoked or are due to be, by target and lane.
pub const LEASES_DUE: &str = "leasehold_leases_due";
/// How long a target has not answered its revocations; 0 while it does.
pub const UNREACHED_SECONDS: &str = "leasehold_target_unreached_seconds";
/// Tasks that are open.
pub const TASKS_OPEN: &str = "leasehold_tasks_open";
/// Freezes that stand.
pub const FREEZES: &str = "leasehold_freezes";
/// Whether the journal takes entries: 1 or 0.
pub const JOURNAL_UP: &str = "leasehold_journal_up";
/// How far the wall clock is behind the broker's, in seconds.
pub const CLOCK_BEHIND_SECONDS: &str = "leasehold_clock_behind_seconds";
/// The end of the broker's own SVID, in seconds since 1970; no handshake succeeds after it.
pub const IDENTITY_ENDS: &str = "leasehold_identity_not_after_timestamp_seconds";
/// How long something has been wrong with the broker's identity or its source, by what; 0 while nothing is.
pub const IDENTITY_TROUBLE_SECONDS: &str = "leasehold_identity_trouble_seconds";
/// When the last drill of a target began that has passed, in seconds since 1970; absent where none has.
pub const DRILL_PASSED_AT: &str = "leasehold_drill_passed_timestamp_seconds";
/// Whether the last drill of a target that came to its end has passed: 1 or 0; absent where none has come to its end.
pub const DRILL_PASSED: &str = "leasehold_drill_passed";
/// How long each step took that the last drill of a target has taken, by target and step.
pub const DRILL_STEP_SECONDS: &str = "leasehold_drill_step_seconds";
/// How many things need a person, as `leasehold status` lists them.
pub const NEEDS_PERSON: &str = "leasehold_needs_person";

/// A call under way.
pub struct Rpc(Instant);

impl Rpc {
    /// It begins.
    #[must_use]
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// It was answered. `method` is one that is served: a caller's own words would make a series of each.
    pub fn answered(self, method: &'static str, code: Code) {
        counter!(RPCS, "method" => method, "code" => spelled(code)).increment(1);
        histogram!(RPC_SECONDS, "method" => method).record(self.0.elapsed().as_secs_f64());
    }
}

/// A code as gRPC writes it.
const fn spelled(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A call was refused.
pub fn refused(reason: Reason) {
    counter!(REFUSALS, "reason" => reason.text()).increment(1);
}

/// A stranger was refused.
pub fn turned_away(reason: &'static str) {
    counter!(STRANGERS_REFUSED, "reason" => reason).increment(1);
}

/// A lease moved. A step that leaves it in its state, such as one more try, is not counted.
pub fn moved(before: Option<&LeaseState>, after: &Lease) {
    let target = || after.terms.pair.target.clone();
    if before.map(LeaseState::name) != Some(after.state.name()) {
        counter!(LEASES, "target" => target(), "state" => after.state.name()).increment(1);
    }
    if let (Some(LeaseState::Revoking { progress, .. }), LeaseState::Revoked { at, .. }) =
        (before, &after.state)
    {
        let took = at.since(progress.since).as_duration().as_secs_f64();
        histogram!(REVOCATION_SECONDS, "target" => target()).record(took);
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::store::suite::samples::minting;

    #[test]
    fn one_more_try_is_no_new_state() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let lease = minting(1, 1);
        with_local_recorder(&recorder, || {
            moved(None, &lease);
            moved(Some(&lease.state), &lease);
        });
        let text = recorder.handle().render();
        let line = text.lines().find(|line| line.starts_with(LEASES)).unwrap_or_default();
        assert!(line.contains("state=\"minting\"") && line.ends_with(" 1"), "{text}");
    }
}
