-- What was set aside, with its bytes: rows that cannot be read, and principals that no row explains. `due` is null
-- where nothing of it can be alive; `target` is empty where there is none, and of a revocation what it selects.
CREATE TABLE set_aside (
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    task       TEXT NOT NULL,
    target     TEXT NOT NULL,
    principal  TEXT NOT NULL,
    handle     TEXT,
    bytes      BLOB NOT NULL,
    error      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    due        INTEGER,
    tries      INTEGER NOT NULL,
    last_error TEXT,
    gone_at    INTEGER,
    PRIMARY KEY (kind, id, target)
) STRICT;

CREATE INDEX set_aside_due ON set_aside (due) WHERE due IS NOT NULL;
CREATE INDEX set_aside_gone ON set_aside (handle) WHERE gone_at IS NOT NULL;
