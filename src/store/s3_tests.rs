//! PostgreSQL with an object store beside it: both are servers of the test's own.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource};
use bytes::Bytes;
use engine::postgres::{Pool, Server};

use crate::contract::{self, EVERYTHING, NOW, Random, Subject};
use crate::error::StoreError;
use crate::model::{Role, Target};
use crate::object_server::{ObjectServer, free_port};
use crate::{AuditOptions, S3Settings, Storage, StorageSettings};

struct Node {
    storage: Storage,
    subject: Subject,
    clock: Arc<FakeClock>,
    _folder: tempfile::TempDir,
}

async fn node(server: &Server, objects: S3Settings) -> Node {
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let folder = tempfile::tempdir().unwrap();
    let (settings, objects) = (StorageSettings::default(), Some(objects));
    let storage = Storage::open_postgres_with(
        folder.path(),
        Arc::new(Pool::new(server.settings(8))),
        objects,
        settings,
        clock.clone(),
        Arc::clone(&ids),
    );
    let storage = storage.await.unwrap();
    let subject = Subject::of(&storage, clock.clone(), ids);
    Node { storage, subject, clock, _folder: folder }
}

impl Node {
    async fn deliver(&self, account: AccountId, content: &[u8]) -> crate::StoredBlob {
        let mut delivery = self.subject.delivery(account, "", Target::Role(Role::Inbox)).await;
        delivery.blob = self.storage.blobs.put(vec![Bytes::copy_from_slice(content)]).await.unwrap();
        let blob = delivery.blob.clone();
        self.storage.mail.deliver(vec![delivery]).await.remove(0).unwrap();
        blob
    }

    async fn is_clean(&self, account: AccountId) -> bool {
        let options =
            AuditOptions { deep: true, accounts: Some(Arc::new([account].into())), ..AuditOptions::default() };
        self.storage.audit(options).await.unwrap().is_clean()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let (Some(objects), Some(server)) = (ObjectServer::start(), Server::start()) else { return };
    // The first endpoint is down: the other one is asked.
    let node = node(&server, objects.settings(&[free_port(), objects.port()])).await;
    contract::all(&node.subject).await;
    assert!(objects.objects().len() > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_content_is_an_object_and_goes_when_nothing_refers_to_it() {
    let (Some(mut objects), Some(server)) = (ObjectServer::start(), Server::start()) else { return };
    let node = node(&server, objects.settings(&[objects.port()])).await;
    let account = AccountId(1);
    let content = Random(1).bytes(700_000);
    node.deliver(account, b"small").await;
    assert_eq!(objects.objects().len(), 0);
    let blob = node.deliver(account, &content).await;
    let orphan = node.storage.blobs.put(vec![Bytes::from(content.clone())]).await.unwrap();
    assert_eq!(objects.objects().len(), 2);
    // In parts.
    let long = Bytes::from(Random(2).bytes(30_000_000));
    let pieces = (0..long.len()).step_by(1_000_000).map(|start| long.slice(start..start + 1_000_000));
    let long_blob = node.storage.blobs.put(pieces.collect()).await.unwrap();
    let middle = node.storage.blobs.read(long_blob.id(), 14_000_000..14_500_000).await.unwrap();
    assert!(middle == long[14_000_000..14_500_000]);
    assert!(node.is_clean(account).await);

    // A day later the orphans go. While the object store is away nothing of it is forgotten.
    node.clock.advance(Duration::from_secs(2 * 24 * 3600));
    objects.stop();
    // An audit goes on without it, and says so.
    let report = node.storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert!(problem.what.contains("was not looked at") && problem.location.ends_with("and 2 after it"), "{problem:?}");
    assert_eq!(report.checked.blobs, 6);
    assert!(matches!(node.storage.gc().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(node.storage.blobs.read(blob.id(), 0..10).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(node.storage.blobs.put(vec![long]).await, Err(StoreError::Unavailable(_))));
    assert!(node.storage.blobs.read(orphan.id(), 0..10).await.is_err(), "its row went first");
    objects.resume();
    let report = node.storage.gc().await.unwrap();
    assert!(report.objects_removed >= 2, "{report:?}");
    assert_eq!(objects.objects().len(), 1);
    assert!(node.storage.blobs.read(blob.id(), 0..u64::MAX).await.unwrap() == content);

    // An object that no row names, as a restored database leaves it, and one that is not ours.
    let known = objects.objects().remove(0);
    let bucket = objects.bucket();
    let (stray, ours) = (bucket.join("blob/00"), bucket.join(crate::bucket::key(node.subject.ids.blob(NOW)).as_ref()));
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::create_dir_all(ours.parent().unwrap()).unwrap();
    std::fs::copy(&known, ours).unwrap();
    std::fs::write(stray.join("notes.txt"), b"of somebody else").unwrap();
    node.clock.advance(Duration::from_secs(4_000_000_000));
    node.storage.gc().await.unwrap();
    assert_eq!(objects.objects(), {
        let mut left = vec![known, stray.join("notes.txt")];
        left.sort();
        left
    });

    let inbox = node.subject.mailbox(account, "INBOX").await;
    node.storage.mail.expunge(account, inbox.id, vec![EVERYTHING], false).await.unwrap();
    node.storage.mail.purge(account, None).await.unwrap();
    node.clock.advance(Duration::from_secs(2 * 24 * 3600));
    node.storage.gc().await.unwrap();
    assert_eq!(objects.objects(), [stray.join("notes.txt")]);
    assert!(node.is_clean(account).await);
}

/// What is too long for one statement and too short for an object.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn content_below_the_threshold_goes_to_the_database_whatever_its_size() {
    let (Some(objects), Some(server)) = (ObjectServer::start(), Server::start()) else { return };
    let settings = S3Settings { from_bytes: 8_000_000, ..objects.settings(&[objects.port()]) };
    let node = node(&server, settings).await;
    let content = Random(4).bytes(3_000_000);
    let blob = node.deliver(AccountId(1), &content).await;
    assert!(node.storage.blobs.read(blob.id(), 0..u64::MAX).await.unwrap() == content);
    assert_eq!(objects.objects().len(), 0);
    assert!(node.is_clean(AccountId(1)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ranged_read_asks_only_for_its_frames_and_damage_is_named() {
    let (Some(objects), Some(server)) = (ObjectServer::start(), Server::start()) else { return };
    let node = node(&server, objects.settings(&[objects.port()])).await;
    let account = AccountId(1);
    let content = Random(3).bytes(900_000);
    let blob = node.deliver(account, &content).await;
    let file = objects.objects().remove(0);
    // All but the second frame is gone.
    let whole = std::fs::read(&file).unwrap();
    let mut hurt = vec![0; whole.len()];
    hurt[262_144..524_288].copy_from_slice(&whole[262_144..524_288]);
    std::fs::write(&file, &hurt).unwrap();
    assert!(node.storage.blobs.read(blob.id(), 300_000..500_000).await.unwrap() == content[300_000..500_000]);
    let read = node.storage.blobs.read(blob.id(), 0..10).await;
    assert!(matches!(&read, Err(StoreError::Damaged { what }) if what.contains("object blob/")), "{read:?}");
    let inbox = node.subject.mailbox(account, "INBOX").await.id;
    let entry = node.storage.mail.entries(account, inbox, vec![EVERYTHING], 1).await.unwrap().remove(0);
    let shown = node.storage.content(&entry).read(0..u64::MAX).await.unwrap();
    assert!(shown.len() as u64 == entry.size_bytes && String::from_utf8_lossy(&shown).contains("Content lost"));
    std::fs::remove_file(&file).unwrap();
    let report = node.storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
    let problem = &report.problems[0];
    assert!(problem.what.contains("it is not there") && problem.location.ends_with("(INBOX), uid 1"), "{problem:?}");
}

/// Answers each request with this status and text, as many times as are asked.
fn answering(status: &'static str, text: &'static str) -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let length = text.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// Only the bucket itself can say that it lacks an object.
#[tokio::test]
async fn an_object_is_lost_when_its_bucket_says_so() {
    let blob = IdSource::system().blob(NOW);
    let settings = |ports: &[u16]| S3Settings {
        endpoints: ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
        bucket: "mail".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "ortler".to_owned(),
        secret: base::Secret::new("secret".to_owned()),
        path_style: true,
        from_bytes: 1,
    };
    let lost = answering("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>");
    let no_bucket = answering("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>");
    let proxy = answering("404 Not Found", "<html>no such page</html>");
    for (ports, is_lost) in [(&[lost][..], true), (&[no_bucket], false), (&[proxy], false), (&[proxy, lost], true)] {
        let bucket = crate::bucket::Bucket::new(&settings(ports)).unwrap();
        let read = bucket.read(blob, 0..10).await;
        match read {
            Err(StoreError::Damaged { what }) => {
                assert!(is_lost && what.ends_with("it is not there"), "{ports:?} {what}")
            }
            Err(StoreError::Unavailable(_)) => assert!(!is_lost, "{ports:?}"),
            other => panic!("{ports:?}: {other:?}"),
        }
        assert_eq!(bucket.is_reachable(), is_lost);
        assert_eq!(bucket.delete(vec![crate::bucket::key(blob)]).await.is_ok(), is_lost);
    }
}
