-- Whether a disk was plugged into a running virtual machine (rule A09), and whether an attach that has not ended is to plug it, or a
-- detach to take it out.
ALTER TABLE attachments ADD COLUMN plugged INTEGER NOT NULL DEFAULT 0 CHECK (plugged IN (0, 1));
ALTER TABLE intents ADD COLUMN machine INTEGER NOT NULL DEFAULT 0 CHECK (machine IN (0, 1));
