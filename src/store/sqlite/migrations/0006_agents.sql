-- What was applied to the registry of agents beside the config, and done to registrations since; by identity or pattern.
CREATE TABLE agents (
    who  TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
