//! Rule files, line by line: what they define, and what is wrong or unknown in them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use policy::Score;

use super::net::Question;
use super::problem::{Location, Problem, Severity};
use super::regex::PatternText;
use super::replace::Replacements;
use super::settings::Settings;
use super::{condition, directives, net};

/// All that a set of rule files says. Later lines win over earlier ones.
#[derive(Debug, Default)]
pub struct Source {
    pub definitions: BTreeMap<Arc<str>, Definition>,
    /// One score for each of the four score sets: none, network, Bayes, both.
    pub scores: HashMap<String, [Score; 4]>,
    /// English descriptions; those of other languages are under (language, rule).
    pub descriptions: HashMap<String, Arc<str>>,
    pub translations: HashMap<(String, String), Arc<str>>,
    pub flags: HashMap<String, Flags>,
    pub priorities: HashMap<String, i32>,
    pub samples: Vec<Sample>,
    /// Words of list directives such as `freemail_domains`, lower case, by directive.
    pub lists: HashMap<String, Vec<String>>,
    /// Points from which mail counts as spam.
    pub required_score: Option<Score>,
    /// What rules ask of DNS.
    pub questions: BTreeMap<Arc<str>, Question>,
    pub settings: Settings,
    pub problems: Vec<Problem>,
    /// Scores as the product ships them.
    pub(super) shipped: HashMap<String, [Score; 4]>,
    /// Files that the product ships.
    pub(super) shipped_files: HashSet<Arc<str>>,
    /// SpamAssassin's plugins that are there by the configuration.
    plugins: Vec<&'static str>,
    replacements: Replacements,
    replace_rules: Vec<(String, Location)>,
    /// Settings without effect: first line and how many more.
    idle: BTreeMap<(Arc<str>, String), (Location, u32)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    pub at: Location,
    pub test: Test,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    Pattern {
        target: Target,
        negated: bool,
        if_unset: Option<String>,
        pattern: PatternText,
    },
    Exists(Field),
    Eval {
        function: String,
        arguments: Vec<String>,
    },
    Meta(String),
    /// `uri_detail`: what one link must be, and must not.
    Link(Vec<LinkTest>),
    /// Only the network knows: see [`Source::questions`].
    Net,
}

/// One condition of `uri_detail`.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkTest {
    pub part: LinkPart,
    pub negated: bool,
    pub pattern: PatternText,
}

/// What of a link a condition looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkPart {
    Raw,
    Kind,
    Form,
    Text,
    Domain,
    Host,
}

/// What a pattern is matched against.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Target {
    Header(Field),
    MimeHeader(Field, Parts),
    Body,
    RawBody,
    Uri,
    Full,
}

/// Which parts of a message a `mimeheader` rule looks at, counted from 1, which is the message itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Parts {
    pub first: usize,
    pub last: usize,
    /// The values of all parts are looked at as one text.
    pub joined: bool,
}

impl Parts {
    pub const ALL: Self = Self { first: 0, last: usize::MAX, joined: false };

    /// As `tflags` have it: `range=2-3`, `range=2-`, `range=-3`, `range=1`, `concat`.
    fn of(flags: &Flags) -> Self {
        let mut parts = Self { joined: flags.words.iter().any(|word| word == "concat"), ..Self::ALL };
        let range = flags.words.iter().rev().find_map(|word| word.strip_prefix("range="));
        if let Some((first, last)) = range.map(|range| range.split_once('-').unwrap_or((range, range))) {
            parts.first = first.parse().unwrap_or(parts.first);
            parts.last = last.parse().unwrap_or(parts.last);
        }
        parts
    }
}

/// A header field, or part of one: `From:addr`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Field {
    /// Lower case, but for SpamAssassin's pseudo-fields such as `ToCc`.
    pub name: String,
    pub raw: bool,
    pub part: FieldPart,
    pub pick: Pick,
    /// `:first`, `:last`: only one of several fields of that name.
    pub only: Option<Only>,
}

impl Field {
    /// All of every field called `name`: lower case, or a pseudo-field's name.
    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), raw: false, part: FieldPart::Whole, pick: Pick::Whole, only: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FieldPart {
    Whole,
    Address,
    DisplayName,
}

/// What is taken from each value, after [`FieldPart`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Pick {
    Whole,
    Host,
    Domain,
    Ip,
    /// As lists in DNS want it.
    ReversedIp,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Only {
    First,
    Last,
}

/// `tflags`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Flags {
    /// Counts every match, up to `hits_max` where set.
    pub multiple: bool,
    pub hits_max: Option<u32>,
    /// Speaks for the message.
    pub nice: bool,
    /// Needs the network.
    pub net: bool,
    pub learn: bool,
    /// Leaves the subject out of a body rule.
    pub no_subject: bool,
    /// All words as written.
    pub words: Vec<String>,
}

/// A `test` line: what a rule must match, or must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    pub at: Location,
    pub rule: String,
    pub hit: bool,
    /// `\n`, `\r`, `\t` and `\\` are already replaced.
    pub text: String,
}

/// Longest line; SpamAssassin's own longest macro has 20 KiB.
const LINE_BYTES_MAX: usize = 256 << 10;
const PROBLEMS_MAX: usize = 10_000;

/// Fields that are no header fields; all others are kept in lower case.
const PSEUDO_FIELDS: &[&str] =
    &["ALL", "ALL-EXTERNAL", "ALL-INTERNAL", "ALL-TRUSTED", "ALL-UNTRUSTED", "EnvelopeFrom", "MESSAGEID", "ToCc"];

impl Source {
    /// What was read so far is the product's own. Its scores, as long as nobody sets others, make room for a classifier
    /// that was taught: [`super::Hit::yields`].
    pub fn end_of_shipped(&mut self) {
        self.shipped.clone_from(&self.scores);
        self.shipped_files = self.definitions.values().map(|definition| definition.at.file.clone()).collect();
    }

    /// A database of countries is there: rules count that stand on one.
    pub fn with_countries(&mut self) {
        self.plugins.push("RelayCountry");
    }

    /// Reads one file. `name` is how problems call it. Bytes need no particular encoding.
    pub fn read(&mut self, name: &str, content: &[u8]) {
        let file: Arc<str> = name.into();
        let mut blocks: Vec<Block> = Vec::new();
        for (number, line) in (1_u32..).zip(content.split(|b| *b == b'\n')) {
            let at = Location { file: file.clone(), line: number };
            if line.len() > LINE_BYTES_MAX {
                self.problem(&at, Severity::Error, None, format!("the line is longer than {LINE_BYTES_MAX} bytes"));
                continue;
            }
            // One character for each byte: patterns are bytes, whatever the file's encoding.
            let line: String = line.iter().map(|b| char::from(*b)).collect();
            let line = without_comment(&line);
            let line = line.trim();
            if !line.is_empty() {
                self.line(line, &at, &mut blocks);
            }
        }
        if let Some(block) = blocks.last() {
            self.problem(&block.at.clone(), Severity::Error, None, "`if` without `endif`".to_owned());
        }
        for block in blocks {
            self.report_skipped(&block);
        }
    }

    /// Replaces tags and reports what only the whole set shows. Call once, after the last file.
    pub fn finish(&mut self) {
        for (name, at) in std::mem::take(&mut self.replace_rules) {
            let Some(definition) = self.definitions.get_mut(name.as_str()) else { continue };
            if let Test::Pattern { pattern, .. } = &mut definition.test {
                match self.replacements.expand(&pattern.pattern) {
                    Ok(expanded) => pattern.pattern = expanded,
                    Err(message) => self.problem(&at, Severity::Error, Some(&name), message),
                }
            }
        }
        for (name, definition) in &mut self.definitions {
            if let Test::Pattern { target: Target::MimeHeader(_, parts), .. } = &mut definition.test
                && let Some(flags) = self.flags.get(&**name)
            {
                *parts = Parts::of(flags);
            }
        }
        for ((_, directive), (at, more)) in std::mem::take(&mut self.idle) {
            let lines = if more > 0 { format!(" (and on {more} more lines of this file)") } else { String::new() };
            let severity = if directives::is_idle(&directive) || directive.starts_with("lang ") {
                Severity::Note
            } else {
                Severity::Unsupported
            };
            self.problem(&at, severity, None, format!("`{directive}` has no effect here{lines}"));
        }
    }

    fn problem(&mut self, at: &Location, severity: Severity, rule: Option<&str>, message: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(at, severity, rule.map(Arc::from).as_ref(), message));
        }
    }

    fn line(&mut self, line: &str, at: &Location, blocks: &mut Vec<Block>) {
        let (directive, rest) = split_word(line);
        let directive = directive.to_ascii_lowercase();
        match directive.as_str() {
            "if" | "ifplugin" => {
                let outcome = if directive == "ifplugin" {
                    Ok(condition::has_plugin(split_word(rest).0, &self.plugins))
                } else {
                    condition::holds(rest, &self.plugins)
                };
                let holds = outcome.unwrap_or_else(|message| {
                    self.problem(at, Severity::Error, None, message);
                    false
                });
                blocks.push(Block { at: at.clone(), condition: line.to_owned(), holds, in_else: false, skipped: 0 });
                return;
            }
            "else" => {
                match blocks.last_mut() {
                    Some(block) if !block.in_else => {
                        block.holds = !block.holds;
                        block.in_else = true;
                    }
                    Some(_) | None => {
                        self.problem(at, Severity::Error, None, "`else` without `if`".to_owned());
                    }
                }
                return;
            }
            "endif" => {
                match blocks.pop() {
                    Some(block) => self.report_skipped(&block),
                    None => self.problem(at, Severity::Error, None, "`endif` without `if`".to_owned()),
                }
                return;
            }
            _ => {}
        }
        if let Some(block) = blocks.iter_mut().find(|block| !block.holds) {
            block.skipped += 1;
            return;
        }
        self.directive(&directive, rest, at);
    }

    /// Rules for a missing plugin do not run: that is said once for each block. Branches on versions and features
    /// are as their author wants.
    fn report_skipped(&mut self, block: &Block) {
        let for_plugin = block.condition.starts_with("ifplugin") || block.condition.contains("plugin(");
        if block.skipped == 0 || !for_plugin || block.in_else || block.condition.contains('!') {
            return;
        }
        let message = format!("skipped {} lines under `{}`", block.skipped, block.condition);
        self.problem(&block.at, Severity::Unsupported, None, message);
    }

    fn directive(&mut self, directive: &str, rest: &str, at: &Location) {
        let directive = directives::newer_name(directive);
        let directive = directive.as_str();
        let (first, after) = split_word(rest);
        match directive {
            "header" | "mimeheader" | "body" | "rawbody" | "full" | "uri" | "meta" => {
                self.define(directive, first, after, at);
            }
            "score" => self.score(first, after, at),
            "describe" => {
                self.descriptions.insert(first.to_owned(), decoded(after).into());
            }
            "lang" => {
                // `lang de describe RULE text`; reports in other languages have no place here.
                let (inner, text) = split_word(after);
                if inner == "describe" {
                    let (rule, text) = split_word(text);
                    self.translations.insert((first.to_owned(), rule.to_owned()), decoded(text).into());
                } else {
                    self.idle(&format!("lang {first} {inner}"), at);
                }
            }
            "tflags" => {
                let flags = self.flags.entry(first.to_owned()).or_default();
                for word in after.split_ascii_whitespace() {
                    match word {
                        "multiple" => flags.multiple = true,
                        "nice" => flags.nice = true,
                        "net" => flags.net = true,
                        "learn" => flags.learn = true,
                        "nosubject" => flags.no_subject = true,
                        _ => {
                            if let Some(count) = word.strip_prefix("maxhits=").and_then(|n| n.parse().ok()) {
                                flags.hits_max = Some(count);
                            }
                        }
                    }
                    flags.words.push(word.to_owned());
                }
            }
            "priority" => match after.parse() {
                Ok(priority) => {
                    self.priorities.insert(first.to_owned(), priority);
                }
                Err(_) => self.problem(at, Severity::Error, Some(first), format!("`{after}` is no priority")),
            },
            "test" => self.sample(first, after, at),
            "required_score" => match first.parse() {
                Ok(score) => self.required_score = Some(score),
                Err(error) => self.problem(at, Severity::Error, None, format!("`{first}`: {error}")),
            },
            "replace_tag" => keep(&mut self.replacements.tags, first, after),
            "replace_pre" => keep(&mut self.replacements.before, first, after),
            "replace_inter" => keep(&mut self.replacements.between, first, after),
            "replace_post" => keep(&mut self.replacements.after, first, after),
            "replace_start" => self.replacements.start = first.chars().next().unwrap_or('<'),
            "replace_end" => self.replacements.end = first.chars().next().unwrap_or('>'),
            "replace_rules" => {
                self.replace_rules.extend(rest.split_ascii_whitespace().map(|name| (name.to_owned(), at.clone())));
            }
            "uri_detail" => self.define(directive, first, after, at),
            "urirhsbl" | "urirhssub" | "uridnsbl" | "uridnssub" | "urinsrhsbl" | "urinsrhssub" | "urifullnsrhsbl"
            | "urifullnsrhssub" | "askdns" => {
                let asked = if directive == "askdns" { net::template(rest) } else { net::link_list(directive, rest) };
                match asked {
                    Some((rule, question)) => {
                        let rule: Arc<str> = rule.into();
                        // What a list says of links is asked for by a line of its own; the rule may have one too.
                        self.questions.insert(rule.clone(), question);
                        self.definitions.entry(rule).or_insert_with(|| Definition { at: at.clone(), test: Test::Net });
                    }
                    None => self.problem(
                        at,
                        Severity::Error,
                        Some(first),
                        format!("`{directive}` needs a rule, a name and a type"),
                    ),
                }
            }
            "require_version" => {}
            _ => match self.setting(directive, rest, at) {
                Ok(true) => {}
                Ok(false) => self.idle(directive, at),
                Err(message) => self.problem(at, Severity::Error, None, message),
            },
        }
    }

    /// A setting for something that this engine does not have or does elsewhere.
    fn idle(&mut self, directive: &str, at: &Location) {
        let key = (at.file.clone(), directive.to_owned());
        self.idle.entry(key).and_modify(|(_, more)| *more += 1).or_insert_with(|| (at.clone(), 0));
    }

    fn define(&mut self, kind: &str, name: &str, text: &str, at: &Location) {
        if !is_rule_name(name) {
            self.problem(at, Severity::Error, None, format!("`{name}` is no rule name: letters, digits and `_` only"));
            return;
        }
        let test = match self.test(kind, text) {
            Ok(test) => test,
            Err(message) => {
                self.problem(at, Severity::Error, Some(name), message);
                return;
            }
        };
        self.definitions.insert(name.into(), Definition { at: at.clone(), test });
    }

    fn test(&self, kind: &str, text: &str) -> Result<Test, String> {
        if text.is_empty() {
            return Err("the rule has no test".to_owned());
        }
        if kind == "meta" {
            return Ok(Test::Meta(text.to_owned()));
        }
        if let Some(call) = text.strip_prefix("eval:") {
            return eval(call);
        }
        if kind == "uri_detail" {
            return link_tests(text).map(Test::Link);
        }
        let target = match kind {
            "body" => Target::Body,
            "rawbody" => Target::RawBody,
            "uri" => Target::Uri,
            "full" => Target::Full,
            _ => return header(kind, text),
        };
        let (pattern, rest) = pattern(text)?;
        no_rest(rest)?;
        Ok(Test::Pattern { target, negated: false, if_unset: None, pattern })
    }

    fn score(&mut self, name: &str, text: &str, at: &Location) {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let before = self.scores.get(name).copied();
        let mut values = Vec::new();
        for word in &words {
            // `(1.5)` is relative to the score so far.
            let (number, relative) = match word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
                Some(inner) => (inner, true),
                None => (*word, false),
            };
            match number.parse::<Score>() {
                Ok(score) if relative => {
                    let base = before.and_then(|before| before.get(values.len()).copied());
                    values.push(base.unwrap_or_default() + score);
                }
                Ok(score) => values.push(score),
                Err(error) => {
                    self.problem(at, Severity::Error, Some(name), format!("`{word}`: {error}"));
                    return;
                }
            }
        }
        let scores = match values.as_slice() {
            [one] => [*one; 4],
            [a, b, c, d] => [*a, *b, *c, *d],
            _ => {
                let message = format!("a rule has 1 or 4 scores, not {}", values.len());
                self.problem(at, Severity::Error, Some(name), message);
                return;
            }
        };
        self.scores.insert(name.to_owned(), scores);
    }

    fn sample(&mut self, rule: &str, rest: &str, at: &Location) {
        let (verdict, text) = split_word(rest);
        let hit = match verdict {
            "ok" => true,
            "fail" => false,
            _ => {
                self.problem(at, Severity::Error, Some(rule), format!("`{verdict}` is neither `ok` nor `fail`"));
                return;
            }
        };
        let text = decoded(text).replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
        let text = text.replace('\0', "\\");
        self.samples.push(Sample { at: at.clone(), rule: rule.to_owned(), hit, text });
    }
}

/// An open `if`.
struct Block {
    at: Location,
    condition: String,
    holds: bool,
    in_else: bool,
    skipped: u32,
}

fn keep(map: &mut HashMap<String, String>, name: &str, value: &str) {
    map.insert(name.to_owned(), value.to_owned());
}

/// Cuts at the first `#` that has no backslash before it.
fn without_comment(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for character in line.chars() {
        if character == '#' {
            if !out.ends_with('\\') {
                break;
            }
            out.pop();
        }
        out.push(character);
    }
    out
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(|c: char| c.is_ascii_whitespace()).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// Lines are kept with one character for each byte; texts for people are UTF-8.
fn decoded(text: &str) -> String {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn is_rule_name(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn no_rest(rest: &str) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err(format!("unexpected `{rest}` after the pattern")) }
}

/// A pattern with nothing behind it.
pub(super) fn whole_pattern(text: &str) -> Result<PatternText, String> {
    let (pattern, rest) = pattern(text.trim())?;
    no_rest(rest)?;
    Ok(pattern)
}

/// `raw =~ /…/i type !~ /^img$/ …`
fn link_tests(text: &str) -> Result<Vec<LinkTest>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = split_word(rest);
        let part = match key {
            "raw" => LinkPart::Raw,
            "type" => LinkPart::Kind,
            "cleaned" => LinkPart::Form,
            "text" => LinkPart::Text,
            "domain" => LinkPart::Domain,
            "host" => LinkPart::Host,
            other => return Err(format!("`{other}` is nothing that links have")),
        };
        let negated = after.starts_with("!~");
        let after = after.strip_prefix("=~").or_else(|| after.strip_prefix("!~")).ok_or("expected `=~` or `!~`")?;
        let after = after.trim_start();
        // The next condition begins behind the pattern: ` key =~`.
        let next = ["raw", "type", "cleaned", "text", "domain", "host"].iter().flat_map(|key| {
            [format!(" {key} =~"), format!(" {key} !~")].into_iter().filter_map(|mark| after.find(&mark))
        });
        let (this, more) = after.split_at(next.min().unwrap_or(after.len()));
        out.push(LinkTest { part, negated, pattern: whole_pattern(this)? });
        rest = more.trim();
    }
    if out.is_empty() { Err("the rule has no test".to_owned()) } else { Ok(out) }
}

/// `/…/flags` or `m{…}flags`, and what follows.
fn pattern(text: &str) -> Result<(PatternText, &str), String> {
    let (open, body) = if let Some(body) = text.strip_prefix('/') {
        ('/', body)
    } else {
        let mut rest = text.strip_prefix('m').ok_or("expected a pattern such as `/word/`")?.chars();
        let open = rest.next().filter(|c| c.is_ascii_punctuation()).ok_or("expected a delimiter after `m`")?;
        (open, rest.as_str())
    };
    let close = match open {
        '{' => '}',
        '(' => ')',
        '[' => ']',
        '<' => '>',
        other => other,
    };
    let (pattern, rest) = body.rsplit_once(close).ok_or_else(|| format!("the pattern has no closing `{close}`"))?;
    let flags_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (flags, rest) = rest.split_at(flags_end);
    Ok((PatternText { pattern: pattern.to_owned(), flags: flags.to_owned() }, rest.trim()))
}

/// `Name =~ /…/`, `Name !~ /…/ [if-unset: text]`, `exists:Name`.
fn header(kind: &str, text: &str) -> Result<Test, String> {
    if let Some(name) = text.strip_prefix("exists:") {
        return Ok(Test::Exists(field(name)?));
    }
    let operator = text.find("=~").into_iter().chain(text.find("!~")).min().ok_or("expected `=~` or `!~`")?;
    let negated = text[operator..].starts_with('!');
    let field = field(text[..operator].trim())?;
    let mut rest = text[operator + 2..].trim();
    let mut if_unset = None;
    if let Some(at) = rest.rfind("[if-unset:") {
        let value = rest[at + "[if-unset:".len()..].trim();
        if_unset = Some(value.strip_suffix(']').ok_or("`[if-unset:` has no `]`")?.trim().to_owned());
        rest = rest[..at].trim();
    }
    let (pattern, rest) = pattern(rest)?;
    no_rest(rest)?;
    let target = if kind == "mimeheader" { Target::MimeHeader(field, Parts::ALL) } else { Target::Header(field) };
    Ok(Test::Pattern { target, negated, if_unset, pattern })
}

fn field(text: &str) -> Result<Field, String> {
    let mut words = text.split(':');
    let name = words.next().unwrap_or_default().trim();
    // Pseudo-fields are known by their exact spelling: `MessageID` is an ordinary field.
    let name = if PSEUDO_FIELDS.contains(&name) { name.to_owned() } else { name.to_ascii_lowercase() };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{text}` is no header field"));
    }
    let mut field = Field::plain(&name);
    for word in words {
        match word {
            "raw" => field.raw = true,
            "addr" => field.part = FieldPart::Address,
            "name" => field.part = FieldPart::DisplayName,
            "host" => field.pick = Pick::Host,
            "domain" => field.pick = Pick::Domain,
            "ip" => field.pick = Pick::Ip,
            "revip" => field.pick = Pick::ReversedIp,
            "first" => field.only = Some(Only::First),
            "last" => field.only = Some(Only::Last),
            other => return Err(format!("`:{other}` is not supported")),
        }
    }
    Ok(field)
}

/// `function('a', 2)`
fn eval(call: &str) -> Result<Test, String> {
    let (function, arguments) = match call.split_once('(') {
        Some((function, rest)) => (function, rest.trim().strip_suffix(')').ok_or("a bracket is not closed")?),
        None => (call, ""),
    };
    if !is_rule_name(function.trim()) {
        return Err(format!("`{function}` is no function name"));
    }
    let mut out = Vec::new();
    let mut rest = arguments.trim();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let (argument, after) = match quote {
            Some(quote) => rest[1..].split_once(quote).ok_or("a quote is not closed")?,
            None => rest.find(',').map_or((rest, ""), |comma| rest.split_at(comma)),
        };
        out.push(argument.trim().to_owned());
        let after = after.trim();
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim(),
            None if after.is_empty() => "",
            None => return Err(format!("expected a comma before `{after}`")),
        };
    }
    Ok(Test::Eval { function: function.trim().to_owned(), arguments: out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Source {
        let mut source = Source::default();
        source.read("x.cf", text.as_bytes());
        source.finish();
        source
    }

    fn problems(text: &str) -> Vec<String> {
        read(text).problems.iter().map(ToString::to_string).collect()
    }

    fn test(line: &str) -> Test {
        let source = read(line);
        assert_eq!(source.problems, [], "{line}");
        source.definitions.into_values().next().unwrap().test
    }

    fn pattern_of(pattern: &str, flags: &str) -> PatternText {
        PatternText { pattern: pattern.to_owned(), flags: flags.to_owned() }
    }

    #[test]
    fn rules_of_every_kind() {
        let Test::Pattern { target: Target::Header(field), negated, if_unset, pattern } =
            test("header X From:name:raw !~ m{a/b}is [if-unset: none of it]  # why")
        else {
            panic!("no header rule")
        };
        assert_eq!((field.name.as_str(), field.raw, field.part), ("from", true, FieldPart::DisplayName));
        assert_eq!((negated, if_unset.as_deref(), pattern), (true, Some("none of it"), pattern_of("a/b", "is")));
        for (line, target) in
            [("body X /a#b/", None), ("rawbody X /a/", Some(Target::RawBody)), ("uri X m,a/b,", Some(Target::Uri))]
        {
            match target {
                None => assert_eq!(problems(line).len(), 1, "an unescaped # starts a comment"),
                Some(target) => {
                    assert!(matches!(test(line), Test::Pattern { target: is, .. } if is == target), "{line}");
                }
            }
        }
        assert!(matches!(test(r"full X /a\#b/i"), Test::Pattern { pattern, .. } if pattern == pattern_of("a#b", "i")));
        assert!(matches!(
            test("mimeheader X Content-Type =~ /a/"),
            Test::Pattern { target: Target::MimeHeader(..), .. }
        ));
        assert!(matches!(test("header X exists:X-Y"), Test::Exists(field) if field.name == "x-y"));
        assert_eq!(test("meta X A && B"), Test::Meta("A && B".to_owned()));
        let arguments = vec!["a, b".to_owned(), "2".to_owned()];
        assert_eq!(test("body X eval:f('a, b', 2)"), Test::Eval { function: "f".to_owned(), arguments });
    }

    #[test]
    fn settings_of_rules() {
        let source = read(
            "score A 1.5\nscore A (0.5)\nscore B 0 1 2 3\ndescribe A A rule\nlang de describe A Eine Regel\n\
             tflags A multiple maxhits=3 nice\npriority A -5\ntest A ok one\\ntwo\nrequired_hits 6\n\
             freemail_domains A.example b.example\nfreemail_domains c.example\n",
        );
        assert_eq!(source.problems, []);
        assert_eq!(source.scores["A"], [Score(2000); 4]);
        assert_eq!(source.scores["B"][3], Score::points(3));
        assert_eq!(&*source.descriptions["A"], "A rule");
        assert_eq!(&*source.translations[&("de".to_owned(), "A".to_owned())], "Eine Regel");
        let flags = &source.flags["A"];
        assert!(flags.multiple && flags.nice && flags.hits_max == Some(3) && !flags.net);
        assert_eq!((source.priorities["A"], source.samples[0].text.as_str()), (-5, "one\ntwo"));
        assert_eq!(source.required_score, Some(Score::points(6)));
        assert_eq!(source.lists["freemail_domains"], ["a.example", "b.example", "c.example"]);
    }

    #[test]
    fn conditions_choose_lines() {
        let source = read(
            "if (version > 3)\nbody A /a/\nelse\nbody A /b/\nendif\nifplugin Mail::SpamAssassin::Plugin::TextCat\n\
             body P /p/\nif (version > 3)\nbody Q /q/\nendif\nendif\nbody Z /z/\n",
        );
        let names: Vec<&str> = source.definitions.keys().map(|name| &**name).collect();
        assert_eq!(names, ["A", "Z"]);
        assert!(matches!(&source.definitions["A"].test, Test::Pattern { pattern, .. } if pattern.pattern == "a"));
        let said: Vec<String> = source.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["x.cf:6: unsupported: skipped 2 lines under `ifplugin Mail::SpamAssassin::Plugin::TextCat`"]);
    }

    #[test]
    fn problems_name_file_line_and_reason() {
        for (text, expected) in [
            ("\nbody", "x.cf:2: error: `` is no rule name"),
            ("body A", "x.cf:1: error: A: the rule has no test"),
            ("body A-B /x/", "x.cf:1: error: `A-B` is no rule name"),
            ("body A x", "x.cf:1: error: A: expected a pattern"),
            ("body A /x", "x.cf:1: error: A: the pattern has no closing `/`"),
            ("body A /x/ y", "x.cf:1: error: A: unexpected `y`"),
            ("header A Subject /x/", "x.cf:1: error: A: expected `=~` or `!~`"),
            ("header A From:phone =~ /x/", "x.cf:1: error: A: `:phone` is not supported"),
            ("score A 1 2", "x.cf:1: error: A: a rule has 1 or 4 scores, not 2"),
            ("score A many", "x.cf:1: error: A: `many`: expected a score"),
            ("if (", "x.cf:1: error: the condition ends too early"),
            ("endif", "x.cf:1: error: `endif` without `if`"),
            ("if version > 3", "x.cf:1: error: `if` without `endif`"),
            ("else", "x.cf:1: error: `else` without `if`"),
            ("test A maybe x", "x.cf:1: error: A: `maybe` is neither"),
            ("body A eval:f('x", "x.cf:1: error: A: a bracket is not closed"),
            (
                "shiny_setting 1\nshiny_setting 2",
                "x.cf:1: unsupported: `shiny_setting` has no effect here (and on 1 more",
            ),
        ] {
            let said = problems(text);
            assert!(said.iter().any(|line| line.starts_with(expected)), "{text}: {said:?}");
        }
    }
}
