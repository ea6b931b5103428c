//! The contract, on a PostgreSQL server of the test's own.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, DomainId, FakeClock, IdSource, PoolId};
use bytes::Bytes;
use engine::postgres::{Pool, Server};

use super::{PgBlobs, PgStore};
use crate::contract::{self, NOW, Subject};
use crate::contract_quota;
use crate::model::{Delivery, Flags, Role, Target};
use crate::signal::Signals;
use crate::{AuditOptions, GcReport, Storage, StorageSettings};

async fn node(server: &Server) -> Subject {
    let clock = Arc::new(FakeClock::at(NOW));
    let ids = Arc::new(IdSource::system());
    let pool = Arc::new(Pool::new(server.settings(8)));
    let mail = PgStore::open(pool, Arc::new(Signals::new()), clock.clone()).await.unwrap();
    let blobs = PgBlobs::new(Arc::clone(&mail), Arc::clone(&ids), clock.clone());
    Subject { queue: mail.clone(), held: mail.clone(), mail, blobs, ids, clock }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let Some(server) = Server::start() else { return };
    // Nodes that start together make the schema once.
    let (node, other) = tokio::join!(node(&server), node(&server));
    contract::all(&node).await;
    assert!(other.mail.mailboxes(AccountId(1)).await.unwrap().len() >= 7);
    // Two nodes deliver against the same pools.
    contract_quota::pools_are_never_overshot(&[node, other], 200).await;
}

/// Accounts that change places between pools do not wait for each other in a ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn accounts_change_pools_side_by_side() {
    let Some(server) = Server::start() else { return };
    let node = node(&server).await;
    let pools = [1, 2].map(|id| PoolId::Domain(DomainId(id)));
    let mut tasks = tokio::task::JoinSet::new();
    for account in 1..=6u64 {
        let node = node.clone();
        tasks.spawn(async move {
            for round in 0..60 {
                let pool = pools[usize::from((account + round) % 2 == 0)];
                node.mail.set_pools(AccountId(account), vec![pool]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let members = [node.mail.pool(pools[0]).await.unwrap().accounts, node.mail.pool(pools[1]).await.unwrap().accounts];
    assert_eq!(members, [3, 3]);
}

/// A round locks no account without garbage of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn garbage_collection_waits_for_no_account_without_garbage() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = node(&server).await;
    node.mail.mailboxes(AccountId(1)).await.unwrap();
    let pool = Arc::new(Pool::new(server.settings(4)));
    let (settings, clock) = (StorageSettings::default(), node.clock.clone());
    let storage = Storage::open_postgres(folder.path(), pool, settings, clock, node.ids.clone()).await.unwrap();
    let sql = Pool::new(server.settings(1)).begin(false).await.unwrap();
    sql.batch("SELECT 1 FROM account WHERE account_id = 1 FOR UPDATE").await.unwrap();
    let round = tokio::time::timeout(Duration::from_secs(8), storage.gc()).await;
    assert_eq!(round.expect("it waited").unwrap(), GcReport::default());
}

/// What was promised is there once, whatever the server was doing when it died.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_loses_and_doubles_nothing() {
    let Some(server) = Server::start() else { return };
    let node = node(&server).await;
    let account = AccountId(1);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let node = node.clone();
        writers.spawn(async move {
            let mut promised = 0;
            for _ in 0..150 {
                let Ok(blob) = node.blobs.put(vec![Bytes::from_static(b"text")]).await else { continue };
                let delivery = Delivery {
                    account,
                    message: node.message(),
                    target: Target::Role(Role::Inbox),
                    blob,
                    prefix: Bytes::new(),
                    summary: Arc::from(&b""[..]),
                    flags: Flags::default(),
                    received_at: NOW,
                };
                // As the queue does: again until it is known, with the same message id.
                while node.mail.deliver(vec![delivery.clone()]).await.remove(0).is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                promised += 1;
            }
            promised
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokio::task::block_in_place(|| server.control(&["-m", "immediate", "restart"]));
    }
    let promised: usize = writers.join_all().await.into_iter().sum();
    let inbox = node.mailbox(account, "INBOX").await;
    let states = node.mail.states(account, inbox.id).await.unwrap().unwrap();
    assert_eq!((states.changed.len(), inbox.messages as usize), (promised, promised));
    assert!(promised > 0 && inbox.uid_next.as_raw() as usize == promised + 1, "no UID is lost or used twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn garbage_goes_and_what_is_referred_to_stays() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (node, clock) = (node(&server).await, Arc::new(FakeClock::at(NOW)));
    let storage = Storage::open_postgres(
        folder.path(),
        Arc::new(Pool::new(server.settings(4))),
        StorageSettings::default(),
        clock.clone(),
        Arc::new(IdSource::system()),
    );
    let storage = storage.await.unwrap();
    let account = AccountId(7);
    let [kept, expunged] = ["kept", "expunged"].map(|text| node.delivery(account, text, Target::Role(Role::Inbox)));
    let (kept, expunged) = (kept.await, expunged.await);
    let (kept_blob, expunged_blob) = (kept.blob.id, expunged.blob.id);
    let orphan = node.blobs.put(vec![Bytes::from_static(b"orphan")]).await.unwrap();
    // As an interruption leaves it: listed, with the chunks that were written by then.
    let half = node.ids.blob(NOW).to_bytes();
    let sql = engine::postgres::Pool::new(server.settings(1)).session().await.unwrap();
    sql.execute("INSERT INTO blob_release (released_at, blob_id) VALUES ($1, $2)", &[&NOW.0, &&half[..]])
        .await
        .unwrap();
    let chunks = "INSERT INTO blob_chunk (blob_id, nth, data) VALUES ($1, 0, '\\x00'), ($1, 1, '\\x00')";
    sql.execute(chunks, &[&&half[..]]).await.unwrap();
    for delivery in [kept, expunged] {
        node.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    }
    let inbox = node.mailbox(account, "INBOX").await;
    let second = base::Uid::new(2).unwrap();
    node.mail.expunge(account, inbox.id, vec![second..=second], false).await.unwrap();
    assert_eq!(storage.gc().await.unwrap().released, 0, "within the grace period");
    clock.advance(Duration::from_secs(2 * 24 * 3600));
    assert_eq!(storage.gc().await.unwrap().released, 1, "the orphan");
    assert!(node.blobs.read(orphan.id, 0..6).await.is_err());
    let chunks = sql.row("SELECT count(*), count(DISTINCT blob_id) FROM blob_chunk", &[]).await.unwrap();
    assert_eq!((chunks.get::<_, i64>(0), chunks.get::<_, i64>(1)), (2, 2), "of the half nothing is left");
    drop(sql);
    clock.advance(Duration::from_secs(14 * 24 * 3600));
    assert_eq!(storage.gc().await.unwrap().forgotten, 1);
    clock.advance(Duration::from_secs(2 * 24 * 3600));
    assert_eq!(storage.gc().await.unwrap().released, 1);
    assert!(node.blobs.read(expunged_blob, 0..8).await.is_err());
    assert_eq!(&node.blobs.read(kept_blob, 0..4).await.unwrap()[..], b"kept");
    let options = AuditOptions { deep: true, accounts: Some(Arc::new([account].into())), ..AuditOptions::default() };
    let report = storage.audit(options).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.checked.entries, report.checked.blobs), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_auditor_names_damage_and_repairs_what_it_can() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open_postgres(
        folder.path(),
        Arc::new(Pool::new(server.settings(4))),
        StorageSettings::default(),
        Arc::new(FakeClock::at(NOW)),
        Arc::new(IdSource::system()),
    );
    let (storage, node) = (storage.await.unwrap(), node(&server).await);
    let account = AccountId(3);
    for text in ["one", "two", "three", "four"] {
        let delivery = node.delivery(account, text, Target::Role(Role::Inbox)).await;
        node.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    }
    let pool = Pool::new(server.settings(1));
    let sql = pool.session().await.unwrap();
    sql.batch(
        "UPDATE mailbox SET messages = messages + 5, unseen = 0 WHERE account_id = 3 AND role = 'inbox';
         UPDATE account SET size_bytes = size_bytes + 1 WHERE account_id = 3;
         UPDATE mailbox SET uid_next = 4 WHERE account_id = 3 AND role = 'inbox';
         DELETE FROM blob_release;
         DELETE FROM content WHERE account_id = 3 AND content_id = 1;
         UPDATE blob_chunk SET data = '\\x00' WHERE blob_id = (SELECT blob_id FROM content WHERE content_id = 2);
         DELETE FROM blob_chunk WHERE blob_id = (SELECT blob_id FROM content WHERE content_id = 3)",
    )
    .await
    .unwrap();
    let audit =
        |repair, accounts| storage.audit(AuditOptions { deep: true, repair, accounts, ..AuditOptions::default() });
    let report = audit(true, Some(Arc::new([AccountId(1)].into()))).await.unwrap();
    let found = |what: &str| {
        let hits: Vec<bool> = report.problems.iter().filter(|p| p.what.contains(what)).map(|p| p.repaired).collect();
        assert_eq!(hits.len(), 1, "{what}: {report:?}");
        hits[0]
    };
    assert!(found("counters differ") && found("usage differs") && found("not listed as garbage"));
    assert!(!found("not below the mailbox's UIDNEXT") && !found("no content row") && !found("a chunk is missing"));
    assert!(!found("cannot be unpacked") && !found("not in the directory"));
    assert_eq!(report.problems.len(), 8, "{report:?}");
    assert_eq!(audit(false, None).await.unwrap().problems.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deleted_folder_comes_back_as_a_whole() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let subject = node(&server).await;
    let (settings, clock) = (StorageSettings::default(), subject.clock.clone());
    let storage = Storage::open_postgres(
        folder.path(),
        Arc::new(Pool::new(server.settings(4))),
        settings,
        clock,
        subject.ids.clone(),
    );
    contract::folders_come_back(&storage.await.unwrap(), &subject, AccountId(1)).await;
}

/// However much was expunged after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_deleted_long_ago_comes_back() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = node(&server).await;
    contract::delete_folder_of_one(&node, AccountId(1)).await;
    let sql = Pool::new(server.settings(1)).session().await.unwrap();
    let numbers = "WITH n (i) AS (SELECT generate_series(1, 50000))";
    sql.batch(&format!("{numbers} {}", contract::EXPUNGED_LATER)).await.unwrap();
    let pool = Arc::new(Pool::new(server.settings(4)));
    let (settings, clock) = (StorageSettings::default(), node.clock.clone());
    let storage = Storage::open_postgres(folder.path(), pool, settings, clock, node.ids.clone()).await.unwrap();
    let back = storage.restore_folder(AccountId(1), &contract::name("Old"), None).await.unwrap();
    assert_eq!((back.messages, node.mailbox(AccountId(1), "Old").await.messages), (1, 1));
}

/// The earlier of two tries may come to its end after the later one has begun; of those that come at once, one may be told
/// to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn content_that_comes_twice_at_once_is_there_once() {
    let Some(server) = Server::start() else { return };
    let node = node(&server).await;
    for (nth, size) in [0, 2000, 300_000, 4_000_000].into_iter().enumerate() {
        let content = Bytes::from(contract::Random(7).bytes(size));
        for _ in 0..8 {
            let id = node.ids.blob(NOW);
            let mut tries = tokio::task::JoinSet::new();
            for _ in 0..3 {
                let (blobs, content) = (Arc::clone(&node.blobs), content.clone());
                tries.spawn(async move { blobs.put_as(id, vec![content]).await });
            }
            for tried in tries.join_all().await {
                assert!(tried.is_ok() || matches!(tried, Err(crate::StoreError::Unavailable(_))), "{tried:?}");
            }
            node.blobs.put_as(id, vec![content.clone()]).await.unwrap();
            assert_eq!(node.blobs.read(id, 0..u64::MAX).await.unwrap(), content, "size {nth}");
        }
    }
}

/// What the server is asked for: content once, then one statement, which is a transaction, for each account.
#[tokio::test]
async fn a_delivery_is_one_round_trip_for_each_account() {
    static ASKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let Some(server) = Server::start() else { return };
    let watcher = |place| {
        if place == "server.ask" {
            ASKED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let settings = server.settings(1).with_waypoints(engine::Waypoints::watched_by(Box::leak(Box::new(watcher))));
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let mail = PgStore::open(Arc::new(Pool::new(settings)), Arc::new(Signals::new()), clock.clone()).await.unwrap();
    let blobs = PgBlobs::new(Arc::clone(&mail), Arc::clone(&ids), clock.clone());
    let node = Subject { queue: mail.clone(), held: mail.clone(), mail, blobs, ids, clock };
    for round in 0..3 {
        let before = ASKED.load(std::sync::atomic::Ordering::SeqCst);
        let one = node.delivery(AccountId(1), &format!("letter {round}"), Target::Role(Role::Inbox)).await;
        let others = (2..=3).map(|account| Delivery { account: AccountId(account), ..one.clone() });
        let deliveries = std::iter::once(one.clone()).chain(others).collect();
        assert!(node.mail.deliver(deliveries).await.iter().all(Result::is_ok));
        let asked = ASKED.load(std::sync::atomic::Ordering::SeqCst) - before;
        // At first accounts are made and statements prepared.
        assert!(round == 0 || asked == 1 + 3, "{asked}");
    }
}

/// What a distributed PostgreSQL asks of a schema: all that is unique within an account's tables leads with the account, by which they are
/// spread; contents are spread by their blob; the rest is small and the same everywhere.
#[tokio::test]
async fn the_tables_can_be_spread_by_account() {
    let Some(server) = Server::start() else { return };
    let _node = node(&server).await;
    let text = "SELECT c.relname::text, a.attname::text FROM pg_index i
         JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
         WHERE n.nspname = 'public' AND i.indisunique AND NOT c.relispartition ORDER BY 1, 2";
    let rows = Pool::new(server.settings(1)).query(text, &[]).await.unwrap();
    let text_of = |row, at| engine::postgres::value::<String>(row, at).unwrap();
    let read = |row| (text_of(row, 0), text_of(row, 1));
    let others: Vec<String> = rows
        .iter()
        .map(read)
        .filter(|(_, first)| first != "account_id")
        .map(|(table, first)| format!("{table} {first}"))
        .collect();
    assert_eq!(others, OTHERS);
    // Nothing refers from one account's rows to another table's. The queue alone refers to contents, for collectors of versions without
    // one: where contents are spread, the constraint goes once no such node runs, for a collector that knows the queue asks it.
    let text = "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'";
    let references = Pool::new(server.settings(1)).query(text, &[]).await.unwrap();
    assert_eq!(references.iter().map(read).collect::<Vec<_>>(), [("queue_item".to_owned(), "blob".to_owned())]);
}

/// Tables that are not spread by account, with what they are unique by.
const OTHERS: &[&str] = &[
    "blob blob_id",
    "blob_chunk blob_id",
    "blob_release released_at",
    "object_release blob_id",
    "ortler_component component",
    "pool pool_id",
    // What is on its way is no account's.
    "queue_item message_id",
    "queue_lane lane",
    "queue_recipient message_id",
];
