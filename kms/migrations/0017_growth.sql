-- What is asked often is found without reading whole tables: 10,000 attached disks of 100,000.
--
-- The triggers and the view name other tables: a migration that makes one of these anew drops them first.

CREATE INDEX attachments_service ON attachments (service);
CREATE INDEX attachments_of_account ON attachments (account, id);
CREATE INDEX snapshots_volume ON snapshots (volume, created);
CREATE INDEX backups_of_account ON backups (account, id);
CREATE INDEX keys_of_account ON keys (account, id);
CREATE INDEX copies_going_on ON copies (phase) WHERE phase IN ('copy', 'verify');
CREATE INDEX principals_owner ON principals (listed) WHERE listed = 0;
CREATE INDEX tokens_request ON tokens (request);
CREATE INDEX audit_account ON audit (account);
CREATE INDEX lineages_data_key ON lineages (data_key) WHERE data_key IS NOT NULL;

-- Volumes that nothing needs and that no operation is at work on.
CREATE VIEW unneeded AS
    SELECT id FROM volumes
    WHERE NOT EXISTS (SELECT 1 FROM disks WHERE disks.id = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM backups WHERE backups.id = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.volume = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM intents WHERE intents.disk = volumes.id)
      AND NOT EXISTS (SELECT 1 FROM copies WHERE copies.source = volumes.id AND phase IN ('copy', 'verify'))
      AND NOT EXISTS (SELECT 1 FROM copies WHERE copies.destination = volumes.id AND phase IN ('copy', 'verify'));

-- Those of them that are to be removed. Each end of a need looks whether it was the last one.
CREATE TABLE released (
    volume TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE
) STRICT;
CREATE TRIGGER disks_release AFTER DELETE ON disks
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id = OLD.id;
END;
CREATE TRIGGER backups_release AFTER DELETE ON backups
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id = OLD.id;
END;
CREATE TRIGGER snapshots_release AFTER DELETE ON snapshots
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id = OLD.volume;
END;
CREATE TRIGGER intents_release AFTER DELETE ON intents
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id = OLD.disk;
END;
CREATE TRIGGER copies_release AFTER UPDATE OF phase ON copies
WHEN NEW.phase NOT IN ('copy', 'verify')
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id IN (NEW.source, NEW.destination);
END;
CREATE TRIGGER copies_release_deleted AFTER DELETE ON copies
BEGIN
    INSERT OR IGNORE INTO released SELECT id FROM unneeded WHERE id IN (OLD.source, OLD.destination);
END;

INSERT INTO released SELECT id FROM unneeded;

-- After the restore of a catalogue: the process is not started until somebody says so.
ALTER TABLE services ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));

-- How often wrapped keys, or whether they can be used, have changed: so often a backup is out of date.
CREATE TABLE key_changes (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    changes INTEGER NOT NULL
) STRICT;
INSERT INTO key_changes VALUES (1, 0);
CREATE TRIGGER key_material_made AFTER INSERT ON key_material
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER key_material_changed AFTER UPDATE ON key_material
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER key_material_destroyed AFTER DELETE ON key_material
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER lineages_made AFTER INSERT ON lineages
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER lineages_changed AFTER UPDATE ON lineages
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER lineages_deleted AFTER DELETE ON lineages
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER data_keys_made AFTER INSERT ON data_keys
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER data_keys_changed AFTER UPDATE ON data_keys
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER keys_made AFTER INSERT ON keys
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER keys_changed AFTER UPDATE OF state, deletion ON keys
BEGIN UPDATE key_changes SET changes = changes + 1; END;
CREATE TRIGGER root_key_changed AFTER UPDATE OF key_check, root_key ON meta
BEGIN UPDATE key_changes SET changes = changes + 1; END;
