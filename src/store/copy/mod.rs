//! Moves all mail from one store to another, of the same or the other engine. Content goes first, then account by account
//! its rows, each in one transaction of the target. What is there already and equal stays, so that a copy that was cut
//! short goes on, and one made again brings what has changed. Numbers that clients know stay as they are.

mod content;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use engine::table::{Between, DIFFERENCES_MAX, Kind, Merge, Place, Row, Side, Step, Table, Value, differences, sync};

use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::storage::{Kept, Storage};

/// What a copy did, or a comparison found.
#[derive(Clone, Default, Debug)]
pub struct CopyReport {
    /// Written, or compared.
    pub accounts: u64,
    /// Equal on both sides before.
    pub accounts_skipped: u64,
    /// Of all accounts.
    pub messages: u64,
    pub blobs: u64,
    pub blobs_skipped: u64,
    /// Of the blobs, before compression.
    pub octets: u64,
    pub rows_written: u64,
    pub rows_removed: u64,
    /// What is not the same on both sides, at most [`DIFFERENCES_MAX`].
    pub differences: Vec<String>,
}

/// Why nothing was written, or not all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CopyError {
    /// The target holds what this source does not: nothing was written.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<engine::EngineError> for CopyError {
    fn from(error: engine::EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// Hears how far it is, often.
pub type Progress<'a> = &'a (dyn Fn(&CopyReport) + Send + Sync);

struct Copying<'a> {
    from: &'a Storage,
    to: &'a Storage,
    is_verify: bool,
    progress: Progress<'a>,
    report: CopyReport,
}

impl Storage {
    /// Makes the mail in `to` what it is here, and compares what was written. Nobody may use either store meanwhile.
    ///
    /// # Errors
    /// [`CopyError::Refused`] as [`Storage::check_target`]. Others leave `to` such that it can be done again.
    pub async fn copy_to(&self, to: &Self, progress: Progress<'_>) -> Result<CopyReport, CopyError> {
        self.check_target(to).await?;
        let mut copying = Copying { from: self, to, is_verify: false, progress, report: CopyReport::default() };
        copying.run().await?;
        if copying.report.rows_written > 0 {
            to.place().take_stock(&tables::KNOWN_TO_PLANNER).await?;
        }
        Ok(copying.report)
    }

    /// Compares all mail in `to`, content too, with what is here.
    pub async fn compare_with(&self, to: &Self, progress: Progress<'_>) -> Result<CopyReport, CopyError> {
        let mut copying = Copying { from: self, to, is_verify: true, progress, report: CopyReport::default() };
        copying.run().await?;
        Ok(copying.report)
    }

    /// Looks whether all mail in `to` came from here.
    ///
    /// # Errors
    /// [`CopyError::Refused`] names an account that is not here, or that has changed there since.
    pub async fn check_target(&self, to: &Self) -> Result<(), CopyError> {
        let [account, ..] = tables::of_account();
        let (from, to) = (self.place(), to.place());
        let mut merge = Merge::new(Side { place: &from, table: &account }, Side { place: &to, table: &account }, None);
        while let Some(step) = merge.next().await? {
            match step {
                Step::Gone(row) => {
                    let account = number(&row, 0)?;
                    return Err(CopyError::Refused(format!(
                        "account {account}, mail in the target that the source does not have"
                    )));
                }
                Step::Changed { is, was } if number(&was, 1)? > number(&is, 1)? => {
                    let account = number(&is, 0)?;
                    return Err(CopyError::Refused(format!(
                        "account {account}, changed in the target since it was copied"
                    )));
                }
                Step::Changed { .. } | Step::New(_) | Step::Same(_) => {}
            }
        }
        Ok(())
    }

    fn place(&self) -> Place {
        match &self.kept {
            Kept::Embedded { sqlite, .. } => sqlite.place(),
            Kept::Postgres { store, .. } => store.place(),
        }
    }

    /// Content that was brought and that nothing refers to yet.
    async fn list_stored(&self, blobs: Vec<StoredBlob>) -> Result<(), StoreError> {
        match &self.kept {
            Kept::Embedded { sqlite, .. } => sqlite.list_stored(blobs).await,
            Kept::Postgres { .. } => Ok(()),
        }
    }
}

impl Copying<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        self.content().await?;
        self.accounts().await?;
        self.shared().await
    }

    fn differs(&mut self, what: String) {
        if self.report.differences.len() < DIFFERENCES_MAX {
            self.report.differences.push(what);
        }
    }

    fn tell(&self) {
        (self.progress)(&self.report);
    }

    async fn accounts(&mut self) -> Result<(), StoreError> {
        let (from, to) = (self.from.place(), self.to.place());
        let tables = tables::of_account();
        let mut accounts = BTreeSet::new();
        for place in [&from, &to] {
            let rows = place.ask("SELECT account_id FROM account", &[Kind::Int]).await?;
            accounts.extend(rows.iter().map(|row| number(row, 0)).collect::<Result<Vec<_>, _>>()?);
        }
        for account in accounts {
            let between = Between { from: &from, to: &to, owner: Some(account) };
            if self.is_verify {
                self.compare(between, &tables).await?;
            } else if is_equal(between, &tables).await? {
                self.report.accounts_skipped += 1;
            } else {
                self.write(between, &tables).await?;
                self.compare(between, &tables).await?;
            }
            let text = format!("SELECT messages FROM account WHERE account_id = {account}");
            let found = from.ask(&text, &[Kind::Int]).await?;
            let messages = found.first().map(|row| number(row, 0)).transpose()?.unwrap_or(0);
            self.report.messages += u64::try_from(messages).unwrap_or(0);
            self.tell();
        }
        Ok(())
    }

    /// Makes the tables equal, in one transaction of the target.
    async fn write(&mut self, between: Between<'_>, tables: &[Table]) -> Result<(), StoreError> {
        let mut change = between.to.begin().await?;
        for table in tables {
            let tally = sync(between, table, &mut change).await?;
            self.report.rows_written += tally.written;
            self.report.rows_removed += tally.removed;
        }
        Ok(change.commit().await?)
    }

    async fn compare(&mut self, between: Between<'_>, tables: &[Table]) -> Result<(), StoreError> {
        let owner = between.owner.map(|account| format!("account {account}, ")).unwrap_or_default();
        for table in tables {
            let left = DIFFERENCES_MAX.saturating_sub(self.report.differences.len());
            for what in differences(between, table, left).await? {
                self.differs(format!("{owner}{what}"));
            }
        }
        self.report.accounts += u64::from(between.owner.is_some());
        Ok(())
    }

    /// Deliveries and pools, each of which is of several accounts.
    async fn shared(&mut self) -> Result<(), StoreError> {
        let (from, to) = (self.from.place(), self.to.place());
        let between = Between { from: &from, to: &to, owner: None };
        let tables = tables::of_all();
        if !self.is_verify {
            self.write(between, &tables).await?;
        }
        self.compare(between, &tables).await
    }
}

/// Whether an account is the same in both places, as far as its counters and the numbers of its rows tell: every change
/// of a message moves the account's mod-sequence, and what goes without doing so is fewer rows.
async fn is_equal(between: Between<'_>, tables: &[Table]) -> Result<bool, StoreError> {
    let (telling, counted) = tables.split_at(tables::TELLING);
    for table in telling {
        if !differences(between, table, 1).await?.is_empty() {
            return Ok(false);
        }
    }
    let Some(account) = between.owner else { return Ok(false) };
    let counts: Vec<String> = counted
        .iter()
        .map(|table| format!("(SELECT count(*) FROM {} WHERE account_id = {account})", table.name))
        .collect();
    let (text, kinds) = (format!("SELECT {}", counts.join(", ")), vec![Kind::Int; counted.len()]);
    Ok(between.from.ask(&text, &kinds).await? == between.to.ask(&text, &kinds).await?)
}

fn number(row: &Row, at: usize) -> Result<i64, StoreError> {
    match row.get(at) {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(StoreError::Damaged { what: "a row of the table of accounts".to_owned() }),
    }
}
