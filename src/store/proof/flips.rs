//! Single octets of the embedded engine's files changed at random: each change is told, or has changed nothing.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base::{AccountId, BlobId, Quota};
use rusqlite::types::ValueRef;

use super::Model;
use super::crash::wants_all;
use super::play::{Player, Script};
use crate::audit::AuditOptions;
use crate::contract::{NOW, Random};
use crate::storage_tests::{Node, open, tables, try_open};

/// All rows of all tables, and all content.
async fn picture(dir: &Path, node: &Node) -> String {
    let mut out = String::new();
    let mut blobs = Vec::new();
    {
        let sql = tables(dir);
        let mut names = sql.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        for name in names {
            let mut rows = sql.prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2, 3")).unwrap();
            let columns = rows.column_count();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<ValueRef<'_>> = (0..columns).map(|nth| row.get_ref(nth).unwrap()).collect();
                writeln!(out, "{name} {values:?}").unwrap();
                if name == "blob" {
                    blobs.push(BlobId::from_bytes(row.get(0).unwrap()));
                }
            }
        }
    }
    for blob in blobs {
        writeln!(out, "{blob} {:?}", node.storage.blobs.read(blob, 0..u64::MAX).await.unwrap()).unwrap();
    }
    out
}

/// A store with something in each table, closed.
async fn fill(dir: &Path) -> String {
    let node = open(dir);
    let player = Player {
        subject: node.subject.clone(),
        storage: None,
        clock: node.clock.clone(),
        born: NOW,
        folder: dir.to_path_buf(),
    };
    for account in 1..=2 {
        let (mut model, mut script) = (Model::new(AccountId(account)), Script::new(account, false));
        for _ in 0..60 {
            let op = script.next(&model);
            model = player.perform(&model, &op).await.unwrap();
        }
        // Whatever limit the script left.
        node.storage.mail.set_quota(AccountId(account), Quota::default()).await.unwrap();
        for nth in 0..3 {
            node.deliver(account, &format!("message {nth} ").repeat(300)).await;
        }
    }
    node.audit_is_clean().await;
    drop((player, node));
    let node = open(dir);
    picture(dir, &node).await
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = vec![dir.join("mail.sqlite")];
    let segments = std::fs::read_dir(dir.join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    out.extend(segments.filter(|path| path.metadata().unwrap().len() > 0));
    out.sort();
    out
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to.join("blobs")).unwrap();
    for file in files(from) {
        std::fs::copy(&file, to.join(file.strip_prefix(from).unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_octet_is_told_or_has_changed_nothing() {
    let first = tempfile::tempdir().unwrap();
    let before = fill(first.path()).await;
    let mut random = Random(7);
    let (mut told, mut refused, mut harmless) = (0, 0, 0);
    let rounds = if wants_all() { 600 } else { 60 };
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        copy(first.path(), dir.path());
        let files = files(dir.path());
        // The tables are a small part of all octets and most of what can go wrong.
        let file = if round % 3 == 0 { &files[random.below(files.len())] } else { &dir.path().join("mail.sqlite") };
        let mut bytes = std::fs::read(file).unwrap();
        let mut at = random.below(bytes.len());
        // Zeros are mostly room that nothing uses yet.
        for _ in 0..if round % 5 == 0 { 0 } else { 200 } {
            if bytes[at] != 0 {
                break;
            }
            at = random.below(bytes.len());
        }
        let change = u8::try_from(1 + random.below(255)).unwrap();
        bytes[at] ^= change;
        std::fs::write(file, bytes).unwrap();
        let about = format!("round {round}: {} octet {at} ^ {change:#x}", file.display());

        let opened = match try_open(dir.path()) {
            Ok(node) => {
                node.storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.map(|it| (node, it))
            }
            Err(error) => Err(error),
        };
        let (node, report) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let said = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
                assert!(said.contains(file.file_name().unwrap().to_str().unwrap()), "{about}: {said}");
                refused += 1;
                continue;
            }
        };
        if report.is_clean() {
            assert_eq!(picture(dir.path(), &node).await, before, "{about}: not told");
            harmless += 1;
        } else {
            assert!(report.problems.iter().all(|problem| !problem.location.is_empty()), "{about}: {report:?}");
            told += 1;
        }
    }
    println!("{told} told, {refused} refused by name, {harmless} without effect");
    assert!(told > rounds / 4, "{told} told, {refused} refused by name, {harmless} without effect");
}
