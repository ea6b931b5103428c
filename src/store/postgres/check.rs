//! The auditor's questions to the tables. It walks over ranges of accounts, then over the blobs: each step sees one
//! consistent state and is short, deliveries go on meanwhile.

use std::collections::BTreeSet;

use base::{AccountId, BlobId, PoolId, UtcMillis};
use engine::EngineError;
use engine::postgres::{Params, Row, Session};

use super::blobs::chunks_of;
use super::{PgBlobs, PgStore, rows};
use crate::audit::{AuditOptions, AuditPlace, AuditReport, BATCH, PROBLEMS_MAX, Step, WRONG_ALLOWANCE, WRONG_POOL};
use crate::error::StoreError;
use crate::queue;
use crate::traits::QueueStore as _;

type Result<T> = std::result::Result<T, StoreError>;

/// Accounts looked at in one transaction.
const ACCOUNTS: usize = 200;

/// Mailboxes whose counters differ from what their entries add up to.
const MAILBOX_COUNTERS: &str = "
    SELECT m.account_id, m.mailbox_id FROM mailbox m
    LEFT JOIN entry e ON e.account_id = m.account_id AND e.mailbox_id = m.mailbox_id
    WHERE m.account_id BETWEEN $1 AND $2
    GROUP BY m.account_id, m.mailbox_id
    HAVING m.messages <> count(e.uid) OR m.size_bytes <> coalesce(sum(e.size_bytes), 0)
        OR m.unseen <> count(e.uid) - coalesce(sum(e.system & 1), 0)
        OR m.deleted <> coalesce(sum(e.system & 8), 0) / 8
    ORDER BY m.account_id, m.mailbox_id";

/// The same for accounts.
const ACCOUNT_COUNTERS: &str = "
    SELECT a.account_id FROM account a LEFT JOIN mailbox m ON m.account_id = a.account_id
    WHERE a.account_id BETWEEN $1 AND $2
    GROUP BY a.account_id
    HAVING a.messages <> coalesce(sum(m.messages), 0) OR a.size_bytes <> coalesce(sum(m.size_bytes), 0)
    ORDER BY a.account_id";

/// Accounts of pools whose allowance does not cover what they hold, or that have one without a pool, or none with one.
const ALLOWANCES: &str = "
    SELECT a.account_id FROM account a WHERE a.account_id BETWEEN $1 AND $2
    AND (a.allowed_bytes < a.size_bytes OR a.allowed_messages < a.messages
        OR (a.allowed_bytes IS NULL OR a.allowed_messages IS NULL)
            = EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = a.account_id))
    ORDER BY a.account_id";

/// What the allowances of a pool's accounts add up to.
const ALLOTTED: &str = "
    SELECT coalesce(sum(a.allowed_bytes), 0)::bigint, coalesce(sum(a.allowed_messages), 0)::bigint
    FROM pool_member m JOIN account a ON a.account_id = m.account_id WHERE m.pool_id = p.pool_id";

const ENTRY_AT: &str = "format('account %s, mailbox %s, uid %s', e.account_id, e.mailbox_id, e.uid)";
const JOIN_MAILBOX: &str = "JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id";
const JOIN_CONTENT: &str = "JOIN content c ON c.account_id = e.account_id AND c.content_id = e.content_id";

/// Rows of accounts in `$1` to `$2` that break a rule that nothing can repair: what is wrong, and a query for where.
fn rules() -> [(&'static str, String); 10] {
    [
        (
            "the entry's UID is not below the mailbox's UIDNEXT",
            format!("SELECT {ENTRY_AT} FROM entry e {JOIN_MAILBOX} WHERE e.uid >= m.uid_next AND e.account_id"),
        ),
        (
            "the entry's mod-sequence is above its mailbox's or account's",
            format!(
                "SELECT {ENTRY_AT} FROM entry e {JOIN_MAILBOX} JOIN account a ON a.account_id = e.account_id
                 WHERE (e.modseq > m.highest_modseq OR m.highest_modseq > a.modseq OR e.created_modseq > e.modseq)
                 AND e.account_id"
            ),
        ),
        (
            "the entry belongs to no mailbox",
            format!("SELECT {ENTRY_AT} FROM entry e LEFT {JOIN_MAILBOX} WHERE m.name IS NULL AND e.account_id"),
        ),
        (
            "the mailbox belongs to no account",
            "SELECT format('account %s, mailbox %s', m.account_id, m.mailbox_id) FROM mailbox m
             LEFT JOIN account a ON a.account_id = m.account_id WHERE a.account_id IS NULL AND m.account_id"
                .to_owned(),
        ),
        (
            "the entry has no content row",
            format!("SELECT {ENTRY_AT} FROM entry e LEFT {JOIN_CONTENT} WHERE c.content_id IS NULL AND e.account_id"),
        ),
        (
            "the expunged email has no content row",
            format!(
                "SELECT format('account %s, expunged email %s', e.account_id, e.email_id) FROM removed e
                 LEFT {JOIN_CONTENT} WHERE c.content_id IS NULL AND e.account_id"
            ),
        ),
        (
            "the held message has no content row",
            format!(
                "SELECT format('account %s, held message %s', e.account_id, e.email_id) FROM held e
                 LEFT {JOIN_CONTENT} WHERE c.content_id IS NULL AND e.account_id"
            ),
        ),
        (
            "nothing refers to the content row",
            "SELECT format('account %s, content %s', c.account_id, c.content_id) FROM content c
             WHERE NOT EXISTS (SELECT 1 FROM entry e WHERE e.account_id = c.account_id AND e.content_id = c.content_id)
             AND NOT EXISTS (SELECT 1 FROM removed e WHERE e.account_id = c.account_id AND e.content_id = c.content_id)
             AND NOT EXISTS (SELECT 1 FROM held e WHERE e.account_id = c.account_id AND e.content_id = c.content_id)
             AND c.account_id"
                .to_owned(),
        ),
        (
            "the entry's blob is not there",
            format!(
                "SELECT {ENTRY_AT} FROM entry e {JOIN_CONTENT} LEFT JOIN blob b ON b.blob_id = c.blob_id
                 WHERE b.blob_id IS NULL AND e.account_id"
            ),
        ),
        (
            "the entry's size is not that of its prefix and blob",
            format!(
                "SELECT {ENTRY_AT} FROM entry e {JOIN_CONTENT} JOIN blob b ON b.blob_id = c.blob_id
                 WHERE e.size_bytes <> b.size_bytes + length(c.prefix) AND e.account_id"
            ),
        ),
    ]
}

const WRONG_MAILBOX: &str = "the mailbox's counters differ from its entries";
const WRONG_ACCOUNT: &str = "the account's usage differs from its mailboxes";
const WRONG_RELEASE: &str = "nothing refers to the blob, yet it is not listed as garbage";

impl PgStore {
    pub(crate) async fn audit_step(&self, place: AuditPlace, options: &AuditOptions, blobs: &PgBlobs) -> Result<Step> {
        let mut report = AuditReport::default();
        let next = match place {
            AuditPlace::Accounts(from) => {
                let to = self.audit_accounts(rows::param(from), options, &mut report).await?;
                let next = to.and_then(|to| u64::try_from(to).ok()).map(|to| AuditPlace::Accounts(to + 1));
                Some(next.unwrap_or(AuditPlace::Whole))
            }
            AuditPlace::Whole => {
                self.audit_pools(options, &mut report).await?;
                self.audit_queue(options, &mut report).await?;
                Some(AuditPlace::Blobs(Vec::new()))
            }
            AuditPlace::Blobs(after) => {
                self.audit_blobs(after, options, blobs, &mut report).await?.map(AuditPlace::Blobs)
            }
        };
        Ok((report, next))
    }

    /// Gives the last account looked at; `None` at the end.
    async fn audit_accounts(&self, from: i64, options: &AuditOptions, report: &mut AuditReport) -> Result<Option<i64>> {
        let sql = self.pool.begin(true).await?;
        let done = range(&sql, from, options.accounts.as_deref(), report).await;
        let (to, mailboxes, accounts, allowances) = sql.end(done).await?;
        for (account, mailbox) in mailboxes {
            let repaired = options.repair && self.repair_mailbox(account, mailbox).await?;
            report.add(WRONG_MAILBOX, format!("account {account}, mailbox {mailbox}"), repaired);
        }
        for account in accounts {
            let repaired = options.repair && self.repair_account(account).await?;
            report.add(WRONG_ACCOUNT, format!("account {account}"), repaired);
        }
        for account in allowances {
            let repaired = options.repair && self.repair_allowance(account).await?;
            report.add(WRONG_ALLOWANCE, format!("account {account}"), repaired);
        }
        Ok(to)
    }

    async fn audit_queue(&self, options: &AuditOptions, report: &mut AuditReport) -> Result<()> {
        let sql = self.pool.begin(true).await?;
        let mut found = Vec::new();
        for (what, text) in queue::RULES {
            for row in sql.rows(text, &[]).await? {
                let raw = rows::value::<&[u8]>(&row, 0)?.try_into().map_err(|_| rows::unreadable("message id"))?;
                found.push((what, base::MessageId::from_bytes(raw)));
            }
        }
        sql.end(Ok::<(), StoreError>(())).await?;
        if options.repair && !found.is_empty() {
            let sql = self.pool.begin(false).await?;
            let done = sql.batch(queue::REPAIRS).await;
            sql.end(done).await?;
            self.tidy_lanes(UtcMillis(0)).await?;
        }
        for (what, message) in found {
            report.add(what, format!("message {message}"), options.repair && what != queue::LOST);
        }
        Ok(())
    }

    async fn audit_pools(&self, options: &AuditOptions, report: &mut AuditReport) -> Result<()> {
        let sql = self.pool.begin(true).await?;
        let text = format!(
            "SELECT pool_id FROM pool p WHERE (allotted_bytes, allotted_messages) <> ({ALLOTTED}) ORDER BY pool_id"
        );
        let done = sql.rows(&text, &[]).await;
        for row in &sql.end(done).await? {
            let repaired = options.repair && self.repair_pool(rows::signed(row, 0)?).await?;
            report.add(WRONG_POOL, PoolId::from_raw(rows::int(row, 0)?).to_string(), repaired);
        }
        Ok(())
    }

    /// What an account was allotted does not change while its pool is held.
    async fn repair_pool(&self, pool: i64) -> Result<bool> {
        let sql = self.pool.begin(false).await?;
        let work = async {
            sql.rows("SELECT 1 FROM pool WHERE pool_id = $1 FOR UPDATE", &[&pool]).await?;
            let text =
                format!("UPDATE pool p SET (allotted_bytes, allotted_messages) = ({ALLOTTED}) WHERE pool_id = $1");
            sql.execute(&text, &[&pool]).await
        };
        let done = work.await;
        Ok(sql.end(done).await? > 0)
    }

    /// The pools' sums are set right after it.
    async fn repair_allowance(&self, account: i64) -> Result<bool> {
        let text = "UPDATE account a SET (allowed_bytes, allowed_messages) = (
                 SELECT CASE WHEN is_member THEN greatest(a.allowed_bytes, a.size_bytes) END,
                     CASE WHEN is_member THEN greatest(a.allowed_messages, a.messages) END
                 FROM (SELECT EXISTS (SELECT 1 FROM pool_member m WHERE m.account_id = a.account_id) AS is_member) AS of)
             WHERE a.account_id = $1";
        self.locked(account, text, &[&account]).await
    }

    /// Gives the last blob looked at; `None` at the end.
    async fn audit_blobs(
        &self,
        after: Vec<u8>,
        options: &AuditOptions,
        blobs: &PgBlobs,
        report: &mut AuditReport,
    ) -> Result<Option<Vec<u8>>> {
        let sql = self.pool.begin(true).await?;
        let text = "SELECT b.blob_id, b.size_bytes,
                     (SELECT count(*) FROM blob_chunk c WHERE c.blob_id = b.blob_id),
                     EXISTS (SELECT 1 FROM content c WHERE c.blob_id = b.blob_id)
                     OR EXISTS (SELECT 1 FROM queue_item q WHERE q.blob_id = b.blob_id)
                     OR EXISTS (SELECT 1 FROM blob_release r WHERE r.blob_id = b.blob_id), b.frames IS NOT NULL,
                     b.digest
                 FROM blob b WHERE b.blob_id > $1 ORDER BY b.blob_id LIMIT $2";
        let done = sql.rows(text, &[&after.as_slice(), &rows::limit(BATCH)]).await;
        let some = sql.end(done).await?;
        // Of objects that could not be had: once one does not come, those after it are not waited for.
        let mut unread = Vec::new();
        for row in &some {
            report.checked.blobs += 1;
            let (blob, size) = (rows::blob_id(row, 0)?, rows::int(row, 1)?);
            let at = format!("blob {blob}");
            if !rows::value::<bool>(row, 3)? {
                let repaired = options.repair && self.list_as_garbage(blob).await?;
                report.add(WRONG_RELEASE, at.as_str(), repaired);
            }
            let is_object = rows::value::<bool>(row, 4)?;
            if !is_object && rows::int(row, 2)? != chunks_of(size) {
                let at = [vec![at], self.holders(blob).await?].concat().join("; ");
                report.add("a chunk is missing", at, false);
            } else if options.deep && is_object && !unread.is_empty() {
                unread.push(blob);
            } else if options.deep {
                match blobs.verify(blob, size, rows::value(row, 5)?).await {
                    Err(StoreError::Damaged { what }) if self.has_blob(blob).await? => {
                        let at = [vec![at], self.holders(blob).await?].concat().join("; ");
                        report.add(what, at, false);
                    }
                    Ok(()) | Err(StoreError::Damaged { .. }) => {}
                    Err(StoreError::Unavailable(EngineError::Io { .. })) if is_object => unread.push(blob),
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(first) = unread.first() {
            let at = format!("blob {first}, and {} after it", unread.len() - 1);
            report.add("the object store does not answer: content there was not looked at", at, false);
        }
        let last = some.last().filter(|_| some.len() == BATCH);
        last.map(|last| Ok(rows::blob_id(last, 0)?.to_bytes().to_vec())).transpose()
    }

    /// Who has the blob: account, mailbox and UID of each entry, the first twenty.
    async fn holders(&self, blob: BlobId) -> Result<Vec<String>> {
        let text = "SELECT format('account %s, mailbox %s (%s), uid %s', e.account_id, e.mailbox_id, m.name, e.uid)
             FROM content c JOIN entry e ON e.account_id = c.account_id AND e.content_id = c.content_id
             JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
             WHERE c.blob_id = $1 LIMIT 20";
        let sql = self.pool.session().await?;
        let found = sql.rows(text, &[&blob.to_bytes().as_slice()]).await?;
        sql.give_back();
        found.iter().map(|row| rows::value(row, 0)).collect()
    }

    /// Garbage collection may have taken it meanwhile.
    async fn has_blob(&self, blob: BlobId) -> Result<bool> {
        let sql = self.pool.session().await?;
        let found = sql.row_opt("SELECT 1 FROM blob WHERE blob_id = $1", &[&blob.to_bytes().as_slice()]).await?;
        sql.give_back();
        Ok(found.is_some())
    }

    async fn list_as_garbage(&self, blob: BlobId) -> Result<bool> {
        let UtcMillis(now) = self.clock.utc();
        let text = "INSERT INTO blob_release (released_at, blob_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.once(text, &[&now, &blob.to_bytes().as_slice()]).await
    }

    /// Counts again under the account's lock: what was wrong may have been set right since.
    async fn repair_mailbox(&self, account: i64, mailbox: i64) -> Result<bool> {
        let text = "UPDATE mailbox m SET (messages, unseen, deleted, size_bytes) = (
                 SELECT count(*), count(*) - coalesce(sum(e.system & 1), 0), coalesce(sum(e.system & 8), 0) / 8,
                     coalesce(sum(e.size_bytes), 0)
                 FROM entry e WHERE e.account_id = m.account_id AND e.mailbox_id = m.mailbox_id)
             WHERE m.account_id = $1 AND m.mailbox_id = $2";
        self.locked(account, text, &[&account, &mailbox]).await
    }

    async fn repair_account(&self, account: i64) -> Result<bool> {
        let text = "UPDATE account a SET (messages, size_bytes) = (
                 SELECT coalesce(sum(m.messages), 0), coalesce(sum(m.size_bytes), 0)
                 FROM mailbox m WHERE m.account_id = a.account_id)
             WHERE a.account_id = $1";
        self.locked(account, text, &[&account]).await
    }

    async fn locked(&self, account: i64, text: &str, params: Params<'_>) -> Result<bool> {
        let sql = self.pool.begin(false).await?;
        let work = async {
            sql.rows("SELECT 1 FROM account WHERE account_id = $1 FOR UPDATE", &[&account]).await?;
            sql.execute(text, params).await
        };
        let done = work.await;
        Ok(sql.end(done).await? > 0)
    }

    async fn once(&self, text: &str, params: Params<'_>) -> Result<bool> {
        let sql = self.pool.session().await?;
        let changed = sql.execute(text, params).await?;
        sql.give_back();
        Ok(changed > 0)
    }
}

/// The last account of this range, or `None` if it was the last range; mailboxes and accounts with wrong counters,
/// accounts with a wrong allowance.
type Looked = (Option<i64>, Vec<(i64, i64)>, Vec<i64>, Vec<i64>);

/// Looks at the next accounts from `from`. The last range reaches to the end, for rows that no account has.
async fn range(
    sql: &Session,
    from: i64,
    known: Option<&BTreeSet<AccountId>>,
    report: &mut AuditReport,
) -> Result<Looked> {
    let text = "SELECT account_id, messages FROM account WHERE account_id >= $1 ORDER BY account_id LIMIT $2";
    let accounts = sql.rows(text, &[&from, &rows::limit(ACCOUNTS)]).await?;
    let to = accounts.last().filter(|_| accounts.len() == ACCOUNTS).map(|row| rows::signed(row, 0)).transpose()?;
    let bounds: Params<'_> = &[&from, &to.unwrap_or(i64::MAX)];
    report.checked.accounts += accounts.len() as u64;
    for (table, sum) in [("mailbox", &mut report.checked.mailboxes), ("entry", &mut report.checked.entries)] {
        let text = format!("SELECT count(*) FROM {table} WHERE account_id BETWEEN $1 AND $2");
        *sum += rows::int(&sql.row(&text, bounds).await?, 0)?;
    }
    for row in &accounts {
        let (account, messages) = (AccountId(rows::int(row, 0)?), rows::int(row, 1)?);
        if known.is_some_and(|known| !known.contains(&account)) {
            let what = format!("{messages} messages of an account that is not in the directory");
            report.add(what, format!("account {}", account.0), false);
        }
    }
    for (what, text) in rules() {
        let text = format!("{text} BETWEEN $1 AND $2 LIMIT {PROBLEMS_MAX}");
        for row in sql.rows(&text, bounds).await? {
            report.add(what, rows::value::<&str>(&row, 0)?, false);
        }
    }
    let pair = |row: &Row| Ok((rows::signed(row, 0)?, rows::signed(row, 1)?));
    let mailboxes = sql.rows(MAILBOX_COUNTERS, bounds).await?.iter().map(pair).collect::<Result<_>>()?;
    let one = |row: &Row| rows::signed(row, 0);
    let accounts = sql.rows(ACCOUNT_COUNTERS, bounds).await?.iter().map(one).collect::<Result<_>>()?;
    let allowances = sql.rows(ALLOWANCES, bounds).await?.iter().map(one).collect::<Result<_>>()?;
    Ok((to, mailboxes, accounts, allowances))
}
