//! What the classifier sees of a message: a set of features, each a number made of a kind and a text.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use crate::rules::Targets;
use crate::url::{host, registered_domain};

/// Numbers of features are stored: whatever changes which of them a message has is a new version.
pub const VERSION: u8 = 1;

/// One feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    pub number: u32,
    pub kind: Kind,
    start: u32,
    length: u16,
}

/// Where a feature comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A word of the text that a reader sees.
    Word = 1,
    /// Two words beside each other.
    Pair = 2,
    /// A word in capitals.
    Capitals = 4,
    SubjectWord = 5,
    SubjectPair = 6,
    /// The author's address, its domain, words of the name.
    Author = 7,
    /// Where answers go and errors go, beside the author.
    Return = 8,
    /// Which fields the header has, and in which order.
    Field = 9,
    /// A word of another header field.
    FieldWord = 10,
    /// A host that the message came through.
    Relay = 11,
    /// A host, or a part of a link.
    Link = 12,
    /// The form of the message: media types, encodings, HTML.
    Form = 13,
    /// A file's name.
    File = 14,
}

impl Kind {
    /// True if its text says something to a person.
    pub const fn is_readable(self) -> bool {
        matches!(
            self,
            Self::Word | Self::Pair | Self::Capitals | Self::SubjectWord | Self::SubjectPair | Self::Link | Self::File
        )
    }
}

/// The features of one message, each once, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Features {
    list: Vec<Feature>,
    texts: String,
    seen: HashSet<u32, BuildHasherDefault<AsItIs>>,
}

/// Numbers are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        // Tables look at the upper bits too.
        self.0 = u64::from(number) << 32 | u64::from(number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Most features of one message.
pub const FEATURES_MAX: usize = 6000;
/// Most words of the text; what comes later is not seen.
const WORDS_MAX: usize = 2000;
const LINKS_MAX: usize = 100;
const RELAYS_MAX: usize = 4;
/// Longer words are told by their length alone.
const WORD_CHARS_MAX: usize = 24;

impl Features {
    pub fn of(targets: &Targets<'_>) -> Self {
        let mut out = Self::default();
        out.header(targets);
        out.relays(targets);
        out.links(targets);
        out.form(targets);
        out.body(targets);
        out
    }

    /// The numbers of all, each once.
    pub fn numbers(&self) -> Vec<u32> {
        self.list.iter().map(|feature| feature.number).collect()
    }

    pub fn as_slice(&self) -> &[Feature] {
        &self.list
    }

    pub fn text(&self, feature: &Feature) -> &str {
        let start = feature.start as usize;
        self.texts.get(start..start + usize::from(feature.length)).unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, text: &str) {
        self.add_joined(kind, &[text]);
    }

    fn add_joined(&mut self, kind: Kind, texts: &[&str]) {
        let mut number = Number::of(kind);
        for text in texts {
            number.add(text);
        }
        let number = number.finish();
        if self.list.len() >= FEATURES_MAX || !self.seen.insert(number) {
            return;
        }
        let start = self.texts.len();
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.texts.push(' ');
            }
            self.texts.push_str(text.get(..text.floor_char_boundary(100)).unwrap_or(text));
        }
        let length = u16::try_from(self.texts.len() - start).unwrap_or(u16::MAX);
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        self.list.push(Feature { number, kind, start, length });
    }

    fn header(&mut self, targets: &Targets<'_>) {
        let mut before = "";
        for name in targets.field_names() {
            if OURS.contains(&name) {
                continue;
            }
            self.add(Kind::Field, name);
            self.add_joined(Kind::Field, &[before, name]);
            before = name;
        }
        let mut words = Words::new(WORDS_MAX);
        words.read(&targets.subject());
        for (at, word) in words.list.iter().enumerate() {
            self.add(Kind::SubjectWord, word);
            if let Some(next) = words.list.get(at + 1) {
                self.add_joined(Kind::SubjectPair, &[word, next]);
            }
        }
        for mark in &words.marks {
            self.add_joined(Kind::SubjectWord, &["mark", mark]);
        }
        let mut author = String::new();
        for (name, address) in targets.mailboxes("from").into_iter().take(3) {
            author = address.to_lowercase();
            self.add(Kind::Author, &author);
            if let Some((_, domain)) = author.rsplit_once('@') {
                let domain = domain.to_owned();
                self.domain(Kind::Author, &domain);
            }
            let mut words = Words::new(20);
            words.read(&name);
            for word in &words.list {
                self.add_joined(Kind::Author, &["name", word]);
            }
        }
        let own = author.rsplit_once('@').map(|(_, domain)| domain.to_owned()).unwrap_or_default();
        for (field, name) in [("reply-to", "answers"), ("return-path", "errors"), ("sender", "sender")] {
            let Some((_, address)) = targets.mailboxes(field).into_iter().next() else { continue };
            let address = address.to_lowercase();
            let domain = address.rsplit_once('@').map(|(_, domain)| domain).unwrap_or_default();
            let relation = if address == author {
                "author"
            } else if domain == own {
                "same domain"
            } else if registered_domain(domain) == registered_domain(&own) {
                "related domain"
            } else {
                "other domain"
            };
            self.add_joined(Kind::Return, &[name, relation]);
            self.domain(Kind::Return, domain);
        }
        let recipients: usize = ["to", "cc"].iter().map(|name| targets.mailboxes(name).len()).sum();
        self.add_joined(Kind::Form, &["recipients", bucket(recipients)]);
        for (name, value) in ["message-id", "date", "content-type", "mime-version", "content-transfer-encoding"]
            .iter()
            .filter_map(|name| Some((*name, targets.raw_values(name).next()?)))
        {
            self.add_joined(Kind::FieldWord, &[name, &shape(&value)]);
        }
        for name in SOFTWARE {
            for value in targets.values(name).take(1) {
                let mut words = Words::new(8);
                words.read(&value);
                for word in &words.list {
                    self.add_joined(Kind::FieldWord, &[name, word]);
                }
            }
        }
    }

    /// A domain, and what it belongs to.
    fn domain(&mut self, kind: Kind, domain: &str) {
        self.add(kind, domain);
        let mut rest = domain;
        for _ in 0..4 {
            let Some((_, parent)) = rest.split_once('.') else { break };
            self.add_joined(kind, &["in", parent]);
            rest = parent;
        }
    }

    fn relays(&mut self, targets: &Targets<'_>) {
        let relays = &targets.relays().external;
        self.add_joined(Kind::Form, &["relays", bucket(relays.len())]);
        for relay in relays.iter().take(RELAYS_MAX) {
            let name = relay.reverse_name.to_ascii_lowercase();
            if name.is_empty() {
                self.add(Kind::Relay, "no name");
            } else {
                self.add_joined(Kind::Relay, &["shape", &shape(&name)]);
                if let Some(domain) = registered_domain(&name) {
                    let domain = domain.to_owned();
                    self.domain(Kind::Relay, &domain);
                }
            }
            self.add_joined(Kind::Relay, &["helo", &shape(&relay.helo.to_ascii_lowercase())]);
            match relay.ip {
                Some(IpAddr::V4(ip)) => {
                    let [a, b, c, _] = ip.octets();
                    self.add(Kind::Relay, &format!("{a}.{b}.{c}"));
                    self.add(Kind::Relay, &format!("{a}.{b}"));
                }
                Some(IpAddr::V6(ip)) => {
                    let [a, b, c, ..] = ip.segments();
                    self.add(Kind::Relay, &format!("{a:x}:{b:x}:{c:x}"));
                }
                None => {}
            }
        }
    }

    fn links(&mut self, targets: &Targets<'_>) {
        let links = targets.links().as_slice();
        self.add_joined(Kind::Form, &["links", bucket(links.len())]);
        for link in links.iter().take(LINKS_MAX) {
            let Some(host) = host(&link.url) else { continue };
            let registered = registered_domain(&host).unwrap_or(&host).to_owned();
            self.add(Kind::Link, &host);
            self.domain(Kind::Link, &registered);
            let Some((scheme, rest)) = link.url.split_once("://") else { continue };
            self.add_joined(Kind::Link, &["scheme", scheme]);
            let path = rest.split_once('/').map_or("", |(_, path)| path);
            for word in path.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 1).take(8) {
                self.add_joined(Kind::Link, &["path", &shape(&word.to_lowercase())]);
            }
        }
    }

    fn form(&mut self, targets: &Targets<'_>) {
        let leaves = targets.leaves();
        self.add_joined(Kind::Form, &["parts", bucket(leaves.len())]);
        for leaf in leaves.iter().take(20) {
            self.add(Kind::Form, &leaf.kind);
            self.add_joined(Kind::Form, &["encoding", &leaf.transfer_encoding()]);
            if let Some(charset) = &leaf.declared.charset {
                self.add_joined(Kind::Form, &["charset", &charset.to_ascii_lowercase()]);
            }
            if let Some(name) = &leaf.name {
                let name = name.to_lowercase();
                self.add(Kind::File, &shape(&name));
                if let Some((_, ending)) = name.rsplit_once('.') {
                    self.add_joined(Kind::File, &["ending", ending]);
                }
            }
        }
        let form = &targets.mime().form;
        for (is_so, name) in [
            (form.missing_boundary, "missing boundary"),
            (form.missing_mime_headers, "missing part header"),
            (form.missing_head_body_separator, "missing separator"),
            (form.truncated_header, "long header"),
        ] {
            if is_so {
                self.add_joined(Kind::Form, &["defect", name]);
            }
        }
        for html in targets.html().take(5) {
            for name in html.inside.keys().filter(|name| name.len() <= WORD_CHARS_MAX) {
                self.add_joined(Kind::Form, &["element", name]);
            }
            let share = |part: usize| part * 1000 / html.length.max(1);
            self.add_joined(Kind::Form, &["hidden", bucket(html.hidden)]);
            self.add_joined(Kind::Form, &["shown", bucket(html.visible)]);
            self.add_joined(Kind::Form, &["shown per mille", bucket(share(html.visible))]);
            self.add_joined(Kind::Form, &["tags", bucket(html.tags as usize)]);
            self.add_joined(Kind::Form, &["unknown elements", bucket(html.unknown_elements as usize)]);
            self.add_joined(Kind::Form, &["cut words", bucket(html.obfuscation as usize)]);
            self.add_joined(Kind::Form, &["links in tags", bucket(html.uris.len())]);
        }
    }

    fn body(&mut self, targets: &Targets<'_>) {
        let mut words = Words::new(WORDS_MAX);
        // The subject comes first, and has features of its own.
        for piece in targets.body().iter().skip(1) {
            words.read(&String::from_utf8_lossy(piece));
            if words.list.len() >= WORDS_MAX {
                break;
            }
        }
        self.add_joined(Kind::Form, &["words", bucket(words.list.len())]);
        for (at, word) in words.list.iter().enumerate() {
            self.add(Kind::Word, word);
            if let Some(next) = words.list.get(at + 1) {
                self.add_joined(Kind::Pair, &[word, next]);
            }
        }
        for word in &words.capitals {
            self.add(Kind::Capitals, word);
        }
        for mark in &words.marks {
            self.add_joined(Kind::Form, &["mark", mark]);
        }
    }
}

/// Fields that this system writes, or that say what another filter thought.
const OURS: [&str; 6] =
    ["return-path", "delivered-to", "authentication-results", "x-spam-status", "x-spam-score", "x-spam-flag"];
const SOFTWARE: [&str; 7] =
    ["x-mailer", "user-agent", "organization", "x-originating-ip", "precedence", "importance", "x-priority"];

/// A number of a feature: FNV-1a over kind and text, its bits mixed so that any of them can choose a place.
struct Number(u64);

impl Number {
    fn of(kind: Kind) -> Self {
        let mut out = Self(0xcbf2_9ce4_8422_2325);
        out.octet(kind as u8);
        out
    }

    fn octet(&mut self, octet: u8) {
        self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }

    fn add(&mut self, text: &str) {
        for octet in text.bytes() {
            self.octet(octet);
        }
        self.octet(0xff);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the upper half is mixed in")]
    fn finish(self) -> u32 {
        let mut mixed = self.0;
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^= mixed >> 33;
        mixed as u32
    }
}

/// Words of a text: lower case, digits as `0`; a letter of a script without spaces is a word.
struct Words {
    list: Vec<String>,
    capitals: Vec<String>,
    marks: Vec<String>,
    max: usize,
}

impl Words {
    fn new(max: usize) -> Self {
        Self { list: Vec::new(), capitals: Vec::new(), marks: Vec::new(), max }
    }

    fn read(&mut self, text: &str) {
        let mut word = String::new();
        let (mut chars, mut upper) = (0usize, 0usize);
        let mut mark = ('\0', 0usize);
        for character in text.chars().chain(std::iter::once(' ')) {
            if self.list.len() >= self.max {
                return;
            }
            let within = character.is_alphanumeric()
                || matches!(character, '$' | '\u{20ac}' | '\u{a3}' | '\'' | '\u{2019}' | '-');
            if within && !stands_alone(character) {
                if chars <= WORD_CHARS_MAX {
                    if character.is_ascii_digit() {
                        word.push('0');
                    } else if character.is_ascii() {
                        word.push(character.to_ascii_lowercase());
                    } else {
                        word.extend(character.to_lowercase());
                    }
                }
                chars += 1;
                upper += usize::from(character.is_uppercase());
                continue;
            }
            if chars > 0 {
                self.end(&word, chars, upper);
                word.clear();
                (chars, upper) = (0, 0);
            }
            if stands_alone(character) {
                self.list.push(character.to_string());
            } else if !character.is_whitespace() {
                mark = if mark.0 == character { (character, mark.1 + 1) } else { (character, 1) };
                if mark.1 == 2 && self.marks.len() < 20 {
                    self.marks.push(character.to_string().repeat(2));
                } else if !character.is_ascii() && self.marks.len() < 20 {
                    self.marks.push(character.to_string());
                }
                continue;
            }
            mark = ('\0', 0);
        }
    }

    fn end(&mut self, word: &str, chars: usize, upper: usize) {
        let word = word.trim_matches(['\'', '\u{2019}', '-']);
        if word.is_empty() {
            return;
        }
        if chars > WORD_CHARS_MAX {
            self.list.push(format!("long {}", bucket(chars)));
            return;
        }
        if chars > 3 && upper == chars && self.capitals.len() < 100 {
            self.capitals.push(word.to_owned());
        }
        self.list.push(word.to_owned());
    }
}

/// Chinese, Japanese and Thai put no spaces between words.
const fn stands_alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

/// Letters in lower case as `a`, digits as `0`, runs of either as one; the rest as it is. At most 60 characters.
fn shape(text: &str) -> String {
    let mut out = String::new();
    let mut kept = String::new();
    for character in text.chars().take(200) {
        if character.is_ascii_digit() {
            if !kept.ends_with('0') {
                kept.push('0');
            }
        } else if !character.is_control() {
            kept.push(character);
        }
    }
    out.extend(kept.chars().take(60));
    out
}

/// A count in steps that grow.
const fn bucket(count: usize) -> &'static str {
    match count {
        0 => "0",
        1 => "1",
        2 => "2",
        3..=4 => "3-4",
        5..=8 => "5-8",
        9..=16 => "9-16",
        17..=32 => "17-32",
        33..=64 => "33-64",
        65..=128 => "65-128",
        129..=256 => "129-256",
        257..=512 => "257-512",
        513..=1024 => "513-1024",
        _ => "more",
    }
}
