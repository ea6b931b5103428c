//! What nodes that share a server tell each other: which accounts changed, so that sessions elsewhere wake. Hints are
//! gathered for a moment and said after the commits they are about, on a connection of their own; a lost one is made up
//! for by a look at the mod-sequences of all accounts with sessions here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, ModSeq, event};
use engine::EngineError;
use engine::postgres::{Notice, Notices, PgSettings};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

const CHANNEL: &str = "ortler_changes";
/// Hints of this long go out together.
const GATHERED: Duration = Duration::from_millis(5);
/// Accounts in one notice: PostgreSQL takes less than 8000 octets.
const TOGETHER: usize = 150;
/// So often all is looked at, hints or not.
pub(crate) const RECHECK: Duration = Duration::from_secs(30);
/// Before another attempt to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// Some hints of a node were lost before they were said.
const EVERYTHING: &str = "*";

/// What changed on this node, as the store tells it.
pub type Changes = broadcast::Receiver<(AccountId, ModSeq)>;

/// Why a look was not possible.
pub type LookFailed = Box<dyn std::error::Error + Send + Sync>;

/// This node's sessions, which hints wake.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Another node changed the account.
    fn hear(&self, account: AccountId, modseq: ModSeq);
    /// Looks at all accounts with sessions here.
    async fn recheck(&self) -> Result<(), LookFailed>;
}

/// A connection that hears what other connections say.
#[async_trait]
pub(crate) trait Channel: Send + Sync {
    async fn say(&self, text: &str) -> Result<(), EngineError>;
    /// Cancel safe.
    async fn next(&self) -> Result<Notice, EngineError>;
}

/// Makes connections.
#[async_trait]
pub(crate) trait Dial: Send + Sync {
    async fn open(&self) -> Result<Box<dyn Channel>, EngineError>;
}

/// Says what changes here and hears what changes elsewhere, until `stop`.
pub async fn share(server: PgSettings, own: Changes, sessions: impl Sessions, stop: CancellationToken) {
    share_over(&Server(server), own, &sessions, stop).await;
}

pub(crate) async fn share_over(dial: &dyn Dial, mut own: Changes, sessions: &dyn Sessions, stop: CancellationToken) {
    let was_lost = AtomicBool::new(false);
    loop {
        let failed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            failed = converse(dial, sessions, &mut own, &was_lost) => failed,
        };
        if !was_lost.swap(true, Ordering::Relaxed) {
            tracing::warn!(event = event::CLUSTER_LOST, what = "hints between nodes", error = %failed);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// One connection's life; gives why it ended.
async fn converse(dial: &dyn Dial, sessions: &dyn Sessions, own: &mut Changes, was_lost: &AtomicBool) -> LookFailed {
    let channel = match dial.open().await {
        Ok(channel) => channel,
        Err(error) => return error.into(),
    };
    let mut recheck = tokio::time::interval(RECHECK);
    recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let looking = async {
        loop {
            // The first tick comes at once: what was said while nobody listened is lost.
            recheck.tick().await;
            match sessions.recheck().await {
                Ok(()) => was_lost.store(false, Ordering::Relaxed),
                Err(error) => return error,
            }
        }
    };
    let saying = async {
        loop {
            let first = own.recv().await;
            if let Err(error) = say(&*channel, first, own).await {
                return error.into();
            }
        }
    };
    let hearing = async {
        loop {
            let done = match channel.next().await {
                Ok(notice) => hear(notice, sessions).await,
                Err(error) => return error.into(),
            };
            if let Err(error) = done {
                return error;
            }
        }
    };
    tokio::select! {
        biased;
        failed = looking => failed,
        failed = saying => failed,
        failed = hearing => failed,
    }
}

async fn hear(notice: Notice, sessions: &dyn Sessions) -> Result<(), LookFailed> {
    match notice {
        Notice::Gap => sessions.recheck().await,
        Notice::Said(text) if text == EVERYTHING => sessions.recheck().await,
        Notice::Said(text) => {
            read(&text).for_each(|(account, modseq)| sessions.hear(account, modseq));
            Ok(())
        }
    }
}

async fn say(
    channel: &dyn Channel,
    first: Result<(AccountId, ModSeq), RecvError>,
    own: &mut Changes,
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
            Err(TryRecvError::Lagged(missed)) => take(Err(RecvError::Lagged(missed))),
            Err(_) => break,
        }
    }
    if is_behind {
        channel.say(EVERYTHING).await?;
    }
    let gathered: Vec<String> = gathered.iter().map(|(account, modseq)| format!("{account}:{modseq}")).collect();
    for some in gathered.chunks(TOGETHER) {
        channel.say(&some.join(" ")).await?;
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

struct Server(PgSettings);

#[async_trait]
impl Dial for Server {
    async fn open(&self) -> Result<Box<dyn Channel>, EngineError> {
        Ok(Box::new(Notices::open(&self.0, CHANNEL).await?))
    }
}

#[async_trait]
impl Channel for Notices {
    async fn say(&self, text: &str) -> Result<(), EngineError> {
        Notices::say(self, text).await
    }

    async fn next(&self) -> Result<Notice, EngineError> {
        Notices::next(self).await
    }
}
