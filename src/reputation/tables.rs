//! The seam: what an engine keeps of subjects.

use async_trait::async_trait;
use base::UtcMillis;
use engine::EngineError;
use engine::table::Place;

use crate::subject::Subject;

/// Numbers of a subject in one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub subject: Subject,
    pub slot: i64,
    pub good: i64,
    pub bad: i64,
    pub first_at: UtcMillis,
    pub last_at: UtcMillis,
}

#[async_trait]
pub(crate) trait Tables: Send + Sync {
    fn place(&self) -> Place;
    /// All slots of these subjects.
    async fn read(&self, subjects: &[Subject]) -> Result<Vec<Row>, EngineError>;
    /// Adds to what is there, all or none. An error may hide a success.
    async fn add(&self, rows: &[Row]) -> Result<(), EngineError>;
    /// Forgets all of these subjects.
    async fn remove(&self, subjects: &[Subject]) -> Result<(), EngineError>;
    /// Forgets slots of a kind before this one, at most `limit`; gives how many.
    async fn forget(&self, kind: i64, before: i64, limit: usize) -> Result<usize, EngineError>;
}
