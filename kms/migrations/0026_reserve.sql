-- Empty but within a transaction: its pages are the catalogue's own room on a file system that is full.

CREATE TABLE reserve (room BLOB NOT NULL);
