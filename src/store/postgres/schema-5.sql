-- What owners said of messages by where they moved them, until it was learned.

CREATE TABLE owner_verdict (
    account_id  bigint NOT NULL,
    email_id    bigint NOT NULL,
    is_spam     boolean NOT NULL,
    given_at    bigint NOT NULL,
    PRIMARY KEY (account_id, email_id)
) PARTITION BY HASH (account_id);
CREATE INDEX owner_verdict_given ON owner_verdict (given_at);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF owner_verdict FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'owner_verdict_' || part, part);
    END LOOP;
END $$;
