-- Snapshots that are taken by plan.

CREATE TABLE snapshot_schedules (
    id           TEXT PRIMARY KEY,
    -- A disk has one. While it is in the bin, nothing is taken.
    disk         TEXT    NOT NULL UNIQUE REFERENCES volumes (id) ON DELETE CASCADE,
    account      TEXT    NOT NULL REFERENCES accounts (id),
    -- What its snapshots' names begin with.
    name         TEXT    NOT NULL,
    -- Milliseconds from one to the next.
    every        INTEGER NOT NULL CHECK (every > 0),
    keep         INTEGER NOT NULL CHECK (keep > 0),
    -- Who has made it.
    uid          INTEGER NOT NULL,
    created      TEXT    NOT NULL,
    -- When the next one is due: by the wall clock as it was when that was decided, and of the time that was seen to pass.
    due          TEXT    NOT NULL,
    due_seen     INTEGER NOT NULL,
    -- When the last one was taken.
    last         TEXT,
    -- Why the last attempt failed, in words, if it did.
    error        TEXT
) STRICT;
CREATE INDEX snapshot_schedules_of_account ON snapshot_schedules (account, id);
CREATE INDEX snapshot_schedules_by_time ON snapshot_schedules (due_seen);
CREATE INDEX snapshot_schedules_failing ON snapshot_schedules (account) WHERE error IS NOT NULL;

ALTER TABLE snapshots ADD COLUMN schedule TEXT REFERENCES snapshot_schedules (id) ON DELETE SET NULL;
-- In the order in which they were taken, whatever the wall clock said: that of their rows.
CREATE INDEX snapshots_of_schedule ON snapshots (schedule) WHERE schedule IS NOT NULL;
