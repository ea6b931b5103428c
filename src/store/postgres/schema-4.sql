-- Large content may lie in an object store: then `frames` says where in the object each frame lies, with its check, and
-- there are no chunks. Objects to delete are listed before their rows are gone.
ALTER TABLE blob ADD COLUMN frames bytea;
CREATE TABLE object_release (
    blob_id  bytea PRIMARY KEY
);
