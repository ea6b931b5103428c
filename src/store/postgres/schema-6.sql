-- Messages on their way to somewhere else. A lane is what is tried together; its work is found by the lane, and lanes by
-- when they are due: what waits for something that does not answer is not looked at.
--
-- A lane is held until leased_until, by the server's clock. Times of schedules are those of the nodes.

-- The reference keeps garbage collection of every version off.
CREATE TABLE queue_item (
    message_id   bytea NOT NULL,
    variant      bigint NOT NULL,
    blob_id      bytea NOT NULL REFERENCES blob (blob_id),
    size_bytes   bigint NOT NULL,
    prefix       bytea NOT NULL,
    sender       text COLLATE "C" NOT NULL,
    account_id   bigint,
    needs        bigint NOT NULL,
    envelope_id  text,
    subject      text NOT NULL,
    created_at   bigint NOT NULL,
    recipients   bigint NOT NULL,
    PRIMARY KEY (message_id, variant)
) WITH (fillfactor = 80);
CREATE INDEX queue_item_blob ON queue_item (blob_id);

CREATE TABLE queue_recipient (
    message_id   bytea NOT NULL,
    nth          bigint NOT NULL,
    variant      bigint NOT NULL,
    address      text COLLATE "C" NOT NULL,
    original     text,
    notify       bigint NOT NULL,
    lane         text COLLATE "C" NOT NULL,
    priority     bigint NOT NULL,
    state        bigint NOT NULL,
    next_at      bigint NOT NULL,
    alarm_at     bigint NOT NULL,
    expires_at   bigint NOT NULL,
    attempts     bigint NOT NULL,
    last_at      bigint,
    last_status  text NOT NULL,
    last_host    text NOT NULL,
    PRIMARY KEY (message_id, nth)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX queue_due ON queue_recipient (lane, state, priority, next_at);
CREATE INDEX queue_alarm ON queue_recipient (lane, alarm_at) WHERE state = 0;

CREATE TABLE queue_lane (
    lane          text COLLATE "C" PRIMARY KEY,
    due_at        bigint NOT NULL,
    holder        text COLLATE "C" NOT NULL,
    fence         bigint NOT NULL,
    leased_until  timestamptz NOT NULL,
    failures      bigint NOT NULL,
    retry_at      bigint NOT NULL,
    is_suspended  boolean NOT NULL,
    reason        text NOT NULL,
    warm_at       bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX queue_lane_due ON queue_lane (due_at) WHERE NOT is_suspended;
