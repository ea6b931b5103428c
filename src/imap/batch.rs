//! Messages of a picture a few hundred at a time, so that no command holds more of them.

use std::ops::Range;

use store::{Entry, EntryView, Picture};

use crate::connection::UidRanges;

/// Entries read from the store in one go.
pub const BATCH: usize = 256;

/// Places in a picture, handed out in rising order.
pub struct Batches {
    ranges: Vec<Range<usize>>,
    at: usize,
}

impl Batches {
    /// Everything that `uids` name.
    pub fn of_uids(picture: &Picture, uids: &UidRanges) -> Self {
        let ranges = uids.iter().map(|range| picture.indexes(range.clone())).filter(|range| !range.is_empty());
        Self { ranges: ranges.collect(), at: 0 }
    }

    /// The rising places themselves.
    pub fn of_indexes(indexes: impl Iterator<Item = usize>) -> Self {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for index in indexes {
            match ranges.last_mut() {
                Some(last) if last.end == index => last.end += 1,
                _ => ranges.push(index..index + 1),
            }
        }
        Self { ranges, at: 0 }
    }

    pub fn entries<'a>(&'a self, picture: &'a Picture) -> impl Iterator<Item = EntryView<'a>> {
        self.ranges.iter().flat_map(|range| picture.slice(range.clone()))
    }

    /// The next places, at most [`BATCH`] of them; `None` when all are handed out.
    pub fn next(&mut self) -> Option<Batch> {
        let mut ranges = Vec::new();
        let mut room = BATCH;
        while let Some(range) = self.ranges.get_mut(self.at) {
            let end = range.end.min(range.start + room);
            room -= end - range.start;
            ranges.push(range.start..end);
            range.start = end;
            if range.start >= range.end {
                self.at += 1;
            }
            if room == 0 {
                break;
            }
        }
        (!ranges.is_empty()).then_some(Batch { ranges, len: BATCH - room })
    }
}

pub struct Batch {
    ranges: Vec<Range<usize>>,
    pub len: usize,
}

impl Batch {
    /// A range of places as a range of UIDs: what lies between in the store, the picture has too.
    pub fn uids(&self, picture: &Picture) -> UidRanges {
        let uid = |index: usize| picture.at(index).map(|entry| entry.uid);
        self.ranges.iter().filter_map(|range| Some(uid(range.start)?..=uid(range.end.checked_sub(1)?)?)).collect()
    }

    /// Each entry with what the picture says of it. What the picture lacks is left out.
    pub fn pairs<'a>(
        &'a self,
        picture: &'a Picture,
        entries: &'a [Entry],
    ) -> impl Iterator<Item = (EntryView<'a>, &'a Entry)> {
        let mut views = self.ranges.iter().flat_map(|range| picture.slice(range.clone())).peekable();
        entries.iter().filter_map(move |entry| {
            while views.next_if(|view| view.uid < entry.uid).is_some() {}
            views.next_if(|view| view.uid == entry.uid).map(|view| (view, entry))
        })
    }
}
