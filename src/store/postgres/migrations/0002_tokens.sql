-- The key that each bearer token first came with: digests of both. Nothing is kept past the end of the token.
CREATE TABLE leasehold.tokens (
    token text COLLATE "C" PRIMARY KEY,
    key   text NOT NULL,
    until bigint NOT NULL
);

CREATE INDEX tokens_until ON leasehold.tokens (until);
