-- The key that each bearer token first came with: digests of both. Nothing is kept past the end of the token.
CREATE TABLE tokens (
    token TEXT PRIMARY KEY,
    key   TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE INDEX tokens_until ON tokens (until);
