//! What happens right now, for those who watch. A node reads new rows once and shows them to all its viewers; one that
//! falls behind, or comes back, reads for itself. Nothing is left out, and no change is told twice.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::row::{MessageRow, StoredMessage};
use crate::scope::Scope;
use crate::trail::{Trail, TrailError};

/// Every change after `from` up to `upto`, for all scopes.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) from: u64,
    pub(crate) upto: u64,
    pub(crate) messages: Vec<StoredMessage>,
}

/// Chunks a viewer may fall behind before it reads for itself.
pub(crate) const CHUNKS_KEPT: usize = 32;

/// One viewer.
pub struct Live {
    scope: Scope,
    trail: Arc<Trail>,
    chunks: broadcast::Receiver<Arc<Chunk>>,
    /// Up to here everything is told; `None` before the first look.
    at: Option<u64>,
    is_behind: bool,
}

impl Live {
    pub(crate) fn new(trail: Arc<Trail>, scope: Scope, after: Option<u64>) -> Self {
        let chunks = trail.chunks.subscribe();
        Self { scope, trail, chunks, at: after, is_behind: true }
    }

    /// Waits for new and changed messages in scope, oldest change first; each `seq` is where a viewer may come back.
    /// `None` when the trail ends. Cancel safe.
    ///
    /// # Errors
    /// The engine is away; the same call may be made again.
    pub async fn next(&mut self) -> Result<Option<Vec<MessageRow>>, TrailError> {
        loop {
            let at = match self.at {
                Some(at) => at,
                None => *self.at.insert(self.trail.last_seq().await?),
            };
            let (rows, upto) = if self.is_behind {
                let changes = self.trail.store.changes(&self.scope, at).await?;
                self.is_behind = changes.has_more;
                (self.view(changes.messages), changes.upto)
            } else {
                match self.chunks.recv().await {
                    Ok(chunk) if chunk.from <= at => {
                        let new = chunk.messages.iter().filter(|message| message.row.seq > at).cloned();
                        (self.view(new), chunk.upto)
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        self.is_behind = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return Ok(None),
                }
            };
            self.at = Some(at.max(upto));
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
    }

    fn view(&self, messages: impl IntoIterator<Item = StoredMessage>) -> Vec<MessageRow> {
        messages.into_iter().filter_map(|message| self.scope.view(message)).collect()
    }
}

/// The node's own reading for all its viewers.
#[derive(Default)]
pub(crate) struct Tail {
    /// Up to here viewers were shown everything; `None` while nobody watches.
    at: Option<u64>,
}

/// Readings in one go; a node further behind leaves it to each viewer.
const READINGS_MAX: usize = 50;

impl Tail {
    /// Shows the viewers what is new. Without viewers it costs nothing.
    pub(crate) async fn show(&mut self, trail: &Trail) -> Result<(), TrailError> {
        if trail.chunks.receiver_count() == 0 {
            self.at = None;
            return Ok(());
        }
        let Some(mut at) = self.at else { return self.start(trail).await };
        for _ in 0..READINGS_MAX {
            let changes = trail.store.changes(&Scope::System, at).await?;
            let (from, upto) = (at, changes.upto);
            if upto > from {
                // Nobody watching any more is fine.
                let _ = trail.chunks.send(Arc::new(Chunk { from, upto, messages: changes.messages }));
            }
            at = upto;
            self.at = Some(at);
            if !changes.has_more {
                return Ok(());
            }
        }
        self.start(trail).await
    }

    /// Viewers that have not read up to here do so by themselves.
    async fn start(&mut self, trail: &Trail) -> Result<(), TrailError> {
        let at = trail.last_seq().await?;
        self.at = Some(at);
        let _ = trail.chunks.send(Arc::new(Chunk { from: at, upto: at, messages: Vec::new() }));
        Ok(())
    }
}
