-- Roles that accounts hold, and what else than a password opens them. Tables that both engines name alike.
CREATE TABLE role_grant (
    account             INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    role                TEXT NOT NULL,
    reach               TEXT NOT NULL,
    given_by            TEXT NOT NULL,
    given_at            INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(account, role, reach, given_by, given_at)) STORED,
    PRIMARY KEY (account, role, reach)
) STRICT, WITHOUT ROWID;
CREATE INDEX role_grant_reach ON role_grant (reach);
CREATE TABLE app_password (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    account             INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name                TEXT NOT NULL,
    digest              BLOB NOT NULL UNIQUE,
    protocols           TEXT NOT NULL,
    created_at          INTEGER NOT NULL,
    expires_at          INTEGER,
    used_at             INTEGER,
    crc                 INTEGER NOT NULL AS (row_crc(id, account, name, digest, protocols, created_at, expires_at, used_at)) STORED
) STRICT;
CREATE INDEX app_password_account ON app_password (account);
CREATE TABLE api_token (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    account             INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name                TEXT NOT NULL,
    digest              BLOB NOT NULL UNIQUE,
    scopes              TEXT NOT NULL,
    created_at          INTEGER NOT NULL,
    expires_at          INTEGER,
    used_at             INTEGER,
    crc                 INTEGER NOT NULL AS (row_crc(id, account, name, digest, scopes, created_at, expires_at, used_at)) STORED
) STRICT;
CREATE INDEX api_token_account ON api_token (account);
CREATE TABLE second_factor (
    account             INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    secret              BLOB NOT NULL,
    confirmed_at        INTEGER,
    last_step           INTEGER NOT NULL,
    recovery            TEXT NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(account, secret, confirmed_at, last_step, recovery)) STORED
) STRICT;
-- Where an account's mail also goes, once its owner there agreed.
CREATE TABLE forward (
    account             INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    target              TEXT NOT NULL,
    keeps               INTEGER NOT NULL,
    digest              BLOB NOT NULL,
    asked_at            INTEGER NOT NULL,
    confirmed_at        INTEGER,
    crc                 INTEGER NOT NULL AS (row_crc(account, target, keeps, digest, asked_at, confirmed_at)) STORED,
    PRIMARY KEY (account, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX forward_digest ON forward (digest);
-- Names under which a domain is reached, too.
CREATE TABLE domain_alias (
    name                TEXT PRIMARY KEY,
    domain              INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
    created_at          INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(name, domain, created_at)) STORED
) STRICT, WITHOUT ROWID;
CREATE INDEX domain_alias_domain ON domain_alias (domain);
-- What all nodes sign with: each by its name, made when it is first needed.
CREATE TABLE system_secret (
    name                TEXT PRIMARY KEY,
    value               BLOB NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(name, value)) STORED
) STRICT, WITHOUT ROWID;
-- Who did what, and who looked.
CREATE TABLE audit (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    noted_at            INTEGER NOT NULL,
    noted_by            TEXT NOT NULL,
    action              TEXT NOT NULL,
    object              TEXT NOT NULL,
    reseller            INTEGER,
    customer            INTEGER,
    domain              INTEGER,
    account             INTEGER,
    crc                 INTEGER NOT NULL AS (row_crc(id, noted_at, noted_by, action, object, reseller, customer, domain,
                            account)) STORED
) STRICT;
CREATE INDEX audit_at ON audit (noted_at);
CREATE INDEX audit_customer ON audit (customer, id);
CREATE INDEX audit_domain ON audit (domain, id);
CREATE INDEX audit_account ON audit (account, id);
-- Answers to calls of the API that are made once, however often they are asked for.
CREATE TABLE answered_call (
    account             INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    word                TEXT NOT NULL,
    digest              BLOB NOT NULL,
    status              INTEGER NOT NULL,
    body                BLOB NOT NULL,
    answered_at         INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(account, word, digest, status, body, answered_at)) STORED,
    PRIMARY KEY (account, word)
) STRICT, WITHOUT ROWID;
