//! Moves what was learned from one installation to another, as a whole, in one transaction.

use engine::EngineError;
use engine::table::Kind::{Bool, Bytes, Int};
use engine::table::{Between, Kind, Table, all_differences};

use crate::classifier::Classifier;

type Columns = &'static [(&'static str, Kind)];

const STEP: Columns = &[
    ("seq", Int),
    ("owner", Int),
    ("key", Bytes),
    ("class", Int),
    ("version", Int),
    ("amount", Int),
    ("is_new", Bool),
    ("numbers", Bytes),
];
const KNOWN: Columns =
    &[("owner", Int), ("key", Bytes), ("class", Int), ("version", Int), ("amount", Int), ("learned_at", Int)];
const SNAPSHOT: Columns = &[("owner", Int), ("seq", Int), ("weights", Bytes)];

fn tables() -> [Table; 3] {
    [
        Table::plain("step", ("step", "classifier_step"), STEP, 1, false),
        Table::plain("known", ("known", "classifier_known"), KNOWN, 2, false),
        Table::plain("snapshot", ("snapshot", "classifier_snapshot"), SNAPSHOT, 1, false),
    ]
}

impl Classifier {
    /// Makes what was learned in `to` what it is here; gives whether something was written. Whatever the error, `to` is as
    /// it was. Nobody may learn meanwhile.
    pub async fn copy_to(&self, to: &Self) -> Result<bool, EngineError> {
        if self.compare_with(to).await?.is_empty() {
            return Ok(false);
        }
        let last = self.tables.stand().await?.last;
        let (from, place) = (self.tables.place(), to.tables.place());
        let mut change = place.begin().await?;
        change.replace_all(&tables(), &from).await?;
        change
            .run(
                &format!(
                    "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq)
                     SELECT (SELECT rowid FROM sqlite_sequence WHERE name = 'step'), 'step', {last}"
                ),
                &format!("UPDATE classifier_state SET last = {last}"),
            )
            .await?;
        change.commit().await?;
        to.reload().await?;
        Ok(true)
    }

    /// Where what was learned in `to` differs, in words.
    pub async fn compare_with(&self, to: &Self) -> Result<Vec<String>, EngineError> {
        let (from, place) = (self.tables.place(), to.tables.place());
        let between = Between { from: &from, to: &place, owner: None };
        let mut found = all_differences(between, &tables(), "classifier").await?;
        let (one, other) = (self.tables.stand().await?.last, to.tables.stand().await?.last);
        if one != other {
            found.push(format!("classifier: the last step given was {one}, in the target {other}"));
        }
        Ok(found)
    }
}
