-- What nodes count together, in windows of time; losing it does no harm, so nothing of it is logged.
CREATE UNLOGGED TABLE cluster_counter (
    kind        text NOT NULL,
    key         text COLLATE "C" NOT NULL,
    slot        bigint NOT NULL,
    count       bigint NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, key, slot)
);
CREATE INDEX cluster_counter_changed_at ON cluster_counter (changed_at);

-- Work that one node at a time does. `fence` rises whenever it changes hands.
CREATE TABLE cluster_lease (
    name        text PRIMARY KEY,
    holder      text NOT NULL,
    fence       bigint NOT NULL,
    until       timestamptz NOT NULL
);

-- Nodes that may join; by a digest of their code.
CREATE TABLE cluster_invitation (
    digest      bytea PRIMARY KEY,
    until       timestamptz NOT NULL
);
