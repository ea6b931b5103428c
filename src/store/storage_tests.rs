//! The embedded engine: the contract, and what only files can suffer.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource};
use bytes::Bytes;

use crate::audit::AuditOptions;
use crate::blob::SegmentSettings;
use crate::contract::{self, EVERYTHING, NOW, Random, Subject};
use crate::error::StoreError;
use crate::gc::GcSettings;
use crate::model::{Role, Target};
use crate::picture::Picture;
use crate::storage::{Storage, StorageSettings};

struct Node {
    storage: Storage,
    subject: Subject,
    clock: Arc<FakeClock>,
}

fn settings() -> StorageSettings {
    StorageSettings {
        segments: SegmentSettings { segment_size: 256 * 1024, ..SegmentSettings::default() },
        gc: GcSettings { grace: Duration::from_secs(60), ..GcSettings::default() },
        ..StorageSettings::default()
    }
}

fn try_open(dir: &Path) -> Result<Node, StoreError> {
    let clock = Arc::new(FakeClock::at(NOW));
    let ids = Arc::new(IdSource::system());
    let storage = Storage::open(dir, settings(), clock.clone(), Arc::clone(&ids))?;
    let subject = Subject { mail: Arc::clone(&storage.mail), blobs: Arc::clone(&storage.blobs), ids };
    Ok(Node { storage, subject, clock })
}

fn open(dir: &Path) -> Node {
    try_open(dir).unwrap()
}

impl Node {
    async fn deliver(&self, account: u64, text: &str) {
        let delivery = self.subject.delivery(AccountId(account), text, Target::Role(Role::Inbox)).await;
        self.storage.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    }

    async fn texts(&self, account: u64) -> Vec<Result<Bytes, StoreError>> {
        let account = AccountId(account);
        let inbox = self.subject.mailbox(account, "INBOX").await.id;
        let mut out = Vec::new();
        for entry in self.storage.mail.entries(account, inbox, vec![EVERYTHING], 10_000).await.unwrap() {
            out.push(self.storage.content(&entry).read_blob(0..u64::MAX).await);
        }
        out
    }

    async fn audit_is_clean(&self) {
        let report = self.storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
        assert_eq!(report.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    contract::all(&node.subject).await;
    node.audit_is_clean().await;
}
