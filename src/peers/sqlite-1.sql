-- Policies of MTA-STS that were fetched. They outlive restarts: whoever hides a policy from us must hide it until it ends.
CREATE TABLE sts_policy (
    domain      TEXT PRIMARY KEY,
    policy_id   TEXT NOT NULL,
    text        TEXT NOT NULL,
    fetched_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What was seen of other systems, by day (since 1970), to be reported to them. `key` is a digest of the facts.
CREATE TABLE seen (
    day         INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    domain      TEXT NOT NULL,
    key         BLOB NOT NULL,
    facts       TEXT NOT NULL,
    count       INTEGER NOT NULL,
    PRIMARY KEY (day, kind, domain, key)
) STRICT, WITHOUT ROWID;
-- Reports that went out, or were found not to be wanted.
CREATE TABLE sent (
    day         INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    domain      TEXT NOT NULL,
    sent_at     INTEGER NOT NULL,
    PRIMARY KEY (day, kind, domain)
) STRICT, WITHOUT ROWID;
-- Reports that came in. `id` is a digest of what was reported.
CREATE TABLE received (
    domain      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    begin_at    INTEGER NOT NULL,
    id          BLOB NOT NULL,
    submitter   TEXT NOT NULL,
    end_at      INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    report      TEXT NOT NULL,
    PRIMARY KEY (domain, kind, begin_at, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX received_end ON received (end_at);
