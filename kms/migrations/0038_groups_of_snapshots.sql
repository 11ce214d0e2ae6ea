-- Whether an intent is one of several that are closed together: snapshots of a machine's disks, all or none.
ALTER TABLE intents ADD COLUMN grouped INTEGER NOT NULL DEFAULT 0 CHECK (grouped IN (0, 1));
