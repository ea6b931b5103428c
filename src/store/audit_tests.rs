//! Each kind of row damaged by hand in a stopped store: reported, repaired where rows tell how, clean afterwards.

use base::{AccountId, ByteSize, DomainId, PoolId, Quota};

use crate::audit::AuditOptions;
use crate::contract::{EVERYTHING, name, uid};
use crate::storage_tests::{open, tables};

/// SQL that damages, words of what is reported, and of where.
const DAMAGES: &[(&str, &str, &str)] = &[
    ("UPDATE mailbox SET messages = 9, unseen = 0 WHERE name = 'INBOX'", "counters differ", "(INBOX)"),
    ("UPDATE mailbox SET size_bytes = 1 WHERE name = 'INBOX'", "counters differ", "mailbox 1"),
    ("UPDATE account SET messages = 70 WHERE account_id = 1", "usage differs", "account 1"),
    ("UPDATE account SET size_bytes = 1 WHERE account_id = 2", "usage differs", "account 2"),
    ("UPDATE mailbox SET uid_next = 2 WHERE name = 'INBOX' AND account_id = 1", "UIDNEXT", "uid 3"),
    ("UPDATE mailbox SET highest_modseq = 1 WHERE name = 'INBOX'", "mod-sequence", "uid 2"),
    ("UPDATE account SET modseq = 1", "mod-sequence", "account 1"),
    ("UPDATE entry SET created_modseq = modseq + 1 WHERE uid = 2", "mod-sequence", "uid 2"),
    ("UPDATE account SET next_email = 2 WHERE account_id = 1", "number again", "account 1"),
    ("UPDATE account SET next_mailbox = 2", "number again", "account 2"),
    ("UPDATE entry SET thread_id = email_id + 1 WHERE uid = 2", "thread", "uid 2"),
    (
        "DELETE FROM mailbox WHERE name = 'INBOX' AND account_id = 1",
        "belongs to no mailbox",
        "account 1, mailbox 1, uid 2",
    ),
    ("DELETE FROM account WHERE account_id = 2", "belongs to no account", "(INBOX)"),
    ("UPDATE entry SET size_bytes = size_bytes + 5 WHERE uid = 2", "entry's size", "uid 2"),
    (
        "DELETE FROM content WHERE content_id = (SELECT content_id FROM removed)",
        "expunged email has no content",
        "account 1",
    ),
    ("DELETE FROM removed", "nothing refers to the content row", "content 1"),
    ("UPDATE blob SET refs = 7 WHERE blob_id = (SELECT min(blob_id) FROM blob)", "count of references", "blob "),
    ("UPDATE blob SET refs = 0 WHERE blob_id = (SELECT max(blob_id) FROM blob)", "not listed as garbage", "blob "),
    ("UPDATE account SET allowed_bytes = 1 WHERE account_id = 1", "allowance", "account 1"),
    ("UPDATE account SET allowed_bytes = NULL WHERE account_id = 1", "allowance", "account 1"),
    ("DELETE FROM pool_member", "allowance", "account 1"),
    ("UPDATE pool SET allotted_messages = 900", "pool's sum", "domain 4"),
    ("UPDATE account SET log_rows = 900 WHERE account_id = 1", "log rows", "account 1"),
    ("UPDATE delivered SET account_id = 99 WHERE account_id = 2", "delivery is of an account", "account 99"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_row_is_reported_and_repaired() {
    for (damage, what, location) in DAMAGES {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path());
        for nth in 0..4 {
            node.deliver(1, &format!("message {nth}")).await;
        }
        node.deliver(2, "of another").await;
        let mail = &node.storage.mail;
        let inbox = node.subject.mailbox(AccountId(1), "INBOX").await.id;
        mail.expunge(AccountId(1), inbox, vec![uid(1)..=uid(1)], false).await.unwrap();
        let pool = PoolId::Domain(DomainId(4));
        mail.set_pool(pool, Quota { size: Some(ByteSize(5000)), messages: None }).await.unwrap();
        mail.set_pools(AccountId(1), vec![pool]).await.unwrap();
        node.audit_is_clean().await;
        drop(node);

        let sql = tables(dir.path());
        assert!(sql.execute(damage, []).unwrap() > 0, "{damage}");
        drop(sql);
        let node = open(dir.path());
        let audit =
            async |repair| node.storage.audit(AuditOptions { deep: true, repair, ..AuditOptions::default() }).await;
        let found = audit(false).await.unwrap();
        let is_told = found.problems.iter().any(|one| one.what.contains(what) && one.location.contains(location));
        assert!(is_told && found.problems.iter().all(|one| !one.repaired), "{damage}: {:?}", found.problems);
        let repaired = audit(true).await.unwrap();
        assert!(repaired.problems.iter().all(|one| one.repaired), "{damage}: {:?}", repaired.problems);
        let again = audit(false).await.unwrap();
        assert_eq!(again.problems, [], "{damage}");
        // It works on: nothing is given twice.
        node.deliver(1, "after it").await;
        node.deliver(2, "after it").await;
        node.audit_is_clean().await;
        assert!(node.texts(2).await.iter().all(Result::is_ok));
    }
}

/// Its index still has what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_disk_changed_is_repaired_with_its_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    node.deliver(1, "some text").await;
    drop(node);
    let file = dir.path().join("mail.sqlite");
    let mut image = std::fs::read(&file).unwrap();
    let row = image.windows(12).position(|some| some == b"Draftsdrafts").unwrap();
    image[row] ^= 1;
    std::fs::write(&file, image).unwrap();
    let node = open(dir.path());
    let audit = async |repair| node.storage.audit(AuditOptions { deep: true, repair, ..AuditOptions::default() }).await;
    let found = audit(false).await.unwrap().problems;
    assert!(found.iter().any(|one| one.location == "mailbox account_id 1, mailbox_id 2"), "{found:?}");
    let repaired = audit(true).await.unwrap().problems;
    assert!(repaired.iter().all(|one| one.repaired), "{repaired:?}");
    node.audit_is_clean().await;
    assert!(node.storage.mail.mailbox(AccountId(1), &name("Erafts")).await.unwrap().is_some());
}

/// A repair of one row writes that row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_leaves_alone_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    let pool = PoolId::Domain(DomainId(4));
    node.storage.mail.set_pool(pool, Quota { size: Some(ByteSize(5000)), messages: None }).await.unwrap();
    for account in 1..=3 {
        node.storage.mail.set_pools(AccountId(account), vec![pool]).await.unwrap();
        node.deliver(account, "some text").await;
    }
    drop(node);
    let sql = tables(dir.path());
    sql.execute_batch("UPDATE account SET messages = 70 WHERE account_id = 2; CREATE TABLE written (at TEXT);")
        .unwrap();
    for (table, number) in [("account", "account_id"), ("mailbox", "account_id"), ("pool", "pool_id")] {
        sql.execute_batch(&format!(
            "CREATE TRIGGER on_{table} AFTER UPDATE ON {table} BEGIN
                 INSERT INTO written VALUES ('{table} ' || new.{number}); END"
        ))
        .unwrap();
    }
    let node = open(dir.path());
    let options = AuditOptions { repair: true, ..AuditOptions::default() };
    assert!(!node.storage.audit(options).await.unwrap().is_clean());
    node.audit_is_clean().await;
    let written: String = sql.query_row("SELECT group_concat(at, ', ') FROM written", [], |row| row.get(0)).unwrap();
    assert_eq!(written, "account 2");
}

/// What only its owner could tell stays as it is, and is named on each audit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_content_and_a_lost_blob_are_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    node.deliver(1, "of one").await;
    node.deliver(2, "of two").await;
    drop(node);
    let sql = tables(dir.path());
    sql.execute_batch(
        "UPDATE entry SET content_id = (SELECT content_id FROM content WHERE account_id = 2) WHERE account_id = 1;
         DELETE FROM blob WHERE blob_id = (SELECT blob_id FROM content WHERE account_id = 2);",
    )
    .unwrap();
    drop(sql);
    let node = open(dir.path());
    for _ in 0..2 {
        let options = AuditOptions { deep: true, repair: true, ..AuditOptions::default() };
        let problems = node.storage.audit(options).await.unwrap().problems;
        for (what, location) in [("or a stranger's", "account 1"), ("blob is not there", "account 2")] {
            let found = problems.iter().find(|one| one.what.contains(what) && one.location.contains(location));
            assert!(found.is_some_and(|one| !one.repaired), "{what}: {problems:?}");
        }
    }
    let inbox = node.subject.mailbox(AccountId(2), "INBOX").await;
    assert_eq!(node.storage.mail.entries(AccountId(2), inbox.id, vec![EVERYTHING], 9).await.unwrap().len(), 1);
    assert!(node.storage.mail.mailbox(AccountId(1), &name("INBOX")).await.unwrap().is_some());
}
