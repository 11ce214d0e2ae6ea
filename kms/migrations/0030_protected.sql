-- What a key protects is found by the key, in the order of ids, and is counted when it comes and goes: neither a page of it nor
-- its number is longer in coming where a key protects 100,000 objects.
--
-- The views and triggers name other tables: a migration that makes one of these anew drops them first.

-- Every object whose data cannot be read without the key. A snapshot that is hidden and an image that is being deleted are
-- there for nobody.
CREATE TABLE protected (
    key  TEXT NOT NULL REFERENCES keys (id),
    id   TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('disk', 'snapshot', 'image', 'backup')),
    PRIMARY KEY (key, id)
) STRICT, WITHOUT ROWID;

-- How many of them there are, how many are disks, and how many of these are attached.
ALTER TABLE keys ADD COLUMN protected INTEGER NOT NULL DEFAULT 0 CHECK (protected >= 0);
ALTER TABLE keys ADD COLUMN disks INTEGER NOT NULL DEFAULT 0 CHECK (disks >= 0);
ALTER TABLE keys ADD COLUMN attached INTEGER NOT NULL DEFAULT 0 CHECK (attached >= 0);

-- A volume's encryption never changes, nor does the key of a lineage.
CREATE VIEW volume_keys AS
    SELECT volumes.id AS volume, lineages.key AS key FROM volumes JOIN lineages ON lineages.id = volumes.lineage;

CREATE TRIGGER protected_comes AFTER INSERT ON protected
BEGIN
    UPDATE keys SET protected = protected + 1, disks = disks + (NEW.kind = 'disk') WHERE id = NEW.key;
END;
CREATE TRIGGER protected_goes AFTER DELETE ON protected
BEGIN
    UPDATE keys SET protected = protected - 1, disks = disks - (OLD.kind = 'disk') WHERE id = OLD.key;
END;

INSERT INTO protected
    SELECT key, disks.id, 'disk' FROM disks JOIN volume_keys ON volume = disks.id
    UNION ALL
    SELECT key, backups.id, 'backup' FROM backups JOIN volume_keys ON volume = backups.id
    UNION ALL
    SELECT key, snapshots.id, 'snapshot' FROM snapshots JOIN volume_keys USING (volume)
    WHERE state <> 'hidden'
    UNION ALL
    SELECT key, images.id, 'image' FROM images JOIN snapshots ON snapshots.id = images.snapshot
    JOIN volume_keys USING (volume)
    WHERE images.state <> 'deleting';
UPDATE keys SET attached =
    (SELECT count(*) FROM protected WHERE key = keys.id AND id IN (SELECT disk FROM attachments));

CREATE TRIGGER disks_protected AFTER INSERT ON disks
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'disk' FROM volume_keys WHERE volume = NEW.id;
END;
CREATE TRIGGER disks_protected_no_more AFTER DELETE ON disks
BEGIN
    DELETE FROM protected WHERE key = (SELECT key FROM volume_keys WHERE volume = OLD.id) AND id = OLD.id;
END;

CREATE TRIGGER backups_protected AFTER INSERT ON backups
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'backup' FROM volume_keys WHERE volume = NEW.id;
END;
CREATE TRIGGER backups_protected_no_more AFTER DELETE ON backups
BEGIN
    DELETE FROM protected WHERE key = (SELECT key FROM volume_keys WHERE volume = OLD.id) AND id = OLD.id;
END;

CREATE TRIGGER snapshots_protected AFTER INSERT ON snapshots
WHEN NEW.state <> 'hidden'
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'snapshot' FROM volume_keys WHERE volume = NEW.volume;
END;
CREATE TRIGGER snapshots_shown AFTER UPDATE OF state ON snapshots
WHEN OLD.state = 'hidden' AND NEW.state <> 'hidden'
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'snapshot' FROM volume_keys WHERE volume = NEW.volume;
END;
CREATE TRIGGER snapshots_hidden AFTER UPDATE OF state ON snapshots
WHEN OLD.state <> 'hidden' AND NEW.state = 'hidden'
BEGIN
    DELETE FROM protected WHERE key = (SELECT key FROM volume_keys WHERE volume = NEW.volume) AND id = NEW.id;
END;
CREATE TRIGGER snapshots_protected_no_more AFTER DELETE ON snapshots
WHEN OLD.state <> 'hidden'
BEGIN
    DELETE FROM protected WHERE key = (SELECT key FROM volume_keys WHERE volume = OLD.volume) AND id = OLD.id;
END;

CREATE TRIGGER images_protected AFTER INSERT ON images
WHEN NEW.state <> 'deleting'
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'image' FROM volume_keys
    WHERE volume = (SELECT volume FROM snapshots WHERE id = NEW.snapshot);
END;
CREATE TRIGGER images_shown AFTER UPDATE OF state ON images
WHEN OLD.state = 'deleting' AND NEW.state <> 'deleting'
BEGIN
    INSERT INTO protected SELECT key, NEW.id, 'image' FROM volume_keys
    WHERE volume = (SELECT volume FROM snapshots WHERE id = NEW.snapshot);
END;
CREATE TRIGGER images_hidden AFTER UPDATE OF state ON images
WHEN OLD.state <> 'deleting' AND NEW.state = 'deleting'
BEGIN
    DELETE FROM protected WHERE id = NEW.id AND key =
        (SELECT key FROM volume_keys WHERE volume = (SELECT volume FROM snapshots WHERE id = NEW.snapshot));
END;
CREATE TRIGGER images_protected_no_more AFTER DELETE ON images
WHEN OLD.state <> 'deleting'
BEGIN
    DELETE FROM protected WHERE id = OLD.id AND key =
        (SELECT key FROM volume_keys WHERE volume = (SELECT volume FROM snapshots WHERE id = OLD.snapshot));
END;

-- Of a shared disk's attachments the first and the last.
CREATE TRIGGER attachments_count AFTER INSERT ON attachments
WHEN NOT EXISTS (SELECT 1 FROM attachments WHERE disk = NEW.disk AND id <> NEW.id)
BEGIN
    UPDATE keys SET attached = attached + 1 WHERE id = (SELECT key FROM volume_keys WHERE volume = NEW.disk);
END;
CREATE TRIGGER attachments_count_down AFTER DELETE ON attachments
WHEN NOT EXISTS (SELECT 1 FROM attachments WHERE disk = OLD.disk)
BEGIN
    UPDATE keys SET attached = attached - 1 WHERE id = (SELECT key FROM volume_keys WHERE volume = OLD.disk);
END;

-- How far a key's rewrapping is, is read from the index alone.
DROP INDEX lineages_of_key;
CREATE INDEX lineages_of_key ON lineages (key, key_version);
