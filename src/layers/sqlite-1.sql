-- What each level says: of each owner the options as a policy file, and how they came to be. Tables that both engines name alike.
CREATE TABLE policy_layer (
    level           TEXT NOT NULL,
    owner           INTEGER NOT NULL,
    text            TEXT NOT NULL,
    version         INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    changed_by      TEXT NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(level, owner, text, version, changed_at, changed_by)) STORED,
    PRIMARY KEY (level, owner)
) STRICT, WITHOUT ROWID;
CREATE TABLE policy_change (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    level           TEXT NOT NULL,
    owner           INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    changed_by      TEXT NOT NULL,
    note            TEXT NOT NULL,
    what            TEXT NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(id, level, owner, changed_at, changed_by, note, what)) STORED
) STRICT;
CREATE INDEX policy_change_owner ON policy_change (level, owner, id);
CREATE TABLE policy_plan (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    level           TEXT NOT NULL,
    owner           INTEGER NOT NULL,
    due_at          INTEGER NOT NULL,
    planned_at      INTEGER NOT NULL,
    planned_by      TEXT NOT NULL,
    note            TEXT NOT NULL,
    what            TEXT NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(id, level, owner, due_at, planned_at, planned_by, note, what)) STORED
) STRICT;
CREATE INDEX policy_plan_due ON policy_plan (due_at);
CREATE TABLE sender_entry (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    level           TEXT NOT NULL,
    owner           INTEGER NOT NULL,
    word            TEXT NOT NULL,
    who             TEXT NOT NULL,
    unproven        INTEGER NOT NULL,
    skips           TEXT NOT NULL,
    note            TEXT NOT NULL,
    until           INTEGER,
    added_at        INTEGER NOT NULL,
    added_by        TEXT NOT NULL,
    hit_at          INTEGER,
    crc             INTEGER NOT NULL AS (row_crc(id, level, owner, word, who, unproven, skips, note, until, added_at, added_by, hit_at)) STORED,
    UNIQUE (level, owner, word, who)
) STRICT;
-- Whoever changes something counts it up: other nodes look there.
CREATE TABLE policy_version (
    one             INTEGER PRIMARY KEY,
    changes         INTEGER NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(one, changes)) STORED
) STRICT;
INSERT INTO policy_version (one, changes) VALUES (1, 1);
