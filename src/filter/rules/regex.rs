//! Perl patterns as SpamAssassin's rules write them, compiled to engines that bound their time.
//!
//! A pattern is bytes, matched against bytes: `\w`, `\b` and case folding know ASCII only, as SpamAssassin's own
//! matching of undecoded text does. What linear-time matching cannot do (look-around, back-references, atomic groups)
//! goes to a backtracking engine with a step limit, behind a linear-time gate that accepts at least as much.

use std::ops::Range;

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

/// A pattern as the rule file has it: characters are bytes (U+0000 to U+00FF), without delimiters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternText {
    pub pattern: String,
    /// Perl's flags after the closing delimiter.
    pub flags: String,
}

impl PatternText {
    /// A pattern without flags.
    pub fn plain(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), flags: String::new() }
    }
}

/// A pattern that is right; its engines are made when it is first needed, for most never are.
#[derive(Debug)]
pub struct Pattern {
    perl: Translated,
    /// For linear patterns: matches wherever the pattern does, and perhaps elsewhere; there where it is much cheaper.
    cheaper: Option<String>,
    /// Knows no ends of the text, only of lines: what matches a piece of a text matches the whole.
    is_local: bool,
    engines: std::sync::OnceLock<Option<Engines>>,
}

#[derive(Debug)]
enum Engines {
    Linear {
        gate: Option<regex::bytes::Regex>,
        whole: regex::bytes::Regex,
    },
    Backtracking {
        /// Matches wherever the whole pattern does, and perhaps elsewhere.
        /// None where its program would be too big.
        gate: Option<regex::bytes::Regex>,
        whole: Box<fancy_regex::Regex>,
    },
}

/// Compiled program of one pattern; SpamAssassin's own longest macros need 9 MiB.
const PROGRAM_BYTES_MAX: usize = 12 << 20;
/// Lazily built automaton states of one pattern; most need a few KiB.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;
const GATE_BYTES_MAX: usize = 1 << 20;
/// Counting so far costs an automaton many states.
const COUNTED_MAX: u32 = 8;
/// Steps of the backtracking engine on one piece of text: about a millisecond.
const BACKTRACK_STEPS_MAX: usize = 50_000;
/// Bytes of one pattern after its macros are expanded.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const NESTING_MAX: u32 = 200;

impl Pattern {
    /// The pattern, and the linear-time pattern that matches at least as much, for [`super::prefilter`].
    pub fn compile(text: &PatternText) -> Result<(Self, Hir), String> {
        let perl = Translated::of(text)?;
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(false)
            .nest_limit(NESTING_MAX)
            .case_insensitive(perl.case_insensitive)
            .multi_line(perl.multi_line)
            .dot_matches_new_line(perl.dot_matches_all)
            .build()
            .parse(&perl.relaxed)
            .map_err(|error| one_line(&error.to_string()))?;
        let looks = hir.properties().look_set();
        let is_local = !(looks.contains(Look::Start) || looks.contains(Look::End));
        let cheaper = if perl.exact.is_none() { uncounted(&hir).map(|hir| hir.to_string()) } else { None };
        Ok((Self { perl, cheaper, is_local, engines: std::sync::OnceLock::new() }, hir))
    }

    /// Makes the engines now; the error says why they cannot be made. Without this, such a pattern never matches.
    pub fn verify(&self) -> Result<(), String> {
        self.made().map(drop)
    }

    fn made(&self) -> Result<Engines, String> {
        let perl = &self.perl;
        let linear = || {
            regex::bytes::RegexBuilder::new(&perl.relaxed)
                .unicode(false)
                .nest_limit(NESTING_MAX)
                .case_insensitive(perl.case_insensitive)
                .multi_line(perl.multi_line)
                .dot_matches_new_line(perl.dot_matches_all)
                .size_limit(PROGRAM_BYTES_MAX)
                .dfa_size_limit(AUTOMATON_BYTES_MAX)
                .build()
                .map_err(|error| one_line(&error.to_string()))
        };
        let Some(exact) = &perl.exact else {
            let gate = self.cheaper.as_ref().and_then(|cheaper| {
                let builder = &mut regex::bytes::RegexBuilder::new(cheaper);
                builder.dfa_size_limit(AUTOMATON_BYTES_MAX).size_limit(GATE_BYTES_MAX).build().ok()
            });
            return Ok(Engines::Linear { gate, whole: linear()? });
        };
        let whole = fancy_regex::RegexBuilder::new(exact)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .unicode_mode(false)
            .case_insensitive(perl.case_insensitive)
            .multi_line(perl.multi_line)
            .dot_matches_new_line(perl.dot_matches_all)
            .backtrack_limit(BACKTRACK_STEPS_MAX)
            .delegate_size_limit(PROGRAM_BYTES_MAX)
            .delegate_dfa_size_limit(AUTOMATON_BYTES_MAX)
            .build()
            .map_err(|error| one_line(&error.to_string()))?;
        Ok(Engines::Backtracking { gate: linear().ok(), whole: Box::new(whole) })
    }

    fn engines(&self) -> Option<&Engines> {
        self.engines.get_or_init(|| self.made().ok()).as_ref()
    }

    /// Where the first match at or after `from` lies. A match that needs more steps than the limit counts as none.
    pub fn find(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        if from > text.len() {
            return None;
        }
        match self.engines()? {
            Engines::Linear { whole, .. } => whole.find_at(text, from).map(|found| found.range()),
            Engines::Backtracking { gate, whole } => {
                if let Some(gate) = gate {
                    gate.find_at(text, from)?;
                }
                let input = fancy_regex::RegexInput::new(text).from_pos(from);
                whole.find_input(input).ok().flatten().map(|found| found.range())
            }
        }
    }

    /// Where the first group of the first match lies.
    pub fn first_group(&self, text: &[u8]) -> Option<Range<usize>> {
        match self.engines()? {
            Engines::Linear { whole, .. } => whole.captures(text)?.get(1).map(|found| found.range()),
            Engines::Backtracking { gate, whole } => {
                if gate.as_ref().is_some_and(|gate| !gate.is_match(text)) {
                    return None;
                }
                let input = fancy_regex::RegexInput::new(text);
                whole.captures_input(input).ok().flatten()?.get(1).map(|found| found.range())
            }
        }
    }

    pub fn is_match(&self, text: &[u8]) -> bool {
        match self.engines() {
            Some(Engines::Linear { gate, whole }) => {
                gate.as_ref().is_none_or(|gate| gate.is_match(text)) && whole.is_match(text)
            }
            Some(Engines::Backtracking { gate, whole }) => {
                gate.as_ref().is_none_or(|gate| gate.is_match(text)) && whole.is_match(text).unwrap_or(false)
            }
            None => false,
        }
    }

    /// False only if no line of `text`, and no other piece of it that begins and ends at line ends, can match.
    /// Takes linear time.
    pub fn may_match_within(&self, text: &[u8]) -> bool {
        if !self.is_local {
            return true;
        }
        match self.engines() {
            Some(Engines::Linear { gate, whole }) => {
                gate.as_ref().is_none_or(|gate| gate.is_match(text)) && whole.is_match(text)
            }
            Some(Engines::Backtracking { gate, .. }) => gate.as_ref().is_none_or(|gate| gate.is_match(text)),
            None => false,
        }
    }
}

/// The pattern with long bounded repetitions unbounded: what matches it matches this too, and a small automaton is
/// enough, where counting makes one state for each count and each place to begin. `None` where nothing is counted.
fn uncounted(hir: &Hir) -> Option<Hir> {
    let all = |parts: &[Hir]| {
        let mut changed = false;
        let parts = parts.iter().map(|part| {
            let new = uncounted(part);
            changed |= new.is_some();
            new.unwrap_or_else(|| part.clone())
        });
        let parts: Vec<Hir> = parts.collect();
        changed.then_some(parts)
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
        HirKind::Capture(capture) => uncounted(&capture.sub),
        HirKind::Concat(parts) => all(parts).map(Hir::concat),
        HirKind::Alternation(parts) => all(parts).map(Hir::alternation),
        HirKind::Repetition(counted) => {
            let inner = uncounted(&counted.sub);
            let is_long = counted.max.unwrap_or(counted.min) >= COUNTED_MAX;
            if !is_long && inner.is_none() {
                return None;
            }
            Some(Hir::repetition(Repetition {
                min: if is_long { counted.min.min(1) } else { counted.min },
                max: counted.max.filter(|_| !is_long),
                greedy: counted.greedy,
                sub: inner.map_or_else(|| counted.sub.clone(), Box::new),
            }))
        }
    }
}

/// The last line of the engines' drawings is what a person needs.
fn one_line(error: &str) -> String {
    let last = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("cannot be compiled");
    last.trim().trim_start_matches("error: ").to_owned()
}

/// A Perl pattern in the engines' syntax.
#[derive(Debug)]
struct Translated {
    /// Without look-around, back-references and atomic groups: matches at least as much.
    relaxed: String,
    /// With them, where there are any.
    exact: Option<String>,
    case_insensitive: bool,
    multi_line: bool,
    dot_matches_all: bool,
}

/// Flags that change inside groups and matter for translation.
#[derive(Clone, Copy)]
struct Flags {
    multi_line: bool,
    extended: bool,
}

struct Translator<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    relaxed: String,
    exact: String,
    fancy: bool,
    flags: Flags,
    /// For each open group: the flags to go back to, and how it ends.
    groups: Vec<(Flags, GroupKind)>,
    /// Above zero inside look-around, which the relaxed form leaves out.
    hidden: u32,
    captures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GroupKind {
    Plain,
    Hidden,
}

impl Translated {
    fn of(text: &PatternText) -> Result<Self, String> {
        if text.pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(flag) = text.flags.chars().find(|flag| !"imsxgoaudln".contains(*flag)) {
            return Err(format!("unknown flag `{flag}` after the pattern"));
        }
        let flags = Flags { multi_line: text.flags.contains('m'), extended: text.flags.contains('x') };
        let mut translator = Translator {
            rest: text.pattern.chars().peekable(),
            relaxed: String::with_capacity(text.pattern.len() + 16),
            exact: String::with_capacity(text.pattern.len() + 16),
            fancy: false,
            flags,
            groups: Vec::new(),
            hidden: 0,
            captures: 0,
        };
        while let Some(character) = translator.rest.next() {
            translator.step(character)?;
        }
        if !translator.groups.is_empty() {
            return Err("a group is not closed".to_owned());
        }
        Ok(Self {
            relaxed: translator.relaxed,
            exact: translator.fancy.then_some(translator.exact),
            case_insensitive: text.flags.contains('i'),
            multi_line: text.flags.contains('m'),
            dot_matches_all: text.flags.contains('s'),
        })
    }
}

impl Translator<'_> {
    fn emit(&mut self, text: &str) {
        self.exact.push_str(text);
        if self.hidden == 0 {
            self.relaxed.push_str(text);
        }
    }

    /// For what only one of the two forms can say.
    fn emit_both(&mut self, exact: &str, relaxed: &str) {
        self.fancy = true;
        self.exact.push_str(exact);
        if self.hidden == 0 {
            self.relaxed.push_str(relaxed);
        }
    }

    fn emit_byte(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() {
            self.emit(char::from(byte).encode_utf8(&mut [0; 4]));
        } else {
            self.emit(&format!("\\x{byte:02X}"));
        }
    }

    fn emit_char(&mut self, character: char) {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => self.emit_byte(byte),
            // Text is matched undecoded: a code point above 0xFF can only stand for its UTF-8 form.
            Err(_) => {
                self.emit("(?:");
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    self.emit_byte(byte);
                }
                self.emit(")");
            }
        }
    }

    fn step(&mut self, character: char) -> Result<(), String> {
        match character {
            '\\' => self.escape(),
            '[' => self.class(),
            '(' => self.open(),
            ')' => self.close(),
            '$' => {
                // Perl's `$` without /m also stands before a final line end.
                let end = if self.flags.multi_line { "$" } else { "(?:\\n?\\z)" };
                self.emit(end);
                Ok(())
            }
            '{' => self.counted(),
            '*' | '+' | '?' => {
                self.emit(character.encode_utf8(&mut [0; 4]));
                self.after_quantifier()
            }
            '^' | '|' | '.' => {
                self.emit(character.encode_utf8(&mut [0; 4]));
                Ok(())
            }
            ' ' | '\t' | '\n' | '\r' if self.flags.extended => Ok(()),
            '#' if self.flags.extended => {
                self.rest.by_ref().find(|c| *c == '\n');
                Ok(())
            }
            _ => {
                self.emit_char(character);
                Ok(())
            }
        }
    }

    /// A lazy mark stays; a possessive one is for the backtracking engine alone.
    fn after_quantifier(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_some() {
            self.emit("?");
        } else if self.rest.next_if_eq(&'+').is_some() {
            self.emit_both("+", "");
        }
        match self.rest.peek() {
            Some('*' | '+' | '?') => Err("a quantifier follows a quantifier".to_owned()),
            _ => Ok(()),
        }
    }

    /// `{`: a repetition where it reads like one, else itself.
    fn counted(&mut self) -> Result<(), String> {
        let inside: String = self.rest.clone().take(16).take_while(|c| *c != '}').collect();
        let (low, high) = inside.split_once(',').map_or((inside.as_str(), None), |(low, high)| (low, Some(high)));
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let is_repetition = closed
            && number(low)
            && high.is_none_or(number)
            && (!low.is_empty() || high.is_some_and(|high| !high.is_empty()));
        if !is_repetition {
            self.emit_byte(b'{');
            return Ok(());
        }
        for _ in 0..=inside.chars().count() {
            self.rest.next();
        }
        let low = if low.is_empty() { "0" } else { low };
        self.emit(&high.map_or_else(|| format!("{{{low}}}"), |high| format!("{{{low},{high}}}")));
        self.after_quantifier()
    }

    fn escape(&mut self) -> Result<(), String> {
        let character = self.rest.next().ok_or("the pattern ends after a backslash")?;
        match character {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'b' | 'B' | 'A' | 'z' => self.emit(&format!("\\{character}")),
            'n' | 'r' | 't' | 'f' | 'a' => self.emit(&format!("\\{character}")),
            'e' => self.emit_byte(0x1B),
            'Z' => self.emit("(?:\\n?\\z)"),
            'h' => self.emit("[\\t\\x20\\xA0]"),
            'H' => self.emit("[^\\t\\x20\\xA0]"),
            'v' => self.emit("[\\n-\\r\\x85]"),
            'V' => self.emit("[^\\n-\\r\\x85]"),
            'R' => self.emit("(?:\\r\\n|[\\n-\\r\\x85])"),
            'N' => self.emit("[^\\n]"),
            'x' => {
                let code = self.hexadecimal()?;
                self.emit_char(code);
            }
            '0' => {
                let code = self.octal(0);
                self.emit_byte(code);
            }
            '1'..='9' => {
                let more: String = self.rest.clone().take_while(char::is_ascii_digit).collect();
                let digits = format!("{character}{more}");
                // As in Perl, a number beyond the groups so far is an octal code where it can be one.
                if digits.len() > 1 && digits.parse().map_or(true, |n: u32| n > self.captures) && character < '8' {
                    let code = self.octal(u8::try_from(character.to_digit(8).unwrap_or(0)).unwrap_or(0));
                    self.emit_byte(code);
                } else {
                    self.digits().for_each(drop);
                    self.back_reference(&digits)?;
                }
            }
            'g' => {
                let braced = self.rest.next_if_eq(&'{').is_some();
                let mut text: String = if braced {
                    self.rest.by_ref().take_while(|c| *c != '}').collect()
                } else {
                    let sign: String = self.rest.next_if_eq(&'-').into_iter().collect();
                    sign + &self.digits().collect::<String>()
                };
                if let Some(back) = text.strip_prefix('-').and_then(|n| n.parse::<u32>().ok()) {
                    text = (self.captures + 1).saturating_sub(back).to_string();
                }
                self.back_reference(&text)?;
            }
            'k' => {
                let close = match self.rest.next() {
                    Some('<') => '>',
                    Some('{') => '}',
                    Some('\'') => '\'',
                    _ => return Err("a name is missing after \\k".to_owned()),
                };
                let name: String = self.rest.by_ref().take_while(|c| *c != close).collect();
                self.back_reference(&name)?;
            }
            'c' => {
                let control = self.rest.next().ok_or("the pattern ends after \\c")?;
                let byte = u8::try_from(u32::from(control.to_ascii_uppercase())).map_err(|_| "unknown \\c")?;
                self.emit_byte(byte ^ 0x40);
            }
            'Q' => {
                while let Some(next) = self.rest.next() {
                    if next == '\\' && self.rest.next_if_eq(&'E').is_some() {
                        break;
                    }
                    self.emit_char(next);
                }
            }
            'E' => {}
            'G' | 'K' | 'p' | 'P' | 'X' | 'C' => return Err(format!("\\{character} is not supported")),
            other if other.is_ascii_alphanumeric() => return Err(format!("unknown escape \\{other}")),
            other => self.emit_char(other),
        }
        Ok(())
    }

    fn back_reference(&mut self, group: &str) -> Result<(), String> {
        let exists = match group.parse::<u32>() {
            Ok(number) => number >= 1 && number <= self.captures,
            Err(_) => group.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'),
        };
        if !exists {
            return Err(format!("group `{group}` of a back-reference does not exist before it"));
        }
        let exact = if group.starts_with(|c: char| c.is_ascii_digit()) {
            format!("(?:\\{group})")
        } else {
            format!("\\k<{group}>")
        };
        self.emit_both(&exact, "(?s:.*)");
        Ok(())
    }

    fn digits(&mut self) -> impl Iterator<Item = char> {
        std::iter::from_fn(|| self.rest.next_if(char::is_ascii_digit))
    }

    fn octal(&mut self, start: u8) -> u8 {
        let mut code = start;
        for _ in 0..2 {
            let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c)) else { break };
            let digit = u8::try_from(digit.to_digit(8).unwrap_or(0)).unwrap_or(0);
            code = code.wrapping_mul(8).wrapping_add(digit);
        }
        code
    }

    /// After `\x`: `{…}` or up to two digits.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits: String = if self.rest.next_if_eq(&'{').is_some() {
            self.rest.by_ref().take_while(|c| *c != '}').collect()
        } else {
            let mut out = String::new();
            while out.len() < 2 {
                let Some(digit) = self.rest.next_if(char::is_ascii_hexdigit) else { break };
                out.push(digit);
            }
            out
        };
        let code = if digits.is_empty() { Ok(0) } else { u32::from_str_radix(digits.trim(), 16) };
        code.ok().and_then(char::from_u32).ok_or_else(|| format!("\\x{{{digits}}} is no character"))
    }

    fn open(&mut self) -> Result<(), String> {
        if self.groups.len() >= NESTING_MAX as usize {
            return Err("groups are nested too deeply".to_owned());
        }
        let before = self.flags;
        if self.rest.next_if_eq(&'?').is_none() {
            if self.rest.peek() == Some(&'*') {
                return Err("verbs such as (*SKIP) are not supported".to_owned());
            }
            self.captures += 1;
            self.emit("(");
            self.groups.push((before, GroupKind::Plain));
            return Ok(());
        }
        let kind = self.rest.next().ok_or("the pattern ends inside a group")?;
        match kind {
            '#' => {
                self.rest.by_ref().find(|c| *c == ')').ok_or("a comment is not closed")?;
            }
            ':' => self.push_group("(?:", before, GroupKind::Plain),
            '=' => self.push_hidden("(?=", before),
            '!' => self.push_hidden("(?!", before),
            '>' => {
                self.emit_both("(?>", "(?:");
                self.groups.push((before, GroupKind::Plain));
            }
            '<' if self.rest.next_if_eq(&'=').is_some() => self.push_hidden("(?<=", before),
            '<' if self.rest.next_if_eq(&'!').is_some() => self.push_hidden("(?<!", before),
            'P' if self.rest.next_if_eq(&'=').is_some() => {
                let name: String = self.rest.by_ref().take_while(|c| *c != ')').collect();
                self.back_reference(&name)?;
            }
            '<' | '\'' | 'P' => {
                if kind == 'P' && self.rest.next_if_eq(&'<').is_none() {
                    return Err("(?P needs <name>".to_owned());
                }
                let close = if kind == '\'' { '\'' } else { '>' };
                let name: String = self.rest.by_ref().take_while(|c| *c != close).collect();
                self.captures += 1;
                self.push_group(&format!("(?P<{name}>"), before, GroupKind::Plain);
            }
            '^' | '-' | 'a'..='z' => self.inline_flags(kind, before)?,
            other => return Err(format!("(?{other} is not supported")),
        }
        Ok(())
    }

    fn push_group(&mut self, opening: &str, before: Flags, kind: GroupKind) {
        self.emit(opening);
        self.groups.push((before, kind));
    }

    fn push_hidden(&mut self, opening: &str, before: Flags) {
        self.fancy = true;
        self.exact.push_str(opening);
        if self.hidden == 0 {
            self.relaxed.push_str("(?:");
        }
        self.hidden += 1;
        self.groups.push((before, GroupKind::Hidden));
    }

    /// `(?i)`, `(?s-i:`, `(?^i:`.
    fn inline_flags(&mut self, first: char, before: Flags) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut negative = false;
        let mut next = Some(first);
        let end = loop {
            match next.ok_or("the pattern ends inside a group")? {
                '^' => off.push_str("ims"),
                '-' => negative = true,
                end @ (':' | ')') => break end,
                flag @ ('i' | 'm' | 's' | 'x') => {
                    let list = if negative { &mut off } else { &mut on };
                    if !list.contains(flag) {
                        list.push(flag);
                    }
                }
                'a' | 'd' | 'l' | 'u' | 'n' | 'p' => {}
                other => return Err(format!("unknown flag `{other}` in a group")),
            }
            next = self.rest.next();
        };
        off.retain(|flag| !on.contains(flag));
        for (list, value) in [(&off, false), (&on, true)] {
            if list.contains('m') {
                self.flags.multi_line = value;
            }
            if list.contains('x') {
                self.flags.extended = value;
            }
        }
        on.retain(|flag| flag != 'x');
        off.retain(|flag| flag != 'x');
        let minus = if off.is_empty() { "" } else { "-" };
        if end == ':' {
            self.push_group(&format!("(?{on}{minus}{off}:"), before, GroupKind::Plain);
        } else if !(on.is_empty() && off.is_empty()) {
            self.emit(&format!("(?{on}{minus}{off})"));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let (flags, kind) = self.groups.pop().ok_or("a bracket `)` closes nothing")?;
        self.flags = flags;
        if kind == GroupKind::Hidden {
            self.hidden -= 1;
        }
        self.emit(")");
        Ok(())
    }

    /// `[…]`, with every byte written so that no engine reads an operator into it.
    fn class(&mut self) -> Result<(), String> {
        let mut out = String::from("[");
        if self.rest.next_if_eq(&'^').is_some() {
            out.push('^');
        }
        let mut first = true;
        // `[a-z-9]`: the hyphen after a range is itself.
        let mut range = 0_u8;
        loop {
            let character = self.rest.next().ok_or("a class `[` is not closed")?;
            range = range.saturating_sub(1);
            match character {
                ']' if !first => break,
                '[' if self.rest.peek() == Some(&':') => {
                    let name: String = self.rest.by_ref().take_while(|c| *c != ']').collect();
                    out.push_str(&format!("[{name}]"));
                }
                '-' if !first && !out.ends_with('-') && self.rest.peek().is_some_and(|c| *c != ']') => {
                    // After a class such as \w a hyphen is itself.
                    let after_set = out.len() >= 2
                        && out.as_bytes()[out.len() - 2] == b'\\'
                        && out.ends_with(['d', 'w', 's', 'D', 'W', 'S']);
                    let next: Vec<char> = self.rest.clone().take(2).collect();
                    let before_set = matches!(next.as_slice(), ['\\', 'd' | 'w' | 's' | 'D' | 'W' | 'S' | 'h']);
                    let plain = range > 0 || after_set || before_set || out.ends_with(']') || out.ends_with('[');
                    out.push_str(if plain { "\\x2D" } else { "-" });
                    range = if plain { 0 } else { 3 };
                }
                '\\' => self.class_escape(&mut out)?,
                other => push_class_char(&mut out, other)?,
            }
            first = false;
        }
        out.push(']');
        self.emit(&out);
        Ok(())
    }

    fn class_escape(&mut self, out: &mut String) -> Result<(), String> {
        let character = self.rest.next().ok_or("the pattern ends after a backslash")?;
        match character {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'a' => out.extend(['\\', character]),
            'b' => push_class_char(out, '\x08')?,
            'e' => push_class_char(out, '\x1B')?,
            'h' => out.push_str("\\t\\x20\\xA0"),
            'v' => out.push_str("\\n\\x0B\\f\\r\\x85"),
            'x' => {
                let code = self.hexadecimal()?;
                push_class_char(out, code)?;
            }
            '0'..='7' => {
                let start = u8::try_from(character.to_digit(8).unwrap_or(0)).unwrap_or(0);
                let code = self.octal(start);
                push_class_char(out, char::from(code))?;
            }
            'c' => {
                let control = self.rest.next().ok_or("the pattern ends after \\c")?;
                let byte = u8::try_from(u32::from(control.to_ascii_uppercase())).map_err(|_| "unknown \\c")?;
                push_class_char(out, char::from(byte ^ 0x40))?;
            }
            'p' | 'P' | 'N' | 'R' | 'H' | 'V' => return Err(format!("\\{character} in a class is not supported")),
            'E' | 'Q' => {}
            other => push_class_char(out, other)?,
        }
        Ok(())
    }
}

fn push_class_char(out: &mut String, character: char) -> Result<(), String> {
    let byte = u8::try_from(u32::from(character))
        .map_err(|_| format!("U+{:04X} in a class cannot be matched in undecoded text", u32::from(character)))?;
    if byte.is_ascii_alphanumeric() {
        out.push(character);
    } else {
        out.push_str(&format!("\\x{byte:02X}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &str, flags: &str) -> Result<Pattern, String> {
        let text = PatternText { pattern: pattern.to_owned(), flags: flags.to_owned() };
        Pattern::compile(&text).map(|(pattern, _)| pattern)
    }

    #[test]
    fn perl_patterns_match_as_in_perl() {
        for (pattern, flags, hits, misses) in [
            (r"\bfoo\b", "i", &["a FOO b"][..], &["food"][..]),
            (r"^end$", "", &["end", "end\n"], &["end\n\n", "x\nend"]),
            (r"^end$", "m", &["x\nend\ny"], &["x\nends"]),
            (r"a.b", "", &["axb"], &["a\nb"]),
            (r"a.b", "s", &["a\nb"], &["ab"]),
            (r"\<b\>", "", &["<b>"], &["b"]),
            (r"x{,3}y", "", &["y"], &["z"]),
            (r"x{y}", "", &["x{y}"], &["xy"]),
            (r"a b # note", "x", &["ab"], &["a b"]),
            (r"[\w-]+@[^\]&&x]", "", &["a-b@c"], &["a-b@]", "a@&"]),
            (r"[]x]", "", &["]"], &["["]),
            (r"[a\-z]q", "", &["-q"], &["bq"]),
            (r"[+-]5", "", &["-5", "+5"], &[",5"]),
            (r"[a-c-e]5", "", &["-5", "b5", "e5"], &["d5"]),
            (r"\xe4\x{2014}|\344", "", &[], &["a"]),
            (r"(?i:A)b", "", &["ab"], &["aB"]),
            (r"(?:x(?i)y)Z", "", &["xYZ"], &["xyz"]),
            (r"\Qa.b\E", "", &["a.b"], &["axb"]),
            (r"cat(?!fish)", "", &["cats"], &["catfish"]),
            (r"(?<!not )good", "", &["very good"], &["not good"]),
            (r"(\w)\1", "", &["aab"], &["ab"]),
            (r"(?<q>['x]).\k<q>", "", &["'a'"], &["'ax"]),
            (r"(a)(b)\g{-1}", "", &["abb"], &["aba"]),
            (r"x++y", "", &["xxy"], &["y"]),
            (r"(?>x+)x", "", &[], &["xxx"]),
            (r"(?=.*b)a", "", &["ab"], &["ac"]),
            (r"(?^i:q)", "", &["Q"], &["x"]),
        ] {
            let compiled = compile(pattern, flags).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for hit in hits {
                assert!(compiled.is_match(hit.as_bytes()), "{pattern} must match {hit}");
                assert!(compiled.find(hit.as_bytes(), 0).is_some(), "{pattern} must find {hit}");
            }
            for miss in misses {
                assert!(!compiled.is_match(miss.as_bytes()), "{pattern} must not match {miss}");
            }
        }
    }

    #[test]
    fn patterns_are_bytes() {
        let high = compile("\\xe4\u{f6}[\\xfc\u{df}]", "").unwrap();
        assert!(high.is_match(b"\xe4\xf6\xdf"));
        assert!(!high.is_match("\u{e4}\u{f6}\u{df}".as_bytes()));
        let fancy = compile("(?!\\xe4\\xe4)\\xe4.", "").unwrap();
        assert!(fancy.is_match(b"\xe4\xff") && !fancy.is_match(b"\xe4\xe4"));
        assert!(compile(r"\x{2014}", "").unwrap().is_match("\u{2014}".as_bytes()));
    }

    #[test]
    fn broken_patterns_say_why() {
        for (pattern, flags) in [
            ("(a", ""),
            ("a)", ""),
            ("[a", ""),
            ("a**", ""),
            ("\\", ""),
            ("(?{code})", ""),
            ("a", "q"),
            (r"\1", ""),
            (r"\p{Latin}", ""),
            (r"[\x{100}]", ""),
            (r"(?<=", ""),
            ("(?", ""),
        ] {
            let error = compile(pattern, flags).expect_err(pattern);
            assert!(!error.is_empty() && !error.contains('\n'), "{pattern}: {error}");
        }
        assert!(compile(&"(".repeat(100_000), "").is_err());
        let huge = PatternText::plain("((a{1000}){1000}){1000}");
        assert!(Pattern::compile(&huge).and_then(|(pattern, _)| pattern.verify()).is_err());
    }

    #[test]
    fn counting_has_a_cheap_gate() {
        let text = |pattern: &str| PatternText { pattern: pattern.to_owned(), flags: "i".to_owned() };
        for (pattern, near, far) in [
            (r"\border\b.{0,20}\bcall\b", "Order now, call", "order, and then much later on somebody may call"),
            (r"[a-z]{20,}\d", "abcdefghijklmnopqrstuvwxyz1", "abc1"),
            (r"(?:a.{2,30}b){2}c", "a--ba--bc", "a--b ab c"),
        ] {
            let (pattern, _) = Pattern::compile(&text(pattern)).unwrap();
            let Some(Engines::Linear { gate: Some(gate), .. }) = pattern.engines() else {
                panic!("no gate: {pattern:?}")
            };
            assert!(gate.is_match(near.as_bytes()) && pattern.is_match(near.as_bytes()), "{near}");
            assert!(!pattern.is_match(far.as_bytes()), "{far}");
        }
        let (plain, _) = Pattern::compile(&text("colou?r")).unwrap();
        assert!(matches!(plain.engines(), Some(Engines::Linear { gate: None, .. })));
    }

    #[test]
    fn backtracking_ends() {
        let evil = compile(r"^(?:(a+)+)(?!x)\1b$", "").unwrap();
        assert!(!evil.is_match("a".repeat(5000).as_bytes()));
    }
}
