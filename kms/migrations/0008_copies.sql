-- Copies of a disk's data, which may take hours and go on after a crash (rule D04). Their ids are also those of
-- operations in stores.

-- Whether the disk may hold data: it was attached for writing, made from a snapshot, or copied to.
ALTER TABLE volumes ADD COLUMN written INTEGER NOT NULL DEFAULT 0 CHECK (written IN (0, 1));
UPDATE volumes SET written = 1;

CREATE TABLE copies (
    id          TEXT PRIMARY KEY,
    account     TEXT    NOT NULL REFERENCES accounts (id),
    -- As in the audit log.
    call        TEXT    NOT NULL,
    -- Only while it goes on nothing else is done with either volume. What has ended is kept to be shown.
    source      TEXT REFERENCES volumes (id) ON DELETE SET NULL,
    destination TEXT UNIQUE REFERENCES volumes (id) ON DELETE CASCADE,
    -- In place of the one or the other, a file that is no volume's.
    file        TEXT,
    -- JSON, as in volumes: which file that is. Its bytes of data.
    identity    TEXT,
    size        INTEGER CHECK (size > 0),
    phase       TEXT    NOT NULL CHECK (phase IN ('copy', 'verify', 'done', 'failed', 'cancelled')),
    -- Bytes of which this phase is done for good, and of which it is to be done.
    position    INTEGER NOT NULL CHECK (position >= 0),
    total       INTEGER NOT NULL CHECK (total >= 0),
    -- Whether the destination reads zeros wherever this copy has not written.
    clean       INTEGER NOT NULL CHECK (clean IN (0, 1)),
    -- Whether the destination has yet to be made empty.
    unprepared  INTEGER NOT NULL CHECK (unprepared IN (0, 1)),
    -- Why it has failed, or does not go on for the moment.
    trouble     TEXT,
    uid         INTEGER NOT NULL,
    pid         INTEGER NOT NULL,
    request     TEXT    NOT NULL,
    created     TEXT    NOT NULL
) STRICT;
CREATE INDEX copies_source ON copies (source);

-- Rule I03: a backup is a volume without a disk, of the same id.
CREATE TABLE backups (
    id        TEXT PRIMARY KEY REFERENCES volumes (id),
    account   TEXT NOT NULL REFERENCES accounts (id),
    name      TEXT NOT NULL,
    -- What it is of: id and name that the disk had.
    disk      TEXT NOT NULL,
    disk_name TEXT NOT NULL,
    created   TEXT NOT NULL,
    UNIQUE (account, name)
) STRICT;
