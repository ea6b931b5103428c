//! What nodes that share a PostgreSQL tell each other: which accounts changed, so that sessions elsewhere wake. Hints are
//! gathered for a moment and said after the commits they are about, on a connection of their own; a lost one is made up
//! for by a look at the mod-sequences of all accounts with sessions here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ModSeq, event};
use engine::EngineError;
use engine::postgres::{Notice, Notices, PgSettings};
use store::Storage;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::engines::explain;

const CHANNEL: &str = "ortler_changes";
/// Hints of this long go out together.
const GATHERED: Duration = Duration::from_millis(5);
/// Accounts in one notice: PostgreSQL takes less than 8000 octets.
const TOGETHER: usize = 150;
/// So often all is looked at, hints or not.
const RECHECK: Duration = Duration::from_secs(30);
/// Before another attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);

type Hints = broadcast::Receiver<(AccountId, ModSeq)>;

/// Runs until `stop`.
pub async fn run(server: PgSettings, storage: Arc<Storage>, stop: CancellationToken) {
    let mut own = storage.signals.subscribe_all();
    let mut was_lost = false;
    loop {
        let failed = tokio::select! {
            failed = converse(&server, &storage, &mut own, &mut was_lost) => failed,
            () = stop.cancelled() => return,
        };
        if !was_lost {
            was_lost = true;
            tracing::warn!(event = event::STORE_FAILED, what = "hints between nodes", error = %explain(&failed));
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One connection's life; gives why it ended.
async fn converse(server: &PgSettings, storage: &Storage, own: &mut Hints, was_lost: &mut bool) -> store::StoreError {
    let mut notices = match Notices::open(server, CHANNEL).await {
        Ok(notices) => notices,
        Err(error) => return error.into(),
    };
    let mut recheck = tokio::time::interval(RECHECK);
    recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // The first tick comes at once: what was said while nobody listened is lost.
        let done = tokio::select! {
            _ = recheck.tick() => storage.recheck().await,
            notice = notices.next() => hear(notice, storage).await,
            hint = own.recv() => say(&notices, hint, own).await.map_err(Into::into),
        };
        match done {
            Ok(()) => *was_lost = false,
            Err(error) => return error,
        }
    }
}

async fn hear(notice: Result<Notice, EngineError>, storage: &Storage) -> Result<(), store::StoreError> {
    match notice? {
        Notice::Gap => storage.recheck().await,
        Notice::Said(text) if text == EVERYTHING => storage.recheck().await,
        Notice::Said(text) => {
            for (account, modseq) in read(&text) {
                storage.signals.hear(account, modseq);
            }
            Ok(())
        }
    }
}

/// Some hints of a node were lost before they were said.
const EVERYTHING: &str = "*";

async fn say(
    notices: &Notices,
    first: Result<(AccountId, ModSeq), RecvError>,
    own: &mut Hints,
) -> Result<(), EngineError> {
    let mut gathered: BTreeMap<AccountId, ModSeq> = BTreeMap::new();
    let mut is_behind = false;
    let mut take = |hint: Result<(AccountId, ModSeq), RecvError>| match hint {
        Ok((account, modseq)) => {
            let known = gathered.entry(account).or_insert(modseq);
            *known = (*known).max(modseq);
        }
        Err(_) => is_behind = true,
    };
    take(first);
    tokio::time::sleep(GATHERED).await;
    // As many as there are now: each is taken once.
    for _ in 0..own.len() {
        match own.try_recv() {
            Ok(hint) => take(Ok(hint)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => take(Err(RecvError::Lagged(missed))),
            Err(_) => break,
        }
    }
    if is_behind {
        notices.say(EVERYTHING).await?;
    }
    let gathered: Vec<String> = gathered.iter().map(|(account, modseq)| format!("{account}:{modseq}")).collect();
    for some in gathered.chunks(TOGETHER) {
        notices.say(&some.join(" ")).await?;
    }
    Ok(())
}

/// Pairs that make no sense are a newer node's.
fn read(text: &str) -> impl Iterator<Item = (AccountId, ModSeq)> {
    text.split(' ').filter_map(|pair| {
        let (account, modseq) = pair.split_once(':')?;
        Some((AccountId(account.parse().ok()?), ModSeq::new(modseq.parse().ok()?)?))
    })
}
