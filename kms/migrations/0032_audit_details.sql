-- What records of the audit log say besides (rule M04), and where they go besides.

-- JSON; it is in the chain, where there is some.
ALTER TABLE audit ADD COLUMN details TEXT CHECK (json_valid(details));

-- The records of an object, which are found without reading all: of disks, keys, instances and requests.
CREATE TABLE audit_objects (
    id  TEXT    NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (id, seq)
) STRICT, WITHOUT ROWID;

-- How far each sink has the log. One that is not used any more stays, and gets what it lacks if it is used again.
CREATE TABLE audit_sinks (
    name TEXT    PRIMARY KEY,
    seq  INTEGER NOT NULL CHECK (seq >= 0)
) STRICT;

-- The call that made the attachment, for which its key is used until it is detached.
ALTER TABLE attachments ADD COLUMN request TEXT;
ALTER TABLE attachments ADD COLUMN uid INTEGER;
