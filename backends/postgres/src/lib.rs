//! PostgreSQL as a target: one role per lease.
