//! Garbage collection: drops blobs that nothing refers to and closes the gaps they leave.
//!
//! What is dropped is overwritten in its place, unless its segment goes as a whole: content that was purged is on no disk of
//! this node when its grace is over.
//!
//! Its cost follows the garbage: it works off the list of released blobs and looks only at segments that lost some. Beside
//! that each round goes a step on two walks: over all segments, where deliveries that never happened may have left
//! orphans, and over all accounts, where expunged emails may have left thread keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use engine::Waypoints;

use crate::blob::record::Locator;
use crate::blob::{SegmentInfo, SegmentStore};
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::traits::{BlobIndex, Relocation};

/// Bounds of a round.
#[derive(Clone, Copy, Debug)]
pub struct GcSettings {
    /// How long a blob that nothing refers to stays: a delivery under way may be about to refer to it. More than the
    /// twelve hours for which the mail store takes content that was put.
    pub grace: Duration,
    /// How long an expunged email can be brought back.
    pub undelete: Duration,
    /// How long a delivery is remembered, so that a retry makes no duplicate.
    pub deliveries_kept: Duration,
    /// Released blobs worked off in a round.
    pub blobs_max: usize,
    /// Segments that a round looks at for orphans, and compacts at most.
    pub segments_max: usize,
    /// Who watches the steps: nobody but crash tests.
    pub waypoints: Waypoints,
}

impl Default for GcSettings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(24 * 3600),
            undelete: Duration::from_secs(14 * 24 * 3600),
            deliveries_kept: Duration::from_secs(7 * 24 * 3600),
            blobs_max: 50_000,
            segments_max: 16,
            waypoints: Waypoints::default(),
        }
    }
}

/// What a round did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GcReport {
    /// Expunged emails whose undelete window ended.
    pub forgotten: u64,
    /// Blobs dropped because nothing refers to them.
    pub released: u64,
    /// Segments emptied and deleted.
    pub segments_removed: u64,
    /// Blobs copied out of them first.
    pub moved: u64,
    /// Disk space given back: sizes of the segments deleted, less what was copied forward.
    pub freed_bytes: u64,
    /// Records overwritten whose blobs were dropped.
    pub erased: u64,
    /// Objects deleted from the object store.
    pub objects_removed: u64,
    /// Segments left alone because a blob in them is damaged; `audit` names it.
    pub stuck: u64,
    /// Another round would find more to do.
    pub has_more: bool,
}

pub(crate) struct Gc {
    index: Arc<dyn BlobIndex>,
    segments: Arc<SegmentStore>,
    clock: Arc<dyn Clock>,
    settings: GcSettings,
    /// One round at a time.
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Segments that lost blobs and have not been looked at since.
    suspects: BTreeSet<u32>,
    /// The segment looked at last on the walk over all.
    walked: u32,
    /// The account looked at last for thread keys.
    account: u64,
}

/// Rows taken or changed in one transaction.
const BATCH: usize = 1000;
/// Accounts whose thread keys a round looks at.
const ACCOUNTS: usize = 50;
/// Blobs copied forward at a time: bounds the records in memory.
const COPIES: usize = 32;

impl Gc {
    pub(crate) fn new(
        index: Arc<dyn BlobIndex>,
        segments: Arc<SegmentStore>,
        clock: Arc<dyn Clock>,
        settings: GcSettings,
    ) -> Self {
        Self { index, segments, clock, settings, state: tokio::sync::Mutex::default() }
    }

    pub(crate) const fn waypoints(&self) -> Waypoints {
        self.settings.waypoints
    }

    /// As long as the guard lives, no blob is dropped, moved or deleted. A round under way ends first.
    pub(crate) async fn pause(&self) -> impl Sized + '_ {
        self.state.lock().await
    }

    pub(crate) async fn round(&self) -> Result<GcReport, StoreError> {
        let mut state = self.state.lock().await;
        let mut report = GcReport::default();
        let waypoints = self.settings.waypoints;
        waypoints.pass("gc.begun");
        self.forget_removed(&mut report).await?;
        waypoints.pass("gc.forgotten");
        self.drop_released(&mut state, &mut report).await?;
        waypoints.pass("gc.dropped");
        self.forget(&mut state).await?;
        waypoints.pass("gc.tidied");
        self.compact(&mut state, &mut report).await?;
        waypoints.pass("gc.compacted");
        self.erase(&mut report).await?;
        waypoints.pass("gc.done");
        Ok(report)
    }

    async fn forget_removed(&self, report: &mut GcReport) -> Result<(), StoreError> {
        let before = self.clock.utc().minus(self.settings.undelete);
        for _ in 0..self.settings.blobs_max.div_ceil(BATCH) {
            let forgotten = self.index.forget_removed(before, BATCH).await?;
            report.forgotten += forgotten as u64;
            if forgotten < BATCH {
                return Ok(());
            }
        }
        report.has_more = true;
        Ok(())
    }

    async fn drop_released(&self, state: &mut State, report: &mut GcReport) -> Result<(), StoreError> {
        let before = self.clock.utc().minus(self.settings.grace);
        let mut seen = 0;
        loop {
            let (taken, gone) = self.index.take_released(before, BATCH).await?;
            self.segments.forget_places(gone.iter().map(|blob| &blob.id));
            report.released += gone.len() as u64;
            let places = gone.iter().filter_map(|blob| Locator::decode(&blob.locator));
            state.suspects.extend(places.map(|place| place.segment));
            seen += taken;
            if taken < BATCH {
                return Ok(());
            }
            if seen >= self.settings.blobs_max {
                report.has_more = true;
                return Ok(());
            }
        }
    }

    /// Overwrites what is gone, in the segments that stay.
    async fn erase(&self, report: &mut GcReport) -> Result<(), StoreError> {
        let mut from = Vec::new();
        for _ in 0..self.settings.blobs_max.div_ceil(BATCH) {
            let some = self.index.erasable(from, BATCH).await?;
            let Some((_, last)) = some.last() else { return Ok(()) };
            from = [last.as_slice(), &[0]].concat();
            let is_end = some.len() < BATCH;
            // A locator that is none has nothing to overwrite.
            let segment_of = |locator: &[u8]| Locator::decode(locator).map_or(0, |place| place.segment);
            for group in some.chunk_by(|a, b| segment_of(&a.1) == segment_of(&b.1)) {
                let Some((_, first)) = group.first() else { continue };
                let segment = segment_of(first);
                let mut records = Vec::with_capacity(group.len());
                for (blob, locator) in group {
                    // One that is there after all, at this place.
                    let is_there = self.index.locate(*blob).await?.is_some_and(|found| found.locator == *locator);
                    records.extend(Locator::decode(locator).filter(|_| !is_there).map(|place| (*blob, place)));
                }
                let count = records.len() as u64;
                if self.segments.overwrite(segment, records).await? {
                    self.index.erased(group.iter().map(|(_, locator)| locator.clone()).collect()).await?;
                    report.erased += count;
                } else {
                    from = from.max(Locator::bounds(segment).1);
                }
            }
            if is_end {
                return Ok(());
            }
        }
        report.has_more = true;
        Ok(())
    }

    async fn forget(&self, state: &mut State) -> Result<(), StoreError> {
        let before = self.clock.utc().minus(self.settings.deliveries_kept);
        for _ in 0..self.settings.blobs_max.div_ceil(BATCH) {
            if self.index.forget_deliveries(before, BATCH).await? < BATCH {
                break;
            }
        }
        state.account = self.index.forget_threads(state.account, ACCOUNTS).await?.unwrap_or(0);
        Ok(())
    }

    async fn compact(&self, state: &mut State, report: &mut GcReport) -> Result<(), StoreError> {
        let before = self.clock.utc().minus(self.settings.grace);
        let closed = self.segments.closed().await?;
        // A blob put lately may be about to be delivered, though nothing refers to it yet.
        let settled: Vec<SegmentInfo> = closed.into_iter().filter(|segment| segment.written_at <= before).collect();
        let walked = settled.iter().filter(|segment| segment.number > state.walked).take(self.settings.segments_max);
        let walked: BTreeSet<u32> = walked.map(|segment| segment.number).collect();
        state.walked = if walked.len() < self.settings.segments_max { 0 } else { walked.last().copied().unwrap_or(0) };
        let mut compacted = 0;
        for segment in settled {
            if !walked.contains(&segment.number) && !state.suspects.contains(&segment.number) {
                continue;
            }
            if compacted >= self.settings.segments_max {
                report.has_more = true;
                break;
            }
            if self.compact_one(segment, report).await? {
                compacted += 1;
            }
            state.suspects.remove(&segment.number);
        }
        Ok(())
    }

    /// Empties and deletes a segment of which less than half is alive. True if it did.
    async fn compact_one(&self, segment: SegmentInfo, report: &mut GcReport) -> Result<bool, StoreError> {
        let Some(live) = self.live_if_sparse(segment).await? else { return Ok(false) };
        let mut copied_bytes = 0;
        for some in live.chunks(COPIES) {
            let mut moved = Vec::with_capacity(some.len());
            for blob in some {
                match self.segments.copy_forward(blob).await {
                    Ok(to) => {
                        copied_bytes += u64::from(to.length);
                        moved.push(Relocation { blob: blob.id, from: blob.locator.clone(), to: to.encode() });
                    }
                    Err(StoreError::Damaged { what }) => {
                        tracing::warn!(event = base::event::STORE_FAILED, %what, "segment kept");
                        report.stuck += 1;
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.settings.waypoints.pass("gc.copied");
            report.moved += self.index.relocate(moved).await? as u64;
            self.settings.waypoints.pass("gc.relocated");
            self.segments.forget_places(some.iter().map(|blob| &blob.id));
        }
        let (from, below) = Locator::bounds(segment.number);
        if !self.index.located(from, below, 1).await?.is_empty() {
            return Ok(false); // referred to again meanwhile
        }
        self.segments.remove(segment.number).await?;
        report.segments_removed += 1;
        report.freed_bytes += segment.size_bytes.saturating_sub(copied_bytes);
        Ok(true)
    }

    /// The blobs alive in the segment; `None` as soon as they are half of it.
    async fn live_if_sparse(&self, segment: SegmentInfo) -> Result<Option<Vec<StoredBlob>>, StoreError> {
        let (mut from, below) = Locator::bounds(segment.number);
        let mut live: Vec<StoredBlob> = Vec::new();
        let mut bytes = 0;
        loop {
            let some = self.index.located(from.clone(), below.clone(), BATCH).await?;
            let places = some.iter().filter_map(|blob| Locator::decode(&blob.locator));
            bytes += places.map(|place| u64::from(place.length)).sum::<u64>();
            if bytes >= segment.size_bytes / 2 {
                return Ok(None);
            }
            let is_last = some.len() < BATCH;
            live.extend(some);
            match live.last() {
                // The smallest locator above the last one.
                Some(last) if !is_last => from = [last.locator.as_slice(), &[0]].concat(),
                _ => return Ok(Some(live)),
            }
        }
    }
}
