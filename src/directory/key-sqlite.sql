-- Keys by which mail is signed. The domain need not be one of `domain`: servers' own names have keys, too.
CREATE TABLE domain_key (
    domain              TEXT NOT NULL,
    selector            TEXT NOT NULL,
    kind                TEXT NOT NULL,
    state               TEXT NOT NULL,
    private_key         BLOB NOT NULL,
    public_key          TEXT NOT NULL,
    created_at          INTEGER NOT NULL,
    changed_at          INTEGER NOT NULL,
    crc                 INTEGER NOT NULL AS (row_crc(domain, selector, kind, state, private_key, public_key, created_at,
        changed_at)) STORED,
    PRIMARY KEY (domain, selector)
) STRICT, WITHOUT ROWID;
CREATE INDEX domain_key_state ON domain_key (state, domain, selector);
-- Whoever has the domain next does not find the keys of who had it before.
CREATE TRIGGER domain_key_gone AFTER DELETE ON domain
BEGIN
    DELETE FROM domain_key WHERE domain = OLD.name;
END;
