CREATE TABLE step (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    owner INTEGER NOT NULL,
    key BLOB NOT NULL,
    class INTEGER NOT NULL,
    version INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    is_new INTEGER NOT NULL,
    numbers BLOB NOT NULL
) STRICT;
CREATE INDEX step_owner ON step (owner, seq);
CREATE TABLE known (
    owner INTEGER NOT NULL,
    key BLOB NOT NULL,
    class INTEGER NOT NULL,
    version INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    learned_at INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_learned_at ON known (learned_at);
CREATE TABLE snapshot (
    owner INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    weights BLOB NOT NULL
) STRICT;
