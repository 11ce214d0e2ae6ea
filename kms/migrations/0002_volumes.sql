-- Layered stores: a volume holds a disk's data and its snapshots, and outlives the disk as long as they are needed.
--
-- SQLite cannot change a CHECK or a reference of a table, so four tables are made anew. Those that refer to others go
-- first, so that no reference dangles at any time.

DROP TRIGGER disks_keep_encryption;
DROP INDEX disks_path;
DROP INDEX attachments_socket;
DROP INDEX attachments_instance;
ALTER TABLE intents RENAME TO old_intents;
ALTER TABLE attachments RENAME TO old_attachments;
ALTER TABLE disks RENAME TO old_disks;
ALTER TABLE usage RENAME TO old_usage;

-- The file or device with a disk's data. Its id is that of the disk that it was made for.
CREATE TABLE volumes (
    id        TEXT PRIMARY KEY,
    account   TEXT    NOT NULL REFERENCES accounts (id),
    encrypted INTEGER NOT NULL CHECK (encrypted IN (0, 1)),
    size      INTEGER NOT NULL CHECK (size > 0 AND size % 512 = 0),
    store     TEXT    NOT NULL CHECK (store IN ('raw', 'layered')),
    -- Null: disks/ID in the state directory, wherever that is.
    path      TEXT,
    -- JSON: what the store at the path was when it was made, so that no other file or device is ever served, emptied
    -- or removed in its place. Null: in the state directory, not made yet, or not known since the catalogue's restore.
    identity  TEXT,
    zone      TEXT    NOT NULL,
    lineage   TEXT REFERENCES lineages (id),
    -- A clone's: the snapshot that it reads what it has not written from. It is pinned in its store.
    base      TEXT REFERENCES snapshots (id),
    -- Whether catalogue and store have been compared since the catalogue was restored from a backup.
    compared  INTEGER NOT NULL DEFAULT 1 CHECK (compared IN (0, 1)),
    created   TEXT    NOT NULL,
    CHECK ((lineage IS NOT NULL) = encrypted),
    CHECK (base IS NULL OR store = 'layered')
) STRICT;
CREATE UNIQUE INDEX volumes_path ON volumes (path) WHERE path IS NOT NULL;
CREATE INDEX volumes_lineage ON volumes (lineage);
CREATE INDEX volumes_base ON volumes (base);

-- Rules D03 and S01: the encryption attribute never changes, and a volume's disk and snapshots have the same.
CREATE TRIGGER volumes_keep_encryption BEFORE UPDATE OF encrypted, lineage ON volumes
WHEN NEW.encrypted <> OLD.encrypted OR NEW.lineage IS NOT OLD.lineage
BEGIN
    SELECT RAISE(ABORT, 'the encryption attribute of a disk never changes (D03)');
END;

CREATE TABLE snapshots (
    id      TEXT PRIMARY KEY,
    account TEXT    NOT NULL REFERENCES accounts (id),
    volume  TEXT    NOT NULL REFERENCES volumes (id),
    name    TEXT    NOT NULL,
    -- hidden: it has been deleted, and clones still read it. error: its store does not have it.
    state   TEXT    NOT NULL CHECK (state IN ('creating', 'available', 'deleting', 'hidden', 'error')),
    -- Of the disk when it was taken.
    size    INTEGER NOT NULL CHECK (size > 0 AND size % 512 = 0),
    created TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshots_name ON snapshots (volume, name) WHERE state <> 'hidden';
CREATE INDEX snapshots_account ON snapshots (account, name);

CREATE TABLE disks (
    id      TEXT PRIMARY KEY REFERENCES volumes (id),
    account TEXT    NOT NULL REFERENCES accounts (id),
    name    TEXT    NOT NULL,
    state   TEXT    NOT NULL
            CHECK (state IN ('creating', 'available', 'attaching', 'in-use', 'detaching', 'rolling-back', 'resizing',
                             'error', 'error-resizing', 'deleting')),
    created TEXT    NOT NULL,
    UNIQUE (account, name)
) STRICT;

CREATE TABLE attachments (
    id           TEXT PRIMARY KEY,
    account      TEXT    NOT NULL REFERENCES accounts (id),
    disk         TEXT    NOT NULL UNIQUE REFERENCES disks (id),
    instance     TEXT    NOT NULL REFERENCES instances (id),
    queues       INTEGER NOT NULL,
    read_only    INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    -- Null: run/ID/vhost.sock in the state directory.
    socket       TEXT,
    socket_uid   INTEGER,
    socket_gid   INTEGER,
    socket_mode  INTEGER NOT NULL,
    -- Whether the KMS starts and restarts the backend.
    start        INTEGER NOT NULL CHECK (start IN (0, 1)),
    -- Number of the attachment, from which the backend's own uid follows.
    serial       INTEGER NOT NULL UNIQUE,
    -- SHA-256 of the token of the backend that serves, and of the one that is being started.
    token        BLOB,
    next_token   BLOB,
    created      TEXT    NOT NULL,
    -- Process that was last given the store: its number, its start in ticks after the boot, the boot's id.
    backend_pid   INTEGER,
    backend_start INTEGER,
    backend_boot  TEXT
) STRICT;
CREATE UNIQUE INDEX attachments_socket ON attachments (socket) WHERE socket IS NOT NULL;
CREATE INDEX attachments_instance ON attachments (instance);

-- An operation that was decided and charged and has not ended. Its id is also the operation's in the store.
CREATE TABLE intents (
    id         TEXT PRIMARY KEY,
    account    TEXT    NOT NULL REFERENCES accounts (id),
    call       TEXT    NOT NULL
               CHECK (call IN ('disk.create', 'disk.delete', 'attach', 'detach', 'snapshot.create', 'snapshot.delete',
                               'rollback', 'disk.reinit', 'disk.resize', 'disk.check')),
    -- The disk, or the volume whose disk has been deleted. One operation at a time.
    disk       TEXT    NOT NULL UNIQUE REFERENCES volumes (id),
    attachment TEXT REFERENCES attachments (id),
    snapshot   TEXT REFERENCES snapshots (id),
    -- The size asked for, in bytes.
    size       INTEGER,
    uid        INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    request    TEXT    NOT NULL,
    -- The service key, if this first use has made it: it goes again if the operation is undone.
    made_key   TEXT REFERENCES keys (id),
    -- What was charged, to be refunded.
    metered    TEXT CHECK (metered IN ('create', 'attach', 'detach', 'snapshot', 'rollback', 'reinit')),
    month      TEXT    NOT NULL,
    created    TEXT    NOT NULL
) STRICT;

CREATE TABLE usage (
    account TEXT    NOT NULL REFERENCES accounts (id),
    region  TEXT    NOT NULL,
    month   TEXT    NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('create', 'attach', 'detach', 'snapshot', 'rollback', 'reinit')),
    calls   INTEGER NOT NULL CHECK (calls >= 0),
    PRIMARY KEY (account, region, month, kind)
) STRICT;

INSERT INTO volumes (id, account, encrypted, size, store, path, identity, zone, lineage, created)
    SELECT id, account, encrypted, size, store, path, identity, zone, lineage, created FROM old_disks;
INSERT INTO disks (id, account, name, state, created)
    SELECT id, account, name, state, created FROM old_disks;
INSERT INTO attachments SELECT * FROM old_attachments;
INSERT INTO intents (id, account, call, disk, attachment, uid, pid, request, made_key, metered, month, created)
    SELECT id, account, call, disk, attachment, uid, pid, request, made_key, metered, month, created
    FROM old_intents ORDER BY rowid;
INSERT INTO usage SELECT * FROM old_usage;

DROP TABLE old_intents;
DROP TABLE old_attachments;
DROP TABLE old_disks;
DROP TABLE old_usage;
