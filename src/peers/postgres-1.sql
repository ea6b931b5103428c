-- Policies of MTA-STS that were fetched. They outlive restarts: whoever hides a policy from us must hide it until it ends.
CREATE TABLE peers_sts_policy (
    domain      text COLLATE "C" PRIMARY KEY,
    policy_id   text NOT NULL,
    text        text NOT NULL,
    fetched_at  bigint NOT NULL,
    expires_at  bigint NOT NULL
);
-- What was seen of other systems, by day (since 1970), to be reported to them. `key` is a digest of the facts.
CREATE TABLE peers_seen (
    day         bigint NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    domain      text COLLATE "C" NOT NULL,
    key         bytea NOT NULL,
    facts       text NOT NULL,
    count       bigint NOT NULL,
    PRIMARY KEY (day, kind, domain, key)
);
-- Reports that went out, or were found not to be wanted.
CREATE TABLE peers_sent (
    day         bigint NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    domain      text COLLATE "C" NOT NULL,
    sent_at     bigint NOT NULL,
    PRIMARY KEY (day, kind, domain)
);
-- Reports that came in. `id` is a digest of what was reported.
CREATE TABLE peers_received (
    domain      text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    begin_at    bigint NOT NULL,
    id          bytea NOT NULL,
    submitter   text NOT NULL,
    end_at      bigint NOT NULL,
    received_at bigint NOT NULL,
    report      text NOT NULL,
    PRIMARY KEY (domain, kind, begin_at, id)
);
CREATE INDEX peers_received_end ON peers_received (end_at);
