//! Brokers killed while the target's question or answer is on the wire: whether it was done, nobody knows.

use std::sync::LazyLock;

use leasehold_proto::v1::Cause;

use crate::crash::{Act, Crash, Crashes, Place, Then, crashes};
use crate::proxy::Hold::{Answer, Question};

const MINT: &str = "SCRAM-SHA-256$";
const RENEWAL: &str = "SELECT pg_temp.renew(";
const DISABLE: &str = " NOLOGIN";
const DROP: &str = "DROP ROLE ";

crashes! {
    before_the_role_is_created: Issue, Place::Wire(Question(MINT)), Then::NeverMinted(Cause::CrashRecovery);
    after_the_role_is_created: Issue, Place::Wire(Answer(MINT)), Then::Dead(Cause::CrashRecovery);
    the_mint_lands_after_its_broker_died: Issue, Place::Late(MINT), Then::Dead(Cause::CrashRecovery);
    the_mint_lands_after_it_was_called_dead: Issue, Place::TooLate(MINT), Then::NeverMinted(Cause::CrashRecovery);
    before_the_end_is_moved: Renew, Place::Wire(Question(RENEWAL)), Then::Alive(10);
    after_the_end_is_moved: Renew, Place::Wire(Answer(RENEWAL)), Then::Alive(20);
    before_a_released_role_is_disabled: Release, Place::Wire(Question(DISABLE)), Then::Dead(Cause::Released);
    after_a_released_role_is_disabled: Release, Place::Wire(Answer(DISABLE)), Then::Dead(Cause::Released);
    before_a_released_role_is_dropped: Release, Place::Wire(Question(DROP)), Then::Dead(Cause::Released);
    after_a_released_role_is_dropped: Release, Place::Wire(Answer(DROP)), Then::Dead(Cause::Released);
    before_a_revoked_role_is_disabled: Revoke, Place::Wire(Question(DISABLE)), Then::Dead(Cause::Operator);
    after_a_revoked_role_is_dropped: Revoke, Place::Wire(Answer(DROP)), Then::Dead(Cause::Operator);
    before_a_role_out_of_scope_is_disabled: Narrow, Place::Wire(Question(DISABLE)), Then::Dead(Cause::ScopeChanged);
    after_a_role_out_of_scope_is_dropped: Narrow, Place::Wire(Answer(DROP)), Then::Dead(Cause::ScopeChanged);
    before_the_role_of_an_ended_task_is_disabled: Complete, Place::Wire(Question(DISABLE)), Then::Dead(Cause::TaskCompleted);
    after_the_role_of_an_ended_task_is_disabled: Complete, Place::Wire(Answer(DISABLE)), Then::Dead(Cause::TaskCompleted);
    before_the_role_of_an_ended_task_is_dropped: Complete, Place::Wire(Question(DROP)), Then::Dead(Cause::TaskCompleted);
    after_the_role_of_an_ended_task_is_dropped: Complete, Place::Wire(Answer(DROP)), Then::Dead(Cause::TaskCompleted);
}
