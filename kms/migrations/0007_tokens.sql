-- Tokens that callers give with creating calls: the repeat of a call gets the first answer.

CREATE TABLE tokens (
    account TEXT    NOT NULL REFERENCES accounts (id),
    token   TEXT    NOT NULL,
    -- SHA-256 of what was asked for.
    digest  BLOB    NOT NULL CHECK (length(digest) = 32),
    call    TEXT    NOT NULL,
    -- Id of what is created, and of the request that creates it.
    object  TEXT    NOT NULL,
    request TEXT    NOT NULL,
    -- JSON. Null until the call has ended.
    answer  TEXT,
    created TEXT    NOT NULL,
    PRIMARY KEY (account, token)
) STRICT;
CREATE INDEX tokens_created ON tokens (account, created);
