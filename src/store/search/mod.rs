//! Search of content: exact, and at the speed of memory.
//!
//! What a search compares is worked out once for each message, when a search first asks for it, and kept on this node in
//! packs of some hundred kilobytes, which are unpacked and scanned again faster than any index is worth. Accounts that
//! never search cost nothing; a node that loses the file, or is new, makes it again.

mod cache;
mod pack;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock};
use engine::Database;
use mail::mime::Summary;
use mail::search::{SearchText, search_text};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::content::EntryContent;
use crate::error::StoreError;
use crate::model::{EmailId, Entry};
use crate::traits::{BlobStore, MailStore};
use pack::Builder;

/// Bounds of search.
#[derive(Clone, Copy, Debug)]
pub struct SearchSettings {
    /// What the packs of all accounts may take; those searched longest ago go first.
    pub bytes_max: u64,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { bytes_max: 16 << 30 }
    }
}

/// Says whether a message is looked for.
pub type Judge = dyn Fn(EmailId, SearchText<'_>) -> bool + Send + Sync;

/// Searches the content of messages.
pub struct Searcher {
    db: Database,
    mail: Arc<dyn MailStore>,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    settings: SearchSettings,
    /// One at a time works out the texts of an account; by the account's last digits.
    filling: Vec<tokio::sync::Mutex<()>>,
    /// The account looked at last on the walk that drops the texts of dead messages.
    walked: Mutex<u64>,
}

/// Packs unpacked, or messages read, at the same time by one search.
const AT_ONCE: usize = 4;
/// Messages looked up and worked out between two writes.
const BATCH: usize = 64;
/// Locks, so that few accounts share one.
const LOCKS: usize = 64;
/// A message's text beyond this is not searched: more than the largest message can hold.
const BODY_MAX: usize = 256 << 20;

impl Searcher {
    /// Opens or makes `dir/search.sqlite`; a file that cannot be read is made again. Blocks.
    pub fn open(
        dir: &Path,
        settings: SearchSettings,
        mail: Arc<dyn MailStore>,
        blobs: Arc<dyn BlobStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let file = dir.join("search.sqlite");
        let db = match cache::open(&file) {
            Ok(db) => db,
            Err(engine::EngineError::Damaged { .. }) => {
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(dir.join(format!("search.sqlite{end}")));
                }
                cache::open(&file)?
            }
            Err(error) => return Err(error.into()),
        };
        let filling = (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        Ok(Self { db, mail, blobs, clock, settings, filling, walked: Mutex::default() })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// Those of `emails` that `judge` takes, by rising id. Emails that are gone are left out. `judge` runs on several
    /// threads; messages whose content is damaged are judged by an empty text.
    pub async fn search(
        &self,
        account: AccountId,
        mut emails: Vec<EmailId>,
        judge: Arc<Judge>,
    ) -> Result<Vec<EmailId>, StoreError> {
        emails.sort_unstable();
        emails.dedup();
        let (mut found, missing) = self.scan(account, emails, &judge).await?;
        if !missing.is_empty() {
            let lock = usize::try_from(account.0 % LOCKS as u64).ok().and_then(|at| self.filling.get(at));
            let _filling = match lock {
                Some(lock) => Some(lock.lock().await),
                None => None,
            };
            // Another search may have done it meanwhile.
            let (more, missing) = self.scan(account, missing, &judge).await?;
            found.extend(more);
            found.extend(self.fill(account, &missing, &judge).await?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Judges what is packed; gives what matches and what is in no pack.
    async fn scan(
        &self,
        account: AccountId,
        wanted: Vec<EmailId>,
        judge: &Arc<Judge>,
    ) -> Result<(Vec<EmailId>, Vec<EmailId>), StoreError> {
        let listed = self.db.read(move |sql| cache::list(sql, account)).await?;
        let wanted: Arc<[EmailId]> = wanted.into();
        let is_wanted = |email: &EmailId| wanted.binary_search(email).is_ok();
        let ids: Vec<i64> =
            listed.iter().filter(|pack| pack.emails.iter().any(is_wanted)).map(|pack| pack.id).collect();
        let mut seen: HashSet<EmailId> = HashSet::with_capacity(wanted.len());
        let mut found = Vec::new();
        // Neighbours in the file go to the same thread.
        let share = ids.len().div_ceil(AT_ONCE).max(1);
        let parts = ids.chunks(share).map(|part| {
            let (part, wanted, judge) = (part.to_vec(), Arc::clone(&wanted), Arc::clone(judge));
            self.db.read(move |sql| {
                let (mut seen, mut found) = (Vec::new(), Vec::new());
                for id in part {
                    let Some(pack) = cache::read(sql, id)? else { continue };
                    for (email, text) in pack.texts().filter(|(email, _)| wanted.binary_search(email).is_ok()) {
                        seen.push(email);
                        if judge(email, text) {
                            found.push(email);
                        }
                    }
                }
                Ok((seen, found))
            })
        });
        for part in futures_util::future::join_all(parts).await {
            let (part_seen, part_found) = part?;
            // An email packed twice counts once.
            found.extend(part_found.into_iter().filter(|email| !seen.contains(email)));
            seen.extend(part_seen);
        }
        let missing = wanted.iter().filter(|email| !seen.contains(email)).copied().collect();
        Ok((found, missing))
    }

    /// Works out the texts of messages, judges and packs them.
    async fn fill(
        &self,
        account: AccountId,
        missing: &[EmailId],
        judge: &Arc<Judge>,
    ) -> Result<Vec<EmailId>, StoreError> {
        let (mut found, mut old) = (Vec::new(), Vec::new());
        let mut building = self.begin(account, &mut old).await?;
        for batch in missing.chunks(BATCH) {
            let entries = self.mail.emails(account, batch.to_vec()).await?;
            let mut full = Vec::new();
            for (email, header, body) in self.texts(entries).await? {
                if judge(email, SearchText { header: &header, body: &body }) {
                    found.push(email);
                }
                building.add(email, &header, &body);
                if building.is_full() {
                    full.push(std::mem::take(&mut building));
                }
            }
            if !full.is_empty() {
                self.replace(account, std::mem::take(&mut old), full).await?;
            }
        }
        self.replace(account, old, vec![building]).await?;
        self.make_room(account).await?;
        Ok(found)
    }

    /// A builder that goes on where the account's last pack is not full yet; that one is then an old one.
    async fn begin(&self, account: AccountId, old: &mut Vec<i64>) -> Result<Builder, StoreError> {
        let (builder, id) = self
            .db
            .read(move |sql| {
                let mut builder = Builder::default();
                let last = cache::list(sql, account)?.pop().filter(|last| last.raw_bytes < pack::FULL_BYTES / 2);
                let Some(last) = last else { return Ok((builder, None)) };
                if let Some(pack) = cache::read(sql, last.id)? {
                    pack.texts().for_each(|(email, text)| builder.add(email, text.header, text.body));
                }
                Ok((builder, Some(last.id)))
            })
            .await?;
        old.extend(id);
        Ok(builder)
    }

    async fn replace(&self, account: AccountId, old: Vec<i64>, new: Vec<Builder>) -> Result<(), StoreError> {
        let now = self.clock.utc();
        Ok(self.db.write_sql(move |sql| cache::replace(sql, account, &old, new, now)).await?)
    }

    /// Header and body text of each entry, a few at a time, each on the pool for blocking work.
    async fn texts(&self, entries: Vec<Entry>) -> Result<Vec<(EmailId, String, String)>, StoreError> {
        let mut out = Vec::with_capacity(entries.len());
        let mut rest = entries.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(entry) = rest.next()
            {
                let content = EntryContent::original(Arc::clone(&self.blobs), &entry);
                let message = match content.read_blob(0..entry.size_bytes).await {
                    Ok(message) => message,
                    Err(StoreError::Damaged { what }) => {
                        tracing::warn!(event = base::event::STORE_FAILED, %what, "not searched");
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                running.spawn_blocking(move || {
                    let summary = Summary::decode(&entry.summary).unwrap_or_else(|_| Summary::of(&message));
                    let (header, body) = search_text(&entry.prefix, &message, &summary, BODY_MAX);
                    (entry.email, header, body)
                });
            }
            match running.join_next().await {
                Some(Ok(text)) => out.push(text),
                // The text of a message that makes its reader panic is not searched.
                Some(Err(_)) => {}
                None => return Ok(out),
            }
        }
    }

    async fn make_room(&self, keep: AccountId) -> Result<(), StoreError> {
        let bytes_max = self.settings.bytes_max;
        for account in self.db.read(move |sql| cache::excess(sql, bytes_max)).await? {
            if account != keep {
                self.forget(account).await?;
            }
        }
        Ok(())
    }

    /// Drops the texts of an account, as when its removed messages are purged.
    pub async fn forget(&self, account: AccountId) -> Result<(), StoreError> {
        Ok(self.db.write_sql(move |sql| cache::forget(sql, account)).await?)
    }

    /// Drops the texts of messages that are gone, in the next `accounts` accounts of a walk over all.
    pub async fn sweep(&self, accounts: usize) -> Result<(), StoreError> {
        let after = *self.walked.lock();
        let next = self.db.read(move |sql| cache::accounts(sql, after, accounts)).await?;
        *self.walked.lock() = if next.len() < accounts { 0 } else { next.last().map_or(0, |last| last.0) };
        for account in next {
            tokio::time::timeout(SWEEP_MAX, self.sweep_account(account)).await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    async fn sweep_account(&self, account: AccountId) -> Result<(), StoreError> {
        let alive = self.mail.email_states(account, None).await?;
        if alive.is_empty() {
            return self.forget(account).await;
        }
        let alive: Arc<HashSet<EmailId>> = Arc::new(alive.into_iter().map(|email| email.state.email).collect());
        let listed = self.db.read(move |sql| cache::list(sql, account)).await?;
        for pack in listed.into_iter().filter(|pack| pack.emails.iter().any(|email| !alive.contains(email))) {
            let alive = Arc::clone(&alive);
            let kept = self
                .db
                .read(move |sql| {
                    let mut builder = Builder::default();
                    let Some(pack) = cache::read(sql, pack.id)? else { return Ok(builder) };
                    let texts = pack.texts().filter(|(email, _)| alive.contains(email));
                    texts.for_each(|(email, text)| builder.add(email, text.header, text.body));
                    Ok(builder)
                })
                .await?;
            self.replace(account, vec![pack.id], vec![kept]).await?;
        }
        Ok(())
    }
}

/// Longest time that a sweep stays with one account.
const SWEEP_MAX: Duration = Duration::from_secs(60);
