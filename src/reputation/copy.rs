//! Moves what was seen from one installation to another, as a whole, in one transaction.

use engine::EngineError;
use engine::table::Kind::{Bytes, Int};
use engine::table::{Between, Kind, Table, all_differences};

use crate::reputation::Reputation;

const SUBJECT: &[(&str, Kind)] =
    &[("kind", Int), ("key", Bytes), ("slot", Int), ("good", Int), ("bad", Int), ("first_at", Int), ("last_at", Int)];

fn tables() -> [Table; 1] {
    [Table::plain("subject", ("subject", "reputation_subject"), SUBJECT, 3, false)]
}

impl Reputation {
    /// Makes what was seen in `to` what it is here; gives whether something was written. Whatever the error, `to` is as it
    /// was. Nobody may add meanwhile.
    pub async fn copy_to(&self, to: &Self) -> Result<bool, EngineError> {
        if self.compare_with(to).await?.is_empty() {
            return Ok(false);
        }
        let mut change = to.tables.place().begin().await?;
        change.replace_all(&tables(), &self.tables.place()).await?;
        change.commit().await?;
        Ok(true)
    }

    /// Where what was seen in `to` differs, in words.
    pub async fn compare_with(&self, to: &Self) -> Result<Vec<String>, EngineError> {
        let (from, place) = (self.tables.place(), to.tables.place());
        let between = Between { from: &from, to: &place, owner: None };
        all_differences(between, &tables(), "reputation").await
    }
}
