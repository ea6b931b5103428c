-- What owners said of messages by where they moved them, until it was learned.
CREATE TABLE owner_verdict (
    account_id  INTEGER NOT NULL,
    email_id    INTEGER NOT NULL,
    is_spam     INTEGER NOT NULL,
    given_at    INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, email_id, is_spam, given_at)) STORED,
    PRIMARY KEY (account_id, email_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX owner_verdict_given ON owner_verdict (given_at);
