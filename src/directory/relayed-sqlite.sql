-- Domains whose mail goes on to a server of their owner's. A table that both engines name alike.
CREATE TABLE domain_relay (
    domain              INTEGER PRIMARY KEY REFERENCES domain (id) ON DELETE CASCADE,
    hosts               TEXT NOT NULL,
    lmtp                INTEGER NOT NULL,
    trust               TEXT NOT NULL,
    verify              TEXT NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(domain, hosts, lmtp, trust, verify)) STORED
) STRICT;
-- By which whoever reads an account's mail signs in: once, and for a while.
CREATE TABLE sign_in_link (
    account             INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    digest              BLOB NOT NULL,
    made_at             INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(account, digest, made_at)) STORED
) STRICT;
CREATE INDEX sign_in_link_digest ON sign_in_link (digest);
