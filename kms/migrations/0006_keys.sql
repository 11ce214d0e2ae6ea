-- Keys with a life of their own (rules K04, K08, K10, K11, K12, M03).

-- Rule K11: when the key is destroyed, and when it was last said that it will be.
ALTER TABLE keys ADD COLUMN deletion TEXT CHECK ((state = 'PendingDeletion') = (deletion IS NOT NULL));
ALTER TABLE keys ADD COLUMN alarmed TEXT;
-- Rule M03: the last month whose fee has been paid, such as 2026-11.
ALTER TABLE keys ADD COLUMN fee_month TEXT;

-- Other names of keys: one can be given to another key.
CREATE TABLE key_aliases (
    account TEXT NOT NULL REFERENCES accounts (id),
    alias   TEXT NOT NULL,
    key     TEXT NOT NULL REFERENCES keys (id),
    PRIMARY KEY (account, alias)
) STRICT;
CREATE INDEX key_aliases_key ON key_aliases (key);

CREATE TABLE key_tags (
    key   TEXT NOT NULL REFERENCES keys (id),
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (key, name)
) STRICT;

-- Wrapped material apart from the versions, which lineages refer to: of a version that was retired or destroyed, none is
-- left.
CREATE TABLE key_material (
    key     TEXT    NOT NULL,
    version INTEGER NOT NULL,
    wrapped BLOB    NOT NULL,
    PRIMARY KEY (key, version),
    FOREIGN KEY (key, version) REFERENCES key_versions (key, version)
) STRICT;
INSERT INTO key_material SELECT key, version, wrapped FROM key_versions;
ALTER TABLE key_versions DROP COLUMN wrapped;
-- Rule K12: since when nothing refers to the version.
ALTER TABLE key_versions ADD COLUMN retired TEXT;

-- Rule K04, for the whole region: one data key under a master key, which all its lineages share. Each has a salt of its
-- own.
CREATE TABLE data_keys (
    id          TEXT PRIMARY KEY,
    account     TEXT    NOT NULL REFERENCES accounts (id),
    key         TEXT    NOT NULL UNIQUE,
    key_version INTEGER NOT NULL,
    wrapped_key BLOB    NOT NULL,
    created     TEXT    NOT NULL,
    FOREIGN KEY (key, key_version) REFERENCES key_versions (key, version)
) STRICT;
ALTER TABLE lineages ADD COLUMN data_key TEXT REFERENCES data_keys (id)
    CHECK ((data_key IS NULL) = (length(wrapped_key) > 0));
CREATE INDEX lineages_of_version ON lineages (key, key_version);
CREATE INDEX lineages_in_order ON lineages (key, id);

-- Rule M03: months of keys are counted as well.
ALTER TABLE usage RENAME TO old_usage;
CREATE TABLE usage (
    account TEXT    NOT NULL REFERENCES accounts (id),
    region  TEXT    NOT NULL,
    month   TEXT    NOT NULL,
    kind    TEXT    NOT NULL
            CHECK (kind IN ('create', 'attach', 'detach', 'snapshot', 'rollback', 'reinit', 'key-month')),
    calls   INTEGER NOT NULL CHECK (calls >= 0),
    -- Taken from the balance for these calls.
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0),
    PRIMARY KEY (account, region, month, kind)
) STRICT;
INSERT INTO usage (account, region, month, kind, calls, charged)
    SELECT account, region, month, kind, calls, charged FROM old_usage;
DROP TABLE old_usage;

-- Where the root key comes from.
ALTER TABLE meta ADD COLUMN root_key TEXT NOT NULL DEFAULT 'file'
    CHECK (root_key IN ('file', 'passphrase', 'credential'));
