-- The name of a snapshot that was deleted while images needed it is free, also while it is deleted with the last of them.

DROP INDEX snapshots_name;
CREATE UNIQUE INDEX snapshots_name ON snapshots (volume, name) WHERE state <> 'hidden' AND held = 0;
