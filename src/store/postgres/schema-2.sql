-- Quota in messages, and pools that accounts draw their allowance from. Whatever changes an account's allowance changes
-- what each of its pools has allotted by the same amount, in the same transaction, which locks the account first and
-- then its pools by rising number.

ALTER TABLE account ADD COLUMN quota_messages bigint;
ALTER TABLE account ADD COLUMN allowed_bytes bigint;
ALTER TABLE account ADD COLUMN allowed_messages bigint;

CREATE TABLE pool (
    pool_id            bigint PRIMARY KEY,
    limit_bytes        bigint,
    limit_messages     bigint,
    allotted_bytes     bigint NOT NULL,
    allotted_messages  bigint NOT NULL,
    dry_until          bigint NOT NULL
);

CREATE TABLE pool_member (
    account_id  bigint NOT NULL,
    pool_id     bigint NOT NULL,
    PRIMARY KEY (account_id, pool_id)
) PARTITION BY HASH (account_id);
CREATE INDEX pool_member_pool ON pool_member (pool_id);

DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF pool_member FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'pool_member_' || part, part);
    END LOOP;
END $$;

-- Changes the allowance of an account that its transaction holds.
CREATE FUNCTION ortler_allot(a bigint, bytes bigint, messages bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE account SET allowed_bytes = allowed_bytes + bytes, allowed_messages = allowed_messages + $3
        WHERE account_id = a;
    PERFORM 1 FROM pool WHERE pool_id IN (SELECT m.pool_id FROM pool_member m WHERE m.account_id = a)
        ORDER BY pool_id FOR UPDATE;
    UPDATE pool SET allotted_bytes = allotted_bytes + bytes, allotted_messages = allotted_messages + $3
        WHERE pool_id IN (SELECT m.pool_id FROM pool_member m WHERE m.account_id = a);
END $$;

-- How much of one resource to draw; null if a pool has not even what is needed.
CREATE FUNCTION ortler_to_draw(need bigint, most bigint, part bigint, tightest bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN need = 0 THEN 0 WHEN tightest < need THEN NULL
        ELSE least(greatest(need, most), greatest(need, coalesce(tightest / part, most))) END
$$;

-- Makes the allowance cover that many more octets and messages. Gives the pools that cannot, none if it is done.
CREATE FUNCTION ortler_draw(
    a bigint, more_bytes bigint, more_messages bigint, most_bytes bigint, most_messages bigint, part bigint
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    held account%ROWTYPE;
    mine bigint[];
    need_bytes bigint;
    need_messages bigint;
    bytes bigint;
    messages bigint;
BEGIN
    SELECT * INTO held FROM account WHERE account_id = a FOR UPDATE;
    IF held.allowed_bytes IS NULL OR held.allowed_messages IS NULL THEN
        RETURN;
    END IF;
    need_bytes := greatest(held.size_bytes + more_bytes - held.allowed_bytes, 0);
    need_messages := greatest(held.messages + more_messages - held.allowed_messages, 0);
    SELECT coalesce(array_agg(m.pool_id), '{}') INTO mine FROM pool_member m WHERE m.account_id = a;
    PERFORM 1 FROM pool WHERE pool_id = ANY (mine) ORDER BY pool_id FOR UPDATE;
    SELECT ortler_to_draw(need_bytes, most_bytes, part, min(limit_bytes - allotted_bytes)),
           ortler_to_draw(need_messages, most_messages, part, min(limit_messages - allotted_messages))
        INTO bytes, messages FROM pool WHERE pool_id = ANY (mine);
    IF bytes IS NOT NULL AND messages IS NOT NULL THEN
        PERFORM ortler_allot(a, bytes, messages);
        RETURN;
    END IF;
    RETURN QUERY SELECT pool_id FROM pool WHERE pool_id = ANY (mine)
        AND (limit_bytes - allotted_bytes < need_bytes OR limit_messages - allotted_messages < need_messages);
END $$;

-- Takes back what an account was allotted and does not use.
CREATE FUNCTION ortler_reclaim(a bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held account%ROWTYPE;
BEGIN
    SELECT * INTO held FROM account WHERE account_id = a FOR UPDATE;
    PERFORM ortler_allot(a, held.size_bytes - held.allowed_bytes, held.messages - held.allowed_messages);
END $$;

-- One delivery. `outcome` says what is missing when it was not made: then nothing was written.
CREATE OR REPLACE FUNCTION ortler_deliver(
    a bigint, message bytea, wanted_role text, wanted_name text, new_blob bytea, new_prefix bytea, new_summary bytea,
    new_system bigint, new_keywords text, received_at bigint, new_size bigint, keys text,
    OUT outcome text, OUT to_mailbox bigint, OUT at_uid bigint, OUT at_modseq bigint, OUT new_email bigint,
    OUT to_name text, OUT used bigint, OUT quota bigint
) LANGUAGE plpgsql AS $$
DECLARE
    is_unseen bigint := 1 - (new_system & 1);
    is_deleted bigint := (new_system & 8) / 8;
    held account%ROWTYPE;
BEGIN
    SELECT * INTO held FROM account WHERE account_id = a FOR UPDATE;
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
    IF held.size_bytes + new_size > held.quota_bytes THEN
        SELECT 'over quota', held.size_bytes, held.quota_bytes INTO outcome, used, quota;
        RETURN;
    END IF;
    IF held.messages + 1 > held.quota_messages THEN
        SELECT 'too many messages', held.messages, held.quota_messages INTO outcome, used, quota;
        RETURN;
    END IF;
    IF held.size_bytes + new_size > held.allowed_bytes OR held.messages + 1 > held.allowed_messages THEN
        SELECT 'no allowance', new_size INTO outcome, used;
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
