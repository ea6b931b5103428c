-- What a node says of its parts, as JSON; for people.
ALTER TABLE node ADD COLUMN health text;
