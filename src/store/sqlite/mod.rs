//! The embedded mail store: one SQLite file, `mail.sqlite`.

mod account;
mod allowance;
mod blobs;
pub(crate) mod change;
mod check;
mod crc;
mod held;
pub(crate) mod insert;
mod log;
mod mailboxes;
mod queue;
mod read;
pub(crate) mod removed;
mod rows;
pub(crate) mod schema;
pub(crate) mod thread;
mod verdict;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base::{AccountId, Clock, MailboxId, ModSeq, PoolId, Quota, Uid};
use engine::table::Place;
use engine::{Database, EngineError, Waypoints};
use rusqlite::Connection;

use crate::error::{AppendError, MailboxError, StoreError};
use crate::model::{
    AppendedEntry, Changes, Committed, Copied, Delivery, EmailChanges, EmailId, Entry, FlagChange, FlagOutcome,
    Mailbox, MailboxName, NewEntry, OwnerVerdict, PoolUsage, Removed, RemovedMailbox, Restored, Role, ThreadId, Usage,
};
use crate::room::Room;
use crate::signal::Signals;
use crate::traits::{EmailState, MailStore};

/// How the file is opened.
#[derive(Clone, Copy, Debug)]
pub struct SqliteSettings {
    /// Reads at a time.
    pub readers: usize,
    /// Page cache of each connection.
    pub cache_kib: u32,
    /// Who watches commits: nobody but crash tests.
    pub waypoints: Waypoints,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self { readers: 8, cache_kib: 16 * 1024, waypoints: Waypoints::default() }
    }
}

/// [`MailStore`] and [`crate::BlobIndex`] on `mail.sqlite`.
pub struct SqliteStore {
    db: Arc<Database>,
    signals: Arc<Signals>,
    clock: Arc<dyn Clock>,
    is_writable: AtomicBool,
    /// Of the disk, once the store is open.
    room: std::sync::OnceLock<Arc<Room>>,
    waypoints: Waypoints,
}

impl SqliteStore {
    /// Opens or creates `dir/mail.sqlite`.
    ///
    /// # Errors
    /// Names the file: damaged, in use, of a newer format, on a network file system.
    pub fn open(
        dir: &Path,
        settings: SqliteSettings,
        signals: Arc<Signals>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, EngineError> {
        let engine = engine::Settings {
            migrations: schema::MIGRATIONS,
            readers: settings.readers,
            cache_kib: settings.cache_kib,
        };
        let waypoints = settings.waypoints;
        let db = Arc::new(Database::open_watched(&dir.join("mail.sqlite"), &engine, waypoints)?);
        let (is_writable, room) = (AtomicBool::new(true), std::sync::OnceLock::new());
        Ok(Arc::new(Self { db, signals, clock, is_writable, room, waypoints }))
    }

    /// Copies are refused while there is too little of it.
    pub(crate) fn watch(&self, room: &Arc<Room>) {
        let _ = self.room.set(Arc::clone(room));
    }

    pub(crate) fn place(&self) -> Place {
        Place::Sqlite(Arc::clone(&self.db))
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    pub fn file(&self) -> &Path {
        self.db.file()
    }

    /// False after a commit failed, until one succeeds.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Relaxed)
    }

    async fn write<T, E>(&self, work: impl FnOnce(&Connection) -> Outcome<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let written = self.db.write(work).await;
        self.is_writable.store(written.is_ok(), Ordering::Relaxed);
        match written {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Refusal::Because(error))) => Err(error),
            Ok(Err(Refusal::Sql(error))) => Err(StoreError::from(self.db.error(error)).into()),
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    /// [`SqliteStore::write`] for work that fails only as SQL fails.
    async fn write_sql<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(move |sql| Ok(work(sql)?)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.db.read(work).await?)
    }

    fn publish(&self, account: AccountId, modseq: ModSeq) {
        self.waypoints.pass("change.committed");
        self.signals.publish(account, modseq);
        self.waypoints.pass("change.published");
    }
}

/// Why a transaction's work was undone.
enum Refusal<E> {
    Sql(rusqlite::Error),
    Because(E),
}

type Outcome<T, E = StoreError> = Result<T, Refusal<E>>;

impl<E> From<rusqlite::Error> for Refusal<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// UIDs as a session names them.
type UidRanges = Vec<RangeInclusive<Uid>>;

#[async_trait]
impl MailStore for SqliteStore {
    async fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, StoreError> {
        let found = self.read(move |sql| mailboxes::list(sql, account)).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        let now = self.clock.utc();
        self.write_sql(move |sql| {
            account::ensure(sql, account, now)?;
            mailboxes::list(sql, account)
        })
        .await
    }

    async fn mailbox(&self, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, StoreError> {
        let wanted = name.clone();
        let found = self.read(move |sql| mailboxes::by_name(sql, account, &wanted)).await?;
        if found.is_some() {
            return Ok(found);
        }
        // An account never seen before gets its first mailboxes now.
        Ok(self.mailboxes(account).await?.into_iter().find(|mailbox| mailbox.name == *name))
    }

    async fn create_mailbox(
        &self,
        account: AccountId,
        name: &MailboxName,
        role: Option<Role>,
    ) -> Result<Mailbox, MailboxError> {
        let (name, now) = (name.clone(), self.clock.utc());
        let made = self.write(move |sql| mailboxes::create(sql, account, &name, role, now)).await?;
        self.publish(account, made.changed_modseq);
        Ok(made)
    }

    async fn rename_mailbox(
        &self,
        account: AccountId,
        from: &MailboxName,
        to: &MailboxName,
    ) -> Result<(), MailboxError> {
        let (from, to, now) = (from.clone(), to.clone(), self.clock.utc());
        if from.is_inbox() {
            let (inbox, made) = self.write(move |sql| mailboxes::instead_of_inbox(sql, account, &to, now)).await?;
            self.publish(account, made.changed_modseq);
            let all = vec![Uid::MIN..=Uid::MAX];
            return match self.r#move(account, inbox, all, made.id).await {
                Ok(_) => Ok(()),
                Err(AppendError::Store(error)) => Err(error.into()),
                Err(AppendError::NoMailbox | AppendError::OverQuota { .. }) => Err(MailboxError::NoMailbox),
            };
        }
        let modseq = self.write(move |sql| mailboxes::rename(sql, account, &from, &to, now)).await?;
        self.publish(account, modseq);
        Ok(())
    }

    async fn delete_mailbox(&self, account: AccountId, name: &MailboxName) -> Result<(), MailboxError> {
        let now = self.clock.utc();
        loop {
            let name = name.clone();
            let (modseq, is_done) = self.write(move |sql| mailboxes::delete(sql, account, &name, now)).await?;
            self.publish(account, modseq);
            if is_done {
                return Ok(());
            }
        }
    }

    async fn subscribe(&self, account: AccountId, name: &MailboxName, subscribed: bool) -> Result<(), MailboxError> {
        let (name, now) = (name.clone(), self.clock.utc());
        if let Some(modseq) = self.write(move |sql| mailboxes::subscribe(sql, account, &name, subscribed, now)).await? {
            self.publish(account, modseq);
        }
        Ok(())
    }

    async fn deliver(&self, deliveries: Vec<Delivery>) -> Vec<Result<Committed, AppendError>> {
        let count = deliveries.len();
        let now = self.clock.utc();
        // Hashing happens here, not on the one writer thread.
        let prepared: Vec<_> = deliveries.into_iter().map(insert::prepare).collect();
        let written: Result<_, StoreError> = self
            .write(move |sql| {
                let each = prepared.iter().map(|delivery| match insert::deliver(sql, delivery, now) {
                    Ok(committed) => Ok(Ok(committed)),
                    Err(Refusal::Because(error)) => Ok(Err(error)),
                    Err(Refusal::Sql(error)) => Err(error),
                });
                Ok(each.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await;
        let results = written.unwrap_or_else(|error| vec![Err(AppendError::Store(error)); count]);
        for committed in results.iter().flatten() {
            self.publish(committed.account, committed.modseq);
        }
        results
    }

    async fn append(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<AppendedEntry>, AppendError> {
        let now = self.clock.utc();
        let prepared: Vec<_> = entries.into_iter().map(insert::prepare_own).collect();
        let appended = self.write(move |sql| insert::append(sql, account, mailbox, &prepared, now)).await?;
        if let Some(last) = appended.last() {
            self.publish(account, last.modseq);
        }
        Ok(appended)
    }

    async fn states(&self, account: AccountId, mailbox: MailboxId) -> Result<Option<Changes>, StoreError> {
        self.read(move |sql| read::states(sql, account, mailbox)).await
    }

    async fn changes_since(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<Changes>, StoreError> {
        self.read(move |sql| read::changes_since(sql, account, mailbox, since)).await
    }

    async fn entries(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: UidRanges,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(move |sql| read::entries(sql, account, mailbox, &uids, limit)).await
    }

    async fn set_flags(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: UidRanges,
        change: FlagChange,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagOutcome, StoreError> {
        let now = self.clock.utc();
        let mut out: Option<FlagOutcome> = None;
        let mut rest = uids;
        loop {
            let (ranges, change) = (rest.clone(), change.clone());
            let (step, last) = self
                .write_sql(move |sql| change::set_flags(sql, account, mailbox, &ranges, &change, unchanged_since, now))
                .await?;
            if !step.changed.is_empty() {
                self.publish(account, step.modseq);
            }
            match &mut out {
                None => out = Some(step),
                Some(out) => {
                    out.changed.extend(step.changed);
                    out.modified.extend(step.modified);
                    out.modseq = step.modseq;
                }
            }
            match (last.and_then(|last| change::after(&rest, last)), &mut out) {
                (Some(later), _) => rest = later,
                (None, out) => return out.take().ok_or(StoreError::Unavailable(EngineError::Closing)),
            }
        }
    }

    async fn copy(
        &self,
        account: AccountId,
        from: MailboxId,
        uids: UidRanges,
        to: MailboxId,
    ) -> Result<Copied, AppendError> {
        self.room.get().map_or(Ok(()), |room| room.check())?;
        let now = self.clock.utc();
        let copied = self.write(move |sql| change::copy(sql, account, from, &uids, to, now)).await?;
        self.publish(account, copied.modseq);
        Ok(copied)
    }

    async fn r#move(
        &self,
        account: AccountId,
        from: MailboxId,
        uids: UidRanges,
        to: MailboxId,
    ) -> Result<Copied, AppendError> {
        let now = self.clock.utc();
        let mut out: Option<Copied> = None;
        let mut rest = uids;
        if from == to {
            // What a step has moved must not be moved again by the next.
            let position = self.read(move |sql| read::mailbox(sql, account, from)).await?;
            rest = change::below(&rest, position.ok_or(AppendError::NoMailbox)?.uid_next);
        }
        loop {
            let ranges = rest.clone();
            let (step, last) = self.write(move |sql| change::r#move(sql, account, from, &ranges, to, now)).await?;
            self.publish(account, step.modseq);
            match &mut out {
                None => out = Some(step),
                Some(out) => {
                    out.uids.extend(step.uids);
                    out.modseq = step.modseq;
                }
            }
            match (last.and_then(|last| change::after(&rest, last)), &mut out) {
                (Some(later), _) => rest = later,
                (None, out) => return out.take().ok_or(AppendError::NoMailbox),
            }
        }
    }

    async fn expunge(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: UidRanges,
        only_deleted: bool,
    ) -> Result<(Vec<Uid>, ModSeq), StoreError> {
        let mut gone = Vec::new();
        let mut rest = uids;
        loop {
            let (ranges, now) = (rest.clone(), self.clock.utc());
            let step =
                self.write_sql(move |sql| change::expunge(sql, account, mailbox, &ranges, only_deleted, now)).await?;
            if !step.gone.is_empty() {
                self.publish(account, step.modseq);
            }
            gone.extend(step.gone);
            match step.last.and_then(|last| change::after(&rest, last)) {
                Some(later) => rest = later,
                None => return Ok((gone, step.modseq)),
            }
        }
    }

    async fn modseq(&self, account: AccountId) -> Result<ModSeq, StoreError> {
        self.read(move |sql| read::modseq(sql, account)).await
    }

    async fn emails(&self, account: AccountId, ids: Vec<EmailId>) -> Result<Vec<Entry>, StoreError> {
        self.read(move |sql| read::emails(sql, account, &ids)).await
    }

    async fn email_states(
        &self,
        account: AccountId,
        mailbox: Option<MailboxId>,
    ) -> Result<Vec<EmailState>, StoreError> {
        self.read(move |sql| read::email_states(sql, account, mailbox)).await
    }

    async fn thread(&self, account: AccountId, thread: ThreadId) -> Result<Vec<EmailId>, StoreError> {
        self.read(move |sql| read::thread(sql, account, thread)).await
    }

    async fn email_changes(
        &self,
        account: AccountId,
        since: ModSeq,
        limit: usize,
    ) -> Result<Option<EmailChanges>, StoreError> {
        self.read(move |sql| log::email_changes(sql, account, since, limit)).await
    }

    async fn mailboxes_destroyed(
        &self,
        account: AccountId,
        since: ModSeq,
    ) -> Result<Option<Vec<MailboxId>>, StoreError> {
        self.read(move |sql| log::mailboxes_destroyed(sql, account, since)).await
    }

    async fn usage(&self, account: AccountId) -> Result<Usage, StoreError> {
        let now = self.clock.utc();
        self.read(move |sql| account::usage(sql, account, now)).await
    }

    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError> {
        let now = self.clock.utc();
        self.write_sql(move |sql| account::set_quota(sql, account, quota, now)).await
    }

    async fn set_pools(&self, account: AccountId, pools: Vec<PoolId>) -> Result<(), StoreError> {
        let now = self.clock.utc();
        self.write_sql(move |sql| {
            account::ensure(sql, account, now)?;
            allowance::set_pools(sql, account, &pools)
        })
        .await
    }

    async fn set_pool(&self, pool: PoolId, limit: Quota) -> Result<(), StoreError> {
        self.write_sql(move |sql| allowance::set_pool(sql, pool, limit)).await
    }

    async fn pool(&self, pool: PoolId) -> Result<PoolUsage, StoreError> {
        self.read(move |sql| allowance::pool(sql, pool)).await
    }

    async fn removed(&self, account: AccountId, limit: usize) -> Result<Vec<Removed>, StoreError> {
        self.read(move |sql| removed::list(sql, account, limit)).await
    }

    async fn removed_with(
        &self,
        account: AccountId,
        gone: &RemovedMailbox,
        after: EmailId,
        limit: usize,
    ) -> Result<Vec<EmailId>, StoreError> {
        let gone = (gone.mailbox, gone.removed_at);
        self.read(move |sql| removed::of_mailbox(sql, account, gone, after, limit)).await
    }

    async fn removed_mailboxes(&self, account: AccountId) -> Result<Vec<RemovedMailbox>, StoreError> {
        self.read(move |sql| removed::mailboxes(sql, account)).await
    }

    async fn restore(
        &self,
        account: AccountId,
        emails: Vec<EmailId>,
        into: Option<MailboxName>,
    ) -> Result<Vec<Restored>, AppendError> {
        let now = self.clock.utc();
        let restored = self.write(move |sql| removed::restore(sql, account, &emails, into.as_ref(), now)).await?;
        if let Some(last) = restored.iter().map(|back| back.modseq).max() {
            self.publish(account, last);
        }
        Ok(restored)
    }

    async fn purge(&self, account: AccountId, emails: Option<Vec<EmailId>>) -> Result<u64, StoreError> {
        let (now, mut purged) = (self.clock.utc(), 0);
        loop {
            let emails = emails.clone();
            match self.write_sql(move |sql| removed::purge(sql, account, emails.as_deref(), now)).await? {
                0 => return Ok(purged),
                some => purged += some,
            }
        }
    }

    async fn owner_verdicts(&self, limit: usize) -> Result<Vec<OwnerVerdict>, StoreError> {
        self.read(move |sql| verdict::list(sql, limit)).await
    }

    async fn settle_verdicts(&self, done: Vec<OwnerVerdict>) -> Result<(), StoreError> {
        self.write_sql(move |sql| verdict::settle(sql, &done)).await
    }

    async fn delete_account(&self, account: AccountId) -> Result<(), StoreError> {
        let now = self.clock.utc();
        while !self.write_sql(move |sql| account::delete(sql, account, now)).await? {}
        Ok(())
    }
}
