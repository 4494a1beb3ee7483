-- Whose store this is: checked before anything else is read or written.
CREATE TABLE identity (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    broker TEXT NOT NULL,
    stamp  TEXT NOT NULL
) STRICT;

-- The body is the whole lease; every other column repeats what must be found, or acted on, without reading it.
-- `due` is null exactly where nothing can exist in the target any more, so `due IS NOT NULL` means live.
CREATE TABLE leases (
    id         TEXT NOT NULL PRIMARY KEY,
    task       TEXT NOT NULL,
    agent      TEXT NOT NULL,
    target     TEXT NOT NULL,
    principal  TEXT NOT NULL,
    handle     TEXT,
    state      TEXT NOT NULL,
    due        INTEGER,
    request_id TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    stuck      INTEGER NOT NULL,
    revoked_at INTEGER,
    body       TEXT NOT NULL
) STRICT;

CREATE INDEX leases_due ON leases (due, id) WHERE due IS NOT NULL;
CREATE INDEX leases_live ON leases (id) WHERE due IS NOT NULL;
CREATE INDEX leases_live_agent ON leases (agent, id) WHERE due IS NOT NULL;
CREATE INDEX leases_live_target ON leases (target, id) WHERE due IS NOT NULL;
CREATE INDEX leases_revoking ON leases (id) WHERE state = 'revoking';
CREATE INDEX leases_revoked ON leases (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX leases_request ON leases (task, request_id, attempt);
CREATE INDEX leases_agent ON leases (agent, id);

-- `due` is the deadline while open, 0 while ending and null afterwards.
CREATE TABLE tasks (
    id         TEXT NOT NULL PRIMARY KEY,
    agent      TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state      TEXT NOT NULL,
    due        INTEGER,
    version    INTEGER NOT NULL,
    opened_at  INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;

CREATE INDEX tasks_due ON tasks (due, id) WHERE due IS NOT NULL;
CREATE INDEX tasks_live ON tasks (id) WHERE due IS NOT NULL;
CREATE INDEX tasks_request ON tasks (agent, request_id, id);
CREATE INDEX tasks_agent ON tasks (agent, id);

CREATE TABLE task_refs (
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    task  TEXT NOT NULL,
    PRIMARY KEY (name, value, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
    id       TEXT NOT NULL PRIMARY KEY,
    selector TEXT NOT NULL,
    freezing INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT;

CREATE INDEX revocations_freezing ON revocations (selector, id) WHERE freezing = 1;

-- Tasks and leases have their versions in their own rows.
CREATE TABLE subjects (
    subject TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    digest  TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE numbers (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A table with row ids, since bodies are too long for the inner pages of a WITHOUT ROWID table. The row id also
-- gives the order of writing across chains.
CREATE TABLE journal (
    chain TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    task  TEXT,
    lease TEXT,
    body  BLOB NOT NULL,
    prev  BLOB NOT NULL,
    hash  BLOB NOT NULL,
    UNIQUE (chain, seq)
) STRICT;

CREATE INDEX journal_at ON journal (at);
CREATE INDEX journal_task ON journal (task) WHERE task IS NOT NULL;
CREATE INDEX journal_lease ON journal (lease) WHERE lease IS NOT NULL;
