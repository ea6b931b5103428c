-- Numbers of events rise in the order in which batches become visible: a batch holds this row until it is committed.
CREATE TABLE trail_state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    seq bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO trail_state (seq) VALUES (0);

-- The last batch of each run of each node: one that comes again is known.
CREATE TABLE trail_writer (
    writer bigint PRIMARY KEY,
    batch bigint NOT NULL,
    at bigint NOT NULL
) WITH (fillfactor = 10);

-- `day` counts days since 1970: of the message's id, or of the event if it is about none.
CREATE TABLE trail_event (
    day integer NOT NULL,
    is_recipient boolean,
    outcome smallint,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    account bigint,
    session bytea,
    message bytea,
    kind text NOT NULL,
    party text,
    fields text NOT NULL
) PARTITION BY RANGE (day);
CREATE INDEX trail_event_seq ON trail_event (seq);
CREATE INDEX trail_event_message ON trail_event (message) WHERE message IS NOT NULL;
CREATE INDEX trail_event_session ON trail_event (session) WHERE message IS NULL AND session IS NOT NULL;

-- Ids begin with the time of their making: a day is a range of ids.
CREATE TABLE trail_message (
    id bytea PRIMARY KEY,
    seq bigint NOT NULL,
    size_bytes bigint,
    score bigint,
    took_ms bigint,
    outcome smallint,
    reverse_path text,
    subject text,
    client text,
    reason text
) PARTITION BY RANGE (id);
CREATE INDEX trail_message_sender ON trail_message (lower(reverse_path COLLATE "C"), id) WHERE reverse_path IS NOT NULL;

-- Who is concerned: recipients, and the sender if it is an account of ours.
CREATE TABLE trail_party (
    message bytea NOT NULL,
    is_recipient boolean NOT NULL,
    outcome smallint,
    account bigint,
    -- The minute in which the outcome counts.
    counted bigint,
    address text NOT NULL,
    domain text NOT NULL,
    mailbox text,
    reason text,
    PRIMARY KEY (message, is_recipient, address)
) PARTITION BY RANGE (message);
CREATE INDEX trail_party_domain ON trail_party (domain, message);
CREATE INDEX trail_party_account ON trail_party (account, message) WHERE account IS NOT NULL;
CREATE INDEX trail_party_address ON trail_party (lower(address COLLATE "C"), message);

-- One row for each minute, recipient domain and outcome; domain '' sums all.
CREATE TABLE trail_minute (
    domain text NOT NULL,
    minute bigint NOT NULL,
    outcome smallint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (domain, minute, outcome)
) PARTITION BY RANGE (minute);

-- One batch in one round trip and one transaction. Events are numbered by their order; `m_seq` counts them from 1.
-- Gives the number before the first event.
CREATE FUNCTION trail_append(
    the_writer bigint, the_batch bigint, the_time bigint, oldest_minute bigint,
    e_day integer[], e_at bigint[], e_session bytea[], e_message bytea[], e_kind text[], e_party text[],
    e_account bigint[], e_is_recipient boolean[], e_outcome smallint[], e_fields text[],
    m_id bytea[], m_seq bigint[], m_reverse_path text[], m_subject text[], m_size_bytes bigint[], m_score bigint[],
    m_client text[], m_reason text[], m_took_ms bigint[],
    p_message bytea[], p_is_recipient boolean[], p_address text[], p_domain text[], p_account bigint[],
    p_outcome smallint[], p_minute bigint[], p_mailbox text[], p_reason text[]
) RETURNS bigint LANGUAGE plpgsql
    -- Rows are found one by one through the index of their day, however large the planner thinks a batch is.
    SET plan_cache_mode = force_generic_plan SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    base bigint;
BEGIN
    UPDATE trail_state SET seq = seq + cardinality(e_at) RETURNING seq - cardinality(e_at) INTO base;
    INSERT INTO trail_writer AS w (writer, batch, at) VALUES (the_writer, the_batch, the_time)
        ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at = excluded.at WHERE w.batch < excluded.batch;
    IF NOT FOUND THEN
        RETURN base;
    END IF;

    INSERT INTO trail_event (day, seq, at, session, message, kind, party, account, is_recipient, outcome, fields)
    SELECT e.day, base + e.nth, e.at, e.session, e.message, e.kind, e.party, e.account, e.is_recipient, e.outcome, e.fields
    FROM unnest(e_day, e_at, e_session, e_message, e_kind, e_party, e_account, e_is_recipient, e_outcome, e_fields)
        WITH ORDINALITY AS e (day, at, session, message, kind, party, account, is_recipient, outcome, fields, nth);

    -- An outcome that changed counts once, as what it is now; both parts see the parties as they were.
    WITH new AS MATERIALIZED (
        SELECT * FROM unnest(p_message, p_is_recipient, p_address, p_domain, p_account, p_outcome, p_minute, p_mailbox,
            p_reason) AS n (message, is_recipient, address, domain, account, outcome, minute, mailbox, reason)
    ), change AS MATERIALIZED (
        SELECT domain, minute, outcome, 1 AS step FROM new WHERE is_recipient AND outcome IS NOT NULL
        UNION ALL
        SELECT p.domain, p.counted, p.outcome, -1
        FROM new JOIN trail_party p USING (message, is_recipient, address)
        WHERE new.is_recipient AND new.outcome IS NOT NULL AND p.outcome IS NOT NULL AND p.counted >= oldest_minute
    ), stored AS (
        INSERT INTO trail_party AS p (message, is_recipient, address, domain, account, outcome, counted, mailbox, reason)
        SELECT message, is_recipient, address, domain, account, outcome, CASE WHEN outcome IS NOT NULL THEN minute END,
            mailbox, reason
        FROM new
        ON CONFLICT (message, is_recipient, address) DO UPDATE SET account = coalesce(excluded.account, p.account),
            outcome = coalesce(excluded.outcome, p.outcome), counted = coalesce(excluded.counted, p.counted),
            mailbox = coalesce(excluded.mailbox, p.mailbox), reason = coalesce(excluded.reason, p.reason)
    )
    INSERT INTO trail_minute AS m (domain, minute, outcome, count)
    SELECT names.name, change.minute, change.outcome, sum(change.step)
    FROM change CROSS JOIN LATERAL (VALUES (change.domain), ('')) AS names (name)
    GROUP BY names.name, change.minute, change.outcome
    HAVING sum(change.step) <> 0
    ON CONFLICT (domain, minute, outcome) DO UPDATE SET count = m.count + excluded.count;

    INSERT INTO trail_message AS m (id, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms, outcome)
    SELECT n.id, base + n.seq, n.reverse_path, n.subject, n.size_bytes, n.score, n.client, n.reason, n.took_ms,
        (SELECT min(p.outcome) FROM trail_party p WHERE p.message = n.id AND p.is_recipient)
    FROM unnest(m_id, m_seq, m_reverse_path, m_subject, m_size_bytes, m_score, m_client, m_reason, m_took_ms)
        AS n (id, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq,
        reverse_path = coalesce(excluded.reverse_path, m.reverse_path), subject = coalesce(excluded.subject, m.subject),
        size_bytes = coalesce(excluded.size_bytes, m.size_bytes), score = coalesce(excluded.score, m.score),
        client = coalesce(excluded.client, m.client), reason = coalesce(excluded.reason, m.reason),
        took_ms = coalesce(excluded.took_ms, m.took_ms), outcome = excluded.outcome;
    RETURN base;
END
$$;
