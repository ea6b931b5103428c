CREATE TABLE reputation_subject (
    kind bigint NOT NULL,
    key bytea NOT NULL,
    slot bigint NOT NULL,
    good bigint NOT NULL,
    bad bigint NOT NULL,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL,
    PRIMARY KEY (kind, key, slot)
);
CREATE INDEX reputation_subject_slot ON reputation_subject (kind, slot);
