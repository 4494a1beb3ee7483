-- What was applied to the registry of agents beside the config, and done to registrations since; by identity or pattern.
CREATE TABLE leasehold.agents (
    who  text COLLATE "C" PRIMARY KEY,
    body text NOT NULL
);
