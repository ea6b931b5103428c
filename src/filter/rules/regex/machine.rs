//! Runs a [`Program`] as Perl would: the first alternative that leads to a match counts.
//!
//! Time is bounded by a budget of steps that the caller gives; who gives one also says what an exhausted one means.

use std::ops::Range;

use regex_syntax::hir::Look;

use super::bytes::ByteSet;
use super::onset::Onset;
use super::program::{ANY, Anchor, AroundKind, Choice, Program, RunKind, Step};

/// What to go back to.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// Goes on at a step.
    Retry { step: u32, at: usize },
    /// The alternatives of the step from `next` on.
    Next { step: u32, choice: u32, next: u32, at: usize },
    /// A run gives back a byte, down to `least`.
    GiveBack { step: u32, least: usize, at: usize },
    /// A run takes `left` more bytes at most.
    TakeMore { step: u32, left: u32, at: usize },
    /// A slot gets its old value.
    Undo { slot: u32, old: usize },
}

/// Memory of a run, kept for the next.
#[derive(Debug, Default)]
pub struct Memory {
    frames: Vec<Frame>,
    slots: Vec<usize>,
    /// Places where a match was looked for.
    pub starts: u32,
}

/// The budget was not enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// A match: all of it, and its first group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    pub range: Range<usize>,
    pub first_group: Option<Range<usize>>,
}

const UNSET: usize = usize::MAX;
/// Most frames of one run: 24 bytes each.
const FRAMES_MAX: usize = 1 << 18;
/// So many bytes that a run passes over cost as much as one step.
const BYTES_FOR_STEP: usize = 32;

impl Program {
    /// The first match that begins at or after `from`. `budget` is in steps, and loses those that were taken; `onset` is of
    /// the same pattern.
    pub fn find(
        &self,
        onset: Option<&Onset>,
        (text, from): (&[u8], usize),
        budget: &mut usize,
        memory: &mut Memory,
    ) -> Result<Option<Match>, Exhausted> {
        memory.slots.clear();
        memory.slots.resize(self.slots, UNSET);
        let mut machine = Machine { program: self, text, budget, memory };
        let mut from = from;
        while let Some(start) = self.next_start(text, from) {
            machine.spend(1)?;
            from = start + 1;
            if start > 0 && onset.is_some_and(|onset| !onset.allows(text, start)) {
                continue;
            }
            machine.memory.starts = machine.memory.starts.saturating_add(1);
            if let Some(end) = machine.run(0, start, None)? {
                let slots = &machine.memory.slots;
                let group = |at: usize| slots.get(at).copied().filter(|place| *place != UNSET);
                let first_group = group(2).zip(group(3)).map(|(start, end)| start..end);
                machine.memory.frames.clear();
                return Ok(Some(Match { range: start..end, first_group }));
            }
        }
        Ok(None)
    }

    /// The next place where a match may begin.
    fn next_start(&self, text: &[u8], from: usize) -> Option<usize> {
        if from == 0 {
            return Some(0);
        }
        let mut from = from;
        loop {
            let at = match self.anchor {
                Anchor::Text => return None,
                Anchor::Line if text.get(from - 1) == Some(&b'\n') => from,
                Anchor::Line => from + memchr::memchr(b'\n', text.get(from..)?)? + 1,
                Anchor::Nowhere => match (&self.openings, self.few_first) {
                    (Some(openings), _) => openings.find(text, from)?,
                    (None, Some(few)) => from + few.find(text.get(from..)?)?,
                    (None, None) => return self.next_lead(text, from),
                },
            };
            if at > text.len() {
                return None;
            }
            let fits = |(place, set): (usize, &ByteSet)| text.get(at + place).is_some_and(|byte| set.has(*byte));
            if self.lead.sets.iter().enumerate().all(fits) {
                return Some(at);
            }
            from = at + 1;
        }
    }

    fn next_lead(&self, text: &[u8], from: usize) -> Option<usize> {
        let Some((first, rest)) = self.lead.sets.split_first() else { return (from <= text.len()).then_some(from) };
        let places = text.len().checked_sub(rest.len())?;
        if let Some(skips) = &self.skips {
            return self.next_by_last(text, from, skips);
        }
        let window = text.get(from..places)?;
        let second = rest.first();
        for (at, byte) in window.iter().enumerate() {
            if !first.has(*byte) {
                continue;
            }
            let at = from + at;
            let behind = text.get(at + 1..).unwrap_or_default();
            if second.is_none_or(|second| behind.first().is_some_and(|byte| second.has(*byte)))
                && rest.iter().zip(behind).all(|(set, byte)| set.has(*byte))
            {
                return Some(at);
            }
        }
        None
    }
}

impl Program {
    /// The same, where looking at the last byte of the lead first tells how far to go on.
    fn next_by_last(&self, text: &[u8], from: usize, skips: &[u8; 256]) -> Option<usize> {
        let (last, before) = self.lead.sets.split_last()?;
        let mut at = from;
        loop {
            let byte = *text.get(at + before.len())?;
            if last.has(byte) && before.iter().zip(text.get(at..)?).all(|(set, byte)| set.has(*byte)) {
                return Some(at);
            }
            at += usize::from(skips[usize::from(byte)]);
        }
    }
}

struct Machine<'m, 't> {
    program: &'m Program,
    text: &'t [u8],
    budget: &'m mut usize,
    memory: &'m mut Memory,
}

impl Machine<'_, '_> {
    fn spend(&mut self, steps: usize) -> Result<(), Exhausted> {
        match self.budget.checked_sub(steps) {
            Some(left) if self.memory.frames.len() <= FRAMES_MAX => {
                *self.budget = left;
                Ok(())
            }
            Some(_) | None => {
                self.memory.frames.clear();
                Err(Exhausted)
            }
        }
    }

    fn set_slot(&mut self, slot: u32, value: usize) {
        if let Some(place) = self.memory.slots.get_mut(slot as usize) {
            let old = std::mem::replace(place, value);
            self.memory.frames.push(Frame::Undo { slot, old });
        }
    }

    fn slot(&self, slot: u32) -> usize {
        self.memory.slots.get(slot as usize).copied().unwrap_or(UNSET)
    }

    /// True if what stands at `at` is in the set; at the end of the text, only if any text will do.
    fn fits(&self, set: u32, at: usize) -> bool {
        set == ANY || self.text.get(at).is_some_and(|byte| self.program.sets[set as usize].has(*byte))
    }

    /// Runs from a step to the next end, and gives the place there; with `goal`, only that place counts.
    /// What was noted on the way stays, and so does what is needed to go back.
    fn run(&mut self, step: u32, at: usize, goal: Option<usize>) -> Result<Option<usize>, Exhausted> {
        let program = self.program;
        let base = self.memory.frames.len();
        let (mut step, mut at) = (step, at);
        'steps: loop {
            // Each step goes on by `continue`; what falls out of the match failed.
            match program.steps[step as usize] {
                Step::Byte(byte) => {
                    if self.text.get(at) == Some(&byte) {
                        (step, at) = (step + 1, at + 1);
                        continue;
                    }
                }
                Step::Set(set) => {
                    if self.text.get(at).is_some_and(|byte| program.sets[set as usize].has(*byte)) {
                        (step, at) = (step + 1, at + 1);
                        continue;
                    }
                }
                Step::Look(look) => {
                    if looks(look, self.text, at) {
                        step += 1;
                        continue;
                    }
                }
                Step::Save(slot) => {
                    self.set_slot(slot, at);
                    step += 1;
                    continue;
                }
                Step::Jump(to) => {
                    step = to;
                    continue;
                }
                Step::Choose(choice) => {
                    if let Some(found) = self.choose(step, choice, 0, at) {
                        step = found;
                        continue;
                    }
                }
                Step::Run(run) => {
                    if let Some(end) = self.take(step, run, at)? {
                        (step, at) = (step + 1, end);
                        continue;
                    }
                }
                Step::LoopStart(which) => {
                    let slot = program.loops[which as usize].slot;
                    self.set_slot(slot, 0);
                    self.set_slot(slot + 1, UNSET);
                    step += 1;
                    continue;
                }
                Step::Loop(which) => {
                    if let Some(next) = self.again(which, step + 1, at) {
                        step = next;
                        continue;
                    }
                }
                Step::LoopEnter(which) => {
                    let slot = program.loops[which as usize].slot;
                    self.set_slot(slot, self.slot(slot) + 1);
                    self.set_slot(slot + 1, at);
                    self.spend(1)?;
                    step += 1;
                    continue;
                }
                Step::BackReference { group, fold } => {
                    if let Some(end) = self.repeated(group, fold, at) {
                        (step, at) = (step + 1, end);
                        continue;
                    }
                }
                Step::Around(which) => {
                    if let Some(end) = self.around(which, step + 1, at)? {
                        (step, at) = (program.arounds[which as usize].after, end);
                        continue;
                    }
                }
                Step::End => {
                    if goal.is_none_or(|goal| goal == at) {
                        return Ok(Some(at));
                    }
                }
            }
            while self.memory.frames.len() > base {
                let Some(frame) = self.memory.frames.pop() else { break };
                if let Frame::Undo { slot, old } = frame {
                    if let Some(place) = self.memory.slots.get_mut(slot as usize) {
                        *place = old;
                    }
                    continue;
                }
                self.spend(1)?;
                let next = match frame {
                    Frame::Retry { step, at } => Some((step, at)),
                    Frame::Next { step, choice, next, at } => {
                        self.choose(step, choice, next, at).map(|step| (step, at))
                    }
                    Frame::GiveBack { step, least, at } => self.give_back(step, least, at)?,
                    Frame::TakeMore { step, left, at } => self.take_more(step, left, at)?,
                    Frame::Undo { .. } => None,
                };
                if let Some(next) = next {
                    (step, at) = next;
                    continue 'steps;
                }
            }
            return Ok(None);
        }
    }

    /// The first alternative from `next` on that the text allows.
    fn choose(&mut self, step: u32, choice: u32, next: u32, at: usize) -> Option<u32> {
        let program = self.program;
        match &program.choices[choice as usize] {
            Choice::Table { by_byte, lists } => {
                let by_byte = by_byte[self.text.get(at).map_or(256, |byte| usize::from(*byte))];
                let list = &lists[usize::from(by_byte)];
                let found = *list.get(next as usize)?;
                if list.len() > next as usize + 1 {
                    self.memory.frames.push(Frame::Next { step, choice, next: next + 1, at });
                }
                Some(step + found)
            }
            Choice::Few(list) => {
                let mut fitting = (next as usize..list.len()).filter(|which| self.fits(list[*which].0, at));
                let found = list[fitting.next()?].1;
                if let Some(other) = fitting.next() {
                    self.memory.frames.push(Frame::Next { step, choice, next: other as u32, at });
                }
                Some(step + found)
            }
        }
    }

    /// A run from `at`: where it ends.
    fn take(&mut self, step: u32, run: u32, at: usize) -> Result<Option<usize>, Exhausted> {
        let program = self.program;
        let run = program.runs[run as usize];
        let set = &program.sets[run.set as usize];
        let here = self.text.get(at..).unwrap_or_default();
        let most = if run.kind == RunKind::Lazy { run.min } else { run.max };
        let most = here.len().min(most as usize);
        let here = &here[..most];
        let taken = match program.stops[run.set as usize] {
            Some(few) => few.find(here),
            None => here.iter().position(|byte| !set.has(*byte)),
        };
        let taken = taken.unwrap_or(most);
        self.spend(taken / BYTES_FOR_STEP)?;
        if taken < run.min as usize {
            return Ok(None);
        }
        let end = at + taken;
        match run.kind {
            RunKind::Whole => Ok(self.fits(run.then, end).then_some(end)),
            RunKind::Lazy if self.fits(run.then, end) => {
                self.memory.frames.push(Frame::TakeMore { step, left: run.max - run.min, at: end });
                Ok(Some(end))
            }
            RunKind::Lazy => Ok(self.take_more(step, run.max - run.min, end)?.map(|(_, end)| end)),
            RunKind::Greedy => {
                let least = at + run.min as usize;
                if self.fits(run.then, end) {
                    if end > least {
                        self.memory.frames.push(Frame::GiveBack { step, least, at: end });
                    }
                    return Ok(Some(end));
                }
                Ok(self.give_back(step, least, end)?.map(|(_, end)| end))
            }
        }
    }

    /// The next shorter end of a run, with the step behind it.
    fn give_back(&mut self, step: u32, least: usize, at: usize) -> Result<Option<(u32, usize)>, Exhausted> {
        let Step::Run(run) = self.program.steps[step as usize] else { return Ok(None) };
        let then = self.program.runs[run as usize].then;
        let Some(end) = (least..at).rev().find(|end| self.fits(then, *end)) else {
            self.spend((at - least) / BYTES_FOR_STEP)?;
            return Ok(None);
        };
        self.spend((at - end) / BYTES_FOR_STEP)?;
        if end > least {
            self.memory.frames.push(Frame::GiveBack { step, least, at: end });
        }
        Ok(Some((step + 1, end)))
    }

    /// The next longer end of a run, with the step behind it.
    fn take_more(&mut self, step: u32, left: u32, at: usize) -> Result<Option<(u32, usize)>, Exhausted> {
        let Step::Run(run) = self.program.steps[step as usize] else { return Ok(None) };
        let run = self.program.runs[run as usize];
        let (mut left, mut end) = (left, at);
        while left > 0 && self.fits(run.set, end) && end < self.text.len() {
            (left, end) = (left - 1, end + 1);
            if self.fits(run.then, end) {
                self.spend((end - at) / BYTES_FOR_STEP)?;
                self.memory.frames.push(Frame::TakeMore { step, left, at: end });
                return Ok(Some((step + 1, end)));
            }
        }
        self.spend((end - at) / BYTES_FOR_STEP)?;
        Ok(None)
    }

    /// Whether a repetition goes on: the next step.
    fn again(&mut self, which: u32, enter: u32, at: usize) -> Option<u32> {
        let this = self.program.loops[which as usize];
        let (count, last) = (self.slot(this.slot), self.slot(this.slot + 1));
        // One more time without text would only be the same again.
        let is_stuck = last == at;
        if count < this.min as usize && !is_stuck {
            return self.fits(this.first, at).then_some(enter);
        }
        let can_enter = count < this.max as usize && !is_stuck && self.fits(this.first, at);
        let can_leave = self.fits(this.then, at);
        match (can_enter, can_leave) {
            (true, true) => {
                let (now, later) = if this.greedy { (enter, this.exit) } else { (this.exit, enter) };
                self.memory.frames.push(Frame::Retry { step: later, at });
                Some(now)
            }
            (true, false) => Some(enter),
            (false, true) => Some(this.exit),
            (false, false) => None,
        }
    }

    /// Where the text of a group that stands here again ends.
    fn repeated(&self, group: u32, fold: bool, at: usize) -> Option<usize> {
        let (start, end) = (self.slot(2 * group), self.slot(2 * group + 1));
        let wanted = self.text.get(start..end)?;
        let found = self.text.get(at..at.checked_add(wanted.len())?)?;
        let same = if fold { found.eq_ignore_ascii_case(wanted) } else { found == wanted };
        same.then_some(at + wanted.len())
    }

    /// A part that is matched for itself: where to go on, if it is as it must be.
    fn around(&mut self, which: u32, body: u32, at: usize) -> Result<Option<usize>, Exhausted> {
        let around = self.program.arounds[which as usize];
        let base = self.memory.frames.len();
        let mut found = None;
        if matches!(around.kind, AroundKind::Behind | AroundKind::NotBehind) {
            for length in around.min..=around.max.min(at) {
                found = self.run(body, at - length, Some(at))?;
                if found.is_some() {
                    break;
                }
            }
        } else {
            found = self.run(body, at, None)?;
        }
        match (around.kind, found) {
            (AroundKind::NotAhead | AroundKind::NotBehind, Some(_)) => {
                self.unwind(base);
                Ok(None)
            }
            (AroundKind::NotAhead | AroundKind::NotBehind, None) => Ok(Some(at)),
            (_, None) => Ok(None),
            (kind, Some(end)) => {
                self.commit(base);
                Ok(Some(if kind == AroundKind::Atomic { end } else { at }))
            }
        }
    }

    /// Goes back to how it was at `base`.
    fn unwind(&mut self, base: usize) {
        while self.memory.frames.len() > base {
            if let Some(Frame::Undo { slot, old }) = self.memory.frames.pop()
                && let Some(place) = self.memory.slots.get_mut(slot as usize)
            {
                *place = old;
            }
        }
    }

    /// Nothing since `base` is tried another way, but what was noted can still be undone.
    fn commit(&mut self, base: usize) {
        let mut kept = base;
        for at in base..self.memory.frames.len() {
            if let frame @ Frame::Undo { .. } = self.memory.frames[at] {
                self.memory.frames[kept] = frame;
                kept += 1;
            }
        }
        self.memory.frames.truncate(kept);
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn looks(look: Look, text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at)).copied();
    let after = text.get(at).copied();
    let (left, right) = (before.is_some_and(is_word), after.is_some_and(is_word));
    match look {
        Look::Start => before.is_none(),
        Look::End => after.is_none(),
        Look::StartLF => before.is_none_or(|byte| byte == b'\n'),
        Look::EndLF => after.is_none_or(|byte| byte == b'\n'),
        Look::StartCRLF => before.is_none_or(|byte| byte == b'\n' || (byte == b'\r' && after != Some(b'\n'))),
        Look::EndCRLF => after.is_none_or(|byte| byte == b'\r' || (byte == b'\n' && before != Some(b'\r'))),
        Look::WordAscii | Look::WordUnicode => left != right,
        Look::WordAsciiNegate | Look::WordUnicodeNegate => left == right,
        Look::WordStartAscii | Look::WordStartUnicode => !left && right,
        Look::WordEndAscii | Look::WordEndUnicode => left && !right,
        Look::WordStartHalfAscii | Look::WordStartHalfUnicode => !left,
        Look::WordEndHalfAscii | Look::WordEndHalfUnicode => !right,
    }
}
