-- Messages that are kept back from mailboxes. Their content lies where that of entries does, which keeps garbage collection of
-- every version off.
CREATE TABLE held (
    account_id  bigint NOT NULL,
    email_id    bigint NOT NULL,
    message_id  bytea NOT NULL,
    domain_id   bigint NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    detail      text NOT NULL,
    score       bigint NOT NULL,
    sender      text NOT NULL,
    author      text NOT NULL,
    recipient   text NOT NULL,
    subject     text NOT NULL,
    size_bytes  bigint NOT NULL,
    held_at     bigint NOT NULL,
    expires_at  bigint NOT NULL,
    told_at     bigint,
    asked_at    bigint,
    content_id  bigint NOT NULL,
    PRIMARY KEY (account_id, email_id),
    UNIQUE (account_id, message_id)
) PARTITION BY HASH (account_id);
CREATE INDEX held_of_account ON held (account_id, held_at);
CREATE INDEX held_of_domain ON held (domain_id, held_at);
CREATE INDEX held_at ON held (held_at);
CREATE INDEX held_expires ON held (expires_at);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF held FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'held_' || part, part);
    END LOOP;
END $$;
