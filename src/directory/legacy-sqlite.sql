-- Old servers, and whose mailboxes are still there. Tables of their own: a check cannot be changed in a table that is there.
CREATE TABLE legacy_server (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    name                TEXT NOT NULL UNIQUE,
    imap                TEXT,
    pop3                TEXT,
    submission          TEXT,
    sieve               TEXT,
    delivery            TEXT,
    trust               TEXT NOT NULL,
    proxy_protocol      INTEGER NOT NULL,
    capture_passwords   INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(id, name, imap, pop3, submission, sieve, delivery, trust, proxy_protocol,
        capture_passwords, created_at)) STORED
) STRICT;
CREATE TABLE account_legacy (
    account             INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    server              INTEGER NOT NULL REFERENCES legacy_server (id),
    crc                 INTEGER NOT NULL AS (row_crc(account, server)) STORED
) STRICT;
CREATE INDEX account_legacy_server ON account_legacy (server);
-- Where new accounts of a domain begin.
CREATE TABLE domain_legacy (
    domain              INTEGER PRIMARY KEY REFERENCES domain (id) ON DELETE CASCADE,
    server              INTEGER NOT NULL REFERENCES legacy_server (id),
    crc                 INTEGER NOT NULL AS (row_crc(domain, server)) STORED
) STRICT;
