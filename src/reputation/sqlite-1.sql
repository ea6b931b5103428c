CREATE TABLE subject (
    kind INTEGER NOT NULL,
    key BLOB NOT NULL,
    slot INTEGER NOT NULL,
    good INTEGER NOT NULL,
    bad INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (kind, key, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_slot ON subject (kind, slot);
