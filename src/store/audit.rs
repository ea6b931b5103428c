//! The auditor: checks every invariant of the store, repairs what the data allows.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::AccountId;

use crate::blob::SegmentStore;
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::sqlite::SqliteStore;
use crate::storage::{Kept, Storage};
use crate::traits::BlobIndex;

/// How thorough an audit is.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// Reads every blob and checks its digest.
    pub deep: bool,
    /// Sets right what follows from other rows: counters, sums, next numbers, and rows that nothing refers to.
    pub repair: bool,
    /// Checks the embedded engine's file as such, too: reads all of it in one step.
    pub file: bool,
    /// The directory's accounts: mail of any other is reported.
    pub accounts: Option<Arc<BTreeSet<AccountId>>>,
}

/// What an audit found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    pub checked: Checked,
    /// At most [`PROBLEMS_MAX`]; then `is_cut` is set.
    pub problems: Vec<Problem>,
    pub is_cut: bool,
}

/// How much an audit looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    pub accounts: u64,
    pub mailboxes: u64,
    pub entries: u64,
    pub blobs: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong, in words for an operator.
    pub what: String,
    /// Account, mailbox, UID, blob or file.
    pub location: String,
    pub repaired: bool,
    /// Of stored octets, which no row can repair.
    pub(crate) is_of_content: bool,
}

/// Problems listed; a store with more needs its backup, not a longer list.
pub const PROBLEMS_MAX: usize = 1000;

pub(crate) const WRONG_ALLOWANCE: &str = "the account's allowance does not fit what it holds and the pools it is of";
pub(crate) const WRONG_POOL: &str = "the pool's sum differs from its accounts' allowances";

/// Blobs looked up in one query.
pub(crate) const BATCH: usize = 500;

impl AuditReport {
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds what was found, here or by an audit of what is kept elsewhere.
    pub fn add(&mut self, what: impl Into<String>, location: impl Into<String>, repaired: bool) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.is_cut = true;
        } else {
            let (what, location) = (what.into(), location.into());
            self.problems.push(Problem { what, location, repaired, is_of_content: false });
        }
    }

    /// Damage of stored octets.
    pub(crate) fn add_damage(&mut self, what: impl Into<String>, location: impl Into<String>) {
        self.add(what, location, false);
        if let Some(last) = self.problems.last_mut() {
            last.is_of_content = true;
        }
    }

    /// Adds what a further step found.
    pub fn absorb(&mut self, step: Self) {
        let Checked { accounts, mailboxes, entries, blobs } = step.checked;
        self.checked.accounts += accounts;
        self.checked.mailboxes += mailboxes;
        self.checked.entries += entries;
        self.checked.blobs += blobs;
        self.is_cut |= step.is_cut || self.problems.len() + step.problems.len() > PROBLEMS_MAX;
        self.problems.extend(step.problems);
        self.problems.truncate(PROBLEMS_MAX);
    }
}

/// Where an audit goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditPlace {
    /// Accounts from this number on.
    Accounts(u64),
    /// What only all rows together tell.
    Whole,
    /// Blobs from this place on, in the order in which the engine keeps them.
    Blobs(Vec<u8>),
}

impl Default for AuditPlace {
    fn default() -> Self {
        Self::Accounts(0)
    }
}

pub(crate) type Step = (AuditReport, Option<AuditPlace>);

impl Storage {
    /// One bounded step of an audit: some hundred accounts or blobs. Gives what it found and where to go on; `None` at
    /// the end. May run while the store is in use. On the embedded engine only [`Storage::audit`] repairs.
    pub async fn audit_step(&self, place: AuditPlace, options: &AuditOptions) -> Result<Step, StoreError> {
        match &self.kept {
            Kept::Embedded { sqlite, segments, .. } => step(sqlite, segments, place, options).await,
            Kept::Postgres { store, blobs, .. } => store.audit_step(place, options, blobs).await,
        }
    }

    /// Checks every invariant of the store. May run while it is in use.
    pub async fn audit(&self, options: AuditOptions) -> Result<AuditReport, StoreError> {
        let options = AuditOptions { file: true, ..options };
        let mut report = self.audit_all(&options).await?;
        if let (true, false, Kept::Embedded { sqlite, .. }) = (options.repair, report.is_clean(), &self.kept) {
            sqlite.repair().await?;
            let left = self.audit_all(&AuditOptions { file: false, deep: false, ..options }).await?;
            for problem in &mut report.problems {
                let is_same = |other: &&Problem| other.what == problem.what && other.location == problem.location;
                problem.repaired = !problem.is_of_content && !left.problems.iter().any(|other| is_same(&other));
            }
        }
        Ok(report)
    }

    async fn audit_all(&self, options: &AuditOptions) -> Result<AuditReport, StoreError> {
        let (mut report, mut place) = (AuditReport::default(), Some(AuditPlace::default()));
        while let Some(here) = place {
            let (step, next) = self.audit_step(here, options).await?;
            report.absorb(step);
            place = next;
        }
        Ok(report)
    }
}

async fn step(
    sqlite: &SqliteStore,
    segments: &Arc<SegmentStore>,
    place: AuditPlace,
    options: &AuditOptions,
) -> Result<Step, StoreError> {
    match place {
        AuditPlace::Accounts(from) => {
            let (report, next) = sqlite.check_accounts(from, options.accounts.clone(), options.deep).await?;
            Ok((report, Some(next.map_or(AuditPlace::Whole, AuditPlace::Accounts))))
        }
        AuditPlace::Whole => {
            let mut report = sqlite.check_all(options.file).await?;
            for error in segments.check_files().await? {
                report.add_damage(error.to_string(), "segment file");
            }
            Ok((report, Some(AuditPlace::Blobs(Vec::new()))))
        }
        AuditPlace::Blobs(from) => {
            let mut report = AuditReport::default();
            let next = match look_at_blobs(sqlite, segments, from, options.deep, &mut report).await {
                Err(StoreError::Damaged { what }) => {
                    report.add_damage(what, "the index of blobs; those after it were not looked at");
                    None
                }
                next => next?,
            };
            Ok((report, next.map(AuditPlace::Blobs)))
        }
    }
}

/// Looks at the next blobs from the place on; gives where to go on.
async fn look_at_blobs(
    sqlite: &SqliteStore,
    segments: &Arc<SegmentStore>,
    from: Vec<u8>,
    is_deep: bool,
    report: &mut AuditReport,
) -> Result<Option<Vec<u8>>, StoreError> {
    let some = sqlite.located(from, vec![u8::MAX; 16], BATCH).await?;
    for blob in &some {
        report.checked.blobs += 1;
        if let Some(what) = look_at_blob(sqlite, segments, blob, is_deep).await? {
            let places = sqlite.holders(blob.id()).await?;
            let location = format!("blob {}", blob.id());
            report.add_damage(what, [vec![location], places].concat().join("; "));
        }
    }
    let last = some.last().filter(|_| some.len() == BATCH);
    Ok(last.map(|last| [last.locator.as_slice(), &[0]].concat()))
}

/// What is wrong with the blob.
async fn look_at_blob(
    sqlite: &SqliteStore,
    segments: &Arc<SegmentStore>,
    blob: &StoredBlob,
    is_deep: bool,
) -> Result<Option<String>, StoreError> {
    let checked = if is_deep { segments.verify(blob).await } else { segments.glance(blob).await };
    // Moved by compaction or dropped since we listed it: look again at where it is now.
    let checked = match checked {
        Err(StoreError::Damaged { .. }) => match sqlite.locate(blob.id()).await? {
            Some(again) if again == *blob => checked,
            Some(again) => segments.verify(&again).await,
            None => Ok(()),
        },
        other => other,
    };
    match checked {
        Ok(()) => Ok(None),
        Err(StoreError::Damaged { what }) => Ok(Some(what)),
        Err(StoreError::Unavailable(error)) => Ok(Some(error.to_string())),
        Err(error @ StoreError::Full(_)) => Err(error),
    }
}
