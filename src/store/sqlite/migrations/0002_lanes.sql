-- What is due is found by target and lane, so that no target hides another and no storm of expiries a kill: 2 is
-- security, 1 the end of a task, 0 what would have ended by itself.
ALTER TABLE leases ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN intent TEXT NOT NULL DEFAULT '';

-- A row that cannot be read and is being revoked goes first.
UPDATE leases SET lane = CASE
    WHEN state IN ('minting', 'renewing') THEN 1
    WHEN state <> 'revoking' THEN 0
    WHEN NOT json_valid(body) THEN 2
    WHEN json_extract(body, '$.state.progress.cause') IN ('expired', 'released') THEN 0
    WHEN json_extract(body, '$.state.progress.cause') IN ('task_completed', 'task_aborted', 'task_lost',
        'task_expired', 'scope_changed', 'policy_changed', 'parent_ended', 'superseded', 'undelivered', 'mint_failed',
        'crash_recovery', 'principal_missing', 'break_glass_ended', 'drill') THEN 1
    ELSE 2 END
    WHERE due IS NOT NULL;
UPDATE leases SET intent = json_extract(body, '$.terms.pair.intent')
    WHERE json_valid(body) AND json_extract(body, '$.terms.pair.intent') IS NOT NULL;

DROP INDEX leases_due;
CREATE INDEX leases_due ON leases (target, lane, due, id) WHERE due IS NOT NULL;

-- The entries of a lease are read with those of its task.
DROP INDEX journal_lease;

-- All barriers that stand are read together.
DROP INDEX revocations_freezing;
CREATE INDEX revocations_freezing ON revocations (id) WHERE freezing = 1;
