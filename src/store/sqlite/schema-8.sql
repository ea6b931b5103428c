-- Messages on their way to somewhere else. A lane is what is tried together; its work is found by the lane, and lanes by
-- when they are due: what waits for something that does not answer is not looked at.
CREATE TABLE queue_item (
    message_id   BLOB NOT NULL,
    variant      INTEGER NOT NULL,
    blob_id      BLOB NOT NULL,
    size_bytes   INTEGER NOT NULL,
    prefix       BLOB NOT NULL,
    sender       TEXT NOT NULL,
    account_id   INTEGER,
    needs        INTEGER NOT NULL,
    envelope_id  TEXT,
    subject      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    recipients   INTEGER NOT NULL CHECK (recipients > 0),
    crc          INTEGER NOT NULL AS (row_crc(message_id, variant, blob_id, size_bytes, prefix, sender, account_id, needs,
                     envelope_id, subject, created_at, recipients)) STORED,
    PRIMARY KEY (message_id, variant)
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_recipient (
    message_id   BLOB NOT NULL,
    nth          INTEGER NOT NULL,
    variant      INTEGER NOT NULL,
    address      TEXT NOT NULL,
    original     TEXT,
    notify       INTEGER NOT NULL,
    lane         TEXT NOT NULL,
    priority     INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    next_at      INTEGER NOT NULL,
    alarm_at     INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    last_at      INTEGER,
    last_status  TEXT NOT NULL,
    last_host    TEXT NOT NULL,
    crc          INTEGER NOT NULL AS (row_crc(message_id, nth, variant, address, original, notify, lane, priority, state,
                     next_at, alarm_at, expires_at, attempts, last_at, last_status, last_host)) STORED,
    PRIMARY KEY (message_id, nth)
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_due ON queue_recipient (lane, state, priority, next_at);
CREATE INDEX queue_alarm ON queue_recipient (lane, alarm_at) WHERE state = 0;

CREATE TABLE queue_lane (
    lane          TEXT NOT NULL PRIMARY KEY,
    due_at        INTEGER NOT NULL,
    holder        TEXT NOT NULL,
    fence         INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    retry_at      INTEGER NOT NULL,
    is_suspended  INTEGER NOT NULL,
    reason        TEXT NOT NULL,
    warm_at       INTEGER NOT NULL,
    crc           INTEGER NOT NULL AS (row_crc(lane, due_at, holder, fence, failures, retry_at, is_suspended, reason,
                      warm_at)) STORED
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_lane_due ON queue_lane (due_at) WHERE is_suspended = 0;
