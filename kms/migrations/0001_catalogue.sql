-- The catalogue of one state directory. Times are RFC 3339 in UTC, sizes are bytes.
-- Wrapped keys are the blobs of the envelope; no other form of a key is ever here.

CREATE TABLE meta (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    catalogue   TEXT    NOT NULL,
    region      TEXT    NOT NULL,
    zone        TEXT    NOT NULL,
    profile     TEXT    NOT NULL,
    key_check   BLOB    NOT NULL,
    next_serial INTEGER NOT NULL DEFAULT 0,
    created     TEXT    NOT NULL
) STRICT;

CREATE TABLE accounts (
    id        TEXT PRIMARY KEY,
    activated TEXT,
    created   TEXT NOT NULL
) STRICT;

CREATE TABLE principals (
    uid     INTEGER PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id)
) STRICT;

CREATE TABLE roles (
    uid  INTEGER NOT NULL REFERENCES principals (uid),
    role TEXT    NOT NULL CHECK (role IN ('admin', 'security-administrator', 'operator', 'auditor')),
    PRIMARY KEY (uid, role)
) STRICT;

CREATE TABLE keys (
    id      TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id),
    region  TEXT NOT NULL,
    name    TEXT NOT NULL,
    origin  TEXT NOT NULL CHECK (origin IN ('service', 'customer', 'imported')),
    state   TEXT NOT NULL
            CHECK (state IN ('Enabled', 'Disabled', 'PendingImport', 'PendingDeletion', 'Destroyed')),
    created TEXT NOT NULL,
    UNIQUE (account, name)
) STRICT;

-- Rule K03: one service key for each account and region, however many calls come first.
CREATE UNIQUE INDEX one_service_key ON keys (account, region) WHERE origin = 'service';

CREATE TABLE key_versions (
    key     TEXT    NOT NULL REFERENCES keys (id),
    version INTEGER NOT NULL CHECK (version > 0),
    wrapped BLOB    NOT NULL,
    created TEXT    NOT NULL,
    PRIMARY KEY (key, version)
) STRICT;

CREATE TABLE lineages (
    id           TEXT PRIMARY KEY,
    account      TEXT    NOT NULL REFERENCES accounts (id),
    key          TEXT    NOT NULL,
    key_version  INTEGER NOT NULL,
    wrapped_key  BLOB    NOT NULL,
    wrapped_salt BLOB    NOT NULL,
    created      TEXT    NOT NULL,
    FOREIGN KEY (key, key_version) REFERENCES key_versions (key, version)
) STRICT;
CREATE INDEX lineages_of_key ON lineages (key);

CREATE TABLE disks (
    id        TEXT PRIMARY KEY,
    account   TEXT    NOT NULL REFERENCES accounts (id),
    name      TEXT    NOT NULL,
    state     TEXT    NOT NULL
              CHECK (state IN ('creating', 'available', 'attaching', 'in-use', 'detaching', 'error', 'deleting')),
    encrypted INTEGER NOT NULL CHECK (encrypted IN (0, 1)),
    size      INTEGER NOT NULL CHECK (size > 0 AND size % 512 = 0),
    store     TEXT    NOT NULL CHECK (store IN ('raw')),
    -- Null: disks/ID in the state directory, wherever that is.
    path      TEXT,
    -- JSON: what the store at the path was when it was made, so that no other file or device is ever served, emptied
    -- or removed in its place. Null: in the state directory, not made yet, or not known since the catalogue's restore.
    identity  TEXT,
    zone      TEXT    NOT NULL,
    lineage   TEXT REFERENCES lineages (id),
    created   TEXT    NOT NULL,
    UNIQUE (account, name),
    CHECK ((lineage IS NOT NULL) = encrypted)
) STRICT;
CREATE UNIQUE INDEX disks_path ON disks (path) WHERE path IS NOT NULL;

-- Rule D03: the encryption attribute never changes.
CREATE TRIGGER disks_keep_encryption BEFORE UPDATE OF encrypted, lineage ON disks
WHEN NEW.encrypted <> OLD.encrypted OR NEW.lineage IS NOT OLD.lineage
BEGIN
    SELECT RAISE(ABORT, 'the encryption attribute of a disk never changes (D03)');
END;

CREATE TABLE instances (
    id            TEXT PRIMARY KEY,
    account       TEXT    NOT NULL REFERENCES accounts (id),
    name          TEXT    NOT NULL,
    zone          TEXT    NOT NULL,
    local_storage INTEGER NOT NULL CHECK (local_storage IN (0, 1)),
    bare_metal    INTEGER NOT NULL CHECK (bare_metal IN (0, 1)),
    created       TEXT    NOT NULL,
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

-- An operation that was decided and charged and has not ended: finished or undone at the next start.
CREATE TABLE intents (
    id         TEXT PRIMARY KEY,
    account    TEXT    NOT NULL REFERENCES accounts (id),
    call       TEXT    NOT NULL CHECK (call IN ('disk.create', 'disk.delete', 'attach', 'detach')),
    disk       TEXT    NOT NULL UNIQUE REFERENCES disks (id),
    attachment TEXT REFERENCES attachments (id),
    uid        INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    request    TEXT    NOT NULL,
    -- The service key, if this first use has made it: it goes again if the operation is undone.
    made_key   TEXT REFERENCES keys (id),
    -- What was charged, to be refunded.
    metered    TEXT CHECK (metered IN ('create', 'attach', 'detach')),
    month      TEXT    NOT NULL,
    created    TEXT    NOT NULL
) STRICT;

CREATE TABLE usage (
    account TEXT    NOT NULL REFERENCES accounts (id),
    region  TEXT    NOT NULL,
    month   TEXT    NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('create', 'attach', 'detach')),
    calls   INTEGER NOT NULL CHECK (calls >= 0),
    PRIMARY KEY (account, region, month, kind)
) STRICT;

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    time     TEXT    NOT NULL,
    account  TEXT    NOT NULL,
    uid      INTEGER NOT NULL,
    pid      INTEGER NOT NULL,
    request  TEXT    NOT NULL,
    call     TEXT    NOT NULL,
    object   TEXT    NOT NULL,
    decision TEXT    NOT NULL CHECK (decision IN ('allowed', 'refused', 'failed')),
    rule     TEXT,
    code     TEXT,
    hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Rule M04: append-only.
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only (M04)');
END;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only (M04)');
END;

-- Tells our files from other SQLite files: "seal" in ASCII.
PRAGMA application_id = 1936023916;
