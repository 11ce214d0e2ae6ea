-- Whether the next process of the service may find an older store than is known, as `attach --accept-older` says: until one has
-- been given it. What is known stays with the volume until then, for an attach that comes to nothing.
ALTER TABLE services ADD COLUMN accepts_older INTEGER NOT NULL DEFAULT 0 CHECK (accepts_older IN (0, 1));
