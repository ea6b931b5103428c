-- Signed-in browsers, for all nodes. `digest` is of the cookie, which is nowhere.
CREATE TABLE directory_web_session (
    digest          bytea PRIMARY KEY,
    account         bigint NOT NULL REFERENCES directory_account (id) ON DELETE CASCADE,
    csrf            text NOT NULL,
    opened_at       bigint NOT NULL,
    used_at         bigint NOT NULL
);
CREATE INDEX directory_web_session_account ON directory_web_session (account, used_at);
CREATE INDEX directory_web_session_used_at ON directory_web_session (used_at);

-- Accounts whose sessions end, with the version that ended them: other nodes look there when the version has changed.
-- Triggers, so that it also holds for what nodes of the release before this one change.
CREATE TABLE directory_revocation (
    version         bigint NOT NULL,
    account         bigint NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX directory_revocation_version ON directory_revocation (version);

CREATE FUNCTION directory_revoke() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO directory_revocation (version, account) SELECT changes, OLD.id FROM directory_version;
    DELETE FROM directory_web_session WHERE account = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER directory_revoke_changed AFTER UPDATE ON directory_account FOR EACH ROW
    WHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.access IS DISTINCT FROM NEW.access
        OR OLD.enabled IS DISTINCT FROM NEW.enabled)
    EXECUTE FUNCTION directory_revoke();
CREATE TRIGGER directory_revoke_deleted AFTER DELETE ON directory_account FOR EACH ROW EXECUTE FUNCTION directory_revoke();
