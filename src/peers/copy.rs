//! Moves all of it from one installation to another, in one transaction.

use engine::EngineError;
use engine::table::{Between, all_differences};

use crate::peers::Peers;
use crate::tables;

impl Peers {
    /// Makes what is kept in `to` what it is here; gives whether something was written. Whatever the error, `to` is as it
    /// was. Nobody may add meanwhile.
    pub async fn copy_to(&self, to: &Self) -> Result<bool, EngineError> {
        if self.compare_with(to).await?.is_empty() {
            return Ok(false);
        }
        let mut change = to.place().begin().await?;
        change.replace_all(&tables::all(), self.place()).await?;
        change.commit().await?;
        Ok(true)
    }

    /// Where what is kept in `to` differs, in words.
    pub async fn compare_with(&self, to: &Self) -> Result<Vec<String>, EngineError> {
        let between = Between { from: self.place(), to: to.place(), owner: None };
        all_differences(between, &tables::all(), "peers").await
    }
}
