//! Brokers killed between two steps of their own: built with the feature `fault-points` alone.

use std::sync::LazyLock;

use leasehold_proto::v1::Cause;

use crate::crash::{Act, Crash, Crashes, Place::Point, Then, crashes};

crashes! {
    the_mint_is_on_record: Issue, Point("MintRecorded"), Then::NeverMinted(Cause::CrashRecovery);
    the_role_is_minted: Issue, Point("Minted"), Then::Dead(Cause::CrashRecovery);
    the_lease_is_active: Issue, Point("Activated"), Then::Alive(10);
    the_renewal_is_on_record: Renew, Point("RenewalRecorded"), Then::Alive(10);
    the_role_is_renewed: Renew, Point("Renewed"), Then::Alive(20);
    the_renewal_is_settled: Renew, Point("RenewalSettled"), Then::Alive(20);
    a_released_lease_is_condemned: Release, Point("Condemned"), Then::Dead(Cause::Released);
    a_released_role_is_killed: Release, Point("Killed"), Then::Dead(Cause::Released);
    a_released_role_s_death_is_on_record: Release, Point("DeathsRecorded"), Then::Dead(Cause::Released);
    a_barrier_is_raised: Revoke, Point("BarrierRaised"), Then::Dead(Cause::Operator);
    what_is_behind_a_barrier_is_listed: Revoke, Point("TakenListed"), Then::Dead(Cause::Operator);
    a_revoked_lease_is_condemned: Revoke, Point("Condemned"), Then::Dead(Cause::Operator);
    a_revoked_role_is_killed: Revoke, Point("Killed"), Then::Dead(Cause::Operator);
    a_task_is_condemned: Complete, Point("TaskCondemned"), Then::Dead(Cause::TaskCompleted);
    the_role_of_an_ended_task_is_killed: Complete, Point("Killed"), Then::Dead(Cause::TaskCompleted);
    the_death_of_an_ended_task_s_role_is_on_record: Complete, Point("DeathsRecorded"), Then::Dead(Cause::TaskCompleted);
}
