//! A store that moves, seen by those who use it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{AccountId, FakeClock, IdSource, MailboxId, PoolId, Quota};
use bytes::Bytes;
use engine::postgres::{Pool, Server};
use engine::table::{Kind, Place};
use mail::mime::Summary;

use super::{CopyError, CopyReport, tables};
use crate::contract::{self, EVERYTHING, NOW, Random, Subject, name, uid};
use crate::contract_held;
use crate::contract_queue;
use crate::model::{Delivery, FlagChange, Flags, Role, SystemFlags, Target};
use crate::object_server::ObjectServer;
use crate::storage::{Storage, StorageSettings};
use crate::{AuditOptions, S3Settings};

struct Node {
    storage: Storage,
    subject: Subject,
    _folder: tempfile::TempDir,
}

fn embedded() -> Node {
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path(), StorageSettings::default(), clock.clone(), Arc::clone(&ids)).unwrap();
    Node { subject: Subject::of(&storage, clock, ids), storage, _folder: folder }
}

async fn shared(server: &Server, database: &str, objects: Option<S3Settings>) -> Node {
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let folder = tempfile::tempdir().unwrap();
    let settings = engine::postgres::PgSettings::parse(&server.database(database), 8).unwrap();
    let (pool, of_store) = (Arc::new(Pool::new(settings)), StorageSettings::default());
    let opened =
        Storage::open_postgres_with(folder.path(), pool, objects, of_store, clock.clone(), Arc::clone(&ids)).await;
    let storage = opened.unwrap();
    Node { subject: Subject::of(&storage, clock, ids), storage, _folder: folder }
}

async fn copy(from: &Node, to: &Node) -> CopyReport {
    let report = from.storage.copy_to(&to.storage, &|_| ()).await.unwrap();
    assert_eq!(report.differences, [""; 0]);
    report
}

async fn compare(from: &Node, to: &Node) -> Vec<String> {
    from.storage.compare_with(&to.storage, &|_| ()).await.unwrap().differences
}

impl Node {
    async fn audit_is_clean(&self) {
        let report = self.storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
        assert_eq!(report.problems, []);
    }

    async fn accounts(&self) -> Vec<AccountId> {
        let rows = self.storage.place().ask("SELECT account_id FROM account ORDER BY account_id", &[Kind::Int]).await;
        let number = |row: &super::Row| AccountId(u64::try_from(super::number(row, 0).unwrap()).unwrap());
        rows.unwrap().iter().map(number).collect()
    }

    async fn deliver(&self, account: u64, content: Bytes) {
        let message = self.subject.message();
        let header = format!("Message-ID: <{message}@x.example>\r\n\r\n");
        let delivery = Delivery {
            account: AccountId(account),
            message,
            target: Target::Role(Role::Inbox),
            blob: self.storage.blobs.put(vec![content]).await.unwrap(),
            prefix: Bytes::from_static(b"Return-Path: <>\r\n"),
            summary: Summary::of(header.as_bytes()).encode().into(),
            flags: Flags::default(),
            received_at: NOW,
        };
        self.storage.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    }

    /// What was asked last of a server may still be done there.
    async fn settle(&self) {
        let Place::Postgres(pool) = self.storage.place() else { return };
        let text = "SELECT 1 FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend'
                    AND pid <> pg_backend_pid()";
        while !pool.query(text, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn inbox(&self, account: u64) -> MailboxId {
        self.subject.mailbox(AccountId(account), "INBOX").await.id
    }

    /// Every account is used in every way that takes new numbers.
    async fn go_on(&self) {
        for account in self.accounts().await {
            let mail = &self.storage.mail;
            mail.set_quota(account, Quota::UNLIMITED).await.unwrap();
            mail.set_pools(account, Vec::new()).await.unwrap();
            self.deliver(account.0, Bytes::from_static(b"after the move")).await;
            let inbox = self.inbox(account.0).await;
            mail.copy(account, inbox, vec![EVERYTHING], inbox).await.unwrap();
            let removed = mail.removed(account, 100).await.unwrap();
            let emails = removed.iter().map(|gone| gone.email).collect();
            mail.restore(account, emails, Some(name("Back"))).await.unwrap();
            let fresh = format!("After {}", self.subject.message());
            mail.create_mailbox(account, &name(&fresh), None).await.unwrap();
            mail.expunge(account, inbox, vec![uid(1)..=uid(3)], false).await.unwrap();
        }
        self.audit_is_clean().await;
    }

    /// Everything that the tables can hold.
    async fn fill(&self) {
        contract::all(&self.subject).await;
        let mail = &self.storage.mail;
        let account = AccountId(50);
        self.deliver(50, Bytes::from(Random(7).bytes(9_000_000))).await;
        self.deliver(50, Bytes::from("words that pack well\r\n".repeat(100_000))).await;
        self.deliver(50, Bytes::new()).await;
        let inbox = self.inbox(50).await;
        let keywords = ["$Kept", "önce"].iter().filter_map(|word| word.parse().ok()).collect();
        let flags = FlagChange::Add(Flags { system: SystemFlags::SEEN, keywords });
        mail.set_flags(account, inbox, vec![uid(1)..=uid(2)], flags, None).await.unwrap();
        for folder in ["Projects", "Projects/Ärzte", "Gone"] {
            mail.create_mailbox(account, &name(folder), None).await.unwrap();
            mail.subscribe(account, &name(folder), true).await.unwrap();
        }
        let projects = self.subject.mailbox(account, "Projects").await.id;
        let gone = self.subject.mailbox(account, "Gone").await.id;
        mail.copy(account, inbox, vec![EVERYTHING], projects).await.unwrap();
        mail.copy(account, inbox, vec![EVERYTHING], gone).await.unwrap();
        mail.r#move(account, projects, vec![uid(1)..=uid(1)], inbox).await.unwrap();
        mail.expunge(account, projects, vec![uid(2)..=uid(2)], false).await.unwrap();
        let junk = self.subject.mailbox(account, "Junk").await.id;
        mail.r#move(account, projects, vec![uid(3)..=uid(3)], junk).await.unwrap();
        mail.delete_mailbox(account, &name("Gone")).await.unwrap();
        for pool in [PoolId::Domain(base::DomainId(5)), PoolId::Tenant(base::TenantId(9))] {
            mail.set_pool(pool, Quota { messages: Some(1000), ..Quota::UNLIMITED }).await.unwrap();
        }
        mail.set_pools(account, vec![PoolId::Domain(base::DomainId(5)), PoolId::Tenant(base::TenantId(9))])
            .await
            .unwrap();
        self.deliver(50, Bytes::from_static(b"in the pools")).await;
        let leaving = contract_queue::message(&self.subject, "ann@example.test", &[("bob@a.test", "a.test")]).await;
        self.storage.queue.enqueue(vec![leaving]).await.unwrap();
        let held = contract_held::message(&self.subject, account, 7, "held back").await;
        self.storage.held.hold(vec![held]).await.remove(0).unwrap();
        self.storage.queue.suspend_lane(&"b.test".into(), Some("as asked".to_owned())).await.unwrap();
        let tables = tables::of_account().into_iter().chain(tables::of_all()).chain([tables::blobs(true)]);
        for table in tables {
            let rows = self.storage.place().rows(&table, None, None, 1).await.unwrap();
            assert!(!rows.is_empty(), "nothing in {}", table.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_goes_to_postgresql_and_back() {
    let Some(server) = Server::start() else { return };
    let (first, there, back) = (embedded(), shared(&server, "postgres", None).await, embedded());
    first.fill().await;
    let report = copy(&first, &there).await;
    assert!(report.accounts > 5 && report.blobs > 100 && report.octets > 10_000_000, "{report:?}");
    there.audit_is_clean().await;
    // Once more: nothing is left to do.
    let again = copy(&first, &there).await;
    assert_eq!((again.accounts, again.blobs, again.rows_written, again.rows_removed), (0, 0, 0, 0));
    assert_eq!(again.accounts_skipped, report.accounts);

    copy(&there, &back).await;
    back.audit_is_clean().await;
    assert_eq!(compare(&first, &back).await, [""; 0]);
    let inbox = first.inbox(50).await;
    let account = AccountId(50);
    for node in [&there, &back] {
        assert_eq!(
            node.storage.mail.mailboxes(account).await.unwrap(),
            first.storage.mail.mailboxes(account).await.unwrap()
        );
        let entries = node.storage.mail.entries(account, inbox, vec![EVERYTHING], 100).await.unwrap();
        assert_eq!(entries, first.storage.mail.entries(account, inbox, vec![EVERYTHING], 100).await.unwrap());
        for entry in &entries {
            let text = node.storage.blobs.read(entry.blob, 0..u64::MAX).await.unwrap();
            assert!(text == first.storage.blobs.read(entry.blob, 0..u64::MAX).await.unwrap());
        }
    }
    // New numbers meet no old ones, and what was used since goes back over what was left.
    there.go_on().await;
    assert!(matches!(first.storage.copy_to(&there.storage, &|_| ()).await, Err(CopyError::Refused(_))));
    copy(&there, &first).await;
    first.go_on().await;
    back.go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_content_goes_to_an_object_store_and_back() {
    let (Some(objects), Some(server)) = (ObjectServer::start(), Server::start()) else { return };
    let (first, back) = (embedded(), embedded());
    let there = shared(&server, "postgres", Some(objects.settings(&[objects.port()]))).await;
    for n in [10, 99_999, 100_000, 3_000_000, 20_000_000] {
        first.deliver(1, Bytes::from(Random(n).bytes(usize::try_from(n).unwrap()))).await;
    }
    copy(&first, &there).await;
    assert_eq!(objects.objects().len(), 3);
    there.audit_is_clean().await;
    copy(&there, &back).await;
    assert_eq!(compare(&first, &back).await, [""; 0]);
    back.go_on().await;
    there.go_on().await;
}

/// Whatever was done when it was cut off, the next one ends well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_that_was_cut_short_goes_on() {
    let Some(server) = Server::start() else { return };
    let first = embedded();
    for n in 0..700 {
        first.deliver(1 + n % 4, Bytes::from(Random(n).bytes(2000))).await;
    }
    first.deliver(3, Bytes::from(Random(7).bytes(9_000_000))).await;
    let (there, back) = (shared(&server, "postgres", None).await, embedded());
    for (from, to) in [(&first, &there), (&there, &back)] {
        for steps in 0..40 {
            // A step is one look at what an operation waits for.
            let mut copying = Box::pin(from.storage.copy_to(&to.storage, &|_| ()));
            let left = AtomicUsize::new(1 + steps * steps / 2);
            let cut = std::future::poll_fn(|cx| match left.fetch_sub(1, Ordering::Relaxed) {
                1 => std::task::Poll::Ready(None),
                _ => copying.as_mut().poll(cx).map(Some),
            });
            if let Some(done) = cut.await {
                done.unwrap();
            }
            drop(copying);
            to.settle().await;
        }
        copy(from, to).await;
        to.audit_is_clean().await;
        assert_eq!(compare(from, to).await, [""; 0]);
    }
    back.go_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_changed_since_comes_with_the_next_copy() {
    let Some(server) = Server::start() else { return };
    let (first, there, back) = (embedded(), shared(&server, "postgres", None).await, embedded());
    let account = AccountId(1);
    for n in 0..1200 {
        first.deliver(1, Bytes::from(format!("message {n}"))).await;
    }
    first.deliver(2, Bytes::from_static(b"of another")).await;
    let mail = &first.storage.mail;
    for folder in ["A", "B"] {
        mail.create_mailbox(account, &name(folder), None).await.unwrap();
    }
    copy(&first, &there).await;
    copy(&there, &back).await;

    // Names that change places, messages that go to mailboxes before and behind theirs, some that go for good.
    let (inbox, a) = (first.inbox(1).await, first.subject.mailbox(account, "A").await.id);
    for (from, to) in [("A", "C"), ("B", "A"), ("C", "B")] {
        mail.rename_mailbox(account, &name(from), &name(to)).await.unwrap();
    }
    mail.r#move(account, inbox, vec![uid(5)..=uid(9)], a).await.unwrap();
    mail.r#move(account, a, vec![uid(2)..=uid(3)], inbox).await.unwrap();
    mail.expunge(account, inbox, vec![uid(700)..=uid(705)], false).await.unwrap();
    mail.set_flags(account, inbox, vec![uid(600)..=uid(602)], FlagChange::Add(Flags::system(SystemFlags::SEEN)), None)
        .await
        .unwrap();
    let removed = mail.removed(account, 10).await.unwrap();
    mail.purge(account, Some(vec![removed[0].email, removed[1].email])).await.unwrap();
    mail.restore(account, vec![removed[2].email], None).await.unwrap();
    first.deliver(1, Bytes::from_static(b"new since")).await;
    for (from, to) in [(&first, &there), (&there, &back)] {
        let report = copy(from, to).await;
        assert_eq!((report.accounts, report.accounts_skipped, report.blobs), (1, 1, 1));
        assert!((20..80).contains(&report.rows_written), "{report:?}");
        assert_eq!(compare(from, to).await, [""; 0]);
        to.audit_is_clean().await;
    }
    // What goes without a new mod-sequence.
    mail.purge(account, None).await.unwrap();
    let report = copy(&first, &back).await;
    assert_eq!((report.accounts, report.rows_removed), (1, 3), "{report:?}");
    back.audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_not_of_this_source_is_left_alone() {
    let Some(server) = Server::start() else { return };
    let (first, there) = (embedded(), shared(&server, "postgres", None).await);
    first.deliver(1, Bytes::from_static(b"mine")).await;
    there.deliver(7, Bytes::from_static(b"another's")).await;
    let refused = first.storage.copy_to(&there.storage, &|_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("account 7, mail in the target"), "{refused}");
    assert_eq!(there.accounts().await, [AccountId(7)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_difference_is_named() {
    let Some(server) = Server::start() else { return };
    let (first, there) = (embedded(), shared(&server, "postgres", None).await);
    for n in 0..5 {
        first.deliver(1, Bytes::from(format!("message {n}").repeat(100))).await;
    }
    copy(&first, &there).await;
    let pool = Pool::new(server.settings(1));
    let sql = pool.session().await.unwrap();
    for (change, undo, what) in [
        ("UPDATE entry SET system = 4 WHERE uid = 2", "UPDATE entry SET system = 0", "entry 1/2: differs in system"),
        (
            "UPDATE content SET prefix = 'x' WHERE content_id = 3",
            "UPDATE content SET prefix = 'Return-Path: <>' || E'\\\\015\\\\012'::bytea",
            "entry 1/3: differs in prefix",
        ),
        (
            "INSERT INTO subscription SELECT account_id, 'More' FROM account",
            "DELETE FROM subscription WHERE name = 'More'",
            "account 1, subscription More: is not in the source",
        ),
        ("UPDATE delivered SET uid = 9 WHERE uid = 1", "UPDATE delivered SET uid = 1 WHERE uid = 9", "delivered "),
        ("UPDATE blob SET size_bytes = 1", "", "size or digest differs"),
    ] {
        sql.batch(change).await.unwrap();
        let found = compare(&first, &there).await;
        assert!(found.iter().any(|one| one.contains(what)), "{what}: {found:?}");
        sql.batch(undo).await.unwrap();
    }
    sql.batch("UPDATE blob SET size_bytes = 900; UPDATE blob_chunk SET data = '\\x00'").await.unwrap();
    let found = compare(&first, &there).await;
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].contains("(in the target)"), "{found:?}");
}

/// A column that a later version adds must go along too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_column_is_thought_of() {
    let node = embedded();
    let of_sqlite = "SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                     WHERE m.type = 'table' ORDER BY 1";
    let mut apart: BTreeSet<String> = [
        "entry.content_id",
        "removed.content_id",
        "held.content_id",
        "content.content_id",
        "content.account_id",
        "blob.locator",
        "blob.refs",
        "blob_release.released_at",
        "blob_release.blob_id",
        "erasure.locator",
        "erasure.blob_id",
        "queue_lane.due_at",
        "queue_lane.holder",
        "queue_lane.fence",
        "queue_lane.failures",
        "queue_lane.retry_at",
        "queue_lane.warm_at",
    ]
    .map(str::to_owned)
    .into();
    let mut places = vec![(node.storage.place(), of_sqlite)];
    let server = Server::start();
    if let Some(server) = &server {
        let there = shared(server, "postgres", None).await;
        let of_postgres =
            "SELECT format('%s.%s', c.relname, a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
             AND a.attnum > 0 AND c.relname <> 'ortler_component' ORDER BY 1";
        places.push((there.storage.place(), of_postgres));
    }
    for (place, text) in places {
        let rows = place.ask(text, &[Kind::Text]).await.unwrap();
        let found: BTreeSet<String> = rows.iter().map(|row| row[0].to_string()).collect();
        let mut copied = apart.clone();
        let tables = tables::of_account().into_iter().chain(tables::of_all()).chain([tables::blobs(false)]);
        for table in tables {
            for (column, _) in &table.columns {
                let is_content = table.key < table.columns.len()
                    && ["blob_id", "prefix", "summary"].contains(column)
                    && !["blob", "queue_item"].contains(&table.name);
                let of = if is_content { "content" } else { table.name };
                copied.insert(format!("{of}.{column}"));
            }
        }
        assert_eq!(found, copied);
        // The second place.
        apart.insert("queue_lane.leased_until".to_owned());
        for gone in ["blob.locator", "blob.refs", "erasure.locator", "erasure.blob_id"] {
            apart.remove(gone);
        }
        let more = ["blob.frames", "blob_chunk.blob_id", "blob_chunk.nth", "blob_chunk.data", "object_release.blob_id"];
        apart.extend(more.map(str::to_owned));
    }
}
