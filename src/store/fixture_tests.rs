//! Stores of every version that was ever shipped open with all that they hold, and go on.

use std::path::Path;
use std::sync::Arc;

use base::{AccountId, ByteSize, DomainId, FakeClock, IdSource, ModSeq, PoolId, Quota, UtcMillis};
use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};

use crate::contract::{EVERYTHING, Subject, name};
use crate::model::{EmailId, Entry, HeldBy, HeldFilter, QueueAction, QueueFilter, Role, SystemFlags, Target};
use crate::postgres::schema as of_postgres;
use crate::sqlite::schema as of_sqlite;
use crate::{AuditOptions, Storage, StorageSettings};

const SEGMENT: &[u8] = include_bytes!("sqlite/fixtures/000001.seg");
/// When the fixtures' messages came, and a day later.
const THEN: i64 = 1_795_482_172_000;
const NOW: UtcMillis = UtcMillis(THEN + 86_400_000);
const ONE: AccountId = AccountId(1);
const POOL: PoolId = PoolId::Domain(DomainId(4));

/// What the fixture of a version has beyond the first.
#[derive(Clone, Copy)]
struct Has {
    removed: bool,
    pools: bool,
    removed_folders: bool,
    verdicts: bool,
    queue: bool,
    held: bool,
}

struct Node {
    storage: Storage,
    subject: Subject,
    clock: Arc<FakeClock>,
}

impl Node {
    fn new(storage: Storage, clock: Arc<FakeClock>, ids: Arc<IdSource>) -> Self {
        Self { subject: Subject::of(&storage, clock.clone(), ids), storage, clock }
    }

    fn embedded(dir: &Path) -> Self {
        let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
        let storage = Storage::open(dir, StorageSettings::default(), clock.clone(), Arc::clone(&ids)).unwrap();
        Self::new(storage, clock, ids)
    }

    async fn shared(dir: &Path, pool: PgSettings) -> Self {
        let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
        let (pool, settings) = (Arc::new(Pool::new(pool)), StorageSettings::default());
        let storage = Storage::open_postgres(dir, pool, settings, clock.clone(), Arc::clone(&ids)).await.unwrap();
        Self::new(storage, clock, ids)
    }

    async fn entries(&self, account: AccountId, mailbox: &str) -> Vec<Entry> {
        let mailbox = self.subject.mailbox(account, mailbox).await.id;
        self.storage.mail.entries(account, mailbox, vec![EVERYTHING], 100).await.unwrap()
    }

    /// Numbers, flags, time of arrival, prefix and text of each.
    async fn told(&self, account: AccountId, mailbox: &str) -> Vec<String> {
        let mut out = Vec::new();
        for entry in self.entries(account, mailbox).await {
            let content = self.storage.original(&entry).read(0..u64::MAX).await.unwrap();
            assert_eq!(content.len() as u64, entry.size_bytes);
            let content = String::from_utf8(content.to_vec()).unwrap();
            let text = content.split("\r\n\r\n").nth(1).unwrap().trim_end().to_owned();
            let prefix = content.split("From: Ann").next().unwrap().trim_end().to_owned();
            let summary = mail::mime::Summary::decode(&entry.summary).unwrap();
            assert!(
                content.contains(&format!("Subject: {}", String::from_utf8_lossy(&summary.envelope.subject.unwrap())))
            );
            let (uid, email, thread) = (entry.uid.as_raw(), entry.email.0, entry.thread.0);
            let at = (entry.internal_date.0 - THEN) / 1000;
            let keywords: Vec<String> = entry.flags.keywords.iter().map(|one| one.as_str().to_owned()).collect();
            let system = entry.flags.system.bits();
            out.push(format!("{uid} e{email} t{thread} {system} {keywords:?} +{at} {prefix:?} {text}"));
        }
        out
    }

    async fn is_clean(&self) {
        let accounts = Some(Arc::new([ONE, AccountId(2)].into()));
        let options = AuditOptions { deep: true, accounts, ..AuditOptions::default() };
        let report = self.storage.audit(options).await.unwrap();
        assert_eq!(report.problems, []);
        assert!(report.checked.blobs >= 2 && report.checked.accounts == 2, "{:?}", report.checked);
    }

    async fn holds_everything(&self, has: Has) {
        let mail = &self.storage.mail;
        let said: Vec<_> = mail.owner_verdicts(10).await.unwrap().iter().map(|v| (v.email.0, v.is_spam)).collect();
        assert_eq!(said, if has.verdicts { vec![(2, true)] } else { Vec::new() });
        let queued = self.storage.queue.queued(&QueueFilter::default(), None, 10).await.unwrap();
        let queued: Vec<_> = queued
            .iter()
            .map(|job| {
                let (one, of) = (&job.recipient, &job.item);
                format!(
                    "{} to {} after {}: {} of {}",
                    of.sender, one.address, one.attempts, one.last_status, of.subject
                )
            })
            .collect();
        let expected = ["ann@example.org to bob@example.net after 1: 451 4.7.1 Later of Bolts"];
        assert_eq!(queued, if has.queue { expected.to_vec() } else { Vec::new() });
        let held = self.storage.held.held(&HeldFilter::of(HeldBy::Anybody), None, 10).await.unwrap();
        let held: Vec<String> = held
            .iter()
            .map(|one| {
                format!("{} of {}: {} ({})", one.facts.subject, one.facts.sender, one.facts.reason, one.facts.score)
            })
            .collect();
        let expected = ["Bolts of eve@example.org: spam (7000)"];
        assert_eq!(held, if has.held { expected.to_vec() } else { Vec::new() });
        let mailboxes = mail.mailboxes(ONE).await.unwrap();
        let of = |one: &crate::Mailbox| {
            let role = one.role.map_or("-", Role::as_str);
            let subscribed = if one.subscribed { " subscribed" } else { "" };
            let (messages, unseen, next) = (one.messages, one.unseen, one.uid_next.as_raw());
            format!("{} {} {role} {messages}/{unseen} next {next}{subscribed}", one.id.0, one.name)
        };
        let mut listed: Vec<String> = mailboxes.iter().map(of).collect();
        listed.sort();
        let expected = [
            "1 INBOX inbox 2/1 next 6 subscribed",
            "4 Archive archive 1/1 next 2 subscribed",
            "7 Trash trash 0/0 next 1",
            "8 Work - 0/0 next 1 subscribed",
            "9 Work/2026 - 1/0 next 2",
        ];
        assert_eq!(listed, expected);
        assert_eq!(self.subject.mailbox(ONE, "INBOX").await.uid_validity.as_raw(), 1_795_482_172);
        let inbox = [
            r#"1 e1 t1 0 [] +0 "Return-Path: <ann@example.org>" Two hundred bolts."#,
            r#"2 e2 t1 5 ["$Work"] +1 "" Thank you, we take them."#,
        ];
        assert_eq!(self.told(ONE, "INBOX").await, inbox);
        assert_eq!(self.told(ONE, "Archive").await, [r#"1 e5 t5 0 [] +3 "" Nobody reads this."#]);
        let copy = r#"1 e4 t1 1 ["$Work"] +1 "" Thank you, we take them."#;
        assert_eq!(self.told(ONE, "Work/2026").await, [copy]);
        assert_eq!(self.told(AccountId(2), "INBOX").await, [r#"1 e1 t1 0 [] +0 "" Two hundred bolts."#]);

        let usage = mail.usage(ONE).await.unwrap();
        let quota = Quota { size: Some(ByteSize(1_000_000)), messages: has.pools.then_some(50) };
        assert_eq!((usage.messages, usage.size.0, usage.quota), (4, 191 + 200 + 200 + 162, quota));
        // What a client missed since it was here last.
        let id = self.subject.mailbox(ONE, "INBOX").await.id;
        let missed = mail.changes_since(ONE, id, ModSeq::new(4).unwrap()).await.unwrap().unwrap();
        assert_eq!((missed.changed.len(), missed.vanished.len()), (1, if has.removed { 3 } else { 2 }));
        if has.pools {
            let pool = mail.pool(POOL).await.unwrap();
            let limit = Quota { size: Some(ByteSize(100_000)), messages: None };
            assert_eq!(
                (pool.limit, pool.accounts, pool.allotted_size.0, pool.allotted_messages),
                (limit, 1, 20_000, 20)
            );
        }
        let folders = mail.removed_mailboxes(ONE).await.unwrap();
        let folders: Vec<_> = folders.iter().map(|one| (one.name.as_str(), one.messages, one.subscribed)).collect();
        assert_eq!(folders, if has.removed_folders { vec![("Temp", 1, true)] } else { vec![] });
    }

    async fn goes_on(&self, has: Has) {
        let mail = &self.storage.mail;
        let removed = mail.removed(ONE, 10).await.unwrap();
        let ids: Vec<u64> = removed.iter().map(|gone| gone.email.0).collect();
        let expected: &[u64] = match (has.removed_folders, has.removed) {
            (true, _) => &[8, 7],
            (false, true) => &[7],
            (false, false) => &[],
        };
        assert_eq!(ids, expected);
        if has.removed_folders {
            let back = self.storage.restore_folder(ONE, &name("Temp"), None).await.unwrap();
            assert_eq!((back.messages, self.told(ONE, "Temp").await.len()), (1, 1));
            assert!(self.subject.mailbox(ONE, "Temp").await.subscribed);
        }
        if has.removed {
            mail.restore(ONE, vec![EmailId(7)], None).await.unwrap();
            let last = self.told(ONE, "INBOX").await.pop().unwrap();
            assert!(last.starts_with("6 e") && last.ends_with(r#"5 ["$Later"] +2 "" Of the meeting."#), "{last}");
        }
        // A number that was given is not given again, nor a message delivered twice.
        let delivery =
            self.subject.delivery(ONE, "From: Ann <ann@example.org>\r\n\r\nnew", Target::Role(Role::Inbox)).await;
        for _ in 0..2 {
            mail.deliver(vec![delivery.clone()]).await.remove(0).unwrap();
        }
        let entries = self.entries(ONE, "INBOX").await;
        let new = entries.last().unwrap();
        assert!(
            entries.len() == if has.removed { 4 } else { 3 } && new.uid.as_raw() >= 6 && new.email.0 >= 9,
            "{new:?}"
        );
        let inbox = self.subject.mailbox(ONE, "INBOX").await;
        mail.expunge(ONE, inbox.id, vec![EVERYTHING], false).await.unwrap();
        mail.delete_mailbox(ONE, &name("Work/2026")).await.unwrap();
        self.is_clean().await;
        let filter = QueueFilter { recipient: Some("@example.net".to_owned()), ..QueueFilter::default() };
        let gone = self.storage.queue.queue_act(&filter, QueueAction::Delete, None).await.unwrap().0;
        assert_eq!(gone, u64::from(has.queue));
        self.is_clean().await;
        if has.held {
            let held = self.storage.held.held(&HeldFilter::of(HeldBy::Account(AccountId(2))), None, 10).await.unwrap();
            let back = self.storage.held.release_held(held[0].id, Role::Junk).await.unwrap().unwrap();
            assert_eq!(back.mailbox_name().as_str(), "Junk");
            assert_eq!(self.told(AccountId(2), "Junk").await.len(), 1);
            self.is_clean().await;
        }
        // Two days later what nothing refers to is gone, the rest is not.
        self.storage.purge(ONE, None).await.unwrap();
        self.clock.advance(std::time::Duration::from_secs(2 * 86_400));
        let report = self.storage.gc().await.unwrap();
        assert!(report.released >= 2, "{report:?}");
        self.is_clean().await;
        assert_eq!(self.told(ONE, "Archive").await.len(), 1);
        assert_eq!(self.told(AccountId(2), "INBOX").await.len(), 1);
        let flags = self.entries(AccountId(2), "INBOX").await.remove(0).flags.system;
        assert!(!flags.contains(SystemFlags::SEEN));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_the_files_opens_with_all_it_holds() {
    let fixture = Fixture::new(include_str!("sqlite/fixtures/rows.sql"), of_sqlite::MIGRATIONS.iter().copied());
    for version in fixture.versions() {
        let dir = tempfile::tempdir().unwrap();
        fixture.make_sqlite(&dir.path().join("mail.sqlite"), version).unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        std::fs::write(dir.path().join("blobs/000001.seg"), SEGMENT).unwrap();
        let has = Has {
            removed: version >= 2,
            pools: version >= 3,
            removed_folders: version >= 4,
            verdicts: version >= 7,
            queue: version >= 8,
            held: version >= 9,
        };
        // A snapshot of that version is the same folder; to bring messages back from it, it is staged and only read.
        let staged = tempfile::tempdir().unwrap();
        Storage::stage(dir.path(), staged.path()).unwrap();
        let node = Node::embedded(staged.path());
        node.holds_everything(has).await;
        drop(node);
        let before: u32 = rusqlite::Connection::open(dir.path().join("mail.sqlite"))
            .and_then(|sql| sql.query_row("PRAGMA user_version", [], |row| row.get(0)))
            .unwrap();
        assert_eq!(
            (before as usize, std::fs::read(dir.path().join("blobs/000001.seg")).unwrap()),
            (version, SEGMENT.to_vec())
        );

        let node = Node::embedded(dir.path());
        node.is_clean().await;
        node.holds_everything(has).await;
        node.goes_on(has).await;
        drop(node);
        Node::embedded(dir.path()).is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_in_postgresql_opens_with_all_it_holds() {
    let Some(server) = Server::start() else { return };
    let steps = of_postgres::MIGRATIONS.iter().map(|step| step.text);
    let fixture = Fixture::new(include_str!("postgres/fixtures/rows.sql"), steps);
    for version in fixture.versions() {
        let settings = PgSettings::parse(&server.database(&format!("version{version}")), 4).unwrap();
        fixture.make_postgres(&Pool::new(settings.clone()), of_postgres::COMPONENT, version).await;
        let (verdicts, queue, held) = (version >= 5, version >= 6, version >= 7);
        let has = Has { removed: true, pools: version >= 2, removed_folders: version >= 3, verdicts, queue, held };
        let dir = tempfile::tempdir().unwrap();
        let node = Node::shared(dir.path(), settings).await;
        node.is_clean().await;
        node.holds_everything(has).await;
        node.goes_on(has).await;
    }
}
