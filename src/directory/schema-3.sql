-- Every row carries the CRC of its columns, made by SQLite whenever it writes the row, so that the auditor finds an octet that
-- the disk changed. A stored generated column cannot be added to a table that is there. The new tables refer to each other,
-- and follow the renaming; old ones go before those that they refer to. A number is never given twice: how far each table
-- came is kept.

CREATE TABLE tenant_3 (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind            TEXT NOT NULL,
    parent          INTEGER REFERENCES tenant_3 (id),
    created_at      INTEGER NOT NULL,
    quota_bytes     INTEGER,
    quota_messages  INTEGER,
    crc             INTEGER NOT NULL AS (row_crc(id, name, kind, parent, created_at, quota_bytes, quota_messages)) STORED
) STRICT;
CREATE TABLE domain_3 (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT NOT NULL UNIQUE,
    tenant          INTEGER REFERENCES tenant_3 (id),
    created_at      INTEGER NOT NULL,
    quota_bytes     INTEGER,
    quota_messages  INTEGER,
    crc             INTEGER NOT NULL AS (row_crc(id, name, tenant, created_at, quota_bytes, quota_messages)) STORED
) STRICT;
CREATE TABLE account_3 (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    domain          INTEGER NOT NULL REFERENCES domain_3 (id),
    folded          TEXT NOT NULL UNIQUE,
    address         TEXT NOT NULL,
    name            TEXT NOT NULL,
    access          TEXT NOT NULL,
    enabled         INTEGER NOT NULL,
    quota_bytes     INTEGER,
    password        TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    quota_messages  INTEGER,
    crc             INTEGER NOT NULL AS (row_crc(id, domain, folded, address, name, access, enabled, quota_bytes, password,
        created_at, quota_messages)) STORED
) STRICT;
CREATE TABLE alias_3 (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    domain          INTEGER NOT NULL REFERENCES domain_3 (id),
    folded          TEXT NOT NULL UNIQUE,
    created_at      INTEGER NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(id, domain, folded, created_at)) STORED
) STRICT;
CREATE TABLE alias_target_3 (
    alias           INTEGER NOT NULL REFERENCES alias_3 (id) ON DELETE CASCADE,
    folded          TEXT NOT NULL,
    crc             INTEGER NOT NULL AS (row_crc(alias, folded)) STORED,
    PRIMARY KEY (alias, folded)
) STRICT, WITHOUT ROWID;

INSERT INTO tenant_3 SELECT * FROM tenant ORDER BY id;
INSERT INTO domain_3 SELECT * FROM domain ORDER BY id;
INSERT INTO account_3 SELECT * FROM account ORDER BY id;
INSERT INTO alias_3 SELECT * FROM alias ORDER BY id;
INSERT INTO alias_target_3 SELECT * FROM alias_target;
DELETE FROM sqlite_sequence WHERE name LIKE '%\_3' ESCAPE '\';
INSERT INTO sqlite_sequence (name, seq) SELECT name || '_3', seq FROM sqlite_sequence;

DROP TABLE alias_target;
DROP TABLE alias;
DROP TABLE account;
DROP TABLE domain;
DROP TABLE tenant;
ALTER TABLE tenant_3 RENAME TO tenant;
ALTER TABLE domain_3 RENAME TO domain;
ALTER TABLE account_3 RENAME TO account;
ALTER TABLE alias_3 RENAME TO alias;
ALTER TABLE alias_target_3 RENAME TO alias_target;
CREATE INDEX account_domain ON account (domain);
CREATE INDEX alias_domain ON alias (domain);
CREATE INDEX alias_target_folded ON alias_target (folded);
