//! What was purged is in no file of the node, and in no table, when its grace is over.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource};
use bytes::Bytes;
use engine::postgres::{Pool, Server};
use mail::mime::Summary;

use crate::contract::{EVERYTHING, NOW, Random, Subject};
use crate::model::{Delivery, EmailId, Flags, Role, Target};
use crate::{AuditOptions, SegmentSettings, Storage, StorageSettings};

const ONE: AccountId = AccountId(1);
const DAY: Duration = Duration::from_secs(25 * 3600);

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
        let segments = SegmentSettings { segment_size: 256 * 1024, ..SegmentSettings::default() };
        let settings = StorageSettings { segments, ..StorageSettings::default() };
        let storage = Storage::open(dir, settings, clock.clone(), Arc::clone(&ids)).unwrap();
        Self::new(storage, clock, ids)
    }

    /// The message has an octet in a thousand that is no letter: so it does not compress, and what is stored of it can be
    /// found. Gives it.
    async fn deliver(&self, nth: u64, size: usize) -> Vec<u8> {
        let head = format!("From: a@x.example\r\nSubject: hidden-{nth}-hidden\r\n\r\n");
        let text: Vec<u8> = Random(nth).bytes(size).iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
        let content = [head.as_bytes(), &text].concat();
        let delivery = Delivery {
            account: ONE,
            message: self.subject.message(),
            target: Target::Role(Role::Inbox),
            blob: self.storage.blobs.put(vec![Bytes::from(content.clone())]).await.unwrap(),
            prefix: Bytes::new(),
            summary: Summary::of(&content).encode().into(),
            flags: Flags::default(),
            received_at: NOW,
        };
        self.storage.mail.deliver(vec![delivery]).await.remove(0).unwrap();
        content
    }

    /// A search looks at every message.
    async fn search(&self) {
        let inbox = self.subject.mailbox(ONE, "INBOX").await.id;
        let all = self.storage.mail.entries(ONE, inbox, vec![EVERYTHING], 100).await.unwrap();
        let all: Vec<EmailId> = all.iter().map(|entry| entry.email).collect();
        let found = self.storage.search.search(ONE, all.clone(), Arc::new(|_, _| true)).await.unwrap();
        assert_eq!(found, all);
    }

    async fn expunge_and_purge(&self, uid: u32) {
        let inbox = self.subject.mailbox(ONE, "INBOX").await.id;
        let uid = crate::contract::uid(uid);
        self.storage.mail.expunge(ONE, inbox, vec![uid..=uid], false).await.unwrap();
        assert_eq!(self.storage.purge(ONE, None).await.unwrap(), 1);
    }

    async fn is_clean(&self) {
        let options = AuditOptions { deep: true, ..AuditOptions::default() };
        assert_eq!(self.storage.audit(options).await.unwrap().problems, []);
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Names of files that hold the octets.
fn holders(dir: &Path, octets: &[u8]) -> Vec<String> {
    let holds = |file: &PathBuf| std::fs::read(file).unwrap().windows(octets.len()).any(|some| some == octets);
    let name = |file: PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
    files(dir).into_iter().filter(holds).map(name).collect()
}

/// Some of the packed texts that searches look at.
fn packed(dir: &Path) -> Vec<u8> {
    let sql = rusqlite::Connection::open(dir.join("search.sqlite")).unwrap();
    let data: Vec<u8> = sql.query_row("SELECT data FROM pack", [], |row| row.get(0)).unwrap();
    data[data.len() / 2..][..40].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_is_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::embedded(dir.path());
    let mut sent = Vec::new();
    for nth in 1..=5 {
        // The fourth fills the segment: what is before it is closed.
        sent.push(node.deliver(nth, if nth == 4 { 200_000 } else { 20_000 }).await);
    }
    node.search().await;
    let packed = packed(dir.path());
    // One in a closed segment that stays, one in the segment that is written.
    for uid in [2, 5] {
        let header = format!("hidden-{uid}-hidden");
        let body = &sent[uid - 1][10_000..10_040];
        assert!(holders(dir.path(), header.as_bytes()).iter().any(|file| file.starts_with("mail.sqlite")));
        assert!(holders(dir.path(), body).iter().any(|file| file.ends_with(".seg")));
        node.expunge_and_purge(uid as u32).await;
    }
    assert!(!holders(dir.path(), &packed).is_empty());
    node.storage.gc().await.unwrap();
    assert!(!holders(dir.path(), &sent[1][10_000..10_040]).is_empty(), "a delivery under way may yet refer to it");
    node.clock.advance(DAY);
    let report = node.storage.gc().await.unwrap();
    assert_eq!((report.released, report.erased), (2, 2), "{report:?}");
    for uid in [2, 5] {
        assert_eq!(holders(dir.path(), format!("hidden-{uid}-hidden").as_bytes()), [""; 0]);
        for at in (0..20_000).step_by(1000) {
            assert_eq!(holders(dir.path(), &sent[uid - 1][at + 60..at + 100]), [""; 0], "{uid} {at}");
        }
    }
    assert_eq!(holders(dir.path(), &packed), [""; 0]);
    node.is_clean().await;
    // The others are as they were, also for a node that starts on these files.
    drop(node);
    let node = Node::embedded(dir.path());
    node.is_clean().await;
    let inbox = node.subject.mailbox(ONE, "INBOX").await.id;
    let left = node.storage.mail.entries(ONE, inbox, vec![EVERYTHING], 100).await.unwrap();
    let uids: Vec<u32> = left.iter().map(|entry| entry.uid.as_raw()).collect();
    assert_eq!(uids, [1, 3, 4]);
    for entry in left {
        let content = node.storage.blobs.read(entry.blob, 0..u64::MAX).await.unwrap();
        assert!(content == sent[entry.uid.as_raw() as usize - 1]);
    }
    node.deliver(6, 1000).await;
    assert_eq!(node.storage.gc().await.unwrap().erased, 0);
    node.storage.wipe().await.unwrap();
    node.is_clean().await;
}

/// A segment that a snapshot shares is the snapshot's too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_shares_is_overwritten_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (home, snapshot) = (dir.path().join("node"), dir.path().join("snapshot"));
    std::fs::create_dir(&snapshot).unwrap();
    let node = Node::embedded(&home);
    let mut sent = Vec::new();
    for nth in 1..=3 {
        sent.push(node.deliver(nth, 120_000).await);
    }
    assert!(node.storage.snapshot(&snapshot).await.unwrap() > 1);
    node.expunge_and_purge(1).await;
    node.clock.advance(DAY);
    assert_eq!(node.storage.gc().await.unwrap().erased, 0);
    let octets = &sent[0][50_000..50_040];
    assert_eq!(holders(&home, octets), ["000001.seg"]);
    let then = Node::embedded(&snapshot);
    then.is_clean().await;
    drop(then);
    std::fs::remove_dir_all(&snapshot).unwrap();
    assert_eq!(node.storage.gc().await.unwrap().erased, 1);
    assert_eq!(holders(&home, octets), [""; 0]);
    node.is_clean().await;
}

/// Killed while it overwrites: it goes on, and nothing else is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwriting_that_was_cut_short_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::embedded(dir.path());
    let sent = [node.deliver(1, 20_000).await, node.deliver(2, 20_000).await];
    node.expunge_and_purge(1).await;
    node.clock.advance(DAY);
    drop(node);
    let segment = dir.path().join("blobs/000001.seg");
    let before = std::fs::read(&segment).unwrap();
    let node = Node::embedded(dir.path());
    node.clock.advance(DAY);
    node.storage.gc().await.unwrap();
    drop(node);
    // The record as it was, but for its second half, and the list as it was.
    let at = before.windows(40).position(|some| some == &sent[0][10_000..10_040]).unwrap();
    let mut torn = before.clone();
    torn[at..at + 9000].fill(0);
    std::fs::write(&segment, torn).unwrap();
    let sql = crate::storage_tests::tables(dir.path());
    let length = u32::from_le_bytes(before[72..76].try_into().unwrap());
    let locator = [1u32, 64, length].map(u32::to_be_bytes).concat();
    sql.execute("INSERT INTO erasure (locator, blob_id) VALUES (?1, ?2)", (&locator, &before[88..104])).unwrap();
    // Its neighbour is listed by mistake: it is there, so it stays.
    sql.execute("INSERT INTO erasure (locator, blob_id) SELECT locator, blob_id FROM blob", []).unwrap();
    drop(sql);
    let node = Node::embedded(dir.path());
    assert_eq!(node.storage.gc().await.unwrap().erased, 1);
    for at in [100, 5000, 19_000] {
        assert_eq!(holders(dir.path(), &sent[0][at..at + 40]), [""; 0], "{at}");
    }
    assert!(!holders(dir.path(), &sent[1][100..140]).is_empty());
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_is_in_no_table_of_postgresql() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let pool = Arc::new(Pool::new(server.settings(4)));
    let storage =
        Storage::open_postgres(dir.path(), pool, StorageSettings::default(), clock.clone(), Arc::clone(&ids)).await;
    let node = Node::new(storage.unwrap(), clock, ids);
    let sent = [node.deliver(1, 20_000).await, node.deliver(2, 3_000_000).await, node.deliver(3, 20_000).await];
    node.search().await;
    let packed = packed(dir.path());
    let folder = server.socket_dir().display().to_string();
    let dump = || {
        let mut command = server.command("pg_dump");
        let command = command.args(["-h", &folder, "-U", "ortler", "postgres"]).stdout(Stdio::piped());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let hex = |octets: &[u8]| octets.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Chunks are compressed, which does nothing for such content: it is in them as it is.
    let traces = |nth: usize| [hex(format!("hidden-{nth}-hidden").as_bytes()), hex(&sent[nth - 1][10_000..10_040])];
    let before = dump();
    assert!([1, 2, 3].into_iter().flat_map(traces).all(|trace| before.contains(&trace)));
    assert!(!holders(dir.path(), &packed).is_empty());
    node.expunge_and_purge(2).await;
    node.expunge_and_purge(3).await;
    node.clock.advance(DAY);
    assert_eq!(node.storage.gc().await.unwrap().released, 2);
    let after = dump();
    assert!(traces(1).iter().all(|trace| after.contains(trace)));
    assert!([2, 3].into_iter().flat_map(traces).all(|trace| !after.contains(&trace)));
    assert_eq!(holders(dir.path(), &packed), [""; 0]);
    node.is_clean().await;
}
