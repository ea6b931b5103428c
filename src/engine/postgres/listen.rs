//! Notices between nodes (LISTEN and NOTIFY), on a connection of their own: a NOTIFY in a transaction makes all commits of
//! the server wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Notification};

use super::pool::bounded;
use super::settings::{Line, PgSettings};
use crate::error::EngineError;

/// A connection that hears what other connections say on one channel. Hints only: some are lost when it breaks or falls
/// behind, and then it says so.
pub struct Notices {
    client: Client,
    channel: &'static str,
    own: i32,
    incoming: Mutex<mpsc::Receiver<Notification>>,
    is_behind: Arc<AtomicBool>,
    _driver: JoinSet<()>,
}

/// What came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    Said(String),
    /// Some were lost.
    Gap,
}

/// Notices not taken yet; beyond, they are lost.
const KEPT: usize = 4096;

impl Notices {
    /// Connects and listens on `channel`, a plain name.
    pub async fn open(settings: &PgSettings, channel: &'static str) -> Result<Self, EngineError> {
        let (said, incoming) = mpsc::channel(KEPT);
        let is_behind = Arc::new(AtomicBool::new(false));
        let Line { client, driver, .. } = settings.dial(Some((said, Arc::clone(&is_behind)))).await?;
        let row = bounded(client.query_one("SELECT pg_backend_pid()", &[])).await?;
        let own = super::value(&row, 0)?;
        bounded(client.batch_execute(&format!("LISTEN {channel}"))).await?;
        Ok(Self { client, channel, own, incoming: Mutex::new(incoming), is_behind, _driver: driver })
    }

    /// Says `text` (under 8000 octets) to everyone who listens on the channel.
    pub async fn say(&self, text: &str) -> Result<(), EngineError> {
        bounded(self.client.execute("SELECT pg_notify($1, $2)", &[&self.channel, &text])).await.map(drop)
    }

    /// The next notice of another connection.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn next(&self) -> Result<Notice, EngineError> {
        loop {
            if self.is_behind.swap(false, Ordering::AcqRel) {
                return Ok(Notice::Gap);
            }
            match self.incoming.lock().await.recv().await {
                Some(notice) if notice.process_id() == self.own => {}
                Some(notice) => return Ok(Notice::Said(notice.payload().to_owned())),
                None => return Err(EngineError::Postgres { reason: "the connection was lost".to_owned() }),
            }
        }
    }
}
