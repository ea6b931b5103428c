//! Two tables side by side, in the order of their keys.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::{Change, Place, Row, Table};
use crate::error::EngineError;

/// A table in one place.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub place: &'a Place,
    pub table: &'a Table,
}

/// Rows read, or written, at a time.
const BATCH: usize = 500;

struct Reader<'a> {
    side: Side<'a>,
    owner: Option<i64>,
    waiting: VecDeque<Row>,
    last: Option<Row>,
    is_done: bool,
}

impl<'a> Reader<'a> {
    fn new(side: Side<'a>, owner: Option<i64>) -> Self {
        Self { side, owner, waiting: VecDeque::new(), last: None, is_done: false }
    }

    async fn fill(&mut self) -> Result<(), EngineError> {
        if self.waiting.is_empty() && !self.is_done {
            let Side { place, table } = self.side;
            let after = self.last.as_ref().and_then(|row| row.get(..table.key));
            let rows = place.rows(table, self.owner, after, BATCH).await?;
            self.is_done = rows.len() < BATCH;
            self.last = rows.last().cloned().or(self.last.take());
            self.waiting = rows.into();
        }
        Ok(())
    }
}

/// What the next key shows.
#[derive(Debug)]
pub enum Step {
    Same(Row),
    /// Only `from` has it.
    New(Row),
    /// Both have it, and not the same.
    Changed {
        is: Row,
        was: Row,
    },
    /// Only `to` has it.
    Gone(Row),
}

/// Goes through both sides; memory is bounded by two batches.
pub struct Merge<'a> {
    from: Reader<'a>,
    to: Reader<'a>,
}

impl<'a> Merge<'a> {
    /// Of one owner, or of all. Both tables have the same columns and key.
    pub fn new(from: Side<'a>, to: Side<'a>, owner: Option<i64>) -> Self {
        Self { from: Reader::new(from, owner), to: Reader::new(to, owner) }
    }

    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Step>, EngineError> {
        let (one, other) = tokio::join!(self.from.fill(), self.to.fill());
        one.and(other)?;
        let order = match (self.from.waiting.front(), self.to.waiting.front()) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(is), Some(was)) => self.from.side.table.compare_keys(is, was),
        };
        Ok(match order {
            Ordering::Less => self.from.waiting.pop_front().map(Step::New),
            Ordering::Greater => self.to.waiting.pop_front().map(Step::Gone),
            Ordering::Equal => {
                let both = self.from.waiting.pop_front().zip(self.to.waiting.pop_front());
                both.map(|(is, was)| if is == was { Step::Same(is) } else { Step::Changed { is, was } })
            }
        })
    }
}

/// What [`sync`] did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    pub written: u64,
    pub removed: u64,
}

/// Two places, and whose rows of them are meant.
#[derive(Clone, Copy)]
pub struct Between<'a> {
    pub from: &'a Place,
    pub to: &'a Place,
    pub owner: Option<i64>,
}

/// Makes the table in `to` equal to that in `from`, by what differs: first goes what must go, so that nothing that comes
/// meets it. Both are read as they were before the change.
pub async fn sync(of: Between<'_>, table: &Table, change: &mut Change) -> Result<Tally, EngineError> {
    let (from, to) = (Side { place: of.from, table }, Side { place: of.to, table });
    let mut tally = Tally::default();
    if !of.to.rows(table, of.owner, None, 1).await?.is_empty() {
        let (mut merge, mut batch, mut is_equal) = (Merge::new(from, to, of.owner), Vec::new(), true);
        while let Some(step) = merge.next().await? {
            match step {
                Step::Gone(was) | Step::Changed { was, .. } => batch.push(was),
                Step::New(_) => is_equal = false,
                Step::Same(_) => {}
            }
            if batch.len() >= BATCH {
                tally.removed += batch.len() as u64;
                change.delete(table, std::mem::take(&mut batch)).await?;
            }
        }
        tally.removed += batch.len() as u64;
        is_equal &= tally.removed == 0;
        if !batch.is_empty() {
            change.delete(table, batch).await?;
        }
        if is_equal {
            return Ok(tally);
        }
    }
    let (mut merge, mut batch) = (Merge::new(from, to, of.owner), Vec::new());
    while let Some(step) = merge.next().await? {
        match step {
            Step::New(is) | Step::Changed { is, .. } => batch.push(is),
            Step::Gone(_) | Step::Same(_) => {}
        }
        if batch.len() >= BATCH {
            tally.written += batch.len() as u64;
            change.insert(table, std::mem::take(&mut batch)).await?;
        }
    }
    tally.written += batch.len() as u64;
    if !batch.is_empty() {
        change.insert(table, batch).await?;
    }
    Ok(tally)
}

/// Differences that a report names; a copy with more was not cut short but goes wrong as such.
pub const DIFFERENCES_MAX: usize = 100;

/// Where the table in `to` differs from that in `from`, in words, at most `limit`: the table, the key and what is wrong.
pub async fn differences(of: Between<'_>, table: &Table, limit: usize) -> Result<Vec<String>, EngineError> {
    let (from, to) = (Side { place: of.from, table }, Side { place: of.to, table });
    let (mut merge, mut found) = (Merge::new(from, to, of.owner), Vec::new());
    while found.len() < limit
        && let Some(step) = merge.next().await?
    {
        let (row, what) = match &step {
            Step::Same(_) => continue,
            Step::New(row) => (row, "is missing".to_owned()),
            Step::Gone(row) => (row, "is not in the source".to_owned()),
            Step::Changed { is, was } => {
                let columns = table.columns.iter().zip(is.iter().zip(was)).filter(|(_, (is, was))| is != was);
                let names: Vec<&str> = columns.map(|((name, _), _)| *name).collect();
                (is, format!("differs in {}", names.join(", ")))
            }
        };
        found.push(format!("{} {}: {what}", table.name, table.key_of(row)));
    }
    Ok(found)
}

/// Where any of the tables differs, in words that begin with `component`; at most [`DIFFERENCES_MAX`] of each table.
pub async fn all_differences(of: Between<'_>, tables: &[Table], component: &str) -> Result<Vec<String>, EngineError> {
    let mut found = Vec::new();
    for table in tables {
        let some = differences(of, table, DIFFERENCES_MAX).await?;
        found.extend(some.into_iter().map(|what| format!("{component}, {what}")));
    }
    Ok(found)
}
