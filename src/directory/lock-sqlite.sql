-- Accounts that may read but not send. A table of its own: a check cannot be changed in a table that is there.
CREATE TABLE sending_lock (
    account             INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    locked_at           INTEGER NOT NULL,
    reason              TEXT NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(account, locked_at, reason)) STORED
) STRICT;
-- Whoever stole the old password does not have the new one.
CREATE TRIGGER sending_lock_lifted AFTER UPDATE OF password ON account WHEN OLD.password IS NOT NEW.password
BEGIN
    DELETE FROM sending_lock WHERE account = OLD.id;
END;
