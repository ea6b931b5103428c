-- Mail tables are hash-partitioned by account; every key leads with the account. Content is numbered by the email it
-- was made for. A content row is its account's reference to a blob: no mail transaction writes what accounts share.

CREATE TABLE account (
    account_id    bigint PRIMARY KEY,
    modseq        bigint NOT NULL,
    log_floor     bigint NOT NULL,
    log_rows      bigint NOT NULL,
    next_mailbox  bigint NOT NULL,
    next_email    bigint NOT NULL,
    uid_validity  bigint NOT NULL,
    messages      bigint NOT NULL CHECK (messages >= 0),
    size_bytes    bigint NOT NULL CHECK (size_bytes >= 0),
    quota_bytes   bigint
) PARTITION BY HASH (account_id);

CREATE TABLE mailbox (
    account_id      bigint NOT NULL,
    mailbox_id      bigint NOT NULL,
    name            text COLLATE "C" NOT NULL,
    role            text COLLATE "C",
    uid_validity    bigint NOT NULL,
    uid_next        bigint NOT NULL CHECK (uid_next < 4294967296),
    highest_modseq  bigint NOT NULL,
    changed_modseq  bigint NOT NULL,
    created_modseq  bigint NOT NULL,
    messages        bigint NOT NULL CHECK (messages >= 0),
    unseen          bigint NOT NULL CHECK (unseen >= 0),
    deleted         bigint NOT NULL CHECK (deleted >= 0),
    size_bytes      bigint NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (account_id, mailbox_id)
) PARTITION BY HASH (account_id);
CREATE UNIQUE INDEX mailbox_name ON mailbox (account_id, name);
CREATE UNIQUE INDEX mailbox_role ON mailbox (account_id, role);

CREATE TABLE subscription (
    account_id  bigint NOT NULL,
    name        text COLLATE "C" NOT NULL,
    PRIMARY KEY (account_id, name)
) PARTITION BY HASH (account_id);

CREATE TABLE entry (
    account_id      bigint NOT NULL,
    mailbox_id      bigint NOT NULL,
    uid             bigint NOT NULL,
    email_id        bigint NOT NULL,
    thread_id       bigint NOT NULL,
    modseq          bigint NOT NULL,
    created_modseq  bigint NOT NULL,
    system          bigint NOT NULL,
    keywords        text,
    internal_date   bigint NOT NULL,
    size_bytes      bigint NOT NULL,
    content_id      bigint NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, uid)
) PARTITION BY HASH (account_id);
CREATE INDEX entry_modseq ON entry (account_id, modseq);
CREATE UNIQUE INDEX entry_email ON entry (account_id, email_id);
CREATE INDEX entry_thread ON entry (account_id, thread_id) WHERE thread_id <> email_id;

CREATE TABLE content (
    account_id  bigint NOT NULL,
    content_id  bigint NOT NULL,
    blob_id     bytea NOT NULL,
    prefix      bytea NOT NULL,
    summary     bytea NOT NULL,
    PRIMARY KEY (account_id, content_id)
) PARTITION BY HASH (account_id);
CREATE INDEX content_blob ON content (blob_id);

CREATE TABLE removed (
    account_id     bigint NOT NULL,
    email_id       bigint NOT NULL,
    removed_at     bigint NOT NULL,
    mailbox_id     bigint NOT NULL,
    mailbox_name   text COLLATE "C" NOT NULL,
    system         bigint NOT NULL,
    keywords       text,
    internal_date  bigint NOT NULL,
    size_bytes     bigint NOT NULL,
    content_id     bigint NOT NULL,
    PRIMARY KEY (account_id, email_id)
) PARTITION BY HASH (account_id);
CREATE INDEX removed_at ON removed (removed_at);

CREATE TABLE vanished (
    account_id      bigint NOT NULL,
    modseq          bigint NOT NULL,
    mailbox_id      bigint NOT NULL,
    uid             bigint NOT NULL,
    email_id        bigint NOT NULL,
    created_modseq  bigint NOT NULL,
    is_move         boolean NOT NULL,
    PRIMARY KEY (account_id, modseq, mailbox_id, uid)
) PARTITION BY HASH (account_id);

CREATE TABLE mailbox_gone (
    account_id  bigint NOT NULL,
    modseq      bigint NOT NULL,
    mailbox_id  bigint NOT NULL,
    PRIMARY KEY (account_id, modseq, mailbox_id)
) PARTITION BY HASH (account_id);

CREATE TABLE thread_ref (
    account_id  bigint NOT NULL,
    key         bigint NOT NULL,
    thread_id   bigint NOT NULL,
    PRIMARY KEY (account_id, key)
) PARTITION BY HASH (account_id);

CREATE TABLE delivered (
    account_id  bigint NOT NULL,
    message_id  bytea NOT NULL,
    mailbox_id  bigint NOT NULL,
    uid         bigint NOT NULL,
    modseq      bigint NOT NULL,
    email_id    bigint NOT NULL,
    PRIMARY KEY (account_id, message_id)
) PARTITION BY HASH (account_id);
CREATE INDEX delivered_message ON delivered (message_id);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['account', 'mailbox', 'subscription', 'entry', 'content', 'removed', 'vanished',
                                  'mailbox_gone', 'thread_ref', 'delivered'] LOOP
        FOR part IN 0..15 LOOP
            -- Counter rows change with every delivery: room on the page keeps those updates out of the indexes.
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 16, REMAINDER %s) %s',
                           parent || '_' || part, parent, part,
                           CASE WHEN parent IN ('account', 'mailbox') THEN 'WITH (fillfactor = 50)' ELSE '' END);
        END LOOP;
    END LOOP;
END $$;

CREATE TABLE blob (
    blob_id     bytea PRIMARY KEY,
    size_bytes  bigint NOT NULL,
    digest      bytea NOT NULL
);
CREATE TABLE blob_chunk (
    blob_id  bytea NOT NULL,
    nth      bigint NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (blob_id, nth)
);
-- Compressed already.
ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL;

-- Blobs to look at: new ones, which nothing may ever refer to, and those that lost a reference.
CREATE TABLE blob_release (
    released_at  bigint NOT NULL,
    blob_id      bytea NOT NULL,
    PRIMARY KEY (released_at, blob_id)
);

-- The thread that one of the keys belongs to, the first of them, else a new one numbered by the email.
CREATE FUNCTION ortler_thread(a bigint, keys text, email bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint[] := string_to_array(keys, ',')::bigint[];
    thread bigint;
BEGIN
    IF cardinality(wanted) = 0 THEN
        RETURN email;
    END IF;
    SELECT r.thread_id INTO thread FROM unnest(wanted) WITH ORDINALITY AS w (key, nth)
        JOIN thread_ref r ON r.account_id = a AND r.key = w.key ORDER BY w.nth LIMIT 1;
    thread := coalesce(thread, email);
    INSERT INTO thread_ref (account_id, key, thread_id) SELECT a, k, thread FROM unnest(wanted) AS k
        ON CONFLICT DO NOTHING;
    RETURN thread;
END $$;

-- One delivery. `outcome` says what is missing when it was not made: then nothing was written.
CREATE FUNCTION ortler_deliver(
    a bigint, message bytea, wanted_role text, wanted_name text, new_blob bytea, new_prefix bytea, new_summary bytea,
    new_system bigint, new_keywords text, received_at bigint, new_size bigint, keys text,
    OUT outcome text, OUT to_mailbox bigint, OUT at_uid bigint, OUT at_modseq bigint, OUT new_email bigint,
    OUT to_name text, OUT used bigint, OUT quota bigint
) LANGUAGE plpgsql AS $$
DECLARE
    is_unseen bigint := 1 - (new_system & 1);
    is_deleted bigint := (new_system & 8) / 8;
BEGIN
    SELECT size_bytes, quota_bytes INTO used, quota FROM account WHERE account_id = a FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'no account';
        RETURN;
    END IF;
    SELECT d.mailbox_id, d.uid, d.modseq, d.email_id, coalesce(m.name, 'INBOX')
        INTO to_mailbox, at_uid, at_modseq, new_email, to_name
        FROM delivered d LEFT JOIN mailbox m ON m.account_id = d.account_id AND m.mailbox_id = d.mailbox_id
        WHERE d.account_id = a AND d.message_id = message;
    IF FOUND THEN
        outcome := 'done';
        RETURN;
    END IF;
    PERFORM 1 FROM blob WHERE blob_id = new_blob FOR KEY SHARE;
    IF NOT FOUND THEN
        outcome := 'no blob';
        RETURN;
    END IF;
    IF used + new_size > quota THEN
        outcome := 'over quota';
        RETURN;
    END IF;
    IF wanted_name IS NOT NULL THEN
        SELECT mailbox_id INTO to_mailbox FROM mailbox WHERE account_id = a AND name = wanted_name;
    END IF;
    IF to_mailbox IS NULL THEN
        SELECT mailbox_id INTO to_mailbox FROM mailbox WHERE account_id = a AND role = wanted_role;
    END IF;
    IF to_mailbox IS NULL THEN
        outcome := 'no mailbox';
        RETURN;
    END IF;
    UPDATE account SET modseq = modseq + 1, next_email = next_email + 1, messages = messages + 1,
        size_bytes = size_bytes + new_size WHERE account_id = a RETURNING modseq, next_email - 1
        INTO at_modseq, new_email;
    UPDATE mailbox SET uid_next = uid_next + 1, messages = messages + 1, unseen = unseen + is_unseen,
        deleted = deleted + is_deleted, size_bytes = size_bytes + new_size, highest_modseq = at_modseq,
        changed_modseq = at_modseq WHERE account_id = a AND mailbox_id = to_mailbox RETURNING uid_next - 1, name
        INTO at_uid, to_name;
    INSERT INTO content (account_id, content_id, blob_id, prefix, summary)
        VALUES (a, new_email, new_blob, new_prefix, new_summary);
    INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
        internal_date, size_bytes, content_id)
        VALUES (a, to_mailbox, at_uid, new_email, ortler_thread(a, keys, new_email), at_modseq, at_modseq, new_system,
        new_keywords, received_at, new_size, new_email);
    INSERT INTO delivered (account_id, message_id, mailbox_id, uid, modseq, email_id)
        VALUES (a, message, to_mailbox, at_uid, at_modseq, new_email);
    outcome := 'done';
END $$;
