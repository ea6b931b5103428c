-- Its row is locked by whoever adds steps: numbers become visible in order.
CREATE TABLE classifier_state (one boolean PRIMARY KEY DEFAULT true CHECK (one), last bigint NOT NULL);
INSERT INTO classifier_state (last) VALUES (0);
CREATE TABLE classifier_step (
    seq bigint PRIMARY KEY,
    owner bigint NOT NULL,
    key bytea NOT NULL,
    class bigint NOT NULL,
    version bigint NOT NULL,
    amount bigint NOT NULL,
    is_new boolean NOT NULL,
    numbers bytea NOT NULL
);
CREATE INDEX classifier_step_owner ON classifier_step (owner, seq);
CREATE TABLE classifier_known (
    owner bigint NOT NULL,
    key bytea NOT NULL,
    class bigint NOT NULL,
    version bigint NOT NULL,
    amount bigint NOT NULL,
    learned_at bigint NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX classifier_known_learned_at ON classifier_known (learned_at);
CREATE TABLE classifier_snapshot (
    owner bigint PRIMARY KEY,
    seq bigint NOT NULL,
    weights bytea NOT NULL
);
