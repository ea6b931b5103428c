//! Work that one node at a time does: background jobs, and whatever must not be done twice. A lease is a row on the server,
//! by the server's clock. A node that stands still loses it, and what it still believes to hold is fenced: the number of a
//! lease rises whenever it changes hands, and a commit that must not happen twice checks it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::Clock;
use engine::EngineError;
use engine::postgres::{Pool, Session, value};

/// Where leases are.
#[async_trait]
pub(crate) trait LeaseTable: Send + Sync {
    /// Gives the fence. `None` while somebody else has it; who has it already gets it anew.
    async fn take(&self, name: &str, holder: &str, length: Duration) -> Result<Option<i64>, EngineError>;
    /// False if it went to another one, or to another life of the same.
    async fn renew(&self, name: &str, fence: i64, length: Duration) -> Result<bool, EngineError>;
    async fn give_up(&self, name: &str, fence: i64) -> Result<(), EngineError>;
}

/// The leases of a system. A node that is alone has them all.
pub struct Leases {
    table: Option<Arc<dyn LeaseTable>>,
    holder: String,
    clock: Arc<dyn Clock>,
}

/// Held until its time is over, it is lost, or given up.
pub struct Lease {
    of: Option<Arc<dyn LeaseTable>>,
    clock: Arc<dyn Clock>,
    name: String,
    fence: i64,
    length: Duration,
    /// By this node's clock, from before it asked: never later than the server's.
    until: Instant,
}

impl Leases {
    /// `holder` is the node's name.
    pub fn on(pool: Arc<Pool>, holder: &str, clock: Arc<dyn Clock>) -> Self {
        Self::with(Arc::new(PgLeases { pool }), holder, clock)
    }

    pub fn alone(clock: Arc<dyn Clock>) -> Self {
        Self { table: None, holder: String::new(), clock }
    }

    pub(crate) fn with(table: Arc<dyn LeaseTable>, holder: &str, clock: Arc<dyn Clock>) -> Self {
        Self { table: Some(table), holder: holder.to_owned(), clock }
    }

    /// `None` while another node has it.
    ///
    /// # Errors
    /// The server is away. Then it may be taken all the same, until its time is over.
    pub async fn take(&self, name: &str, length: Duration) -> Result<Option<Lease>, EngineError> {
        let until = self.clock.now() + length;
        let fence = match &self.table {
            Some(table) => table.take(name, &self.holder, length).await?,
            None => Some(0),
        };
        let (of, clock, name) = (self.table.clone(), Arc::clone(&self.clock), name.to_owned());
        Ok(fence.map(|fence| Lease { of, clock, name, fence, length, until }))
    }
}

impl Lease {
    /// True if nobody else can have it, by this node's clock.
    pub fn is_held(&self) -> bool {
        self.of.is_none() || self.clock.now() < self.until
    }

    /// Rises whenever the lease changes hands.
    pub const fn fence(&self) -> i64 {
        self.fence
    }

    /// Asks for as much time again once half of it is over; false if it is lost. While the server is away it is held until its
    /// time is over.
    pub async fn keep(&mut self) -> bool {
        let now = self.clock.now();
        let Some(table) = &self.of else { return true };
        if self.until.saturating_duration_since(now) > self.length / 2 {
            return true;
        }
        match table.renew(&self.name, self.fence, self.length).await {
            Ok(true) => self.until = now + self.length,
            // It may be somebody else's before its time is over here.
            Ok(false) => self.until = now,
            Err(_) => {}
        }
        self.is_held()
    }

    /// Another node may go on at once.
    pub async fn give_up(self) {
        if let Some(table) = &self.of {
            // Not told, it ends by itself.
            let _ = table.give_up(&self.name, self.fence).await;
        }
    }

    /// Within a transaction that must not be committed by who has lost the lease: until its end nobody else gets it.
    ///
    /// # Errors
    /// [`LeaseLost::Lost`] if it went to another one.
    pub async fn check(&self, sql: &Session) -> Result<(), LeaseLost> {
        if self.of.is_none() {
            return Ok(());
        }
        let text = "SELECT 1 FROM cluster_lease WHERE name = $1 AND fence = $2 FOR SHARE";
        match sql.row_opt(text, &[&self.name, &self.fence]).await? {
            Some(_) => Ok(()),
            None => Err(LeaseLost::Lost(self.name.clone())),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    #[error("another node has the lease {0} now")]
    Lost(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

pub(crate) struct PgLeases {
    pub(crate) pool: Arc<Pool>,
}

#[async_trait]
impl LeaseTable for PgLeases {
    async fn take(&self, name: &str, holder: &str, length: Duration) -> Result<Option<i64>, EngineError> {
        let text = "INSERT INTO cluster_lease AS l (name, holder, fence, until)
             VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 second')
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = l.fence + 1, until = excluded.until
                 WHERE l.holder = excluded.holder OR l.until < clock_timestamp()
             RETURNING fence";
        let sql = self.pool.session().await?;
        let row = sql.row_opt(text, &[&name, &holder, &length.as_secs_f64()]).await?;
        sql.give_back();
        row.map(|row| value(&row, 0)).transpose()
    }

    async fn renew(&self, name: &str, fence: i64, length: Duration) -> Result<bool, EngineError> {
        let text = "UPDATE cluster_lease SET until = clock_timestamp() + $3 * interval '1 second'
             WHERE name = $1 AND fence = $2";
        let sql = self.pool.session().await?;
        let changed = sql.execute(text, &[&name, &fence, &length.as_secs_f64()]).await?;
        sql.give_back();
        Ok(changed > 0)
    }

    async fn give_up(&self, name: &str, fence: i64) -> Result<(), EngineError> {
        let sql = self.pool.session().await?;
        let text = "UPDATE cluster_lease SET until = '-infinity' WHERE name = $1 AND fence = $2";
        sql.execute(text, &[&name, &fence]).await?;
        sql.give_back();
        Ok(())
    }
}
