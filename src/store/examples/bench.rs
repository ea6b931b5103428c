//! Measures the embedded store: `cargo run --release -p store --example bench -- DIR`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, IdSource, SystemClock, Uid};
use bytes::Bytes;
use store::{Delivery, FlagChange, Flags, NewEntry, Picture, Role, Storage, StorageSettings, SystemFlags, Target};

const ACCOUNTS: u64 = 1000;
const ALL: std::ops::RangeInclusive<Uid> = Uid::MIN..=Uid::MAX;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("store-bench");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(dir))
}

async fn run(dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdSource::system());
    let storage = Arc::new(Storage::open(&dir, StorageSettings::default(), clock.clone(), Arc::clone(&ids))?);
    for account in 1..=ACCOUNTS {
        storage.mail.mailboxes(AccountId(account)).await?;
    }
    for writers in [1, 16, 128] {
        deliveries(&storage, &ids, writers, Duration::from_secs(5)).await?;
    }
    listing(&storage, AccountId(ACCOUNTS + 1), 10_000).await?;
    states(&storage, AccountId(ACCOUNTS + 2), 100_000).await?;
    drop(storage);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

async fn deliveries(
    storage: &Arc<Storage>,
    ids: &Arc<IdSource>,
    writers: u64,
    span: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let clock = SystemClock;
    let (start, cpu) = (clock.now(), cpu_time()?);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (storage, ids) = (Arc::clone(storage), Arc::clone(ids));
        tasks.spawn(async move {
            let mut random = writer + 1;
            let mut slowest = Duration::ZERO;
            let mut done = 0u64;
            while clock.now() - start < span {
                let began = clock.now();
                let text = message(&mut random);
                let blob = storage.blobs.put(vec![text]).await.map_err(|e| e.to_string())?;
                let delivery = Delivery {
                    account: AccountId(random % ACCOUNTS + 1),
                    message: ids.message(clock.utc()),
                    target: Target::Role(Role::Inbox),
                    blob,
                    prefix: Bytes::from_static(b"Return-Path: <a@example.test>\r\nDelivered-To: b@example.test\r\n"),
                    summary: Arc::from(vec![0u8; 600]),
                    flags: Flags::default(),
                    received_at: clock.utc(),
                };
                for outcome in storage.mail.deliver(vec![delivery]).await {
                    outcome.map_err(|e| e.to_string())?;
                }
                done += 1;
                slowest = slowest.max(clock.now() - began);
            }
            Ok::<_, String>((done, slowest))
        });
    }
    let mut total = 0;
    let mut slowest = Duration::ZERO;
    for outcome in tasks.join_all().await {
        let (done, slow) = outcome?;
        total += done;
        slowest = slowest.max(slow);
    }
    let (wall, cpu) = (clock.now() - start, cpu_time()? - cpu);
    println!(
        "{writers:4} writers: {:8.0} deliveries/s, {:.3} ms CPU each, slowest {slowest:.1?}",
        total as f64 / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1000.0 / total as f64
    );
    Ok(())
}

async fn listing(storage: &Storage, account: AccountId, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let inbox = fill(storage, account, count).await?;
    let clock = SystemClock;
    for round in ["first", "again"] {
        let start = clock.now();
        let found = storage.mail.entries(account, inbox, vec![ALL], count).await?.len();
        println!("entries of {found} messages, {round}: {:.1?}", clock.now() - start);
    }
    Ok(())
}

async fn states(storage: &Storage, account: AccountId, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let inbox = fill(storage, account, count).await?;
    let clock = SystemClock;
    let start = clock.now();
    let states = storage.mail.states(account, inbox).await?.ok_or("no mailbox")?;
    println!("states of {count} messages: {:.1?}", clock.now() - start);
    let start = clock.now();
    let picture = Picture::of(states);
    println!("picture of them: {:.1?}", clock.now() - start);
    let seen = FlagChange::Add(Flags::system(SystemFlags::SEEN));
    let start = clock.now();
    storage.mail.set_flags(account, inbox, vec![Uid::MIN..=Uid::new(10_000).ok_or("0")?], seen.clone(), None).await?;
    println!("flag change on 10000 of them: {:.1?}", clock.now() - start);
    let start = clock.now();
    let changes = storage.mail.changes_since(account, inbox, picture.highest_modseq()).await?.ok_or("no mailbox")?;
    println!("changes since then: {:.1?}", clock.now() - start);
    let next = picture.advanced(changes);
    let start = clock.now();
    let last = vec![next.uid_next()..=Uid::MAX, Uid::new(50_000).ok_or("0")?..=Uid::new(50_000).ok_or("0")?];
    storage.mail.set_flags(account, inbox, last, seen, None).await?;
    let committed = clock.now();
    let changes = storage.mail.changes_since(account, inbox, next.highest_modseq()).await?.ok_or("no mailbox")?;
    let after = next.advanced(changes);
    let differences = Picture::differences(&next, &after);
    println!(
        "flag change on one: {:.1?}, its view update: {:.1?} ({} changed)",
        committed - start,
        clock.now() - committed,
        differences.changed.len()
    );
    let start = clock.now();
    let (gone, _) = storage.mail.expunge(account, inbox, vec![Uid::MIN..=Uid::new(50_000).ok_or("0")?], false).await?;
    println!("expunge of {}: {:.1?}", gone.len(), clock.now() - start);
    Ok(())
}

async fn fill(
    storage: &Storage,
    account: AccountId,
    count: usize,
) -> Result<base::MailboxId, Box<dyn std::error::Error>> {
    let inbox = storage.mail.mailboxes(account).await?.into_iter().find(|m| m.name.is_inbox()).ok_or("no INBOX")?.id;
    let entry = NewEntry {
        blob: storage.blobs.put(vec![message(&mut 7)]).await?,
        summary: Arc::from(vec![0u8; 600]),
        flags: Flags::default(),
        internal_date: SystemClock.utc(),
    };
    for _ in 0..count / 1000 {
        storage.mail.append(account, inbox, vec![entry.clone(); 1000]).await?;
    }
    Ok(inbox)
}

/// About 15 KB that compress like mail with an attachment in base 64.
fn message(random: &mut u64) -> Bytes {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(25_000);
    let mut next = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *random >> 33
    };
    let size = 5_000 + usize::try_from(next() % 20_000).unwrap_or(0);
    while text.len() < size {
        let bits = next();
        text.extend((0..5).map(|place| DIGITS[usize::try_from((bits >> (6 * place)) & 63).unwrap_or(0)]));
    }
    Bytes::from(text)
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64);
    Ok(of(usage.user_time()) + of(usage.system_time()))
}
