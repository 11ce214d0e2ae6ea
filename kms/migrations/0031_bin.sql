-- Rule K14: the bin. A disk in it is in no list but its own, its name is free, and its volume and its key are needed.
--
-- The view and triggers name other tables: a migration that makes one of these anew drops them first.

CREATE TABLE bin (
    id           TEXT PRIMARY KEY REFERENCES volumes (id),
    account      TEXT    NOT NULL REFERENCES accounts (id),
    -- As in `disks`, to which it goes back.
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('available', 'error', 'error-resizing')),
    shared       INTEGER NOT NULL CHECK (shared IN (0, 1)),
    on_full      TEXT    NOT NULL CHECK (on_full IN ('error', 'stop')),
    created      TEXT    NOT NULL,
    deleted      TEXT    NOT NULL,
    -- Days that were promised.
    days         INTEGER NOT NULL CHECK (days > 0),
    -- When it leaves the bin: by the wall clock as it was when the disk was deleted, and of the time that was seen to pass.
    removal      TEXT    NOT NULL,
    removal_seen INTEGER NOT NULL,
    -- Bytes that its file took when it was deleted; 0 where that was not known.
    allocated    INTEGER NOT NULL CHECK (allocated >= 0)
) STRICT;
CREATE INDEX bin_of_account ON bin (account, id, allocated);
CREATE INDEX bin_by_name ON bin (account, name);
CREATE INDEX bin_by_removal ON bin (removal_seen);

DROP VIEW unneeded;
CREATE VIEW unneeded AS
    SELECT id FROM volumes
    WHERE NOT EXISTS (SELECT 1 FROM disks WHERE disks.id = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM bin WHERE bin.id = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM backups WHERE backups.id = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.volume = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM intents WHERE intents.disk = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM copies WHERE copies.source = volumes.id AND phase IN ('copy', 'verify'))
      AND NOT EXISTS (SELECT 1 FROM copies WHERE copies.destination = volumes.id AND phase IN ('copy', 'verify'));
CREATE TRIGGER bin_release AFTER DELETE ON bin
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id = OLD.id;
END;

CREATE TRIGGER bin_protected AFTER INSERT ON bin
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'disk' FROM volume_keys WHERE volume = NEW.id;
END;
CREATE TRIGGER bin_protected_no_more AFTER DELETE ON bin
BEGIN
    DELETE FROM protected WHERE key = (SELECT key FROM volume_keys WHERE volume = OLD.id) AND id = OLD.id;
END;
