-- Whose store this is: checked before anything else is read or written. Several brokers of one installation share it.
CREATE TABLE leasehold.identity (
    one          integer PRIMARY KEY CHECK (one = 1),
    installation text NOT NULL,
    stamp        text NOT NULL
);

-- Who writes. A connection that writes has taken the next fence; every transaction compares it, so that whoever was
-- paused cannot write on top of a successor. `holder` is the process that has the name, null once it was let go.
CREATE TABLE leasehold.brokers (
    name          text COLLATE "C" PRIMARY KEY,
    chain         text COLLATE "C" NOT NULL,
    fence         bigint NOT NULL,
    holder        text,
    pid           integer,
    backend_start timestamptz,
    seen_at       timestamptz NOT NULL
);

-- Which tasks each broker has heard from, and how many milliseconds before `at`. One row a broker.
CREATE TABLE leasehold.heard (
    broker text COLLATE "C" PRIMARY KEY,
    at     timestamptz NOT NULL,
    tasks  text[] NOT NULL,
    ages   bigint[] NOT NULL
);

-- The body is the whole lease; every other column repeats what must be found, or acted on, without reading it.
-- `due` is null exactly where nothing can exist in the target any more, so `due IS NOT NULL` means live.
-- Collation "C" throughout: ids sort by their bytes, and so by time, whatever the database's own language is.
CREATE TABLE leasehold.leases (
    id            text COLLATE "C" PRIMARY KEY,
    task          text COLLATE "C" NOT NULL,
    agent         text COLLATE "C" NOT NULL,
    target        text COLLATE "C" NOT NULL,
    principal     text COLLATE "C" NOT NULL,
    handle        text,
    state         text COLLATE "C" NOT NULL,
    due           bigint,
    request_id    text COLLATE "C" NOT NULL,
    attempt       bigint NOT NULL,
    version       bigint NOT NULL,
    created_at    bigint NOT NULL,
    stuck         boolean NOT NULL,
    revoked_at    bigint,
    body          text NOT NULL,
    lane          bigint NOT NULL,
    intent        text COLLATE "C" NOT NULL,
    claimed_by    text COLLATE "C",
    claimed_until timestamptz
);

-- What is due is found by target and lane, so that no target hides another and no storm of expiries a kill: 2 is
-- security, 1 the end of a task, 0 what would have ended by itself.
CREATE INDEX leases_due ON leasehold.leases (target, lane, due, id) WHERE due IS NOT NULL;
CREATE INDEX leases_live ON leasehold.leases (id) WHERE due IS NOT NULL;
CREATE INDEX leases_live_agent ON leasehold.leases (agent, id) WHERE due IS NOT NULL;
CREATE INDEX leases_live_target ON leasehold.leases (target, id) WHERE due IS NOT NULL;
CREATE INDEX leases_revoking ON leasehold.leases (id) WHERE state = 'revoking';
CREATE INDEX leases_revoked ON leasehold.leases (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX leases_revoked_handle ON leasehold.leases (handle) WHERE revoked_at IS NOT NULL;
CREATE INDEX leases_agent ON leasehold.leases (agent, id);
CREATE INDEX leases_claimed ON leasehold.leases (claimed_by) WHERE claimed_by IS NOT NULL AND due IS NOT NULL;
-- One attempt at a time, whichever brokers work on them (RULES R-5). A dead lease that is found alive goes straight to
-- `revoking`, so that the second index never stands in the way of a revocation.
CREATE UNIQUE INDEX leases_request ON leasehold.leases (task, request_id, attempt);
CREATE UNIQUE INDEX leases_usable ON leasehold.leases (task, request_id)
    WHERE state IN ('minting', 'active', 'renewing');

-- How many live leases an agent and a target have, as the sum over brokers of what each has added and taken away: quotas
-- are compared with it in the transaction that writes a lease.
CREATE TABLE leasehold.live_counts (
    holder text COLLATE "C" NOT NULL,
    broker text COLLATE "C" NOT NULL,
    leases bigint NOT NULL,
    PRIMARY KEY (holder, broker)
);

-- `due` is the deadline while open, 0 while ending and null afterwards.
CREATE TABLE leasehold.tasks (
    id            text COLLATE "C" PRIMARY KEY,
    agent         text COLLATE "C" NOT NULL,
    request_id    text COLLATE "C" NOT NULL,
    state         text COLLATE "C" NOT NULL,
    due           bigint,
    version       bigint NOT NULL,
    opened_at     bigint NOT NULL,
    body          text NOT NULL,
    claimed_by    text COLLATE "C",
    claimed_until timestamptz
);

CREATE INDEX tasks_due ON leasehold.tasks (due, id) WHERE due IS NOT NULL;
CREATE INDEX tasks_live ON leasehold.tasks (id) WHERE due IS NOT NULL;
CREATE INDEX tasks_agent ON leasehold.tasks (agent, id);
CREATE INDEX tasks_claimed ON leasehold.tasks (claimed_by) WHERE claimed_by IS NOT NULL AND due IS NOT NULL;
CREATE UNIQUE INDEX tasks_request ON leasehold.tasks (agent, request_id);

CREATE TABLE leasehold.task_refs (
    name  text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    task  text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, value, task)
);

CREATE TABLE leasehold.revocations (
    id       text COLLATE "C" PRIMARY KEY,
    selector text COLLATE "C" NOT NULL,
    freezing boolean NOT NULL,
    body     text NOT NULL
);

-- All barriers that stand are read together.
CREATE INDEX revocations_freezing ON leasehold.revocations (id) WHERE freezing;

-- What was set aside, with its bytes: rows that cannot be read, and principals that no row explains. `due` is null
-- where nothing of it can be alive; `target` is empty where there is none, and of a revocation what it selects.
CREATE TABLE leasehold.set_aside (
    kind       text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    task       text COLLATE "C" NOT NULL,
    target     text COLLATE "C" NOT NULL,
    principal  text COLLATE "C" NOT NULL,
    handle     text,
    bytes      bytea NOT NULL,
    error      text NOT NULL,
    at         bigint NOT NULL,
    due        bigint,
    tries      bigint NOT NULL,
    last_error text,
    gone_at    bigint,
    PRIMARY KEY (kind, id, target)
);

CREATE INDEX set_aside_due ON leasehold.set_aside (due) WHERE due IS NOT NULL;
CREATE INDEX set_aside_gone ON leasehold.set_aside (handle) WHERE gone_at IS NOT NULL;

-- Tasks and leases have their versions in their own rows.
CREATE TABLE leasehold.subjects (
    subject text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    digest  text
);

CREATE TABLE leasehold.numbers (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- One chain a broker, each in the order of its `seq`. `id` gives an order across chains that is nearly that of
-- writing: it is drawn before the commit.
CREATE TABLE leasehold.journal (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain text COLLATE "C" NOT NULL,
    seq   bigint NOT NULL,
    at    bigint NOT NULL,
    task  text COLLATE "C",
    lease text COLLATE "C",
    body  bytea NOT NULL,
    prev  bytea NOT NULL,
    hash  bytea NOT NULL
);

CREATE UNIQUE INDEX journal_chain ON leasehold.journal (chain, seq);
CREATE INDEX journal_at ON leasehold.journal (at, id);
CREATE INDEX journal_task ON leasehold.journal (task, id) WHERE task IS NOT NULL;
