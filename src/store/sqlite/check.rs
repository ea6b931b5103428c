//! The auditor's questions to the tables.

use std::collections::BTreeSet;

use base::PoolId;
use rusqlite::{Connection, Result};

use super::SqliteStore;
use crate::audit::{AuditOptions, AuditReport, PROBLEMS_MAX, WRONG_ALLOWANCE, WRONG_POOL};
use crate::error::StoreError;

/// Counters of a mailbox that differ from what its entries add up to.
const MAILBOX_COUNTERS: &str = "
    SELECT m.account_id, m.mailbox_id, count(e.uid), count(e.uid) - coalesce(sum(e.system & 1), 0),
           coalesce(sum(e.system & 8), 0) / 8, coalesce(sum(e.size_bytes), 0)
    FROM mailbox m LEFT JOIN entry e ON e.account_id = m.account_id AND e.mailbox_id = m.mailbox_id
    WHERE m.account_id BETWEEN ?1 AND ?2
    GROUP BY m.account_id, m.mailbox_id
    HAVING m.messages <> count(e.uid) OR m.size_bytes <> coalesce(sum(e.size_bytes), 0)
        OR m.unseen <> count(e.uid) - coalesce(sum(e.system & 1), 0)
        OR m.deleted <> coalesce(sum(e.system & 8), 0) / 8";

/// The same for an account.
const ACCOUNT_COUNTERS: &str = "
    SELECT a.account_id, coalesce(sum(m.messages), 0), coalesce(sum(m.size_bytes), 0)
    FROM account a LEFT JOIN mailbox m ON m.account_id = a.account_id
    WHERE a.account_id BETWEEN ?1 AND ?2
    GROUP BY a.account_id
    HAVING a.messages <> coalesce(sum(m.messages), 0) OR a.size_bytes <> coalesce(sum(m.size_bytes), 0)";

/// Rows that break a rule that nothing can repair: what is wrong, and a query for where.
const RULES: &[(&str, &str)] = &[
    (
        "the entry's UID is not below the mailbox's UIDNEXT",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id WHERE e.uid >= m.uid_next",
    ),
    (
        "the entry's mod-sequence is above its mailbox's or account's",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
         JOIN account a ON a.account_id = e.account_id
         WHERE e.modseq > m.highest_modseq OR m.highest_modseq > a.modseq OR e.created_modseq > e.modseq",
    ),
    (
        "the entry belongs to no mailbox",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         LEFT JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id WHERE m.name IS NULL",
    ),
    (
        "the mailbox belongs to no account",
        "SELECT format('account %d, mailbox %d', m.account_id, m.mailbox_id) FROM mailbox m
         LEFT JOIN account a ON a.account_id = m.account_id WHERE a.account_id IS NULL",
    ),
    (
        "the entry has no content row, or a stranger's",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         LEFT JOIN content c ON c.content_id = e.content_id WHERE c.account_id IS NOT e.account_id",
    ),
    (
        "the expunged email has no content row, or a stranger's",
        "SELECT format('account %d, expunged email %d', e.account_id, e.email_id) FROM removed e
         LEFT JOIN content c ON c.content_id = e.content_id WHERE c.account_id IS NOT e.account_id",
    ),
    (
        "nothing refers to the content row",
        "SELECT format('account %d, content %d', c.account_id, c.content_id) FROM content c
         WHERE c.content_id NOT IN (SELECT content_id FROM entry UNION ALL SELECT content_id FROM removed)",
    ),
    (
        "the entry's blob is not there",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN content c ON c.content_id = e.content_id
         LEFT JOIN blob b ON b.blob_id = c.blob_id WHERE b.blob_id IS NULL",
    ),
    (
        "the entry's size is not that of its prefix and blob",
        "SELECT format('account %d, mailbox %d, uid %d', e.account_id, e.mailbox_id, e.uid) FROM entry e
         JOIN content c ON c.content_id = e.content_id
         JOIN blob b ON b.blob_id = c.blob_id WHERE e.size_bytes <> b.size_bytes + length(c.prefix)",
    ),
];

/// Blobs whose count of references is not what the entries add up to.
const REFERENCES: &str = "
    SELECT b.blob_id, coalesce(r.n, 0) FROM blob b
    LEFT JOIN (SELECT blob_id, count(*) AS n FROM content GROUP BY blob_id) r ON r.blob_id = b.blob_id
    WHERE b.refs <> coalesce(r.n, 0)";

/// Blobs that nothing refers to and that no list leads garbage collection to.
const FORGOTTEN: &str = "
    SELECT b.blob_id FROM blob b
    WHERE b.refs = 0 AND b.blob_id NOT IN (SELECT blob_id FROM blob_release)";

impl SqliteStore {
    /// Everything that the tables alone can tell. One consistent state; deliveries go on meanwhile.
    pub(crate) async fn check(&self, options: &AuditOptions) -> Result<AuditReport, StoreError> {
        let known = options.accounts.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<BTreeSet<u64>>());
        let file = self.file().display().to_string();
        let mut report = self.read(move |sql| look(sql, known.as_ref(), &file)).await?;
        if options.repair && !report.problems.is_empty() {
            let now = self.clock.utc();
            let repaired = self.write_sql(move |sql| repair(sql, now.0)).await?;
            for (what, location) in repaired {
                match report.problems.iter_mut().find(|p| p.what == what && p.location == location) {
                    Some(problem) => problem.repaired = true,
                    None => report.add(what, location, true),
                }
            }
        }
        Ok(report)
    }
}

/// Accounts of pools whose allowance does not cover what they hold, or that have one without a pool, or none with one.
const ALLOWANCES: &str = "
    SELECT a.account_id FROM account a
    WHERE a.allowed_bytes < a.size_bytes OR a.allowed_messages < a.messages
        OR (a.allowed_bytes IS NULL OR a.allowed_messages IS NULL)
            = EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = a.account_id)";

/// Pools that did not allot what the allowances of their accounts add up to.
const POOLS: &str = "
    SELECT p.pool_id, coalesce(sum(a.allowed_bytes), 0), coalesce(sum(a.allowed_messages), 0) FROM pool p
    LEFT JOIN pool_member m ON m.pool_id = p.pool_id LEFT JOIN account a ON a.account_id = m.account_id
    GROUP BY p.pool_id
    HAVING p.allotted_bytes <> coalesce(sum(a.allowed_bytes), 0)
        OR p.allotted_messages <> coalesce(sum(a.allowed_messages), 0)";

impl SqliteStore {
    /// Who has the blob: account, mailbox and UID of each entry, the first [`HOLDERS_MAX`].
    pub(crate) async fn holders(&self, blob: base::BlobId) -> Result<Vec<String>, StoreError> {
        self.read(move |sql| {
            let mut found = sql.prepare(HOLDERS)?;
            let found = found.query_map((blob.to_bytes(), HOLDERS_MAX), |row| row.get(0))?;
            found.collect()
        })
        .await
    }
}

const HOLDERS_MAX: usize = 20;
/// Looks through all content rows: only damage is worth it.
const HOLDERS: &str = "
    SELECT format('account %d, mailbox %d (%s), uid %d', e.account_id, e.mailbox_id, m.name, e.uid)
    FROM content c JOIN entry e ON e.account_id = c.account_id AND e.content_id = c.content_id
    JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
    WHERE c.blob_id = ?1 LIMIT ?2";

const WRONG_MAILBOX: &str = "the mailbox's counters differ from its entries";
const WRONG_ACCOUNT: &str = "the account's usage differs from its mailboxes";
const WRONG_REFERENCES: &str = "the blob's count of references is wrong";
const WRONG_RELEASE: &str = "nothing refers to the blob, yet it is not listed as garbage";

fn look(sql: &Connection, known: Option<&BTreeSet<u64>>, file: &str) -> Result<AuditReport> {
    let sql = &sql.unchecked_transaction()?;
    let mut report = AuditReport::default();
    let count = |table: &str| sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0));
    report.checked.accounts = count("account")?;
    report.checked.mailboxes = count("mailbox")?;
    report.checked.entries = count("entry")?;

    let mut integrity = sql.prepare("PRAGMA integrity_check(100)")?;
    for line in integrity.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            report.add(format!("SQLite: {line}"), file, false);
        }
    }
    if let Some(known) = known {
        let mut accounts = sql.prepare("SELECT account_id, messages FROM account")?;
        for row in accounts.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)))? {
            let (account, messages) = row?;
            if !known.contains(&account) {
                report.add(
                    format!("{messages} messages of an account that is not in the directory"),
                    at(account),
                    false,
                );
            }
        }
    }
    for (what, text) in RULES {
        for location in sql.prepare(text)?.query_map([], |row| row.get::<_, String>(0))?.take(PROBLEMS_MAX) {
            report.add(*what, location?, false);
        }
    }
    for (what, location) in wrong_counters(sql)? {
        report.add(what, location, false);
    }
    Ok(report)
}

fn at(account: u64) -> String {
    format!("account {account}")
}

fn blob_at(id: [u8; 16]) -> String {
    format!("blob {}", base::BlobId::from_bytes(id))
}

type Wrong = Vec<(&'static str, String)>;

fn wrong_counters(sql: &Connection) -> Result<Wrong> {
    let mut wrong: Wrong = Vec::new();
    let everyone = (0, i64::MAX);
    for row in sql.prepare(MAILBOX_COUNTERS)?.query_map(everyone, |row| Ok((row.get(0)?, row.get::<_, u64>(1)?)))? {
        let (account, mailbox): (u64, u64) = row?;
        wrong.push((WRONG_MAILBOX, format!("account {account}, mailbox {mailbox}")));
    }
    for row in sql.prepare(ACCOUNT_COUNTERS)?.query_map(everyone, |row| row.get(0))? {
        wrong.push((WRONG_ACCOUNT, at(row?)));
    }
    for row in sql.prepare(ALLOWANCES)?.query_map([], |row| row.get(0))? {
        wrong.push((WRONG_ALLOWANCE, at(row?)));
    }
    for row in sql.prepare(POOLS)?.query_map([], |row| row.get(0))? {
        wrong.push((WRONG_POOL, PoolId::from_raw(row?).to_string()));
    }
    for row in sql.prepare(REFERENCES)?.query_map([], |row| row.get(0))? {
        wrong.push((WRONG_REFERENCES, blob_at(row?)));
    }
    for row in sql.prepare(FORGOTTEN)?.query_map([], |row| row.get(0))? {
        wrong.push((WRONG_RELEASE, blob_at(row?)));
    }
    Ok(wrong)
}

/// Sets right what can be worked out again; gives what was wrong.
fn repair(sql: &Connection, now: i64) -> Result<Wrong> {
    let wrong = wrong_counters(sql)?;
    let everyone = (0, i64::MAX);
    let mut mailboxes = sql.prepare(MAILBOX_COUNTERS)?;
    let sums: Vec<[u64; 6]> = mailboxes
        .query_map(everyone, |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]))?
        .collect::<Result<_>>()?;
    for sum in sums {
        sql.prepare_cached(
            "UPDATE mailbox SET messages = ?3, unseen = ?4, deleted = ?5, size_bytes = ?6
             WHERE account_id = ?1 AND mailbox_id = ?2",
        )?
        .execute(sum)?;
    }
    let mut accounts = sql.prepare(ACCOUNT_COUNTERS)?;
    let sums: Vec<[u64; 3]> =
        accounts.query_map(everyone, |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?.collect::<Result<_>>()?;
    for sum in sums {
        sql.prepare_cached("UPDATE account SET messages = ?2, size_bytes = ?3 WHERE account_id = ?1")?.execute(sum)?;
    }
    repair_pools(sql)?;
    let mut references = sql.prepare(REFERENCES)?;
    let counts: Vec<([u8; 16], u64)> =
        references.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    for (blob, count) in counts {
        sql.prepare_cached("UPDATE blob SET refs = ?2 WHERE blob_id = ?1")?.execute((blob, count))?;
    }
    sql.execute(
        &format!("INSERT OR IGNORE INTO blob_release (released_at, blob_id) SELECT ?1, blob_id FROM ({FORGOTTEN})"),
        [now],
    )?;
    Ok(wrong)
}

/// After the accounts' counters: what accounts hold is certain, what they were allowed and pools allotted follows.
fn repair_pools(sql: &Connection) -> Result<()> {
    sql.execute_batch(
        "UPDATE account SET allowed_bytes = NULL, allowed_messages = NULL
         WHERE (allowed_bytes IS NOT NULL OR allowed_messages IS NOT NULL)
         AND NOT EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = account.account_id);
         UPDATE account SET allowed_bytes = max(coalesce(allowed_bytes, 0), size_bytes),
             allowed_messages = max(coalesce(allowed_messages, 0), messages)
         WHERE EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = account.account_id);",
    )?;
    let mut pools = sql.prepare(POOLS)?;
    let sums: Vec<[u64; 3]> =
        pools.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?.collect::<Result<_>>()?;
    for sum in sums {
        sql.prepare_cached("UPDATE pool SET allotted_bytes = ?2, allotted_messages = ?3 WHERE pool_id = ?1")?
            .execute(sum)?;
    }
    Ok(())
}
