//! Tables of `mail.sqlite`. Steps are appended, never edited.
//!
//! `entry` is narrow, because listing a mailbox of 100,000 messages walks it from end to end; what is only read message
//! by message lies in `content`. A thread has the number of the email that began it, so only the others are indexed by
//! thread. `delivered` leads with the message: ids rise with time, so rows are appended, and what is expired is one range.

pub(crate) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE account (
    account_id    INTEGER PRIMARY KEY,
    modseq        INTEGER NOT NULL,
    log_floor     INTEGER NOT NULL,
    log_rows      INTEGER NOT NULL,
    next_mailbox  INTEGER NOT NULL,
    next_email    INTEGER NOT NULL,
    uid_validity  INTEGER NOT NULL,
    messages      INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    quota_bytes   INTEGER
) STRICT;

CREATE TABLE mailbox (
    account_id      INTEGER NOT NULL,
    mailbox_id      INTEGER NOT NULL,
    name            TEXT NOT NULL,
    role            TEXT,
    uid_validity    INTEGER NOT NULL,
    uid_next        INTEGER NOT NULL CHECK (uid_next < 4294967296),
    highest_modseq  INTEGER NOT NULL,
    changed_modseq  INTEGER NOT NULL,
    created_modseq  INTEGER NOT NULL,
    messages        INTEGER NOT NULL,
    unseen          INTEGER NOT NULL,
    deleted         INTEGER NOT NULL,
    size_bytes      INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX mailbox_name ON mailbox (account_id, name);
CREATE UNIQUE INDEX mailbox_role ON mailbox (account_id, role);

CREATE TABLE subscription (
    account_id  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    PRIMARY KEY (account_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE entry (
    account_id      INTEGER NOT NULL,
    mailbox_id      INTEGER NOT NULL,
    uid             INTEGER NOT NULL,
    email_id        INTEGER NOT NULL,
    thread_id       INTEGER NOT NULL,
    modseq          INTEGER NOT NULL,
    created_modseq  INTEGER NOT NULL,
    system          INTEGER NOT NULL,
    keywords        TEXT,
    internal_date   INTEGER NOT NULL,
    size_bytes      INTEGER NOT NULL,
    content_id      INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_modseq ON entry (account_id, modseq, created_modseq, email_id);
CREATE UNIQUE INDEX entry_email ON entry (account_id, email_id);
CREATE INDEX entry_thread ON entry (account_id, thread_id) WHERE thread_id <> email_id;

CREATE TABLE content (
    content_id  INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    blob_id     BLOB NOT NULL,
    prefix      BLOB NOT NULL,
    summary     BLOB NOT NULL
) STRICT;

CREATE TABLE vanished (
    account_id      INTEGER NOT NULL,
    modseq          INTEGER NOT NULL,
    mailbox_id      INTEGER NOT NULL,
    uid             INTEGER NOT NULL,
    email_id        INTEGER NOT NULL,
    created_modseq  INTEGER NOT NULL,
    is_move         INTEGER NOT NULL,
    PRIMARY KEY (account_id, modseq, mailbox_id, uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE mailbox_gone (
    account_id  INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    PRIMARY KEY (account_id, modseq, mailbox_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE thread_ref (
    account_id  INTEGER NOT NULL,
    key         INTEGER NOT NULL,
    thread_id   INTEGER NOT NULL,
    PRIMARY KEY (account_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivered (
    message_id  BLOB NOT NULL,
    account_id  INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    uid         INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    email_id    INTEGER NOT NULL,
    PRIMARY KEY (message_id, account_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE blob (
    blob_id     BLOB NOT NULL PRIMARY KEY,
    locator     BLOB NOT NULL,
    size_bytes  INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    refs        INTEGER NOT NULL CHECK (refs >= 0)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX blob_locator ON blob (locator);

CREATE TABLE blob_release (
    released_at  INTEGER NOT NULL,
    blob_id      BLOB NOT NULL,
    PRIMARY KEY (released_at, blob_id)
) STRICT, WITHOUT ROWID;
",
    // Expunged emails stay for the undelete window. Their content stays where it is; `email_id` keeps its meaning.
    "
CREATE TABLE removed (
    account_id     INTEGER NOT NULL,
    email_id       INTEGER NOT NULL,
    removed_at     INTEGER NOT NULL,
    mailbox_id     INTEGER NOT NULL,
    mailbox_name   TEXT NOT NULL,
    system         INTEGER NOT NULL,
    keywords       TEXT,
    internal_date  INTEGER NOT NULL,
    size_bytes     INTEGER NOT NULL,
    content_id     INTEGER NOT NULL,
    PRIMARY KEY (account_id, email_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX removed_at ON removed (removed_at);
",
    // Quota in messages, and pools that accounts draw their allowance from.
    "
ALTER TABLE account ADD COLUMN quota_messages INTEGER;
ALTER TABLE account ADD COLUMN allowed_bytes INTEGER;
ALTER TABLE account ADD COLUMN allowed_messages INTEGER;

CREATE TABLE pool (
    pool_id            INTEGER PRIMARY KEY,
    limit_bytes        INTEGER,
    limit_messages     INTEGER,
    allotted_bytes     INTEGER NOT NULL,
    allotted_messages  INTEGER NOT NULL,
    dry_until          INTEGER NOT NULL
) STRICT;

CREATE TABLE pool_member (
    account_id  INTEGER NOT NULL,
    pool_id     INTEGER NOT NULL,
    PRIMARY KEY (account_id, pool_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX pool_member_pool ON pool_member (pool_id);
",
    // Deleted mailboxes stay for the undelete window. What went with one was removed at the same moment.
    "
CREATE TABLE removed_mailbox (
    account_id  INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    removed_at  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    role        TEXT,
    subscribed  INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX removed_mailbox_at ON removed_mailbox (removed_at);
",
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
    include_str!("schema-8.sql"),
    include_str!("schema-9.sql"),
];
