-- A session that outlived its principal is known by its handle alone: whether it was one of ours, revoked a short while
-- ago, is asked by that.
CREATE INDEX leases_revoked_handle ON leases (handle) WHERE revoked_at IS NOT NULL;
