-- A data key that lineages share goes with its master key, which changes what a backup should have.
CREATE TRIGGER data_keys_deleted AFTER DELETE ON data_keys
BEGIN UPDATE key_changes SET changes = changes + 1; END;
