-- What becomes of a disk's writes that the host has no room for: they fail, or are held until there is room.

ALTER TABLE disks ADD COLUMN on_full TEXT NOT NULL DEFAULT 'error' CHECK (on_full IN ('error', 'stop'));
