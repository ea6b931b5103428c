//! The auditor's questions to the tables, by ranges of accounts and over the whole, and what sets right the answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{AccountId, BlobId, MessageId, PoolId};
use rusqlite::{Connection, Result};

use super::{SqliteStore, crc};
use crate::audit::{AuditReport, PROBLEMS_MAX, WRONG_ALLOWANCE, WRONG_POOL};
use crate::error::StoreError;
use crate::queue;

/// What must not be: in words, and a query for where it is. `?1` and `?2` bound the accounts.
type Rule = (&'static str, &'static str);

/// Of the rows of each account.
const OF_ACCOUNTS: &[Rule] = &[
    (
        "the mailbox belongs to no account",
        "SELECT format('account %d, mailbox %d (%s)', m.account_id, m.mailbox_id, m.name) FROM mailbox m
         LEFT JOIN account a ON a.account_id = m.account_id
         WHERE a.account_id IS NULL AND m.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry belongs to no mailbox",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         LEFT JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
         WHERE m.name IS NULL AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry's UID is not below the mailbox's UIDNEXT",
        "SELECT format('account %d, mailbox %d (%s), uid %d', e.account_id, e.mailbox_id, m.name, e.uid) FROM entry e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
         WHERE e.uid >= m.uid_next AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry's mod-sequence is above its mailbox's or account's",
        "SELECT format('account %d, mailbox %d (%s), uid %d', e.account_id, e.mailbox_id, m.name, e.uid) FROM entry e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
         JOIN account a ON a.account_id = e.account_id
         WHERE (e.modseq > m.highest_modseq OR m.highest_modseq > a.modseq OR e.created_modseq > e.modseq)
         AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the account would give an email or mailbox number again",
        "SELECT format('account %d', a.account_id) FROM account a WHERE a.account_id BETWEEN ?1 AND ?2
         AND (a.next_email <= (SELECT max(e.email_id) FROM entry e WHERE e.account_id = a.account_id)
           OR a.next_email <= (SELECT max(r.email_id) FROM removed r WHERE r.account_id = a.account_id)
           OR a.next_email <= (SELECT max(h.email_id) FROM held h WHERE h.account_id = a.account_id)
           OR a.next_mailbox <= (SELECT max(m.mailbox_id) FROM mailbox m WHERE m.account_id = a.account_id))",
    ),
    (
        "the entry's thread is newer than the entry",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         WHERE e.thread_id > e.email_id AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry has no content row, or a stranger's",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         LEFT JOIN content c ON c.content_id = e.content_id
         WHERE c.account_id IS NOT e.account_id AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the expunged email has no content row, or a stranger's",
        "SELECT format('account %d, expunged email %d', e.account_id, e.email_id) FROM removed e
         LEFT JOIN content c ON c.content_id = e.content_id
         WHERE c.account_id IS NOT e.account_id AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the held message has no content row, or a stranger's",
        "SELECT format('account %d, held message %d', h.account_id, h.email_id) FROM held h
         LEFT JOIN content c ON c.content_id = h.content_id
         WHERE c.account_id IS NOT h.account_id AND h.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry's blob is not there",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN content c ON c.content_id = e.content_id
         LEFT JOIN blob b ON b.blob_id = c.blob_id WHERE b.blob_id IS NULL AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the entry's size is not that of its prefix and blob",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN content c ON c.content_id = e.content_id JOIN blob b ON b.blob_id = c.blob_id
         WHERE e.size_bytes <> b.size_bytes + length(c.prefix) AND e.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the mailbox's counters differ from its entries",
        "SELECT format('account %d, mailbox %d (%s)', m.account_id, m.mailbox_id, m.name)
         FROM mailbox m LEFT JOIN entry e ON e.account_id = m.account_id AND e.mailbox_id = m.mailbox_id
         WHERE m.account_id BETWEEN ?1 AND ?2
         GROUP BY m.account_id, m.mailbox_id
         HAVING m.messages <> count(e.uid) OR m.size_bytes <> coalesce(sum(e.size_bytes), 0)
             OR m.unseen <> count(e.uid) - coalesce(sum(e.system & 1), 0)
             OR m.deleted <> coalesce(sum(e.system & 8), 0) / 8",
    ),
    (
        "the account's usage differs from its mailboxes",
        "SELECT format('account %d', a.account_id)
         FROM account a LEFT JOIN mailbox m ON m.account_id = a.account_id
         WHERE a.account_id BETWEEN ?1 AND ?2
         GROUP BY a.account_id
         HAVING a.messages <> coalesce(sum(m.messages), 0) OR a.size_bytes <> coalesce(sum(m.size_bytes), 0)",
    ),
    (
        WRONG_ALLOWANCE,
        "SELECT format('account %d', a.account_id) FROM account a WHERE a.account_id BETWEEN ?1 AND ?2
         AND (a.allowed_bytes < a.size_bytes OR a.allowed_messages < a.messages
             OR (a.allowed_bytes IS NULL OR a.allowed_messages IS NULL)
                 = EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = a.account_id))",
    ),
    (
        "the account's count of log rows is wrong",
        "SELECT format('account %d', a.account_id) FROM account a WHERE a.account_id BETWEEN ?1 AND ?2 AND a.log_rows <>
             (SELECT count(*) FROM vanished v WHERE v.account_id = a.account_id)
             + (SELECT count(*) FROM mailbox_gone g WHERE g.account_id = a.account_id)",
    ),
];

/// Of all rows together: these have no index that leads with the account. `?1` and `?2` bound nothing.
const OF_ALL: &[Rule] = &[
    (
        "nothing refers to the content row",
        "SELECT format('account %d, content %d', c.account_id, c.content_id) FROM content c WHERE c.content_id NOT IN
         (SELECT content_id FROM entry UNION ALL SELECT content_id FROM removed UNION ALL SELECT content_id FROM held)
         AND c.account_id BETWEEN ?1 AND ?2",
    ),
    (
        "the delivery is of an account that is not there",
        "SELECT format('account %d, delivery %s', d.account_id, hex(d.message_id)) FROM delivered d
         LEFT JOIN account a ON a.account_id = d.account_id
         WHERE a.account_id IS NULL AND d.account_id BETWEEN ?1 AND ?2",
    ),
];

/// Blobs whose count of references is not what the content rows and the queue add up to.
const REFERENCES: &str = "
    SELECT b.blob_id, coalesce(r.n, 0) FROM blob b
    LEFT JOIN (SELECT blob_id, count(*) AS n FROM (SELECT blob_id FROM content UNION ALL SELECT blob_id FROM queue_item)
        GROUP BY blob_id) r ON r.blob_id = b.blob_id
    WHERE b.refs <> coalesce(r.n, 0)";

/// Blobs that nothing refers to and that no list leads garbage collection to.
const FORGOTTEN: &str = "
    SELECT b.blob_id FROM blob b
    WHERE b.refs = 0 AND b.blob_id NOT IN (SELECT blob_id FROM blob_release)";

/// Pools that did not allot what the allowances of their accounts add up to.
const POOLS: &str = "
    SELECT p.pool_id, coalesce(sum(a.allowed_bytes), 0), coalesce(sum(a.allowed_messages), 0) FROM pool p
    LEFT JOIN pool_member m ON m.pool_id = p.pool_id LEFT JOIN account a ON a.account_id = m.account_id
    GROUP BY p.pool_id
    HAVING p.allotted_bytes <> coalesce(sum(a.allowed_bytes), 0)
        OR p.allotted_messages <> coalesce(sum(a.allowed_messages), 0)";

const WRONG_REFERENCES: &str = "the blob's count of references is wrong";
const WRONG_RELEASE: &str = "nothing refers to the blob, yet it is not listed as garbage";

/// Sets right what follows from other rows, the certain before what is counted from it. A stranger's content is not
/// given back: whose it is only its owner can tell; nor is a blob that is lost.
const REPAIRS: &str = "
    INSERT INTO mailbox (account_id, mailbox_id, name, role, uid_validity, uid_next, highest_modseq, changed_modseq,
        created_modseq, messages, unseen, deleted, size_bytes)
        SELECT e.account_id, e.mailbox_id, 'Recovered ' || e.mailbox_id, NULL,
            coalesce((SELECT a.uid_validity FROM account a WHERE a.account_id = e.account_id), 0) + 1, max(e.uid) + 1,
            max(e.modseq), max(e.modseq), max(e.modseq), 0, 0, 0, 0
        FROM entry e WHERE NOT EXISTS
            (SELECT 1 FROM mailbox m WHERE m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id)
        GROUP BY e.account_id, e.mailbox_id;
    INSERT INTO account (account_id, modseq, log_floor, log_rows, next_mailbox, next_email, uid_validity, messages,
        size_bytes)
        SELECT m.account_id, max(m.highest_modseq), 0, 0, max(m.mailbox_id) + 1, 1, max(m.uid_validity), 0, 0
        FROM mailbox m WHERE NOT EXISTS (SELECT 1 FROM account a WHERE a.account_id = m.account_id)
        GROUP BY m.account_id;
    UPDATE account SET uid_validity =
            (SELECT max(m.uid_validity) FROM mailbox m WHERE m.account_id = account.account_id)
        WHERE uid_validity < (SELECT max(m.uid_validity) FROM mailbox m WHERE m.account_id = account.account_id);
    UPDATE entry SET created_modseq = modseq WHERE created_modseq > modseq;
    UPDATE entry SET thread_id = email_id WHERE thread_id > email_id;
    UPDATE mailbox SET uid_next = (SELECT max(e.uid) + 1 FROM entry e
            WHERE e.account_id = mailbox.account_id AND e.mailbox_id = mailbox.mailbox_id)
        WHERE uid_next <= (SELECT max(e.uid) FROM entry e
            WHERE e.account_id = mailbox.account_id AND e.mailbox_id = mailbox.mailbox_id);
    UPDATE mailbox SET highest_modseq = (SELECT max(e.modseq) FROM entry e
            WHERE e.account_id = mailbox.account_id AND e.mailbox_id = mailbox.mailbox_id)
        WHERE highest_modseq < (SELECT max(e.modseq) FROM entry e
            WHERE e.account_id = mailbox.account_id AND e.mailbox_id = mailbox.mailbox_id);
    UPDATE account SET modseq = (SELECT max(m.highest_modseq) FROM mailbox m WHERE m.account_id = account.account_id)
        WHERE modseq < (SELECT max(m.highest_modseq) FROM mailbox m WHERE m.account_id = account.account_id);
    UPDATE account SET next_email = n.email, next_mailbox = n.mailbox, log_rows = n.log_rows
        FROM (SELECT a.account_id,
            max(a.next_email,
                coalesce((SELECT max(e.email_id) FROM entry e WHERE e.account_id = a.account_id), 0) + 1,
                coalesce((SELECT max(r.email_id) FROM removed r WHERE r.account_id = a.account_id), 0) + 1,
                coalesce((SELECT max(h.email_id) FROM held h WHERE h.account_id = a.account_id), 0) + 1) AS email,
            max(a.next_mailbox,
                coalesce((SELECT max(m.mailbox_id) FROM mailbox m WHERE m.account_id = a.account_id), 0) + 1) AS mailbox,
            (SELECT count(*) FROM vanished v WHERE v.account_id = a.account_id)
                + (SELECT count(*) FROM mailbox_gone g WHERE g.account_id = a.account_id) AS log_rows
            FROM account a) AS n
        WHERE n.account_id = account.account_id
        AND (account.next_email, account.next_mailbox, account.log_rows) <> (n.email, n.mailbox, n.log_rows);
    DELETE FROM removed WHERE NOT EXISTS
        (SELECT 1 FROM content c WHERE c.content_id = removed.content_id AND c.account_id = removed.account_id);
    DELETE FROM held WHERE NOT EXISTS
        (SELECT 1 FROM content c WHERE c.content_id = held.content_id AND c.account_id = held.account_id);
    DELETE FROM content WHERE content_id NOT IN
        (SELECT content_id FROM entry UNION ALL SELECT content_id FROM removed UNION ALL SELECT content_id FROM held);
    DELETE FROM delivered WHERE account_id NOT IN (SELECT account_id FROM account);
    UPDATE entry SET size_bytes = (SELECT b.size_bytes + length(c.prefix) FROM content c
            JOIN blob b ON b.blob_id = c.blob_id WHERE c.content_id = entry.content_id)
        WHERE size_bytes <> (SELECT b.size_bytes + length(c.prefix) FROM content c
            JOIN blob b ON b.blob_id = c.blob_id WHERE c.content_id = entry.content_id);
    UPDATE mailbox SET messages = n.messages, unseen = n.unseen, deleted = n.deleted, size_bytes = n.size_bytes
        FROM (SELECT m.account_id, m.mailbox_id, count(e.uid) AS messages,
            count(e.uid) - coalesce(sum(e.system & 1), 0) AS unseen, coalesce(sum(e.system & 8), 0) / 8 AS deleted,
            coalesce(sum(e.size_bytes), 0) AS size_bytes
            FROM mailbox m LEFT JOIN entry e ON e.account_id = m.account_id AND e.mailbox_id = m.mailbox_id
            GROUP BY m.account_id, m.mailbox_id) AS n
        WHERE n.account_id = mailbox.account_id AND n.mailbox_id = mailbox.mailbox_id
        AND (mailbox.messages, mailbox.unseen, mailbox.deleted, mailbox.size_bytes)
            <> (n.messages, n.unseen, n.deleted, n.size_bytes);
    UPDATE account SET messages = n.messages, size_bytes = n.size_bytes
        FROM (SELECT a.account_id, coalesce(sum(m.messages), 0) AS messages, coalesce(sum(m.size_bytes), 0) AS size_bytes
            FROM account a LEFT JOIN mailbox m ON m.account_id = a.account_id GROUP BY a.account_id) AS n
        WHERE n.account_id = account.account_id
        AND (account.messages, account.size_bytes) <> (n.messages, n.size_bytes);
    UPDATE account SET allowed_bytes = NULL, allowed_messages = NULL
        WHERE NOT EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = account.account_id)
        AND (allowed_bytes IS NOT NULL OR allowed_messages IS NOT NULL);
    UPDATE account SET allowed_bytes = max(coalesce(allowed_bytes, 0), size_bytes),
        allowed_messages = max(coalesce(allowed_messages, 0), messages)
        WHERE EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = account.account_id)
        AND (allowed_bytes IS NULL OR allowed_messages IS NULL
            OR allowed_bytes < size_bytes OR allowed_messages < messages);
    UPDATE pool SET allotted_bytes = n.bytes, allotted_messages = n.messages
        FROM (SELECT p.pool_id, coalesce(sum(a.allowed_bytes), 0) AS bytes,
            coalesce(sum(a.allowed_messages), 0) AS messages FROM pool p
            LEFT JOIN pool_member m ON m.pool_id = p.pool_id LEFT JOIN account a ON a.account_id = m.account_id
            GROUP BY p.pool_id) AS n
        WHERE n.pool_id = pool.pool_id
        AND (pool.allotted_bytes, pool.allotted_messages) <> (n.bytes, n.messages);";

/// Makes lanes that are not there.
const LANES: &str = "
    INSERT INTO queue_lane (lane, due_at, holder, fence, failures, retry_at, is_suspended, reason, warm_at)
        SELECT DISTINCT lane, 0, '', 0, 0, 0, 0, '', 0 FROM queue_recipient
        WHERE lane NOT IN (SELECT lane FROM queue_lane);";

/// Accounts looked at in one step.
const ACCOUNTS: usize = 200;
/// Places of a damaged blob that are named.
const HOLDERS_MAX: usize = 20;

impl SqliteStore {
    /// Looks at the next accounts from number `from` on: one consistent state, deliveries go on meanwhile. Gives where to
    /// go on; `None` at the end.
    pub(crate) async fn check_accounts(
        &self,
        from: u64,
        known: Option<Arc<BTreeSet<AccountId>>>,
        is_deep: bool,
    ) -> Result<(AuditReport, Option<u64>), StoreError> {
        self.read(move |sql| {
            let sql = &sql.unchecked_transaction()?;
            let (mut report, mut next) = (AuditReport::default(), None);
            let looked = look_at_accounts(sql, from, known.as_deref(), is_deep, &mut report).map(|on| next = on);
            crc::contain(sql, "the accounts", looked, &mut report)?;
            Ok((report, next))
        })
        .await
    }

    /// Looks at what only all rows together tell; with `is_whole`, at the file as such too, which reads all of it.
    pub(crate) async fn check_all(&self, is_whole: bool) -> Result<AuditReport, StoreError> {
        self.read(move |sql| look_at_all(sql, is_whole)).await
    }

    /// Sets right all that the rows allow. A new look tells what is left.
    pub(crate) async fn repair(&self) -> Result<(), StoreError> {
        let now = self.clock.utc().0;
        self.write_sql(move |sql| repair(sql, now)).await
    }

    /// Some places where the blob is a message.
    pub(crate) async fn holders(&self, blob: BlobId) -> Result<Vec<String>, StoreError> {
        self.read(move |sql| {
            sql.prepare(
                "SELECT format('account %d, mailbox %d (%s), uid %d', e.account_id, e.mailbox_id, m.name, e.uid)
                 FROM content c JOIN entry e ON e.account_id = c.account_id AND e.content_id = c.content_id
                 JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
                 WHERE c.blob_id = ?1 LIMIT ?2",
            )?
            .query_map((blob.to_bytes(), HOLDERS_MAX), |row| row.get(0))?
            .collect()
        })
        .await
    }
}

fn at(account: u64) -> String {
    format!("account {account}")
}

fn blob_at(id: [u8; 16]) -> String {
    format!("blob {}", BlobId::from_bytes(id))
}

fn apply(sql: &Connection, rules: &[Rule], bounds: (i64, i64), report: &mut AuditReport) -> Result<()> {
    for (what, text) in rules {
        let applied = apply_one(sql, what, text, bounds, report);
        crc::contain(sql, what, applied, report)?;
    }
    Ok(())
}

fn apply_one(sql: &Connection, what: &str, text: &str, bounds: (i64, i64), report: &mut AuditReport) -> Result<()> {
    for location in sql.prepare(text)?.query_map(bounds, |row| row.get::<_, String>(0))?.take(PROBLEMS_MAX) {
        report.add(what, location?, false);
    }
    Ok(())
}

fn look_at_accounts(
    sql: &Connection,
    from: u64,
    known: Option<&BTreeSet<AccountId>>,
    is_deep: bool,
    report: &mut AuditReport,
) -> Result<Option<u64>> {
    let mut next =
        sql.prepare("SELECT account_id, messages FROM account WHERE account_id >= ?1 ORDER BY account_id LIMIT ?2")?;
    let accounts: Vec<(u64, u64)> =
        next.query_map((from, ACCOUNTS), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    // The last range reaches to the end, for rows that no account has.
    let last = accounts.last().map(|(account, _)| *account).filter(|_| accounts.len() == ACCOUNTS);
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let bounds = (signed(from), last.map_or(i64::MAX, signed));
    report.checked.accounts = accounts.len() as u64;
    let count = |table: &str| {
        let text = format!("SELECT count(*) FROM {table} WHERE account_id BETWEEN ?1 AND ?2");
        sql.query_row(&text, bounds, |row| row.get::<_, u64>(0))
    };
    (report.checked.mailboxes, report.checked.entries) = (count("mailbox")?, count("entry")?);
    for (account, messages) in accounts {
        if known.is_some_and(|known| !known.contains(&AccountId(account))) {
            report.add(format!("{messages} messages of an account that is not in the directory"), at(account), false);
        }
    }
    apply(sql, OF_ACCOUNTS, bounds, report)?;
    crc::look_at_accounts(sql, bounds, is_deep, report)?;
    Ok(last.map(|last| last + 1))
}

type Look = fn(&Connection, &mut AuditReport) -> Result<()>;

fn look_at_all(sql: &Connection, is_whole: bool) -> Result<AuditReport> {
    let sql = &sql.unchecked_transaction()?;
    let mut report = AuditReport::default();
    let steps: [(&str, Look); 4] = [
        ("the file's own structure", if is_whole { look_at_file } else { |_, _| Ok(()) }),
        ("rows of all accounts", |sql, report| apply(sql, OF_ALL, (0, i64::MAX), report)),
        ("rows of no account", crc::look_at_rest),
        ("pools, the queue and blobs", look_at_sums),
    ];
    for (asked, step) in steps {
        let looked = step(sql, &mut report);
        crc::contain(sql, asked, looked, &mut report)?;
    }
    Ok(report)
}

fn look_at_file(sql: &Connection, report: &mut AuditReport) -> Result<()> {
    let mut integrity = sql.prepare("PRAGMA integrity_check(100)")?;
    for line in integrity.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            report.add(format!("SQLite: {line}"), sql.path().unwrap_or_default(), false);
        }
    }
    Ok(())
}

fn look_at_sums(sql: &Connection, report: &mut AuditReport) -> Result<()> {
    for row in sql.prepare(POOLS)?.query_map([], |row| row.get(0))? {
        report.add(WRONG_POOL, PoolId::from_raw(row?).to_string(), false);
    }
    for (what, text) in queue::RULES {
        for row in sql.prepare(text)?.query_map([], |row| row.get(0))? {
            report.add(what, format!("message {}", MessageId::from_bytes(row?)), false);
        }
    }
    for (what, text) in [(WRONG_REFERENCES, REFERENCES), (WRONG_RELEASE, FORGOTTEN)] {
        for row in sql.prepare(text)?.query_map([], |row| row.get(0))? {
            report.add(what, blob_at(row?), false);
        }
    }
    Ok(())
}

fn repair(sql: &Connection, now: i64) -> Result<()> {
    // First: what an index has not as the row does, no statement changes.
    crc::accept(sql)?;
    sql.execute_batch(REPAIRS)?;
    sql.execute_batch(queue::REPAIRS)?;
    sql.execute_batch(LANES)?;
    let mut references = sql.prepare(REFERENCES)?;
    let counts: Vec<([u8; 16], u64)> =
        references.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    for (blob, count) in counts {
        sql.prepare_cached("UPDATE blob SET refs = ?2 WHERE blob_id = ?1")?.execute((blob, count))?;
    }
    sql.execute(
        &format!("INSERT OR IGNORE INTO blob_release (released_at, blob_id) SELECT ?1, blob_id FROM ({FORGOTTEN})"),
        [now],
    )
    .map(drop)
}
