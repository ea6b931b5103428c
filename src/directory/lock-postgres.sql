-- Accounts that may read but not send.
CREATE TABLE directory_sending_lock (
    account             bigint PRIMARY KEY REFERENCES directory_account (id) ON DELETE CASCADE,
    locked_at           bigint NOT NULL,
    reason              text NOT NULL
);
-- Whoever stole the old password does not have the new one. A trigger, so that it also holds for what nodes of the release
-- before this one change.
CREATE FUNCTION directory_lift_sending_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM directory_sending_lock WHERE account = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER directory_sending_lock_lifted AFTER UPDATE ON directory_account FOR EACH ROW
    WHEN (OLD.password IS DISTINCT FROM NEW.password)
    EXECUTE FUNCTION directory_lift_sending_lock();
