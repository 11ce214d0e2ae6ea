-- Images that are written to files and read from them, and what is copied from a snapshot.

-- The snapshot whose data it is: then the source is a clone of it that belongs to this copy alone. Kept to be shown.
ALTER TABLE copies ADD COLUMN snapshot TEXT;
-- The image that is written to the file, or made from it.
ALTER TABLE copies ADD COLUMN image TEXT REFERENCES images (id) ON DELETE CASCADE;
-- How the data lies in a file that is copied from.
ALTER TABLE copies ADD COLUMN format TEXT NOT NULL DEFAULT 'raw' CHECK (format IN ('raw', 'qcow2'));
CREATE INDEX copies_image ON copies (image);
