//! The state of a mailbox at one mod-sequence: immutable, compact, cheap to follow.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use base::{ModSeq, Uid};

use crate::model::{Changes, EmailId, EntryState, Flags};

/// Every entry of a mailbox as of [`Picture::highest_modseq`], in the order of UIDs. Pictures of one mailbox share what
/// did not change between them, so that a session may hold an old one for as long as it likes.
pub struct Picture {
    chunks: Vec<Arc<Chunk>>,
    /// Index of the first entry of each chunk.
    starts: Vec<usize>,
    flags: Arc<FlagTable>,
    len: usize,
    uid_next: Uid,
    highest_modseq: ModSeq,
}

/// One entry, borrowed from a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryView<'a> {
    /// Place in the picture, from zero: the IMAP sequence number less one.
    pub index: usize,
    pub uid: Uid,
    pub email: EmailId,
    pub modseq: ModSeq,
    pub flags: &'a Flags,
}

/// What turned one picture into a later one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Differences {
    /// Index in the old picture and UID, rising.
    pub vanished: Vec<(usize, Uid)>,
    /// Indexes in the new picture of entries that the old one has too, with another mod-sequence; rising.
    pub changed: Vec<usize>,
    /// How many entries at the end of the new picture are new.
    pub appended: usize,
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.vanished.is_empty() && self.changed.is_empty() && self.appended == 0
    }
}

#[derive(Clone)]
struct Chunk(Vec<Slot>);

#[derive(Clone, Copy)]
struct Slot {
    email: EmailId,
    modseq: ModSeq,
    uid: Uid,
    flags: u32,
}

const _: () = assert!(size_of::<Slot>() == 24, "an entry of a view costs 24 bytes");

/// Entries per chunk: what one changed entry makes us copy (6 KiB).
const CHUNK: usize = 256;

/// Flag sets a table may hold before those no longer used are dropped.
const FLAG_SETS_KEPT: usize = 1024;

#[derive(Clone, Default)]
struct FlagTable {
    sets: Vec<Arc<Flags>>,
    places: BTreeMap<Arc<Flags>, u32>,
}

impl FlagTable {
    fn place(&mut self, flags: Flags) -> u32 {
        if let Some(place) = self.places.get(&flags) {
            return *place;
        }
        let flags = Arc::new(flags);
        let place = u32::try_from(self.sets.len()).expect("tables are compacted long before");
        self.sets.push(Arc::clone(&flags));
        self.places.insert(flags, place);
        place
    }
}

impl Picture {
    /// From every entry of the mailbox, by rising UID.
    pub fn of(states: Changes) -> Self {
        let mut flags = FlagTable::default();
        let slots = states.changed.into_iter().map(|state| slot(&mut flags, state)).collect::<Vec<_>>();
        debug_assert!(slots.is_sorted_by(|a, b| a.uid < b.uid), "states come by rising UID");
        let chunks = slots.chunks(CHUNK).map(|chunk| Arc::new(Chunk(chunk.to_vec()))).collect();
        Self::assemble(chunks, Arc::new(flags), states.uid_next, states.highest_modseq)
    }

    /// A mailbox without entries, before anything is known of it.
    pub fn empty() -> Self {
        Self::assemble(Vec::new(), Arc::default(), Uid::MIN, ModSeq::MIN)
    }

    /// The picture after `changes`, which must say all that happened since this one's mod-sequence.
    #[must_use]
    pub fn advanced(&self, changes: Changes) -> Self {
        let mut chunks = self.chunks.clone();
        let mut flags = Arc::clone(&self.flags);
        remove(&mut chunks, &changes.vanished);
        for state in changes.changed {
            let known = flags.places.get(&state.flags).copied();
            let uid = state.uid;
            let fresh = match known {
                Some(place) => Slot { email: state.email, modseq: state.modseq, uid, flags: place },
                None => slot(Arc::make_mut(&mut flags), state),
            };
            put(&mut chunks, fresh);
        }
        let next = Self::assemble(chunks, flags, changes.uid_next, changes.highest_modseq);
        if next.is_sparse() { next.compacted() } else { next }
    }

    fn assemble(chunks: Vec<Arc<Chunk>>, flags: Arc<FlagTable>, uid_next: Uid, highest_modseq: ModSeq) -> Self {
        let mut len = 0;
        let starts = chunks
            .iter()
            .map(|chunk| {
                let start = len;
                len += chunk.0.len();
                start
            })
            .collect();
        Self { chunks, starts, flags, len, uid_next, highest_modseq }
    }

    /// Expunges leave small chunks and flag changes leave unused sets; both are worth a copy once they outweigh the rest.
    fn is_sparse(&self) -> bool {
        self.chunks.len() > 4 + 4 * self.len / CHUNK || self.flags.sets.len() > FLAG_SETS_KEPT + 2 * self.len
    }

    fn compacted(&self) -> Self {
        let states = Changes {
            changed: self
                .iter()
                .map(|e| EntryState { uid: e.uid, email: e.email, modseq: e.modseq, flags: e.flags.clone() })
                .collect(),
            vanished: Vec::new(),
            highest_modseq: self.highest_modseq,
            uid_next: self.uid_next,
        };
        Self::of(states)
    }

    pub const fn len(&self) -> usize {
        self.len
    }
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub const fn uid_next(&self) -> Uid {
        self.uid_next
    }
    pub const fn highest_modseq(&self) -> ModSeq {
        self.highest_modseq
    }

    /// The entry at `index` (from zero).
    pub fn at(&self, index: usize) -> Option<EntryView<'_>> {
        let chunk = self.starts.partition_point(|start| *start <= index).checked_sub(1)?;
        let slot = self.chunks.get(chunk)?.0.get(index - self.starts.get(chunk)?)?;
        Some(self.view(index, slot))
    }

    pub fn index_of(&self, uid: Uid) -> Option<usize> {
        let index = self.index_at_least(uid);
        self.at(index).filter(|entry| entry.uid == uid).map(|_| index)
    }

    /// Index of the first entry whose UID is `uid` or above; [`Picture::len`] if there is none.
    pub fn index_at_least(&self, uid: Uid) -> usize {
        let chunk = self.chunks.partition_point(|chunk| chunk.0.last().is_some_and(|last| last.uid < uid));
        match (self.chunks.get(chunk), self.starts.get(chunk)) {
            (Some(found), Some(start)) => start + found.0.partition_point(|slot| slot.uid < uid),
            _ => self.len,
        }
    }

    /// Indexes of the entries with UIDs in `uids`.
    pub fn indexes(&self, uids: RangeInclusive<Uid>) -> Range<usize> {
        let start = self.index_at_least(*uids.start());
        let after = uids.end().as_raw().checked_add(1).and_then(Uid::new);
        let end = after.map_or(self.len, |after| self.index_at_least(after));
        start..end.max(start)
    }

    /// Entries with UIDs in `uids`, rising.
    pub fn range(&self, uids: RangeInclusive<Uid>) -> impl Iterator<Item = EntryView<'_>> {
        self.slice(self.indexes(uids))
    }

    /// Entries at the indexes, rising; indexes past the end are ignored.
    pub fn slice(&self, indexes: Range<usize>) -> impl Iterator<Item = EntryView<'_>> {
        let first = self.starts.partition_point(|start| *start <= indexes.start).saturating_sub(1);
        let chunks = self.starts.iter().zip(&self.chunks).skip(first);
        chunks
            .flat_map(|(start, chunk)| chunk.0.iter().enumerate().map(move |(place, slot)| (start + place, slot)))
            .skip_while({
                let start = indexes.start;
                move |(index, _)| *index < start
            })
            .take_while(move |(index, _)| *index < indexes.end)
            .map(|(index, slot)| self.view(index, slot))
    }

    /// Every entry, by rising UID.
    pub fn iter(&self) -> impl Iterator<Item = EntryView<'_>> {
        self.slice(0..self.len)
    }

    fn view(&self, index: usize, slot: &Slot) -> EntryView<'_> {
        let flags = &self.flags.sets[slot.flags as usize]; // the table only grows while slots refer to it
        EntryView { index, uid: slot.uid, email: slot.email, modseq: slot.modseq, flags }
    }

    /// What happened between `old` and `new`, two pictures of the same mailbox. Costs as much as what changed: chunks
    /// that both share are passed over.
    pub fn differences(old: &Self, new: &Self) -> Differences {
        let mut out = Differences::default();
        let (mut before, mut after) = (Cursor::of(old), Cursor::of(new));
        loop {
            if let (Some(a), Some(b)) = (before.whole_chunk(), after.whole_chunk())
                && Arc::ptr_eq(a, b)
            {
                before.skip_chunk();
                after.skip_chunk();
                continue;
            }
            match (before.slot(), after.slot()) {
                (None, None) => return out,
                (Some(gone), None) => {
                    out.vanished.push((before.index, gone.uid));
                    before.step();
                }
                (None, Some(_)) => {
                    out.appended = new.len - after.index;
                    return out;
                }
                (Some(was), Some(is)) if was.uid == is.uid => {
                    if was.modseq != is.modseq {
                        out.changed.push(after.index);
                    }
                    before.step();
                    after.step();
                }
                (Some(was), Some(is)) => {
                    debug_assert!(was.uid < is.uid, "no entry appears below UIDNEXT");
                    out.vanished.push((before.index, was.uid));
                    before.step();
                }
            }
        }
    }
}

/// Walks the slots of a picture, able to pass over a whole chunk.
struct Cursor<'a> {
    chunks: &'a [Arc<Chunk>],
    chunk: usize,
    place: usize,
    index: usize,
}

impl<'a> Cursor<'a> {
    fn of(picture: &'a Picture) -> Self {
        Self { chunks: &picture.chunks, chunk: 0, place: 0, index: 0 }
    }

    fn whole_chunk(&self) -> Option<&'a Arc<Chunk>> {
        if self.place == 0 { self.chunks.get(self.chunk) } else { None }
    }

    fn skip_chunk(&mut self) {
        self.index += self.chunks.get(self.chunk).map_or(0, |chunk| chunk.0.len());
        self.chunk += 1;
    }

    fn slot(&self) -> Option<&'a Slot> {
        self.chunks.get(self.chunk)?.0.get(self.place)
    }

    fn step(&mut self) {
        self.index += 1;
        self.place += 1;
        if self.chunks.get(self.chunk).is_none_or(|chunk| self.place >= chunk.0.len()) {
            self.chunk += 1;
            self.place = 0;
        }
    }
}

fn slot(flags: &mut FlagTable, state: EntryState) -> Slot {
    Slot { email: state.email, modseq: state.modseq, uid: state.uid, flags: flags.place(state.flags) }
}

fn chunk_of(chunks: &[Arc<Chunk>], uid: Uid) -> usize {
    chunks.partition_point(|chunk| chunk.0.last().is_some_and(|last| last.uid < uid))
}

fn remove(chunks: &mut Vec<Arc<Chunk>>, uids: &[Uid]) {
    let mut rest = uids;
    while let Some(first) = rest.first() {
        let at = chunk_of(chunks, *first);
        let Some(chunk) = chunks.get_mut(at) else { break };
        let last = chunk.0.last().map(|slot| slot.uid);
        let here = rest.partition_point(|uid| Some(*uid) <= last);
        let (gone, later) = rest.split_at(here.max(1));
        if chunk.0.iter().any(|slot| gone.binary_search(&slot.uid).is_ok()) {
            Arc::make_mut(chunk).0.retain(|slot| gone.binary_search(&slot.uid).is_err());
        }
        rest = later;
        if chunk.0.is_empty() {
            chunks.retain(|chunk| !chunk.0.is_empty());
        }
    }
}

fn put(chunks: &mut Vec<Arc<Chunk>>, fresh: Slot) {
    let at = chunk_of(chunks, fresh.uid);
    if let Some(chunk) = chunks.get_mut(at) {
        let slots = &mut Arc::make_mut(chunk).0;
        let place = slots.partition_point(|slot| slot.uid < fresh.uid);
        match slots.get_mut(place) {
            Some(known) if known.uid == fresh.uid => *known = fresh,
            _ => slots.insert(place, fresh),
        }
        return;
    }
    match chunks.last_mut() {
        Some(last) if last.0.len() < CHUNK => Arc::make_mut(last).0.push(fresh),
        _ => chunks.push(Arc::new(Chunk(vec![fresh]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemFlags;

    fn uid(n: usize) -> Uid {
        Uid::new(u32::try_from(n).unwrap()).unwrap()
    }

    fn modseq(n: usize) -> ModSeq {
        ModSeq::new(n as u64).unwrap()
    }

    fn state(n: usize, at: usize, bits: u8) -> EntryState {
        let flags = Flags::system(SystemFlags::from_bits(bits));
        EntryState { uid: uid(n), email: EmailId(n as u64 * 3), modseq: modseq(at), flags }
    }

    fn changes(changed: Vec<EntryState>, vanished: Vec<Uid>, at: usize, next: usize) -> Changes {
        Changes { changed, vanished, highest_modseq: modseq(at), uid_next: uid(next) }
    }

    fn picture(n: usize) -> Picture {
        Picture::of(changes((1..=n).map(|n| state(n, 1, 0)).collect(), vec![], 1, n + 1))
    }

    /// Repeats run after run; quality does not matter here.
    struct Random(u64);
    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % n.max(1)
        }
    }

    #[test]
    fn follows_a_plain_list_through_random_changes() {
        let mut random = Random(11);
        let mut plain: Vec<EntryState> = Vec::new();
        let mut now = Picture::of(changes(vec![], vec![], 1, 1));
        let mut next_uid = 1;
        for step in 2..600 {
            let before = plain.clone();
            let mut fresh = Vec::new();
            let mut gone = Vec::new();
            // Steps of all sizes, also ones that empty the mailbox.
            let share = [0, 1, 5, 60, 100][random.below(5)];
            plain.retain(|entry| {
                let dies = random.below(400) < share;
                if dies {
                    gone.push(entry.uid);
                }
                !dies
            });
            for entry in &mut plain {
                if random.below(300) < share {
                    entry.modseq = modseq(step);
                    entry.flags = Flags::system(SystemFlags::from_bits(u8::try_from(random.below(32)).unwrap()));
                    fresh.push(entry.clone());
                }
            }
            for _ in 0..[0, 1, 3, 700][random.below(4)].min(if plain.len() > 3000 { 1 } else { 700 }) {
                next_uid += random.below(3);
                let entry = state(next_uid, step, 0);
                next_uid += 1;
                plain.push(entry.clone());
                fresh.push(entry);
            }
            let later = now.advanced(changes(fresh, gone.clone(), step, next_uid));
            check_same(&later, &plain);
            check_differences(&now, &later, &before, &plain);
            now = later;
        }
    }

    fn check_same(picture: &Picture, plain: &[EntryState]) {
        assert_eq!(picture.len(), plain.len());
        for (seen, entry) in picture.iter().zip(plain) {
            assert_eq!(
                (seen.uid, seen.email, seen.modseq, seen.flags),
                (entry.uid, entry.email, entry.modseq, &entry.flags)
            );
        }
        for place in [0, plain.len() / 3, plain.len() / 2, plain.len().saturating_sub(1)] {
            if let Some(entry) = plain.get(place) {
                assert_eq!(picture.index_of(entry.uid), Some(place));
                assert_eq!(picture.at(place).unwrap().uid, entry.uid);
                assert_eq!(picture.range(entry.uid..=Uid::MAX).count(), plain.len() - place);
                assert_eq!(picture.indexes(Uid::MIN..=entry.uid), 0..place + 1);
            }
        }
        assert!(picture.at(plain.len()).is_none());
    }

    fn check_differences(old: &Picture, new: &Picture, before: &[EntryState], after: &[EntryState]) {
        let found = Picture::differences(old, new);
        let vanished: Vec<_> = (0..)
            .zip(before)
            .filter(|(_, entry)| !after.iter().any(|e| e.uid == entry.uid))
            .map(|(index, entry)| (index, entry.uid))
            .collect();
        let changed: Vec<_> = (0..)
            .zip(after)
            .filter(|(_, entry)| before.iter().any(|e| e.uid == entry.uid && e.modseq != entry.modseq))
            .map(|(index, _)| index)
            .collect();
        let appended = after.iter().filter(|e| e.uid >= old.uid_next()).count();
        assert_eq!(found, Differences { vanished, changed, appended });
    }

    #[test]
    fn a_small_change_shares_all_other_chunks() {
        let old = picture(100_000);
        let new = old.advanced(changes(vec![state(70_000, 2, 1)], vec![], 2, 100_001));
        let shared = old.chunks.iter().zip(&new.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, old.chunks.len() - 1);
        assert_eq!(Picture::differences(&old, &new), Differences { changed: vec![69_999], ..Differences::default() });
        assert_eq!(old.at(69_999).unwrap().flags, &Flags::default());
        assert!(Picture::differences(&new, &new).is_empty());
    }

    #[test]
    fn flag_sets_no_longer_used_are_dropped() {
        let mut now = picture(3);
        for step in 2..5000 {
            let mut flags = Flags::default();
            flags.keywords.insert(format!("k{step}").parse().unwrap());
            let changed = EntryState { flags, ..state(2, step, 0) };
            now = now.advanced(changes(vec![changed], vec![], step, 4));
        }
        assert!(now.flags.sets.len() < 2 * FLAG_SETS_KEPT);
        assert_eq!(now.at(1).unwrap().flags.keywords.iter().next().unwrap().as_str(), "k4999");
        assert_eq!(now.at(2).unwrap().flags, &Flags::default());
    }
}
