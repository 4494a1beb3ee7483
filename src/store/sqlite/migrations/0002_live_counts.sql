-- How many live leases an agent and a target have: quotas are compared with it in the transaction that writes a lease,
-- and counting rows there would cost as much as there are rows.
CREATE TABLE live_counts (
    holder TEXT NOT NULL PRIMARY KEY,
    leases INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO live_counts (holder, leases)
    SELECT 'agent:' || agent, count(*) FROM leases WHERE due IS NOT NULL GROUP BY agent
    UNION ALL
    SELECT 'target:' || target, count(*) FROM leases WHERE due IS NOT NULL GROUP BY target;

CREATE TRIGGER lease_begins AFTER INSERT ON leases WHEN NEW.due IS NOT NULL BEGIN
    INSERT INTO live_counts (holder, leases) VALUES ('agent:' || NEW.agent, 1), ('target:' || NEW.target, 1)
        ON CONFLICT (holder) DO UPDATE SET leases = leases + 1;
END;

CREATE TRIGGER lease_ends AFTER UPDATE OF due ON leases WHEN OLD.due IS NOT NULL AND NEW.due IS NULL BEGIN
    UPDATE live_counts SET leases = leases - 1 WHERE holder IN ('agent:' || NEW.agent, 'target:' || NEW.target);
END;

CREATE TRIGGER lease_returns AFTER UPDATE OF due ON leases WHEN OLD.due IS NULL AND NEW.due IS NOT NULL BEGIN
    INSERT INTO live_counts (holder, leases) VALUES ('agent:' || NEW.agent, 1), ('target:' || NEW.target, 1)
        ON CONFLICT (holder) DO UPDATE SET leases = leases + 1;
END;

CREATE TRIGGER lease_leaves AFTER DELETE ON leases WHEN OLD.due IS NOT NULL BEGIN
    UPDATE live_counts SET leases = leases - 1 WHERE holder IN ('agent:' || OLD.agent, 'target:' || OLD.target);
END;
