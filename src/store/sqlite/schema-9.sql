-- Messages that are kept back from mailboxes. Their content lies where that of entries does.
CREATE TABLE held (
    account_id  INTEGER NOT NULL,
    email_id    INTEGER NOT NULL,
    message_id  BLOB NOT NULL,
    domain_id   INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    score       INTEGER NOT NULL,
    sender      TEXT NOT NULL,
    author      TEXT NOT NULL,
    recipient   TEXT NOT NULL,
    subject     TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    held_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    told_at     INTEGER,
    asked_at    INTEGER,
    content_id  INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, email_id, message_id, domain_id, reason, detail, score, sender,
                    author, recipient, subject, size_bytes, held_at, expires_at, told_at, asked_at, content_id)) STORED,
    PRIMARY KEY (account_id, email_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX held_message ON held (account_id, message_id);
CREATE INDEX held_of_account ON held (account_id, held_at);
CREATE INDEX held_of_domain ON held (domain_id, held_at);
CREATE INDEX held_at ON held (held_at);
CREATE INDEX held_expires ON held (expires_at);
