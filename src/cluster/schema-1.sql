-- A row is written every second by its node: there is room for new versions of it on its page.
CREATE TABLE node (
    name        text PRIMARY KEY,
    identity    bytea NOT NULL,
    address     text,
    roles       text NOT NULL,
    version     text NOT NULL,
    started_at  bigint NOT NULL,
    heard_at    timestamptz,
    wish        text NOT NULL DEFAULT 'serve',
    sessions    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What signs the certificates of nodes; DER both.
CREATE TABLE cluster_authority (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    certificate  bytea NOT NULL,
    key          bytea NOT NULL
);
