//! A pattern as a program for [`super::machine`].

use std::collections::HashMap;

use regex_syntax::hir::{Capture, Hir, HirKind, Look, Repetition};

use super::bytes::{ByteSet, Few, Lead, Opaque};
use super::openings::Openings;

/// What the machine does at one place.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Byte(u8),
    Set(u32),
    Look(Look),
    /// Notes the place in a slot.
    Save(u32),
    /// Tries the alternatives in order.
    Choose(u32),
    Jump(u32),
    /// As many bytes of a set as there are, or as few; by position in [`Program::runs`].
    Run(u32),
    /// Begins counting.
    LoopStart(u32),
    /// Decides whether there is another time.
    Loop(u32),
    /// Counts and begins one time: always the step behind [`Step::Loop`].
    LoopEnter(u32),
    /// A part that is matched for itself, by position in [`Program::arounds`].
    Around(u32),
    BackReference {
        group: u32,
        fold: bool,
    },
    /// The pattern, or a part that is matched for itself, is through.
    End,
}

/// A repetition of single bytes.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub set: u32,
    pub min: u32,
    pub max: u32,
    pub kind: RunKind,
    /// What must follow; [`ANY`] where that is not known.
    pub then: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunKind {
    Greedy,
    Lazy,
    /// Nothing of it can be given back with success.
    Whole,
}

/// A repetition of something bigger.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// Holds the count; the next slot where the last time began.
    pub slot: u32,
    pub min: u32,
    pub max: u32,
    pub greedy: bool,
    pub exit: u32,
    /// What one more time begins with, and what follows the end; [`ANY`] where that is not known.
    pub first: u32,
    pub then: u32,
}

/// Look-around and atomic groups.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    pub kind: AroundKind,
    pub after: u32,
    /// Lengths of what look-behind looks at.
    pub min: usize,
    pub max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AroundKind {
    Ahead,
    NotAhead,
    Behind,
    NotBehind,
    Atomic,
}

/// Alternatives: where each begins, and with which bytes. Steps are counted from the choice's own, so that what is written
/// often in a pattern is there once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Choice {
    /// A set, or [`ANY`], and a step for each.
    Few(Vec<(u32, u32)>),
    /// For each byte, and for the end of the text, one of the lists.
    Table { by_byte: Box<[u16; 257]>, lists: Vec<Vec<u32>> },
}

/// Where matches can begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anchor {
    Nowhere,
    Text,
    Line,
}

#[derive(Debug)]
pub struct Program {
    pub steps: Vec<Step>,
    pub sets: Vec<ByteSet>,
    pub choices: Vec<Choice>,
    pub runs: Vec<Run>,
    pub loops: Vec<Loop>,
    pub arounds: Vec<Around>,
    /// Two for each group, two for each loop.
    pub slots: usize,
    pub anchor: Anchor,
    /// What matches begin with that do not begin where the text does; so do `openings`.
    pub lead: Lead,
    pub few_first: Option<Few>,
    pub openings: Option<Openings>,
    /// Where neither `few_first` nor `openings` can be looked for.
    pub skips: Option<Box<[u8; 256]>>,
    /// For each set, the bytes that it lacks, if these are few.
    pub stops: Vec<Option<Few>>,
}

/// No set: any byte, or none.
pub const ANY: u32 = u32::MAX;
/// Steps of one program.
const STEPS_MAX: usize = 1 << 18;
/// Look-behind looks back so far.
const BEHIND_BYTES_MAX: usize = 1000;
/// From so many alternatives on, the next byte chooses among them.
const TABLE_MIN: usize = 4;

/// Where the bytes of [`Lead`] stand more often, it is worth looking at [`Openings`].
const OFTEN: f64 = 0.002;

/// What a group in [`super::translate`]'s marked form stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    Group(u32),
    Around(AroundKind),
    BackReference { group: u32, fold: bool },
}

impl Mark {
    /// Groups without a mark of ours are groups by number.
    pub fn of(capture: &Capture) -> Self {
        let Some(name) = capture.name.as_deref() else { return Self::Group(capture.index) };
        let (kind, rest) = name.split_at_checked(1).unwrap_or(("", ""));
        let number = |text: &str| text.parse().unwrap_or(0);
        match kind {
            "p" => Self::Around(AroundKind::Ahead),
            "n" => Self::Around(AroundKind::NotAhead),
            "l" => Self::Around(AroundKind::Behind),
            "m" => Self::Around(AroundKind::NotBehind),
            "a" => Self::Around(AroundKind::Atomic),
            "b" | "i" => {
                let group = rest.split_once('_').map_or(0, |(_, group)| number(group));
                Self::BackReference { group, fold: kind == "i" }
            }
            _ => Self::Group(number(rest)),
        }
    }
}

/// What a part is to [`Lead`].
fn opaque(hir: &Hir) -> Option<Opaque> {
    let HirKind::Capture(capture) = hir.kind() else { return None };
    match Mark::of(capture) {
        Mark::Group(_) | Mark::Around(AroundKind::Atomic) => None,
        Mark::Around(_) => Some(Opaque::Empty),
        Mark::BackReference { .. } => Some(Opaque::Anything),
    }
}

/// What a part is to matches that do not begin where the text does.
pub fn inside(hir: &Hir) -> Option<Opaque> {
    match hir.kind() {
        HirKind::Look(Look::Start) => Some(Opaque::Never),
        _ => opaque(hir),
    }
}

impl Program {
    /// `hir` with marks; the error says what it holds that no program can do.
    pub fn of(hir: &Hir) -> Result<Self, String> {
        let mut compiler = Compiler::default();
        // The first group is asked for by who reads parts of a match.
        compiler.kept.push(1);
        compiler.references(hir);
        let groups = compiler.kept.iter().copied().max().unwrap_or(0) as usize;
        compiler.program.slots = 2 * (groups + 1);
        compiler.part(hir, None)?;
        compiler.push(Step::End)?;
        let mut program = compiler.program;
        program.anchor = anchor(hir);
        program.lead = Lead::of([hir], inside);
        program.few_first = program.lead.sets.first().and_then(ByteSet::few);
        if program.anchor == Anchor::Nowhere && program.lead.frequency() > OFTEN {
            program.openings = Openings::of(hir, inside);
        }
        if program.few_first.is_none() && program.openings.is_none() {
            program.skips = program.lead.skips();
        }
        program.stops = program.sets.iter().map(|set| set.complement().few()).collect();
        program.steps.shrink_to_fit();
        program.choices.shrink_to_fit();
        program.sets.shrink_to_fit();
        program.runs.shrink_to_fit();
        Ok(program)
    }
}

impl Default for Program {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            sets: Vec::new(),
            choices: Vec::new(),
            runs: Vec::new(),
            loops: Vec::new(),
            arounds: Vec::new(),
            slots: 0,
            anchor: Anchor::Nowhere,
            lead: Lead { sets: Vec::new() },
            few_first: None,
            openings: None,
            skips: None,
            stops: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Compiler {
    program: Program,
    sets: HashMap<ByteSet, u32>,
    choices: HashMap<Choice, u32>,
    /// Groups whose places are noted.
    kept: Vec<u32>,
}

/// What can follow a part: the next byte is one of the set. `None`: anything, or the end.
type Follow = Option<ByteSet>;

impl Compiler {
    fn references(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
            HirKind::Repetition(repetition) => self.references(&repetition.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().for_each(|part| self.references(part));
            }
            HirKind::Capture(capture) => {
                if let Mark::BackReference { group, .. } = Mark::of(capture) {
                    self.kept.push(group);
                }
                self.references(&capture.sub);
            }
        }
    }

    fn here(&self) -> u32 {
        self.program.steps.len() as u32
    }

    fn push(&mut self, step: Step) -> Result<u32, String> {
        if self.program.steps.len() >= STEPS_MAX {
            return Err(format!("the pattern needs more than {STEPS_MAX} steps"));
        }
        self.program.steps.push(step);
        Ok(self.here() - 1)
    }

    fn set(&mut self, set: ByteSet) -> u32 {
        let sets = &mut self.program.sets;
        *self.sets.entry(set).or_insert_with(|| {
            sets.push(set);
            sets.len() as u32 - 1
        })
    }

    fn choice(&mut self, choice: Choice) -> u32 {
        let choices = &mut self.program.choices;
        *self.choices.entry(choice).or_insert_with_key(|choice| {
            choices.push(choice.clone());
            choices.len() as u32 - 1
        })
    }

    fn follow(&mut self, follow: Follow) -> u32 {
        follow.map_or(ANY, |set| self.set(set))
    }

    fn part(&mut self, hir: &Hir, follow: Follow) -> Result<(), String> {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => {
                for byte in &literal.0 {
                    self.push(Step::Byte(*byte))?;
                }
            }
            HirKind::Class(class) => {
                let set = ByteSet::of_class(class).ok_or("a class holds more than bytes")?;
                let set = self.set(set);
                self.push(Step::Set(set))?;
            }
            HirKind::Look(look) => {
                self.push(Step::Look(*look))?;
            }
            HirKind::Capture(capture) => self.capture(capture, follow)?,
            HirKind::Repetition(repetition) => self.repetition(repetition, follow)?,
            HirKind::Concat(parts) => {
                let mut follows = Vec::with_capacity(parts.len());
                let mut next = follow;
                for part in parts.iter().rev() {
                    follows.push(next);
                    next = first(part, next);
                }
                for (part, follow) in parts.iter().zip(follows.into_iter().rev()) {
                    self.part(part, follow)?;
                }
            }
            HirKind::Alternation(parts) => {
                let parts: Vec<Option<&Hir>> = parts.iter().map(Some).collect();
                self.choose(&parts, follow)?;
            }
        }
        Ok(())
    }

    /// `None` is an alternative that takes nothing.
    fn choose(&mut self, parts: &[Option<&Hir>], follow: Follow) -> Result<(), String> {
        let step = self.push(Step::Choose(0))?;
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for part in parts {
            begins.push((part.map_or(follow, |part| first(part, follow)), self.here() - step));
            if let Some(part) = part {
                self.part(part, follow)?;
            }
            ends.push(self.push(Step::Jump(0))?);
        }
        let after = self.here();
        for end in ends {
            self.program.steps[end as usize] = Step::Jump(after);
        }
        let choice = if begins.len() < TABLE_MIN {
            Choice::Few(begins.into_iter().map(|(first, step)| (self.follow(first), step)).collect())
        } else {
            table(&begins)
        };
        self.program.steps[step as usize] = Step::Choose(self.choice(choice));
        Ok(())
    }

    fn capture(&mut self, capture: &Capture, follow: Follow) -> Result<(), String> {
        match Mark::of(capture) {
            Mark::Group(group) if self.kept.contains(&group) => {
                self.push(Step::Save(2 * group))?;
                self.part(&capture.sub, follow)?;
                self.push(Step::Save(2 * group + 1))?;
            }
            Mark::Group(_) => self.part(&capture.sub, follow)?,
            Mark::BackReference { group, fold } => {
                self.push(Step::BackReference { group, fold })?;
            }
            Mark::Around(kind) => {
                let (mut min, mut max) = (0, 0);
                if matches!(kind, AroundKind::Behind | AroundKind::NotBehind) {
                    (min, max) = lengths(&capture.sub)
                        .filter(|(_, max)| *max <= BEHIND_BYTES_MAX)
                        .ok_or_else(|| format!("look-behind looks back at most {BEHIND_BYTES_MAX} bytes"))?;
                }
                let around = self.program.arounds.len();
                self.program.arounds.push(Around { kind, after: 0, min, max });
                self.push(Step::Around(around as u32))?;
                self.part(&capture.sub, None)?;
                self.push(Step::End)?;
                self.program.arounds[around].after = self.here();
            }
        }
        Ok(())
    }

    fn repetition(&mut self, repetition: &Repetition, follow: Follow) -> Result<(), String> {
        let Repetition { min, max, greedy, ref sub } = *repetition;
        let max = max.unwrap_or(u32::MAX);
        if max == 0 {
            return Ok(());
        }
        if let Some(set) = self.single(sub) {
            let kind = match (greedy, follow) {
                (true, Some(follow)) if !follow.meets(set) => RunKind::Whole,
                (true, _) => RunKind::Greedy,
                (false, _) => RunKind::Lazy,
            };
            let (set, then) = (self.set(set), self.follow(follow));
            self.program.runs.push(Run { set, min, max, kind, then });
            let run = self.program.runs.len() as u32 - 1;
            self.push(Step::Run(run))?;
            return Ok(());
        }
        match (min, max) {
            (1, 1) => return self.part(sub, follow),
            (0, 1) if greedy => return self.choose(&[Some(sub), None], follow),
            (0, 1) => return self.choose(&[None, Some(sub)], follow),
            _ => {}
        }
        let slot = self.program.slots as u32;
        self.program.slots += 2;
        let again = first(sub, follow);
        let (first, then) = (self.follow(again), self.follow(follow));
        let at = self.program.loops.len();
        self.program.loops.push(Loop { slot, min, max, greedy, exit: 0, first, then });
        self.push(Step::LoopStart(at as u32))?;
        let decide = self.push(Step::Loop(at as u32))?;
        self.push(Step::LoopEnter(at as u32))?;
        // One time is followed by the next, or by what comes after all.
        let follow = again.zip(follow).map(|(again, follow)| again.union(follow));
        self.part(sub, follow)?;
        self.push(Step::Jump(decide))?;
        self.program.loops[at].exit = self.here();
        Ok(())
    }

    /// The set, if the part is one byte of a set.
    fn single(&self, hir: &Hir) -> Option<ByteSet> {
        match hir.kind() {
            HirKind::Literal(literal) => match *literal.0 {
                [byte] => Some(ByteSet::of(byte)),
                _ => None,
            },
            HirKind::Class(class) => ByteSet::of_class(class),
            HirKind::Capture(capture) => match Mark::of(capture) {
                Mark::Group(group) if !self.kept.contains(&group) => self.single(&capture.sub),
                _ => None,
            },
            _ => None,
        }
    }
}

fn table(begins: &[(Follow, u32)]) -> Choice {
    let mut lists: Vec<Vec<u32>> = Vec::new();
    let mut by_byte = Box::new([0_u16; 257]);
    for (at, out) in by_byte.iter_mut().enumerate() {
        let fits = |first: &Follow| match (first, u8::try_from(at)) {
            (None, _) => true,
            (Some(set), Ok(byte)) => set.has(byte),
            (Some(_), Err(_)) => false,
        };
        let list: Vec<u32> = begins.iter().filter(|(first, _)| fits(first)).map(|(_, step)| *step).collect();
        let known = lists.iter().position(|known| *known == list);
        // There are at most 257 lists.
        *out = known.unwrap_or(lists.len()) as u16;
        if known.is_none() {
            lists.push(list);
        }
    }
    Choice::Table { by_byte, lists }
}

/// The bytes that a match of the part, followed by `follow`, can begin with.
fn first(hir: &Hir, follow: Follow) -> Follow {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => follow,
        HirKind::Literal(literal) => literal.0.first().map_or(follow, |byte| Some(ByteSet::of(*byte))),
        HirKind::Class(class) => ByteSet::of_class(class),
        HirKind::Capture(capture) => match Mark::of(capture) {
            Mark::Group(_) | Mark::Around(AroundKind::Atomic) => first(&capture.sub, follow),
            Mark::Around(_) => follow,
            Mark::BackReference { .. } => None,
        },
        HirKind::Repetition(repetition) => {
            let inner = first(&repetition.sub, follow);
            if repetition.min == 0 { inner.zip(follow).map(|(inner, follow)| inner.union(follow)) } else { inner }
        }
        HirKind::Concat(parts) => parts.iter().rev().fold(follow, |follow, part| first(part, follow)),
        HirKind::Alternation(parts) => {
            parts.iter().try_fold(ByteSet::default(), |set, part| first(part, follow).map(|more| set.union(more)))
        }
    }
}

/// Least and most bytes of what a part matches; `None` where there is no end, or it is not known.
fn lengths(hir: &Hir) -> Option<(usize, usize)> {
    Some(match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => (0, 0),
        HirKind::Literal(literal) => (literal.0.len(), literal.0.len()),
        HirKind::Class(_) => (1, 1),
        HirKind::Capture(capture) => match Mark::of(capture) {
            Mark::Group(_) | Mark::Around(AroundKind::Atomic) => lengths(&capture.sub)?,
            Mark::Around(_) => (0, 0),
            Mark::BackReference { .. } => return None,
        },
        HirKind::Repetition(repetition) => {
            let (min, max) = lengths(&repetition.sub)?;
            let times = repetition.max.filter(|_| max > 0).unwrap_or(u32::from(max > 0) * u32::MAX);
            (min.checked_mul(repetition.min as usize)?, max.checked_mul(times as usize)?)
        }
        HirKind::Concat(parts) => parts.iter().try_fold((0_usize, 0_usize), |(low, high), part| {
            let (min, max) = lengths(part)?;
            Some((low.checked_add(min)?, high.checked_add(max)?))
        })?,
        HirKind::Alternation(parts) => parts.iter().try_fold((usize::MAX, 0), |(low, high), part| {
            let (min, max) = lengths(part)?;
            Some((low.min(min), high.max(max)))
        })?,
    })
}

/// Where matches of the part can begin.
fn anchor(hir: &Hir) -> Anchor {
    match hir.kind() {
        HirKind::Look(Look::Start) => Anchor::Text,
        HirKind::Look(Look::StartLF) => Anchor::Line,
        HirKind::Capture(capture) if opaque(hir).is_none() => anchor(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => anchor(&repetition.sub),
        HirKind::Concat(parts) => {
            for part in parts {
                let transparent =
                    matches!(part.kind(), HirKind::Empty | HirKind::Look(_)) || opaque(part) == Some(Opaque::Empty);
                let found = anchor(part);
                if found != Anchor::Nowhere || !transparent {
                    return found;
                }
            }
            Anchor::Nowhere
        }
        HirKind::Alternation(parts) => {
            let mut all = parts.iter().map(anchor);
            let first = all.next().unwrap_or(Anchor::Nowhere);
            if all.all(|other| other == first) { first } else { Anchor::Nowhere }
        }
        _ => Anchor::Nowhere,
    }
}
