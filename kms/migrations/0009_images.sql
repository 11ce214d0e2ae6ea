-- Images, and the disks that instances boot from.

-- An image is a name over a snapshot: its data, its encryption and its lineage are the snapshot's (rules S01, K05).
CREATE TABLE images (
    id       TEXT PRIMARY KEY,
    account  TEXT NOT NULL REFERENCES accounts (id),
    name     TEXT NOT NULL,
    snapshot TEXT NOT NULL REFERENCES snapshots (id),
    -- creating: its snapshot is being taken. deleting: its snapshot, which was deleted before, goes with it.
    state    TEXT NOT NULL CHECK (state IN ('creating', 'available', 'deleting')),
    created  TEXT NOT NULL,
    UNIQUE (account, name)
) STRICT;
CREATE INDEX images_snapshot ON images (snapshot);

-- Accounts that may see an image and make disks from it (rule I05).
CREATE TABLE image_shares (
    image   TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    account TEXT NOT NULL REFERENCES accounts (id),
    created TEXT NOT NULL,
    PRIMARY KEY (image, account)
) STRICT;
CREATE INDEX image_shares_account ON image_shares (account);

-- Rule S07: it has been deleted, and its store is told when the last image of it goes.
ALTER TABLE snapshots ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));

-- Rule I01: a system disk exists only with its instance.
ALTER TABLE disks ADD COLUMN role TEXT NOT NULL DEFAULT 'data' CHECK (role IN ('data', 'system'));
-- Null also while what is left of an instance that could not be made is removed.
ALTER TABLE disks ADD COLUMN system_of TEXT REFERENCES instances (id) ON DELETE SET NULL
    CHECK (system_of IS NULL OR role = 'system');
CREATE UNIQUE INDEX disks_system_of ON disks (system_of) WHERE system_of IS NOT NULL;

-- Lists are in the order of ids: without these, all rows of an account would be sorted for each page.
CREATE INDEX disks_of_account ON disks (account, id);
CREATE INDEX snapshots_of_account ON snapshots (account, id);
CREATE INDEX instances_of_account ON instances (account, id);
