//! The mail tables as rows that both engines have. The number of a content row is each engine's own affair: content goes
//! with the entry or the expunged email that has it.

use engine::table::Kind::{Bool, Bytes, Int, Text};
use engine::table::{Form, Kind, Table};

type Columns = &'static [(&'static str, Kind)];

const ACCOUNT: Columns = &[
    ("account_id", Int),
    ("modseq", Int),
    ("log_floor", Int),
    ("log_rows", Int),
    ("next_mailbox", Int),
    ("next_email", Int),
    ("uid_validity", Int),
    ("messages", Int),
    ("size_bytes", Int),
    ("quota_bytes", Int),
    ("quota_messages", Int),
    ("allowed_bytes", Int),
    ("allowed_messages", Int),
];

const MAILBOX: Columns = &[
    ("account_id", Int),
    ("mailbox_id", Int),
    ("name", Text),
    ("role", Text),
    ("uid_validity", Int),
    ("uid_next", Int),
    ("highest_modseq", Int),
    ("changed_modseq", Int),
    ("created_modseq", Int),
    ("messages", Int),
    ("unseen", Int),
    ("deleted", Int),
    ("size_bytes", Int),
];

const SUBSCRIPTION: Columns = &[("account_id", Int), ("name", Text)];
const POOL_MEMBER: Columns = &[("account_id", Int), ("pool_id", Int)];

const REMOVED_MAILBOX: Columns = &[
    ("account_id", Int),
    ("mailbox_id", Int),
    ("removed_at", Int),
    ("name", Text),
    ("role", Text),
    ("subscribed", Bool),
];

const VANISHED: Columns = &[
    ("account_id", Int),
    ("modseq", Int),
    ("mailbox_id", Int),
    ("uid", Int),
    ("email_id", Int),
    ("created_modseq", Int),
    ("is_move", Bool),
];

const MAILBOX_GONE: Columns = &[("account_id", Int), ("modseq", Int), ("mailbox_id", Int)];
const OWNER_VERDICT: Columns = &[("account_id", Int), ("email_id", Int), ("is_spam", Bool), ("given_at", Int)];
const THREAD_REF: Columns = &[("account_id", Int), ("key", Int), ("thread_id", Int)];

const ENTRY: Columns = &[
    ("account_id", Int),
    ("mailbox_id", Int),
    ("uid", Int),
    ("email_id", Int),
    ("thread_id", Int),
    ("modseq", Int),
    ("created_modseq", Int),
    ("system", Int),
    ("keywords", Text),
    ("internal_date", Int),
    ("size_bytes", Int),
];

const REMOVED: Columns = &[
    ("account_id", Int),
    ("email_id", Int),
    ("removed_at", Int),
    ("mailbox_id", Int),
    ("mailbox_name", Text),
    ("system", Int),
    ("keywords", Text),
    ("internal_date", Int),
    ("size_bytes", Int),
];

const HELD: Columns = &[
    ("account_id", Int),
    ("email_id", Int),
    ("message_id", Bytes),
    ("domain_id", Int),
    ("reason", Text),
    ("detail", Text),
    ("score", Int),
    ("sender", Text),
    ("author", Text),
    ("recipient", Text),
    ("subject", Text),
    ("size_bytes", Int),
    ("held_at", Int),
    ("expires_at", Int),
    ("told_at", Int),
    ("asked_at", Int),
];

/// Of the content row.
const CONTENT: Columns = &[("blob_id", Bytes), ("prefix", Bytes), ("summary", Bytes)];

const DELIVERED: Columns = &[
    ("message_id", Bytes),
    ("account_id", Int),
    ("mailbox_id", Int),
    ("uid", Int),
    ("modseq", Int),
    ("email_id", Int),
];

const POOL: Columns = &[
    ("pool_id", Int),
    ("limit_bytes", Int),
    ("limit_messages", Int),
    ("allotted_bytes", Int),
    ("allotted_messages", Int),
    ("dry_until", Int),
];

const QUEUE_ITEM: Columns = &[
    ("message_id", Bytes),
    ("variant", Int),
    ("blob_id", Bytes),
    ("size_bytes", Int),
    ("prefix", Bytes),
    ("sender", Text),
    ("account_id", Int),
    ("needs", Int),
    ("envelope_id", Text),
    ("subject", Text),
    ("created_at", Int),
    ("recipients", Int),
];

const QUEUE_RECIPIENT: Columns = &[
    ("message_id", Bytes),
    ("nth", Int),
    ("variant", Int),
    ("address", Text),
    ("original", Text),
    ("notify", Int),
    ("lane", Text),
    ("priority", Int),
    ("state", Int),
    ("next_at", Int),
    ("alarm_at", Int),
    ("expires_at", Int),
    ("attempts", Int),
    ("last_at", Int),
    ("last_status", Text),
    ("last_host", Text),
];

/// Who holds a lane is of no interest elsewhere: each is looked at anew.
const QUEUE_LANE: Columns = &[("lane", Text), ("is_suspended", Bool), ("reason", Text)];

const BLOB: Columns = &[("blob_id", Bytes), ("size_bytes", Int), ("digest", Bytes)];

/// What an account has, apart from its deliveries, which no index of the embedded engine finds by account. The first
/// ones are short and change with every message.
pub(super) fn of_account() -> [Table; 12] {
    [
        plain("account", ACCOUNT, 1),
        plain("mailbox", MAILBOX, 2),
        plain("subscription", SUBSCRIPTION, 2),
        plain("pool_member", POOL_MEMBER, 2),
        plain("removed_mailbox", REMOVED_MAILBOX, 2),
        plain("vanished", VANISHED, 4),
        plain("mailbox_gone", MAILBOX_GONE, 3),
        plain("thread_ref", THREAD_REF, 2),
        plain("owner_verdict", OWNER_VERDICT, 2),
        // An email that was expunged keeps its number: it goes from the one before it comes to the other.
        with_content("entry", ENTRY, 3),
        with_content("removed", REMOVED, 2),
        with_content("held", HELD, 2),
    ]
}

/// How many of [`of_account`] are compared row by row to see whether an account has changed; of the rest, the number of rows.
pub(super) const TELLING: usize = 5;

/// Tables of the server's.
pub(super) const KNOWN_TO_PLANNER: [&str; 21] = [
    "account",
    "mailbox",
    "subscription",
    "pool_member",
    "pool",
    "removed_mailbox",
    "vanished",
    "mailbox_gone",
    "thread_ref",
    "owner_verdict",
    "entry",
    "removed",
    "held",
    "content",
    "delivered",
    "queue_item",
    "queue_recipient",
    "queue_lane",
    "blob",
    "blob_chunk",
    "blob_release",
];

/// What accounts share.
pub(super) fn of_all() -> [Table; 5] {
    [
        Table { is_owned: false, ..plain("delivered", DELIVERED, 2) },
        Table { is_owned: false, ..plain("pool", POOL, 1) },
        queue_item(),
        Table { is_owned: false, ..plain("queue_recipient", QUEUE_RECIPIENT, 2) },
        queue_lane(),
    ]
}

/// An item holds its blob, which the embedded engine counts.
fn queue_item() -> Table {
    let mut table = Table { is_owned: false, ..plain("queue_item", QUEUE_ITEM, 2) };
    table.sqlite.insert.push("UPDATE blob SET refs = refs + 1 WHERE blob_id = ?3".to_owned());
    table.sqlite.delete.insert(
        0,
        "INSERT OR IGNORE INTO blob_release (released_at, blob_id)
             SELECT unixepoch() * 1000, b.blob_id FROM blob b JOIN queue_item i ON i.blob_id = b.blob_id
             WHERE b.refs = 0 AND i.message_id = ?1 AND i.variant = ?2"
            .to_owned(),
    );
    table.sqlite.delete.insert(
        0,
        "UPDATE blob SET refs = refs - 1 WHERE refs > 0 AND blob_id =
             (SELECT blob_id FROM queue_item WHERE message_id = ?1 AND variant = ?2)"
            .to_owned(),
    );
    table
}

fn queue_lane() -> Table {
    let mut table = Table { is_owned: false, ..plain("queue_lane", QUEUE_LANE, 1) };
    let columns = "lane, due_at, holder, fence, failures, retry_at, is_suspended, reason, warm_at";
    table.sqlite.insert = vec![format!("INSERT INTO queue_lane ({columns}) VALUES (?1, 0, '', 0, 0, 0, ?2, ?3, 0)")];
    table.postgres.insert = vec![format!(
        "INSERT INTO queue_lane ({columns}, leased_until)
         SELECT lane, 0, '', 0, 0, 0, is_suspended, reason, 0, '-infinity'::timestamptz FROM n"
    )];
    table
}

fn plain(name: &'static str, columns: Columns, key: usize) -> Table {
    Table::plain(name, (name, name), columns, key, true)
}

/// Blobs: those that something refers to, or all.
pub(super) fn blobs(is_referred: bool) -> Table {
    let mut table = Table::plain("blob", ("blob", "blob"), BLOB, 1, false);
    if is_referred {
        table.sqlite.from = "(SELECT blob_id, size_bytes, digest FROM blob WHERE refs > 0)".to_owned();
        table.postgres.from = "(SELECT blob_id, size_bytes, digest FROM blob b
             WHERE EXISTS (SELECT 1 FROM content c WHERE c.blob_id = b.blob_id)
                 OR EXISTS (SELECT 1 FROM queue_item q WHERE q.blob_id = b.blob_id)) AS b"
            .to_owned();
    }
    table
}

/// Rows that refer to content. In PostgreSQL its row has the number of the email: new content gets the account's next
/// email number, so the two never meet.
fn with_content(name: &'static str, own: Columns, key: usize) -> Table {
    let columns: Vec<(&str, Kind)> = own.iter().chain(CONTENT).copied().collect();
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    let list = names.join(", ");
    let of_row: Vec<String> = names.iter().map(|name| format!("e.{name}")).collect();
    let marks: Vec<String> = (1..=own.len()).map(|nth| format!("?{nth}")).collect();
    let by_mark: Vec<String> = names.iter().take(key).zip(1..).map(|(name, nth)| format!("{name} = ?{nth}")).collect();
    let by_row: Vec<String> = names.iter().take(key).map(|name| format!("e.{name} = n.{name}")).collect();
    let (marks, by_mark, by_row) = (marks.join(", "), by_mark.join(" AND "), by_row.join(" AND "));
    let from = format!(
        "(SELECT {}, c.blob_id, c.prefix, c.summary FROM {name} e
          LEFT JOIN content c ON c.account_id = e.account_id AND c.content_id = e.content_id) AS e",
        of_row.join(", ")
    );
    let (blob, prefix, summary) = (own.len() + 1, own.len() + 2, own.len() + 3);
    let its = format!("(SELECT content_id FROM {name} WHERE {by_mark})");
    let its_blob = format!("(SELECT blob_id FROM content WHERE content_id = {its})");
    Table {
        name,
        columns,
        key,
        is_owned: true,
        sqlite: Form {
            from: from.clone(),
            insert: vec![
                format!(
                    "INSERT INTO content (account_id, blob_id, prefix, summary) SELECT ?1, ?{blob}, ?{prefix}, ?{summary}
                     WHERE ?{blob} IS NOT NULL"
                ),
                format!(
                    "INSERT INTO {name} ({list}, content_id)
                     VALUES ({marks}, CASE WHEN ?{blob} IS NULL THEN 0 ELSE last_insert_rowid() END)"
                ),
                format!("UPDATE blob SET refs = refs + 1 WHERE blob_id = ?{blob}"),
            ],
            delete: vec![
                format!("UPDATE blob SET refs = refs - 1 WHERE refs > 0 AND blob_id = {its_blob}"),
                format!(
                    "INSERT OR IGNORE INTO blob_release (released_at, blob_id)
                     SELECT unixepoch() * 1000, blob_id FROM blob WHERE refs = 0 AND blob_id = {its_blob}"
                ),
                format!("DELETE FROM content WHERE content_id = {its}"),
                format!("DELETE FROM {name} WHERE {by_mark}"),
            ],
        },
        postgres: Form {
            from,
            insert: vec![format!(
                ", added AS (
                     INSERT INTO content (account_id, content_id, blob_id, prefix, summary)
                     SELECT account_id, email_id, blob_id, prefix, summary FROM n WHERE blob_id IS NOT NULL
                 )
                 INSERT INTO {name} ({list}, content_id) SELECT {list}, email_id FROM n"
            )],
            delete: vec![format!(
                ", gone AS (
                     DELETE FROM {name} e USING n WHERE {by_row} RETURNING e.account_id, e.content_id
                 ), released AS (
                     DELETE FROM content c USING gone
                     WHERE c.account_id = gone.account_id AND c.content_id = gone.content_id RETURNING c.blob_id
                 )
                 INSERT INTO blob_release (released_at, blob_id)
                 SELECT DISTINCT (extract(epoch FROM now()) * 1000)::bigint, blob_id FROM released ON CONFLICT DO NOTHING"
            )],
        },
    }
}
