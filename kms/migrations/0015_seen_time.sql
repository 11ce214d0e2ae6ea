-- Time that was seen to pass, which no wall clock can change. All times in milliseconds.

CREATE TABLE clock (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    -- What passed under the eyes of this catalogue's daemons.
    seen       INTEGER NOT NULL CHECK (seen >= 0),
    -- Since 1970: what the wall clock said, unless that has just jumped.
    steady     INTEGER NOT NULL,
    -- How far the wall clock is from that, and of `seen`, since when.
    away       INTEGER NOT NULL,
    away_since INTEGER NOT NULL,
    -- When that was noted: the kernel's id of the boot, and the time since it.
    boot       TEXT    NOT NULL,
    boottime   INTEGER NOT NULL,
    -- The last jump of the wall clock in words, and of `seen`, when.
    jump       TEXT,
    jump_seen  INTEGER NOT NULL
) STRICT;

-- Rule K11: of `seen`, when the key may be destroyed. Null: its deletion was scheduled by a version that knew the day alone.
ALTER TABLE keys ADD COLUMN deletion_seen INTEGER;

-- Of `seen`, when the token was given.
ALTER TABLE tokens ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
DROP INDEX tokens_created;
