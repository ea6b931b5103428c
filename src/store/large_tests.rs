//! Large blobs on the embedded engine: each in a segment of its own, from the first octet to the last.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use bytes::Bytes;

use crate::contract::{EVERYTHING, NOW, Random};
use crate::error::StoreError;
use crate::model::{Delivery, Flags, Role, StoredBlob, Target};
use crate::storage_tests::{Node, open};

const LARGE: usize = 9_000_000;

fn content(seed: u64) -> Bytes {
    let mut random = Random(seed);
    let words = [random.bytes(700), random.bytes(300), b"plain text\r\n".repeat(90)];
    let mut out = Vec::new();
    while out.len() < LARGE {
        out.extend_from_slice(&words[random.below(3)]);
    }
    out.into()
}

async fn put(node: &Node, content: &Bytes) -> Result<StoredBlob, StoreError> {
    let pieces = (0..content.len()).step_by(70_000).map(|at| content.slice(at..content.len().min(at + 70_000)));
    node.storage.blobs.put(pieces.collect()).await
}

async fn deliver(node: &Node, blob: StoredBlob) {
    let delivery = Delivery {
        account: AccountId(1),
        message: node.subject.message(),
        target: Target::Role(Role::Inbox),
        blob,
        prefix: Bytes::new(),
        summary: Arc::from(&b""[..]),
        flags: Flags::default(),
        received_at: NOW,
    };
    node.storage.mail.deliver(vec![delivery]).await.remove(0).unwrap();
}

/// Names of files that hold large blobs, or that begin to.
fn large(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("blobs")).unwrap().map(|file| file.unwrap().path());
    let is_large = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('L');
    let mut found: Vec<PathBuf> = files.filter(is_large).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_lie_alone_and_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let node = open(dir.path());
        for before in 0..round {
            let texts = node.texts(1).await;
            assert!(texts[usize::try_from(2 * before).unwrap()].as_ref().unwrap() == &content(before));
        }
        deliver(&node, put(&node, &content(round)).await.unwrap()).await;
        // In one piece, and small: into the segment that everybody shares.
        deliver(&node, node.storage.blobs.put(vec![Bytes::from_static(b"small")]).await.unwrap()).await;
        assert_eq!(large(dir.path()).len() as u64, round + 1);
        node.audit_is_clean().await;
    }
    assert!(large(dir.path())[2].ends_with("L000003.seg"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_half_written_goes() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("blobs/L000009.new"), b"half").unwrap();
    let node = open(dir.path());
    assert_eq!(large(dir.path()).len(), 0);
    deliver(&node, put(&node, &content(2)).await.unwrap()).await;
    node.audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_are_copied_collected_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    let content = content(5);
    deliver(&node, put(&node, &content).await.unwrap()).await;
    let orphan = put(&node, &content).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    node.storage.snapshot(to.path()).await.unwrap();
    let copy = open(to.path());
    assert!(copy.texts(1).await[0].as_ref().unwrap() == &content);
    drop(copy);

    node.clock.advance(Duration::from_secs(4_000_000_000));
    let report = node.storage.gc().await.unwrap();
    assert_eq!((report.segments_removed, large(dir.path()).len()), (1, 1), "the orphan {} goes", orphan.id());
    assert!(node.texts(1).await[0].as_ref().unwrap() == &content);

    // A byte in the middle costs its frame and is named.
    let file = std::fs::File::options().write(true).open(&large(dir.path())[0]).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(b"?", length / 2).unwrap();
    let entry = node.storage.mail.email_states(AccountId(1), None).await.unwrap().remove(0);
    let entry = node.storage.mail.emails(AccountId(1), vec![entry.state.email]).await.unwrap().remove(0);
    let reader = node.storage.original(&entry);
    assert!(reader.read(0..200_000).await.unwrap() == content[..200_000]);
    let Err(StoreError::Damaged { what }) = reader.read(0..u64::MAX).await else { panic!("read") };
    assert!(what.contains("L000001.seg at offset 64"), "{what}");
    let shown = node.storage.content(&entry).read(0..u64::MAX).await.unwrap();
    let lost = shown.iter().zip(&content).filter(|(is, was)| is != was).count();
    assert!(shown.len() == content.len() && (1000..=262_144).contains(&lost), "one frame is lost, not {lost} octets");
    let told = format!("octets are lost here: {}]", entry.blob);
    assert!(String::from_utf8_lossy(&shown).contains(&told));

    let inbox = node.subject.mailbox(AccountId(1), "INBOX").await;
    node.storage.mail.expunge(AccountId(1), inbox.id, vec![EVERYTHING], false).await.unwrap();
    node.storage.mail.purge(AccountId(1), None).await.unwrap();
    node.clock.advance(Duration::from_secs(100));
    let report = node.storage.gc().await.unwrap();
    assert_eq!((report.released, report.freed_bytes, large(dir.path()).len()), (1, length, 0));
}
