-- Every row carries the CRC of its columns, made by SQLite whenever it writes the row, so that the auditor finds an octet that
-- the disk changed. A stored generated column cannot be added to a table that is there.

CREATE TABLE account_5 (
    account_id        INTEGER PRIMARY KEY,
    modseq            INTEGER NOT NULL,
    log_floor         INTEGER NOT NULL,
    log_rows          INTEGER NOT NULL,
    next_mailbox      INTEGER NOT NULL,
    next_email        INTEGER NOT NULL,
    uid_validity      INTEGER NOT NULL,
    messages          INTEGER NOT NULL,
    size_bytes        INTEGER NOT NULL,
    quota_bytes       INTEGER,
    quota_messages    INTEGER,
    allowed_bytes     INTEGER,
    allowed_messages  INTEGER,
    crc               INTEGER NOT NULL AS (row_crc(account_id, modseq, log_floor, log_rows, next_mailbox, next_email,
        uid_validity, messages, size_bytes, quota_bytes, quota_messages, allowed_bytes, allowed_messages)) STORED
) STRICT;
INSERT INTO account_5 SELECT * FROM account;
DROP TABLE account;
ALTER TABLE account_5 RENAME TO account;

CREATE TABLE mailbox_5 (
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
    crc             INTEGER NOT NULL AS (row_crc(account_id, mailbox_id, name, role, uid_validity, uid_next,
        highest_modseq, changed_modseq, created_modseq, messages, unseen, deleted, size_bytes)) STORED,
    PRIMARY KEY (account_id, mailbox_id)
) STRICT, WITHOUT ROWID;
INSERT INTO mailbox_5 SELECT * FROM mailbox;
DROP TABLE mailbox;
ALTER TABLE mailbox_5 RENAME TO mailbox;
CREATE UNIQUE INDEX mailbox_name ON mailbox (account_id, name);
CREATE UNIQUE INDEX mailbox_role ON mailbox (account_id, role);

CREATE TABLE subscription_5 (
    account_id  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, name)) STORED,
    PRIMARY KEY (account_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO subscription_5 SELECT * FROM subscription;
DROP TABLE subscription;
ALTER TABLE subscription_5 RENAME TO subscription;

CREATE TABLE entry_5 (
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
    crc             INTEGER NOT NULL AS (row_crc(account_id, mailbox_id, uid, email_id, thread_id, modseq,
        created_modseq, system, keywords, internal_date, size_bytes, content_id)) STORED,
    PRIMARY KEY (account_id, mailbox_id, uid)
) STRICT, WITHOUT ROWID;
INSERT INTO entry_5 SELECT * FROM entry;
DROP TABLE entry;
ALTER TABLE entry_5 RENAME TO entry;
CREATE INDEX entry_modseq ON entry (account_id, modseq, created_modseq, email_id);
CREATE UNIQUE INDEX entry_email ON entry (account_id, email_id);
CREATE INDEX entry_thread ON entry (account_id, thread_id) WHERE thread_id <> email_id;

CREATE TABLE content_5 (
    content_id  INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    blob_id     BLOB NOT NULL,
    prefix      BLOB NOT NULL,
    summary     BLOB NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(content_id, account_id, blob_id, prefix, summary)) STORED
) STRICT;
INSERT INTO content_5 SELECT * FROM content;
DROP TABLE content;
ALTER TABLE content_5 RENAME TO content;

CREATE TABLE vanished_5 (
    account_id      INTEGER NOT NULL,
    modseq          INTEGER NOT NULL,
    mailbox_id      INTEGER NOT NULL,
    uid             INTEGER NOT NULL,
    email_id        INTEGER NOT NULL,
    created_modseq  INTEGER NOT NULL,
    is_move         INTEGER NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(account_id, modseq, mailbox_id, uid, email_id, created_modseq,
        is_move)) STORED,
    PRIMARY KEY (account_id, modseq, mailbox_id, uid)
) STRICT, WITHOUT ROWID;
INSERT INTO vanished_5 SELECT * FROM vanished;
DROP TABLE vanished;
ALTER TABLE vanished_5 RENAME TO vanished;

CREATE TABLE mailbox_gone_5 (
    account_id  INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, modseq, mailbox_id)) STORED,
    PRIMARY KEY (account_id, modseq, mailbox_id)
) STRICT, WITHOUT ROWID;
INSERT INTO mailbox_gone_5 SELECT * FROM mailbox_gone;
DROP TABLE mailbox_gone;
ALTER TABLE mailbox_gone_5 RENAME TO mailbox_gone;

CREATE TABLE thread_ref_5 (
    account_id  INTEGER NOT NULL,
    key         INTEGER NOT NULL,
    thread_id   INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, key, thread_id)) STORED,
    PRIMARY KEY (account_id, key)
) STRICT, WITHOUT ROWID;
INSERT INTO thread_ref_5 SELECT * FROM thread_ref;
DROP TABLE thread_ref;
ALTER TABLE thread_ref_5 RENAME TO thread_ref;

CREATE TABLE delivered_5 (
    message_id  BLOB NOT NULL,
    account_id  INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    uid         INTEGER NOT NULL,
    modseq      INTEGER NOT NULL,
    email_id    INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(message_id, account_id, mailbox_id, uid, modseq, email_id)) STORED,
    PRIMARY KEY (message_id, account_id)
) STRICT, WITHOUT ROWID;
INSERT INTO delivered_5 SELECT * FROM delivered;
DROP TABLE delivered;
ALTER TABLE delivered_5 RENAME TO delivered;

CREATE TABLE blob_5 (
    blob_id     BLOB NOT NULL PRIMARY KEY,
    locator     BLOB NOT NULL,
    size_bytes  INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    refs        INTEGER NOT NULL CHECK (refs >= 0),
    crc         INTEGER NOT NULL AS (row_crc(blob_id, locator, size_bytes, digest, refs)) STORED
) STRICT, WITHOUT ROWID;
INSERT INTO blob_5 SELECT * FROM blob;
DROP TABLE blob;
ALTER TABLE blob_5 RENAME TO blob;
CREATE UNIQUE INDEX blob_locator ON blob (locator);

CREATE TABLE blob_release_5 (
    released_at  INTEGER NOT NULL,
    blob_id      BLOB NOT NULL,
    crc          INTEGER NOT NULL AS (row_crc(released_at, blob_id)) STORED,
    PRIMARY KEY (released_at, blob_id)
) STRICT, WITHOUT ROWID;
INSERT INTO blob_release_5 SELECT * FROM blob_release;
DROP TABLE blob_release;
ALTER TABLE blob_release_5 RENAME TO blob_release;

CREATE TABLE removed_5 (
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
    crc            INTEGER NOT NULL AS (row_crc(account_id, email_id, removed_at, mailbox_id, mailbox_name, system,
        keywords, internal_date, size_bytes, content_id)) STORED,
    PRIMARY KEY (account_id, email_id)
) STRICT, WITHOUT ROWID;
INSERT INTO removed_5 SELECT * FROM removed;
DROP TABLE removed;
ALTER TABLE removed_5 RENAME TO removed;
CREATE INDEX removed_at ON removed (removed_at);

CREATE TABLE removed_mailbox_5 (
    account_id  INTEGER NOT NULL,
    mailbox_id  INTEGER NOT NULL,
    removed_at  INTEGER NOT NULL,
    name        TEXT NOT NULL,
    role        TEXT,
    subscribed  INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, mailbox_id, removed_at, name, role, subscribed)) STORED,
    PRIMARY KEY (account_id, mailbox_id)
) STRICT, WITHOUT ROWID;
INSERT INTO removed_mailbox_5 SELECT * FROM removed_mailbox;
DROP TABLE removed_mailbox;
ALTER TABLE removed_mailbox_5 RENAME TO removed_mailbox;
CREATE INDEX removed_mailbox_at ON removed_mailbox (removed_at);

CREATE TABLE pool_5 (
    pool_id            INTEGER PRIMARY KEY,
    limit_bytes        INTEGER,
    limit_messages     INTEGER,
    allotted_bytes     INTEGER NOT NULL,
    allotted_messages  INTEGER NOT NULL,
    dry_until          INTEGER NOT NULL,
    crc                INTEGER NOT NULL AS (row_crc(pool_id, limit_bytes, limit_messages, allotted_bytes,
        allotted_messages, dry_until)) STORED
) STRICT;
INSERT INTO pool_5 SELECT * FROM pool;
DROP TABLE pool;
ALTER TABLE pool_5 RENAME TO pool;

CREATE TABLE pool_member_5 (
    account_id  INTEGER NOT NULL,
    pool_id     INTEGER NOT NULL,
    crc         INTEGER NOT NULL AS (row_crc(account_id, pool_id)) STORED,
    PRIMARY KEY (account_id, pool_id)
) STRICT, WITHOUT ROWID;
INSERT INTO pool_member_5 SELECT * FROM pool_member;
DROP TABLE pool_member;
ALTER TABLE pool_member_5 RENAME TO pool_member;
CREATE INDEX pool_member_pool ON pool_member (pool_id);
