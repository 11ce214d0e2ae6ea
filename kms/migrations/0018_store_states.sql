-- What the process that had a layered volume last has said of its store: an older one, or one that was changed meanwhile, is
-- not opened. Null: nothing is known.

-- The sequence of its superblock, and SHA-256 of that.
ALTER TABLE volumes ADD COLUMN sequence INTEGER CHECK (sequence >= 0);
ALTER TABLE volumes ADD COLUMN superblock BLOB
    CHECK ((superblock IS NULL) = (sequence IS NULL) AND length(superblock) = 32);
-- Whether it was said at the end: since then nobody has been given the store. Otherwise it may have gone on.
ALTER TABLE volumes ADD COLUMN closed INTEGER NOT NULL DEFAULT 0 CHECK (closed IN (0, 1));
