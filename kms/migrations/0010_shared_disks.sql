-- Rule D09: disks that several instances have at once. A disk that is attached is served by one process, its service; its
-- attachments are the process's sessions, each on a socket of its own.
--
-- As in 0002, tables that refer to others go first.

ALTER TABLE disks ADD COLUMN shared INTEGER NOT NULL DEFAULT 0 CHECK (shared IN (0, 1) AND (shared = 0 OR role = 'data'));
CREATE TRIGGER disks_keep_shared BEFORE UPDATE OF shared ON disks
WHEN NEW.shared <> OLD.shared
BEGIN
    SELECT RAISE(ABORT, 'whether a disk is shared never changes (D09)');
END;

DROP INDEX attachments_socket;
DROP INDEX attachments_instance;
ALTER TABLE intents RENAME TO old_intents;
ALTER TABLE attachments RENAME TO old_attachments;

-- Comes with a disk's first attachment, and goes with its last.
CREATE TABLE services (
    -- That of the attachment that it came with: what its process claims, and the name of its runtime directory.
    id            TEXT PRIMARY KEY,
    disk          TEXT    NOT NULL UNIQUE REFERENCES disks (id),
    -- Whether the KMS starts and restarts the process.
    start         INTEGER NOT NULL CHECK (start IN (0, 1)),
    -- Number of the service, from which the process's own uid follows.
    serial        INTEGER NOT NULL UNIQUE,
    -- SHA-256 of the token of the process that serves, and of the one that is being started.
    token         BLOB,
    next_token    BLOB,
    -- Process that was last given the store: its number, its start in ticks after the boot, the boot's id.
    backend_pid   INTEGER,
    backend_start INTEGER,
    backend_boot  TEXT
) STRICT;

CREATE TABLE attachments (
    id           TEXT PRIMARY KEY,
    account      TEXT    NOT NULL REFERENCES accounts (id),
    disk         TEXT    NOT NULL REFERENCES disks (id),
    service      TEXT    NOT NULL REFERENCES services (id),
    instance     TEXT    NOT NULL REFERENCES instances (id),
    queues       INTEGER NOT NULL,
    read_only    INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    -- Null: run/ID/vhost.sock in the state directory.
    socket       TEXT,
    socket_uid   INTEGER,
    socket_gid   INTEGER,
    socket_mode  INTEGER NOT NULL,
    -- Their order.
    serial       INTEGER NOT NULL UNIQUE,
    created      TEXT    NOT NULL,
    UNIQUE (disk, instance)
) STRICT;
CREATE UNIQUE INDEX attachments_socket ON attachments (socket) WHERE socket IS NOT NULL;
CREATE INDEX attachments_instance ON attachments (instance);

CREATE TRIGGER attachments_are_shared BEFORE INSERT ON attachments
WHEN EXISTS (SELECT 1 FROM attachments WHERE disk = NEW.disk) AND NOT (SELECT shared FROM disks WHERE id = NEW.disk)
BEGIN
    SELECT RAISE(ABORT, 'a disk that is not shared has one attachment (D09)');
END;

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
    -- What was charged, to be refunded, and what was taken from the balance for it.
    metered    TEXT CHECK (metered IN ('create', 'attach', 'detach', 'snapshot', 'rollback', 'reinit')),
    month      TEXT    NOT NULL,
    created    TEXT    NOT NULL,
    charged    INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0)
) STRICT;

INSERT INTO services (id, disk, start, serial, token, next_token, backend_pid, backend_start, backend_boot)
    SELECT id, disk, start, serial, token, next_token, backend_pid, backend_start, backend_boot FROM old_attachments;
INSERT INTO attachments (id, account, disk, service, instance, queues, read_only, socket, socket_uid, socket_gid,
                         socket_mode, serial, created)
    SELECT id, account, disk, id, instance, queues, read_only, socket, socket_uid, socket_gid, socket_mode, serial, created
    FROM old_attachments;
INSERT INTO intents SELECT id, account, call, disk, attachment, snapshot, size, uid, pid, request, made_key, metered, month,
                           created, charged
    FROM old_intents ORDER BY rowid;

DROP TABLE old_intents;
DROP TABLE old_attachments;
