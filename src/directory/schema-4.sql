-- Signed-in browsers. `digest` is of the cookie, which is nowhere. What changes an account's rights ends them.
CREATE TABLE web_session (
    digest          BLOB PRIMARY KEY,
    account         INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    csrf            TEXT NOT NULL,
    opened_at       INTEGER NOT NULL,
    used_at         INTEGER NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(digest, account, csrf, opened_at, used_at)) STORED
) STRICT, WITHOUT ROWID;
CREATE INDEX web_session_account ON web_session (account, used_at);
CREATE INDEX web_session_used_at ON web_session (used_at);
CREATE TRIGGER web_session_revoked AFTER UPDATE ON account
    WHEN OLD.password IS NOT NEW.password OR OLD.access IS NOT NEW.access OR OLD.enabled IS NOT NEW.enabled
BEGIN
    DELETE FROM web_session WHERE account = OLD.id;
END;
