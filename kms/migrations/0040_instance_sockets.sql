-- Whose the sockets are of disks that are attached to the instance, where the attach does not say; null: as the daemon has it.
ALTER TABLE instances ADD COLUMN socket_uid INTEGER;
ALTER TABLE instances ADD COLUMN socket_gid INTEGER;
ALTER TABLE instances ADD COLUMN socket_mode INTEGER;
