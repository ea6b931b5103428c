//! Perl's syntax in that of `regex_syntax`, twice: what linear-time matching can do, and all of it.
//!
//! The second, marked form says what `regex_syntax` cannot by groups with names that [`super::program`] knows: `gN` is
//! group N, `p`, `n`, `l`, `m` and `a` with a number are look-ahead, the same negated, look-behind, the same negated, and an
//! atomic group; `bM_N` and `iM_N` stand for what group N matched, the latter without regard to case.

use std::collections::HashMap;

use super::{NESTING_MAX, PATTERN_BYTES_MAX, PatternText};

/// A Perl pattern in the engines' syntax.
#[derive(Debug)]
pub struct Translated {
    /// Without look-around, back-references and atomic groups: matches at least as much.
    pub relaxed: String,
    /// With them as marked groups, where there are any.
    pub marked: Option<String>,
    pub case_insensitive: bool,
    pub multi_line: bool,
    pub dot_matches_all: bool,
    /// Groups with names, by the number that they have in `relaxed` too.
    pub names: HashMap<String, u32>,
}

/// Flags that change inside groups and matter for translation.
#[derive(Clone, Copy)]
struct Flags {
    multi_line: bool,
    extended: bool,
    case_insensitive: bool,
}

struct Translator<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    relaxed: String,
    marked: String,
    /// True once the two forms differ.
    is_marked: bool,
    /// So far; they make the names of marked groups differ.
    marks: u32,
    flags: Flags,
    groups: Vec<Group>,
    /// Above zero inside look-around, which the relaxed form leaves out.
    hidden: u32,
    captures: u32,
    names: HashMap<String, u32>,
    /// Where in the marked form that begins to which a quantifier would belong.
    atom: usize,
}

/// A group that is still open.
#[derive(Clone, Copy)]
struct Group {
    /// The flags to go back to.
    flags: Flags,
    is_hidden: bool,
    /// Where it begins in the marked form.
    start: usize,
}

impl Translated {
    pub fn of(text: &PatternText) -> Result<Self, String> {
        if text.pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(flag) = text.flags.chars().find(|flag| !"imsxgoaudln".contains(*flag)) {
            return Err(format!("unknown flag `{flag}` after the pattern"));
        }
        let flags = Flags {
            multi_line: text.flags.contains('m'),
            extended: text.flags.contains('x'),
            case_insensitive: text.flags.contains('i'),
        };
        let mut translator = Translator {
            rest: text.pattern.chars().peekable(),
            relaxed: String::with_capacity(text.pattern.len() + 16),
            marked: String::with_capacity(text.pattern.len() + 16),
            is_marked: false,
            marks: 0,
            flags,
            groups: Vec::new(),
            hidden: 0,
            captures: 0,
            names: HashMap::new(),
            atom: 0,
        };
        while let Some(character) = translator.rest.next() {
            translator.step(character)?;
        }
        if !translator.groups.is_empty() {
            return Err("a group is not closed".to_owned());
        }
        Ok(Self {
            relaxed: translator.relaxed,
            marked: translator.is_marked.then_some(translator.marked),
            case_insensitive: text.flags.contains('i'),
            multi_line: text.flags.contains('m'),
            dot_matches_all: text.flags.contains('s'),
            names: translator.names,
        })
    }
}

impl Translator<'_> {
    fn emit(&mut self, text: &str) {
        self.emit_both(text, text);
    }

    /// For what the two forms say in different ways.
    fn emit_both(&mut self, marked: &str, relaxed: &str) {
        self.marked.push_str(marked);
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

    /// A group of the marked form with a name of its own.
    fn mark(&mut self, kind: char, detail: &str) -> String {
        self.is_marked = true;
        self.marks += 1;
        format!("(?P<{kind}{}{detail}>", self.marks)
    }

    fn step(&mut self, character: char) -> Result<(), String> {
        if !matches!(character, '*' | '+' | '?' | '{') {
            self.atom = self.marked.len();
        }
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
            let opening = self.mark('a', "");
            self.marked.insert_str(self.atom, &opening);
            self.marked.push(')');
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
            self.atom = self.marked.len();
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
        let number = group.parse::<u32>().ok().or_else(|| self.names.get(group).copied());
        let Some(number) = number.filter(|number| *number >= 1 && *number <= self.captures) else {
            return Err(format!("group `{group}` of a back-reference does not exist before it"));
        };
        let kind = if self.flags.case_insensitive { 'i' } else { 'b' };
        // What stands inside only keeps the group from being simplified away.
        let marked = self.mark(kind, &format!("_{number}")) + "x)";
        self.emit_both(&marked, "(?s:.*)");
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
            self.push_capture(None, before);
            return Ok(());
        }
        let kind = self.rest.next().ok_or("the pattern ends inside a group")?;
        match kind {
            '#' => {
                self.rest.by_ref().find(|c| *c == ')').ok_or("a comment is not closed")?;
            }
            ':' => self.push_group("(?:", before),
            '=' => self.push_hidden('p', before),
            '!' => self.push_hidden('n', before),
            '>' => {
                let opening = self.mark('a', "");
                self.groups.push(Group { flags: before, is_hidden: false, start: self.marked.len() });
                self.emit_both(&opening, "(?:");
            }
            '<' if self.rest.next_if_eq(&'=').is_some() => self.push_hidden('l', before),
            '<' if self.rest.next_if_eq(&'!').is_some() => self.push_hidden('m', before),
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
                self.push_capture(Some(name), before);
            }
            '^' | '-' | 'a'..='z' => self.inline_flags(kind, before)?,
            other => return Err(format!("(?{other} is not supported")),
        }
        Ok(())
    }

    fn push_group(&mut self, opening: &str, before: Flags) {
        self.groups.push(Group { flags: before, is_hidden: false, start: self.marked.len() });
        self.emit(opening);
    }

    fn push_capture(&mut self, name: Option<String>, before: Flags) {
        self.captures += 1;
        if let Some(name) = name {
            self.names.insert(name, self.captures);
        }
        self.groups.push(Group { flags: before, is_hidden: false, start: self.marked.len() });
        self.emit_both(&format!("(?P<g{}>", self.captures), "(");
    }

    fn push_hidden(&mut self, kind: char, before: Flags) {
        let opening = self.mark(kind, "");
        self.groups.push(Group { flags: before, is_hidden: true, start: self.marked.len() });
        self.emit_both(&opening, "(?:");
        self.hidden += 1;
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
            if list.contains('i') {
                self.flags.case_insensitive = value;
            }
        }
        on.retain(|flag| flag != 'x');
        off.retain(|flag| flag != 'x');
        let minus = if off.is_empty() { "" } else { "-" };
        if end == ':' {
            self.push_group(&format!("(?{on}{minus}{off}:"), before);
        } else if !(on.is_empty() && off.is_empty()) {
            self.emit(&format!("(?{on}{minus}{off})"));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let group = self.groups.pop().ok_or("a bracket `)` closes nothing")?;
        self.flags = group.flags;
        if group.is_hidden {
            self.hidden -= 1;
        }
        self.emit(")");
        self.atom = group.start;
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
