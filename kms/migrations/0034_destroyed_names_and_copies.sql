-- The name of a destroyed key can be given to another, and then the destroyed one is called by its id. What it was called is still
-- told.
ALTER TABLE keys ADD COLUMN former_name TEXT;

-- A copy that goes on reads a snapshot or an image by a volume of its own, which is no disk and no backup, and is needed to the
-- copy's end whatever becomes of the snapshot: it is among what the key protects.
CREATE TABLE kept AS SELECT * FROM protected;
DROP TABLE protected;
CREATE TABLE protected (
    key  TEXT NOT NULL REFERENCES keys (id),
    id   TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('disk', 'snapshot', 'image', 'backup', 'copy')),
    PRIMARY KEY (key, id)
) STRICT, WITHOUT ROWID;
INSERT INTO protected SELECT key, id, kind FROM kept;
DROP TABLE kept;

CREATE TRIGGER protected_comes AFTER INSERT ON protected
BEGIN
    UPDATE keys SET protected = protected + 1, disks = disks + (NEW.kind = 'disk') WHERE id = NEW.key;
END;
CREATE TRIGGER protected_goes AFTER DELETE ON protected
BEGIN
    UPDATE keys SET protected = protected - 1, disks = disks - (OLD.kind = 'disk') WHERE id = OLD.key;
END;

CREATE VIEW hidden_sources AS
    SELECT copies.id AS copy, copies.source AS volume, key FROM copies JOIN volume_keys ON volume = copies.source
    WHERE phase IN ('copy', 'verify') AND copies.source NOT IN (SELECT id FROM disks)
      AND copies.source NOT IN (SELECT id FROM backups);

INSERT INTO protected SELECT key, volume, 'copy' FROM hidden_sources;

CREATE TRIGGER copies_protected AFTER INSERT ON copies
BEGIN
    INSERT INTO protected SELECT key, volume, 'copy' FROM hidden_sources WHERE copy = NEW.id;
END;
CREATE TRIGGER copies_protected_no_more AFTER UPDATE OF phase ON copies
WHEN NEW.phase NOT IN ('copy', 'verify') AND OLD.phase IN ('copy', 'verify')
BEGIN
    DELETE FROM protected WHERE id = OLD.source AND kind = 'copy'
        AND key = (SELECT key FROM volume_keys WHERE volume = OLD.source);
END;
CREATE TRIGGER copies_deleted_protected_no_more AFTER DELETE ON copies
WHEN OLD.phase IN ('copy', 'verify')
BEGIN
    DELETE FROM protected WHERE id = OLD.source AND kind = 'copy'
        AND key = (SELECT key FROM volume_keys WHERE volume = OLD.source);
END;
