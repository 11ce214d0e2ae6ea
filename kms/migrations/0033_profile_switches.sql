-- The switches of the profile that the region was initialised with, as an object of JSON. Where a version knows further ones, it
-- adds what it has for them; a catalogue from before has none until its next start.
ALTER TABLE meta ADD COLUMN switches TEXT CHECK (json_valid(switches));
