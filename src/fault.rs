//! Fault points: named places on the road at which a crash test ends the process, as `kill -9` would.
//!
//! With the feature `fault-points`, the point that `LEASEHOLD_FAULT_POINT` names ends the process. Without it, as in
//! every binary that is shipped, a point is no code at all.

/// A place on the road where a crash leaves the most behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The mint is on record, and the target knows of nothing.
    MintRecorded,
    /// The target has minted, and only this process knows.
    Minted,
    /// The lease is active, and nobody has its credential.
    Activated,
    /// The renewal is on record, and the target knows of nothing.
    RenewalRecorded,
    /// The target has renewed, and only this process knows.
    Renewed,
    /// The renewal is done, and nobody has heard.
    RenewalSettled,
    /// A lease is condemned, and nobody has begun to kill it.
    Condemned,
    /// A task and its leases are condemned, and nobody has begun to kill them.
    TaskCondemned,
    /// The target has killed, and only this process knows.
    Killed,
    /// The deaths are on record, and their task is not ended.
    DeathsRecorded,
    /// A barrier stands, and the leases behind it are not listed.
    BarrierRaised,
    /// The leases behind a barrier are listed, and none is condemned.
    TakenListed,
}

/// Passes a point.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub(crate) const fn point(_: Point) {}

/// Passes a point, or ends here.
#[cfg(feature = "fault-points")]
pub(crate) fn point(point: Point) {
    use rustix::process::{Signal, getpid, kill_process};
    if std::env::var("LEASEHOLD_FAULT_POINT").is_ok_and(|wanted| wanted == format!("{point:?}")) {
        // No handler runs and nothing is flushed. Should the kernel refuse, abort is the next best.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
}
