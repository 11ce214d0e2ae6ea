-- What guests see of the size of an attached disk that has grown and shows that when it is attached anew (rule D06); none: all of it.
ALTER TABLE services ADD COLUMN guest_size INTEGER CHECK (guest_size > 0);
