//! The auditor: checks every invariant of the store, repairs what the data allows.

use std::sync::Arc;

use base::AccountId;

use crate::blob::SegmentStore;
use crate::error::StoreError;
use crate::sqlite::SqliteStore;
use crate::traits::BlobIndex;

/// How thorough an audit is.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// Reads every blob and checks its digest.
    pub deep: bool,
    /// Sets counters right and queues unreferenced blobs for collection.
    pub repair: bool,
    /// The directory's accounts: mail of any other is reported.
    pub accounts: Option<Vec<AccountId>>,
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

    pub(crate) fn add(&mut self, what: impl Into<String>, location: impl Into<String>, repaired: bool) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.is_cut = true;
        } else {
            self.problems.push(Problem { what: what.into(), location: location.into(), repaired });
        }
    }
}

pub(crate) async fn run(
    sqlite: &SqliteStore,
    segments: &Arc<SegmentStore>,
    options: AuditOptions,
) -> Result<AuditReport, StoreError> {
    let mut report = sqlite.check(&options).await?;
    for error in segments.check_files()? {
        report.add(error.to_string(), "segment file", false);
    }
    let mut from = Vec::new();
    loop {
        let some = sqlite.located(from, vec![u8::MAX; 16], BATCH).await?;
        for blob in &some {
            report.checked.blobs += 1;
            let checked = if options.deep { segments.verify(blob).await } else { segments.glance(blob).await };
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
                Ok(()) => {}
                Err(StoreError::Damaged { what }) => {
                    let held = sqlite.holders(blob.id()).await?;
                    report.add(what, [vec![format!("blob {}", blob.id())], held].concat().join("; "), false);
                }
                Err(StoreError::Unavailable(error)) => {
                    report.add(error.to_string(), format!("blob {}", blob.id()), false);
                }
                Err(error @ StoreError::Full(_)) => return Err(error),
            }
        }
        match some.last() {
            Some(last) if some.len() == BATCH => from = [last.locator.as_slice(), &[0]].concat(),
            _ => return Ok(report),
        }
    }
}
