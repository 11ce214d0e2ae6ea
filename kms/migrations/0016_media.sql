-- Which file or device a volume with a path of its own is on, so that two disks on one are found without a look at every path.
-- What is not known yet is looked at after a start.

ALTER TABLE volumes ADD COLUMN medium TEXT;

UPDATE volumes
SET medium = 'file ' || json_extract(identity, '$.inode') || ' ' || json_extract(identity, '$.birth')
WHERE path IS NOT NULL AND json_extract(identity, '$.kind') = 'file' AND json_extract(identity, '$.birth') IS NOT NULL;

CREATE INDEX volumes_medium ON volumes (medium) WHERE medium IS NOT NULL;
