//! Tables of one day's file. Steps are appended, never edited.

pub(crate) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    session BLOB,
    message BLOB,
    kind TEXT NOT NULL,
    party TEXT,
    account INTEGER,
    is_recipient INTEGER,
    outcome INTEGER,
    fields TEXT NOT NULL
) STRICT;
CREATE INDEX event_message ON event (message) WHERE message IS NOT NULL;
CREATE INDEX event_session ON event (session) WHERE session IS NOT NULL;
CREATE TABLE message (
    id BLOB PRIMARY KEY,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    reverse_path TEXT,
    subject TEXT,
    size_bytes INTEGER,
    score INTEGER,
    client TEXT,
    reason TEXT,
    took_ms INTEGER,
    outcome INTEGER
) STRICT, WITHOUT ROWID;
-- Who is concerned: recipients, and the sender if it is an account of ours.
CREATE TABLE party (
    message BLOB NOT NULL,
    address TEXT NOT NULL,
    is_recipient INTEGER NOT NULL,
    domain TEXT NOT NULL,
    account INTEGER,
    outcome INTEGER,
    mailbox TEXT,
    reason TEXT,
    PRIMARY KEY (message, is_recipient, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX party_account ON party (account, message) WHERE account IS NOT NULL;
CREATE INDEX party_domain ON party (domain, message);
-- One row for each minute, recipient domain and outcome; domain '' sums all.
CREATE TABLE minute (
    domain TEXT NOT NULL,
    minute INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (domain, minute, outcome)
) STRICT, WITHOUT ROWID;
",
    "
-- The minute in which the outcome counts.
ALTER TABLE party ADD COLUMN counted INTEGER;
",
];
