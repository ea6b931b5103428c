//! The mail store in PostgreSQL, shared by all nodes of a cluster.
//!
//! A transaction touches one account and locks its row first, so changes of an account follow each other on whichever
//! node they are made, and the mod-sequences and UIDs that they take become visible in order. A delivery is one function
//! call that is a transaction of its own: one round trip. It is known by account and message, so one whose answer was
//! lost is asked for again; every other change whose commit was not answered is [`StoreError::Unavailable`] and may have
//! happened.

mod account;
mod allowance;
mod blobs;
mod change;
mod check;
mod gc;
mod held;
mod insert;
mod log;
mod mailboxes;
mod objects;
mod queue;
mod read;
mod removed;
mod rows;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
mod verdict;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, ByteSize, Clock, MailboxId, ModSeq, PoolId, Quota, Uid};
use engine::EngineError;
use engine::postgres::{Pool, Session};
use engine::table::Place;

pub use blobs::PgBlobs;
pub(crate) use gc::PgGc;

use self::insert::Delivered;
use crate::error::{AppendError, MailboxError, StoreError};
use crate::model::quota::RECLAIMS;
use crate::model::{
    AppendedEntry, Changes, Committed, Copied, Delivery, EmailChanges, EmailId, Entry, FlagChange, FlagOutcome,
    Mailbox, MailboxName, NewEntry, OverQuota, OwnerVerdict, PoolUsage, Removed, RemovedMailbox, Restored, Role,
    ThreadId, Usage,
};
use crate::signal::Signals;
use crate::sqlite::change as ranges;
use crate::traits::{EmailState, MailStore};

/// Work on one moment's state.
macro_rules! read {
    ($store:expr, $sql:ident => $work:expr) => {{
        let session = $store.pool.begin(true).await?;
        let $sql = &session;
        let done = $work.await;
        session.end(done).await
    }};
}

/// Work on one account that is committed if it succeeds.
macro_rules! change {
    ($store:expr, $account:expr, $sql:ident => $work:expr) => {{
        let session = $store.begin($account).await?;
        let $sql = &session;
        let done = $work.await;
        session.end(done).await
    }};
}

/// Work that adds messages: when only allowance is missing, it is drawn and the work done again.
macro_rules! with_allowance {
    ($store:expr, $account:expr, $work:expr) => {{
        let mut draws = 0;
        loop {
            match $work {
                Err(AppendError::OverQuota(OverQuota::Pool { size, messages }))
                    if draws < DRAWS && $store.draw($account, size, messages).await? =>
                {
                    draws += 1;
                }
                other => break other,
            }
        }
    }};
}

/// [`MailStore`] on a PostgreSQL server of version 15 or later.
pub struct PgStore {
    pool: Arc<Pool>,
    signals: Arc<Signals>,
    clock: Arc<dyn Clock>,
}

/// How long we look for the outcome of a delivery whose answer was lost: another server takes over in half a minute, and a
/// client waits ten for its answer (RFC 5321 §4.5.3.2.6).
const OUTCOME_WAIT: Duration = Duration::from_secs(60);
/// Between two looks.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Times that allowance is drawn for one delivery: others of the same account may use it up first.
const DRAWS: usize = 16;

/// A delivery that was not made, as far as is known.
struct Undelivered {
    error: AppendError,
    /// The connection was lost before the answer came.
    is_open: bool,
}

impl From<AppendError> for Undelivered {
    fn from(error: AppendError) -> Self {
        Self { error, is_open: false }
    }
}

impl From<StoreError> for Undelivered {
    fn from(error: StoreError) -> Self {
        AppendError::from(error).into()
    }
}

impl PgStore {
    /// Connects and brings the schema to this version.
    ///
    /// # Errors
    /// No server that takes writes, or one whose schema cannot be changed.
    pub async fn open(pool: Arc<Pool>, signals: Arc<Signals>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        engine::postgres::migrate(&pool, schema::COMPONENT, schema::MIGRATIONS).await?;
        Ok(Arc::new(Self { pool, signals, clock }))
    }

    pub(crate) fn place(&self) -> Place {
        Place::Postgres(Arc::clone(&self.pool))
    }

    /// A transaction that holds the account, if it exists.
    async fn begin(&self, account: AccountId) -> Result<Session, StoreError> {
        let sql = self.pool.begin(false).await?;
        sql.rows("SELECT 1 FROM account WHERE account_id = $1 FOR UPDATE", &[&account::id(account)]).await?;
        Ok(sql)
    }

    /// Makes the account's allowance cover that much more; false if its pools cannot.
    async fn draw(&self, account: AccountId, size: ByteSize, messages: u64) -> Result<bool, StoreError> {
        let sql = self.pool.session().await?;
        let (now, mut is_drawn) = (self.clock.utc(), false);
        'again: for _ in 0..RECLAIMS {
            let short = allowance::draw(&sql, account, size, messages).await?;
            is_drawn = short.is_empty();
            for pool in short {
                if !allowance::reclaim(&sql, pool, account, now).await? {
                    break 'again;
                }
            }
            if is_drawn {
                break;
            }
        }
        sql.give_back();
        Ok(is_drawn)
    }

    async fn deliver_within_quota(&self, delivery: &Delivery) -> Result<Committed, AppendError> {
        with_allowance!(self, delivery.account, self.deliver_one(delivery).await)
    }

    /// A sender that is told to come again after all would bring a second copy: while it is open whether the delivery was
    /// made, it is asked for again, until a server answers or none has for long.
    async fn deliver_one(&self, delivery: &Delivery) -> Result<Committed, AppendError> {
        let open = match self.try_to_deliver(delivery).await {
            Ok(committed) => return Ok(committed),
            Err(Undelivered { error, is_open: false }) => return Err(error),
            Err(Undelivered { error, is_open: true }) => error,
        };
        let known = async {
            loop {
                match self.try_to_deliver(delivery).await {
                    Ok(committed) => return Ok(committed),
                    Err(Undelivered { error: AppendError::Store(StoreError::Unavailable(_)), .. }) => {}
                    Err(Undelivered { error, .. }) => return Err(error),
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        tokio::time::timeout(OUTCOME_WAIT, known).await.unwrap_or(Err(open))
    }

    async fn try_to_deliver(&self, delivery: &Delivery) -> Result<Committed, Undelivered> {
        let mut is_prepared = false;
        loop {
            let sql = self.pool.session().await.map_err(StoreError::from)?;
            let delivered = insert::deliver(&sql, delivery).await;
            let is_open = sql.is_lost();
            sql.give_back();
            match delivered {
                Ok(Delivered::Made(committed)) => return Ok(committed),
                Ok(Delivered::Unprepared) if is_prepared => return Err(AppendError::NoMailbox.into()),
                Ok(Delivered::Unprepared) => {
                    let (account, now) = (delivery.account, self.clock.utc());
                    change!(self, account, sql => insert::prepare(sql, delivery, now))?;
                    is_prepared = true;
                }
                Err(error) => return Err(Undelivered { error, is_open }),
            }
        }
    }

    /// False if the last word of the server was that it takes no writes, or none answered.
    pub(crate) fn is_writable(&self) -> bool {
        self.pool.is_reachable()
    }

    /// Mod-sequences of those of the accounts that exist.
    pub(crate) async fn modseqs(&self, accounts: &[AccountId]) -> Result<Vec<(AccountId, ModSeq)>, StoreError> {
        let wanted: Vec<i64> = accounts.iter().map(|one| account::id(*one)).collect();
        let text = "SELECT account_id, modseq FROM account WHERE account_id = ANY ($1)";
        let found = self.pool.query(text, &[&wanted]).await?;
        found.iter().map(|row| Ok((AccountId(rows::int(row, 0)?), rows::modseq(row, 1)?))).collect()
    }

    fn publish(&self, account: AccountId, modseq: ModSeq) {
        self.pool.waypoints().pass("change.committed");
        self.signals.publish(account, modseq);
    }
}

/// It heals: asked again, it may be done.
fn unavailable(reason: impl Into<String>) -> StoreError {
    StoreError::Unavailable(EngineError::Postgres { reason: reason.into() })
}

/// UIDs as a session names them.
type UidRanges = Vec<RangeInclusive<Uid>>;

#[async_trait]
impl MailStore for PgStore {
    async fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, StoreError> {
        let found = read!(self, sql => mailboxes::list(sql, account))?;
        if !found.is_empty() {
            return Ok(found);
        }
        let now = self.clock.utc();
        let sql = self.begin(account).await?;
        let done = async {
            account::ensure(&sql, account, now).await?;
            mailboxes::list(&sql, account).await
        };
        let done = done.await;
        sql.end(done).await
    }

    async fn mailbox(&self, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, StoreError> {
        let wanted = name.clone();
        let found = read!(self, sql => mailboxes::by_name(sql, account, &wanted))?;
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
        let made = change!(self, account, sql => mailboxes::create(sql, account, &name, role, now))?;
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
            let (inbox, made) = change!(self, account, sql => mailboxes::instead_of_inbox(sql, account, &to, now))?;
            self.publish(account, made.changed_modseq);
            let all = vec![Uid::MIN..=Uid::MAX];
            return match self.r#move(account, inbox, all, made.id).await {
                Ok(_) => Ok(()),
                Err(AppendError::Store(error)) => Err(error.into()),
                Err(AppendError::NoMailbox | AppendError::OverQuota { .. }) => Err(MailboxError::NoMailbox),
            };
        }
        let modseq = change!(self, account, sql => mailboxes::rename(sql, account, &from, &to, now))?;
        self.publish(account, modseq);
        Ok(())
    }

    async fn delete_mailbox(&self, account: AccountId, name: &MailboxName) -> Result<(), MailboxError> {
        let now = self.clock.utc();
        loop {
            let name = name.clone();
            let (modseq, is_done) = change!(self, account, sql => mailboxes::delete(sql, account, &name, now))?;
            self.publish(account, modseq);
            if is_done {
                return Ok(());
            }
        }
    }

    async fn subscribe(&self, account: AccountId, name: &MailboxName, subscribed: bool) -> Result<(), MailboxError> {
        let (name, now) = (name.clone(), self.clock.utc());
        if let Some(modseq) = change!(self, account, sql => mailboxes::subscribe(sql, account, &name, subscribed, now))?
        {
            self.publish(account, modseq);
        }
        Ok(())
    }

    async fn deliver(&self, deliveries: Vec<Delivery>) -> Vec<Result<Committed, AppendError>> {
        let mut results = Vec::with_capacity(deliveries.len());
        for delivery in &deliveries {
            let result = self.deliver_within_quota(delivery).await;
            if let Ok(committed) = &result {
                self.publish(committed.account, committed.modseq);
            }
            results.push(result);
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
        let appended = with_allowance!(
            self,
            account,
            change!(self, account, sql => insert::append(sql, account, mailbox, &entries, now))
        )?;
        if let Some(last) = appended.last() {
            self.publish(account, last.modseq);
        }
        Ok(appended)
    }

    async fn states(&self, account: AccountId, mailbox: MailboxId) -> Result<Option<Changes>, StoreError> {
        read!(self, sql => read::states(sql, account, mailbox))
    }

    async fn changes_since(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<Changes>, StoreError> {
        read!(self, sql => read::changes_since(sql, account, mailbox, since))
    }

    async fn entries(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: UidRanges,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        read!(self, sql => read::entries(sql, account, mailbox, &uids, limit))
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
            let (step, last) = change!(self, account, sql => change::set_flags(sql, account, mailbox, &ranges, &change, unchanged_since, now))?;
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
            match (last.and_then(|last| ranges::after(&rest, last)), &mut out) {
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
        let now = self.clock.utc();
        let copied = with_allowance!(
            self,
            account,
            change!(self, account, sql => change::copy(sql, account, from, &uids, to, now))
        )?;
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
            let position = read!(self, sql => read::mailbox(sql, account, from))?;
            rest = ranges::below(&rest, position.ok_or(AppendError::NoMailbox)?.uid_next);
        }
        loop {
            let ranges = rest.clone();
            let (step, last) = change!(self, account, sql => change::r#move(sql, account, from, &ranges, to, now))?;
            self.publish(account, step.modseq);
            match &mut out {
                None => out = Some(step),
                Some(out) => {
                    out.uids.extend(step.uids);
                    out.modseq = step.modseq;
                }
            }
            match (last.and_then(|last| ranges::after(&rest, last)), &mut out) {
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
                change!(self, account, sql => change::expunge(sql, account, mailbox, &ranges, only_deleted, now))?;
            if !step.gone.is_empty() {
                self.publish(account, step.modseq);
            }
            gone.extend(step.gone);
            match step.last.and_then(|last| ranges::after(&rest, last)) {
                Some(later) => rest = later,
                None => return Ok((gone, step.modseq)),
            }
        }
    }

    async fn modseq(&self, account: AccountId) -> Result<ModSeq, StoreError> {
        read!(self, sql => read::modseq(sql, account))
    }

    async fn emails(&self, account: AccountId, ids: Vec<EmailId>) -> Result<Vec<Entry>, StoreError> {
        read!(self, sql => read::emails(sql, account, &ids))
    }

    async fn email_states(
        &self,
        account: AccountId,
        mailbox: Option<MailboxId>,
    ) -> Result<Vec<EmailState>, StoreError> {
        read!(self, sql => read::email_states(sql, account, mailbox))
    }

    async fn thread(&self, account: AccountId, thread: ThreadId) -> Result<Vec<EmailId>, StoreError> {
        read!(self, sql => read::thread(sql, account, thread))
    }

    async fn email_changes(
        &self,
        account: AccountId,
        since: ModSeq,
        limit: usize,
    ) -> Result<Option<EmailChanges>, StoreError> {
        read!(self, sql => log::email_changes(sql, account, since, limit))
    }

    async fn mailboxes_destroyed(
        &self,
        account: AccountId,
        since: ModSeq,
    ) -> Result<Option<Vec<MailboxId>>, StoreError> {
        read!(self, sql => log::mailboxes_destroyed(sql, account, since))
    }

    async fn usage(&self, account: AccountId) -> Result<Usage, StoreError> {
        let now = self.clock.utc();
        read!(self, sql => account::usage(sql, account, now))
    }

    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError> {
        let now = self.clock.utc();
        change!(self, account, sql => account::set_quota(sql, account, quota, now))
    }

    async fn set_pools(&self, account: AccountId, pools: Vec<PoolId>) -> Result<(), StoreError> {
        let now = self.clock.utc();
        let pools = allowance::numbers(&pools);
        let session = self.begin(account).await?;
        let work = async {
            account::ensure(&session, account, now).await?;
            allowance::make_pools(&session, account, &pools).await
        };
        let done = work.await;
        if session.end(done).await? {
            change!(self, account, sql => allowance::set_pools(sql, account, &pools))?;
        }
        Ok(())
    }

    async fn set_pool(&self, pool: PoolId, limit: Quota) -> Result<(), StoreError> {
        let sql = self.pool.begin(false).await?;
        let done = allowance::set_pool(&sql, pool, limit).await;
        sql.end(done).await
    }

    async fn pool(&self, pool: PoolId) -> Result<PoolUsage, StoreError> {
        read!(self, sql => allowance::pool(sql, pool))
    }

    async fn removed(&self, account: AccountId, limit: usize) -> Result<Vec<Removed>, StoreError> {
        read!(self, sql => removed::list(sql, account, limit))
    }

    async fn removed_with(
        &self,
        account: AccountId,
        gone: &RemovedMailbox,
        after: EmailId,
        limit: usize,
    ) -> Result<Vec<EmailId>, StoreError> {
        read!(self, sql => removed::of_mailbox(sql, account, gone, after, limit))
    }

    async fn removed_mailboxes(&self, account: AccountId) -> Result<Vec<RemovedMailbox>, StoreError> {
        read!(self, sql => removed::mailboxes(sql, account))
    }

    async fn restore(
        &self,
        account: AccountId,
        emails: Vec<EmailId>,
        into: Option<MailboxName>,
    ) -> Result<Vec<Restored>, AppendError> {
        let now = self.clock.utc();
        let restored = with_allowance!(
            self,
            account,
            change!(self, account, sql => removed::restore(sql, account, &emails, into.as_ref(), now))
        )?;
        if let Some(last) = restored.iter().map(|back| back.modseq).max() {
            self.publish(account, last);
        }
        Ok(restored)
    }

    async fn purge(&self, account: AccountId, emails: Option<Vec<EmailId>>) -> Result<u64, StoreError> {
        let (now, mut purged) = (self.clock.utc(), 0);
        loop {
            let emails = emails.clone();
            match change!(self, account, sql => removed::purge(sql, account, emails.as_deref(), now))? {
                0 => return Ok(purged),
                some => purged += some,
            }
        }
    }

    async fn owner_verdicts(&self, limit: usize) -> Result<Vec<OwnerVerdict>, StoreError> {
        read!(self, sql => verdict::list(sql, limit))
    }

    async fn settle_verdicts(&self, done: Vec<OwnerVerdict>) -> Result<(), StoreError> {
        let session = self.pool.begin(false).await?;
        let settled = verdict::settle(&session, &done).await;
        session.end(settled).await
    }

    async fn delete_account(&self, account: AccountId) -> Result<(), StoreError> {
        let now = self.clock.utc();
        while !change!(self, account, sql => account::delete(sql, account, now))? {}
        Ok(())
    }
}
