-- Deleted mailboxes stay for the undelete window. What went with one was removed at the same moment.

CREATE TABLE removed_mailbox (
    account_id  bigint NOT NULL,
    mailbox_id  bigint NOT NULL,
    removed_at  bigint NOT NULL,
    name        text COLLATE "C" NOT NULL,
    role        text COLLATE "C",
    subscribed  boolean NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) PARTITION BY HASH (account_id);
CREATE INDEX removed_mailbox_at ON removed_mailbox (removed_at);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF removed_mailbox FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'removed_mailbox_' || part, part);
    END LOOP;
END $$;
