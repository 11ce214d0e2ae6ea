-- A disk can be detached by force while another operation on it is under way, which its process does not answer: two intents
-- then. And processes that another supervisor starts have users of their own, too.

ALTER TABLE services ADD COLUMN own_user INTEGER NOT NULL DEFAULT 0 CHECK (own_user IN (0, 1));
-- Those that another supervisor starts were given the KMS's user, and keep it.
UPDATE services SET own_user = 1 WHERE start = 1;

ALTER TABLE intents RENAME TO old_intents;

CREATE TABLE intents (
    id         TEXT PRIMARY KEY,
    account    TEXT    NOT NULL REFERENCES accounts (id),
    call       TEXT    NOT NULL
               CHECK (call IN ('disk.create', 'disk.delete', 'attach', 'detach', 'snapshot.create', 'snapshot.delete',
                               'rollback', 'disk.reinit', 'disk.resize', 'disk.check')),
    -- The disk, or the volume whose disk has been deleted.
    disk       TEXT    NOT NULL REFERENCES volumes (id),
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

INSERT INTO intents SELECT id, account, call, disk, attachment, snapshot, size, uid, pid, request, made_key, metered, month,
                           created, charged
    FROM old_intents ORDER BY rowid;

DROP TABLE old_intents;

-- One operation at a time, and one that takes the disk away.
CREATE UNIQUE INDEX intents_disk ON intents (disk, (call = 'detach'));
