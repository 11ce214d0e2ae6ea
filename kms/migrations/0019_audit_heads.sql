-- The audit log has an end at the front as well: what was archived is removed.

-- Heads of the log, each under a seal that nobody can make who has not the root key.
CREATE TABLE audit_heads (
    -- `archived`: the log begins after it. `sealed`: it was what the daemon had written, when that last looked.
    kind TEXT    PRIMARY KEY CHECK (kind IN ('archived', 'sealed')),
    seq  INTEGER NOT NULL CHECK (seq >= 0),
    hash BLOB    NOT NULL CHECK (length(hash) = 32),
    seal BLOB    NOT NULL
) STRICT;

-- Rule M04: append-only, but for what was archived.
DROP TRIGGER audit_is_never_cut;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit
WHEN OLD.seq > coalesce((SELECT seq FROM audit_heads WHERE kind = 'archived'), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only (M04)');
END;
