//! The options of a policy: each one's name, type, default, limits and documentation in one place.

use std::fmt;
use std::sync::Arc;

use crate::finding::Score;

/// Who sets a value. A lower level (later here) wins, unless a higher one locked it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    System,
    Reseller,
    Customer,
    Domain,
    Mailbox,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::System, Self::Reseller, Self::Customer, Self::Domain, Self::Mailbox];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Reseller => "reseller",
            Self::Customer => "customer",
            Self::Domain => "domain",
            Self::Mailbox => "mailbox",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares a choice: its words as configuration writes them, from mild to strict.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The words, from mild to strict.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

choice! {
    /// A shipped set of values.
    PresetName { Relaxed = "relaxed", Balanced = "balanced", Strict = "strict", VeryStrict = "very-strict" }
}
choice! {
    /// What happens to mail from the tag score on.
    WhenTagged {
        /// Header fields only.
        Header = "header",
        /// Header fields and a text before the subject.
        Subject = "subject",
        /// Into the Junk folder.
        Junk = "junk",
    }
}
choice! {
    /// What happens to mail from the quarantine score on.
    WhenQuarantined {
        /// Delivered with header fields: no quarantine.
        Deliver = "deliver",
        Junk = "junk",
        Quarantine = "quarantine",
    }
}
choice! {
    /// What happens to mail with a known virus.
    VirusAction { Quarantine = "quarantine", Reject = "reject" }
}
choice! {
    /// What happens to mail that no virus scanner could look at.
    ScannerUnavailable { Deliver = "deliver", Defer = "defer" }
}
choice! {
    /// What an SPF failure means, when nothing else proves the sender.
    SpfFail {
        Score = "score",
        /// Further points for this recipient.
        ScoreHigh = "score-high",
        Quarantine = "quarantine",
        Reject = "reject",
    }
}
choice! {
    /// What a DMARC failure means.
    DmarcAction {
        Score = "score",
        /// Where the sender's domain asks for a reject, too.
        Quarantine = "quarantine",
        /// As the sender's domain asks.
        Follow = "follow",
    }
}

choice! {
    /// Kinds of files that a policy can name.
    AttachmentClass {
        Executables = "executables",
        Scripts = "scripts",
        Shortcuts = "shortcuts",
        DiskImages = "disk-images",
        /// Names that mislead, programs under harmless names.
        Disguised = "disguised",
        /// Documents with program code.
        Macros = "macros",
        /// Archives and documents with a password.
        Encrypted = "encrypted",
        NestedArchives = "nested-archives",
        /// Documents that act or load by themselves.
        ActiveContent = "active-content",
        /// Archives built to explode, nested too deep, or with more in them than is looked at.
        Unreadable = "unreadable",
    }
}
choice! {
    /// What happens to mail with a file of a blocked kind.
    WhenBlocked {
        /// As from the tag score on.
        Tag = "tag",
        Quarantine = "quarantine",
        Reject = "reject",
    }
}
choice! {
    /// What happens to mail that may be harmful: nobody can tell.
    WhenSuspicious { Deliver = "deliver", Tag = "tag", Quarantine = "quarantine" }
}

choice! {
    /// Whether senders are asked to come again later.
    Greylist {
        Off = "off",
        /// Of messages from `greylist-score` on, whose client's network did not come again before.
        Suspicious = "suspicious",
        /// All whose client's network did not come again before.
        All = "all",
    }
}
choice! {
    /// What happens to mail from a sender on a list of those who are not wanted.
    WhenSenderBlocked { Junk = "junk", Quarantine = "quarantine", Reject = "reject" }
}

choice! {
    /// What happens to newsletters and other mail in bulk that can be cancelled.
    NewsletterAction {
        Deliver = "deliver",
        /// As from the tag score on, but never into Junk.
        Tag = "tag",
        Junk = "junk",
        Quarantine = "quarantine",
    }
}
choice! {
    /// What happens to mail from outside that names one of our own domains as its sender and cannot prove it.
    OwnDomainAction { Score = "score", Quarantine = "quarantine", Reject = "reject" }
}
choice! {
    /// What happens to mail from a country on the list of those that are not wanted.
    WhenCountry { Tag = "tag", Quarantine = "quarantine", Reject = "reject" }
}
choice! {
    /// Whether mail of senders whom one has written to gets less points.
    KnownContacts { On = "on", Off = "off" }
}
choice! {
    /// What the part of an address after `+` does.
    PlusAddressing {
        /// Nothing.
        Inbox = "inbox",
        /// Names the mailbox, if there is one of that name.
        Folder = "folder",
        /// Nobody has such an address.
        Off = "off",
    }
}
choice! {
    /// Where mail may be forwarded to.
    Forwarding {
        Anywhere = "anywhere",
        /// To domains of this system.
        Inside = "inside",
        Nowhere = "nowhere",
    }
}
choice! {
    /// How often somebody hears of what is in quarantine.
    Digest { Off = "off", Weekly = "weekly", Weekdays = "weekdays", Daily = "daily", Hourly = "hourly" }
}
choice! {
    /// The language of what the system writes to somebody.
    MailLanguage { All = "all", German = "de", Italian = "it", English = "en" }
}
choice! {
    /// Whether those who administer a domain may read what of it is in quarantine.
    AdminPreview { On = "on", Off = "off" }
}

/// Names an option.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    Preset,
    TagScore,
    QuarantineScore,
    RejectScore,
    WhenTagged,
    SubjectTag,
    WhenQuarantined,
    Virus,
    ScannerUnavailable,
    WhenSuspicious,
    BlockedAttachments,
    BlockedExtensions,
    WhenBlocked,
    SpfFail,
    Dmarc,
    WhenSenderBlocked,
    Greylist,
    GreylistScore,
    Newsletter,
    KnownContacts,
    OwnDomain,
    BlockedCountries,
    WhenCountry,
    MessageSize,
    PlusAddressing,
    Forwarding,
    QuarantineDays,
    Digest,
    DigestHour,
    MailLanguage,
    AdminPreview,
    SendingHour,
    SendingDay,
    OutboundSlowScore,
    OutboundHoldScore,
    OutboundLockScore,
}

impl Key {
    /// Every option, in the order of [`OPTIONS`].
    pub const ALL: [Self; 36] = [
        Self::Preset,
        Self::TagScore,
        Self::QuarantineScore,
        Self::RejectScore,
        Self::WhenTagged,
        Self::SubjectTag,
        Self::WhenQuarantined,
        Self::Virus,
        Self::ScannerUnavailable,
        Self::WhenSuspicious,
        Self::BlockedAttachments,
        Self::BlockedExtensions,
        Self::WhenBlocked,
        Self::SpfFail,
        Self::Dmarc,
        Self::WhenSenderBlocked,
        Self::Greylist,
        Self::GreylistScore,
        Self::Newsletter,
        Self::KnownContacts,
        Self::OwnDomain,
        Self::BlockedCountries,
        Self::WhenCountry,
        Self::MessageSize,
        Self::PlusAddressing,
        Self::Forwarding,
        Self::QuarantineDays,
        Self::Digest,
        Self::DigestHour,
        Self::MailLanguage,
        Self::AdminPreview,
        Self::SendingHour,
        Self::SendingDay,
        Self::OutboundSlowScore,
        Self::OutboundHoldScore,
        Self::OutboundLockScore,
    ];

    /// The definition.
    pub fn option(self) -> &'static PolicyOption {
        &OPTIONS[self as usize]
    }

    pub fn from_name(name: &str) -> Option<Self> {
        OPTIONS.iter().find(|option| option.name == name).map(|option| option.key)
    }
}

/// An option's definition: the reference page and every check come from here.
#[derive(Debug)]
pub struct PolicyOption {
    pub key: Key,
    /// As written in policy files, on the command line and in the API.
    pub name: &'static str,
    pub kind: Kind,
    default: DefaultValue,
    /// This level and every one above it may set the option.
    pub lowest_level: Level,
    pub doc: &'static str,
}

impl PolicyOption {
    pub fn default_value(&self) -> Value {
        match self.default {
            DefaultValue::Score(score) => Value::Score(score),
            DefaultValue::Number(number) => Value::Number(number),
            DefaultValue::Word(word) => Value::Choice(word),
            DefaultValue::Text(text) => Value::Text(text.into()),
            DefaultValue::Words(words) => match self.kind {
                Kind::Words(known) => Value::Words(words.iter().fold(WordSet::none(known), |set, word| set.with(word))),
                Kind::Score { .. } | Kind::Number { .. } | Kind::Choice(_) | Kind::Text { .. } => {
                    Value::Text(Arc::default())
                }
            },
        }
    }

    /// True where this level can add to what the levels above it say, and take nothing away.
    pub(crate) fn only_adds_at(&self, level: Level) -> bool {
        self.key == Key::BlockedAttachments && level == Level::Mailbox
    }

    pub fn may_be_set_at(&self, level: Level) -> bool {
        level <= self.lowest_level
    }
}

/// The type and limits of an option's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Score {
        min: Score,
        max: Score,
    },
    /// A whole number; `unit` says of what.
    Number {
        min: i64,
        max: i64,
        unit: &'static str,
    },
    /// One of the words, from mild to strict.
    Choice(&'static [&'static str]),
    /// Any of the words.
    Words(&'static [&'static str]),
    /// One line.
    Text {
        chars_max: usize,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Score { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Number { min, max, unit } => write!(f, "a whole number of {unit} from {min} to {max}"),
            Self::Choice(words) | Self::Words(words) => {
                f.write_str(if matches!(self, Self::Choice(_)) { "one of " } else { "a list of any of " })?;
                for (at, word) in words.iter().enumerate() {
                    write!(f, "{}\"{word}\"", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Text { chars_max } => write!(f, "a line of at most {chars_max} characters"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum DefaultValue {
    Score(Score),
    Number(i64),
    Word(&'static str),
    Text(&'static str),
    Words(&'static [&'static str]),
}

/// Some of an option's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WordSet {
    known: &'static [&'static str],
    bits: u32,
}

impl WordSet {
    pub const fn none(known: &'static [&'static str]) -> Self {
        debug_assert!(known.len() <= 32);
        Self { known, bits: 0 }
    }

    fn bit(&self, word: &str) -> Option<u32> {
        let at = self.known.iter().position(|known| *known == word)?;
        1u32.checked_shl(u32::try_from(at).ok()?)
    }

    /// With a word; one that the option does not know changes nothing.
    #[must_use]
    pub fn with(self, word: &str) -> Self {
        Self { bits: self.bits | self.bit(word).unwrap_or(0), ..self }
    }

    pub fn has(&self, word: &str) -> bool {
        self.bit(word).is_some_and(|bit| self.bits & bit != 0)
    }

    #[must_use]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self { known: self.known, bits: self.bits | other.bits }
    }

    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self { known: self.known, bits: self.bits & other.bits }
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.known.iter().copied().filter(|word| self.has(word))
    }

    /// Words with commas or blanks between them; `none` for none of them. `None` if one is not known.
    fn parse(known: &'static [&'static str], text: &str) -> Option<Self> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let mut set = Self::none(known);
        for word in words {
            match set.bit(word) {
                Some(bit) => set.bits |= bit,
                None if text == NO_WORD => return Some(set),
                None => return None,
            }
        }
        Some(set)
    }
}

const NO_WORD: &str = "none";

/// A checked value of an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Score(Score),
    Number(i64),
    Choice(&'static str),
    Words(WordSet),
    Text(Arc<str>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Score(score) => score.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Choice(word) => f.write_str(word),
            Self::Words(words) if words.bits == 0 => f.write_str(NO_WORD),
            Self::Words(words) => {
                for (at, word) in words.iter().enumerate() {
                    write!(f, "{}{word}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Kind {
    /// Reads a value as the command line gives it. `None` if it is out of type or limits.
    pub fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Score { min, max } => {
                let score: Score = text.parse().ok()?;
                (min <= score && score <= max).then_some(Value::Score(score))
            }
            Self::Number { min, max, .. } => {
                let number: i64 = text.trim().parse().ok()?;
                (min <= number && number <= max).then_some(Value::Number(number))
            }
            Self::Choice(words) => words.iter().find(|word| **word == text).map(|word| Value::Choice(word)),
            Self::Words(words) => WordSet::parse(words, text).map(Value::Words),
            Self::Text { chars_max } => (text.chars().count() <= chars_max && !text.chars().any(char::is_control))
                .then(|| Value::Text(text.into())),
        }
    }

    /// True if values have a floor or a ceiling.
    pub fn has_order(self) -> bool {
        !matches!(self, Self::Text { .. })
    }

    /// True if the first value is milder than the second allows as a floor.
    pub fn is_below(self, value: &Value, floor: &Value) -> bool {
        match (value, floor) {
            (Value::Words(words), Value::Words(floor)) => words.or(*floor) != *words,
            _ => matches!((self.rank(value), self.rank(floor)), (Some(value), Some(floor)) if value < floor),
        }
    }

    /// Where the value stands between mild and strict, for floors and ceilings; `None` where there is no order.
    pub(crate) fn rank(self, value: &Value) -> Option<i64> {
        match (self, value) {
            (Self::Score { .. }, Value::Score(score)) => Some(i64::from(score.0)),
            (Self::Number { .. }, Value::Number(number)) => Some(*number),
            (Self::Choice(words), Value::Choice(word)) => {
                words.iter().position(|known| known == word).and_then(|at| i64::try_from(at).ok())
            }
            _ => None,
        }
    }
}

/// The least distance between the tag, quarantine and reject scores.
pub const SCORE_GAP: Score = Score(500);

const ANY_SCORE: Kind = Kind::Score { min: Score(500), max: Score::points(1000) };

/// All options, in the order in which they are shown.
pub const OPTIONS: [PolicyOption; 36] = [
    PolicyOption {
        key: Key::Preset,
        name: "preset",
        kind: Kind::Choice(PresetName::WORDS),
        default: DefaultValue::Word("balanced"),
        lowest_level: Level::Mailbox,
        doc: "A set of values to start from. Values set at the same level or below win over it.",
    },
    PolicyOption {
        key: Key::TagScore,
        name: "tag-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(4)),
        lowest_level: Level::Mailbox,
        doc: "From this score on a message is tagged. The three scores rise by at least 0.5.",
    },
    PolicyOption {
        key: Key::QuarantineScore,
        name: "quarantine-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(6)),
        lowest_level: Level::Mailbox,
        doc: "From this score on a message is quarantined.",
    },
    PolicyOption {
        key: Key::RejectScore,
        name: "reject-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(15)),
        lowest_level: Level::Mailbox,
        doc: "From this score on a message is refused while the sender is connected.",
    },
    PolicyOption {
        key: Key::WhenTagged,
        name: "when-tagged",
        kind: Kind::Choice(WhenTagged::WORDS),
        default: DefaultValue::Word("junk"),
        lowest_level: Level::Mailbox,
        doc: "What a tagged message gets: header fields only, a text before the subject, or the Junk folder.",
    },
    PolicyOption {
        key: Key::SubjectTag,
        name: "subject-tag",
        kind: Kind::Text { chars_max: 40 },
        default: DefaultValue::Text("[SPAM]"),
        lowest_level: Level::Mailbox,
        doc: "The text before the subject of a tagged message.",
    },
    PolicyOption {
        key: Key::WhenQuarantined,
        name: "when-quarantined",
        kind: Kind::Choice(WhenQuarantined::WORDS),
        default: DefaultValue::Word("quarantine"),
        lowest_level: Level::Mailbox,
        doc: "Where quarantined messages go: the quarantine, the Junk folder, or delivered with header fields.",
    },
    PolicyOption {
        key: Key::Virus,
        name: "virus",
        kind: Kind::Choice(VirusAction::WORDS),
        default: DefaultValue::Word("reject"),
        lowest_level: Level::Domain,
        doc: "What happens to a message with a known virus.",
    },
    PolicyOption {
        key: Key::ScannerUnavailable,
        name: "scanner-unavailable",
        kind: Kind::Choice(ScannerUnavailable::WORDS),
        default: DefaultValue::Word("defer"),
        lowest_level: Level::System,
        doc: "What happens while no virus scanner answers: ask the sender to try again, or deliver unseen.",
    },
    PolicyOption {
        key: Key::WhenSuspicious,
        name: "when-suspicious",
        kind: Kind::Choice(WhenSuspicious::WORDS),
        default: DefaultValue::Word("quarantine"),
        lowest_level: Level::Domain,
        doc: "What happens to a message that may be harmful: a virus scanner's guess, a document with macros, an archive \
              with a password, one that is built to explode.",
    },
    PolicyOption {
        key: Key::BlockedAttachments,
        name: "blocked-attachments",
        kind: Kind::Words(AttachmentClass::WORDS),
        default: DefaultValue::Words(&["executables", "scripts", "shortcuts", "disk-images", "disguised"]),
        lowest_level: Level::Mailbox,
        doc: "Kinds of files that are not wanted, by content and by name, inside archives, too. A mailbox can only add \
              to the list.",
    },
    PolicyOption {
        key: Key::BlockedExtensions,
        name: "blocked-extensions",
        kind: Kind::Text { chars_max: 400 },
        default: DefaultValue::Text(""),
        lowest_level: Level::Domain,
        doc: "Further file name extensions that are not wanted, with blanks or commas between them.",
    },
    PolicyOption {
        key: Key::WhenBlocked,
        name: "when-blocked",
        kind: Kind::Choice(WhenBlocked::WORDS),
        default: DefaultValue::Word("quarantine"),
        lowest_level: Level::Domain,
        doc: "What happens to a message with such a file: tagged, quarantined or refused.",
    },
    PolicyOption {
        key: Key::SpfFail,
        name: "spf-fail",
        kind: Kind::Choice(SpfFail::WORDS),
        default: DefaultValue::Word("score-high"),
        lowest_level: Level::Domain,
        doc: "What an SPF failure means, unless DMARC passes.",
    },
    PolicyOption {
        key: Key::Dmarc,
        name: "dmarc",
        kind: Kind::Choice(DmarcAction::WORDS),
        default: DefaultValue::Word("follow"),
        lowest_level: Level::Domain,
        doc: "What a DMARC failure means: the wish of the sender's domain, quarantine at most, or points only.",
    },
    PolicyOption {
        key: Key::WhenSenderBlocked,
        name: "when-sender-blocked",
        kind: Kind::Choice(WhenSenderBlocked::WORDS),
        default: DefaultValue::Word("reject"),
        lowest_level: Level::Mailbox,
        doc: "What happens to a message from a sender on the list `block`.",
    },
    PolicyOption {
        key: Key::Greylist,
        name: "greylist",
        kind: Kind::Choice(Greylist::WORDS),
        default: DefaultValue::Word("suspicious"),
        lowest_level: Level::Domain,
        doc: "Whether a suspicious message is put off once, for five minutes: mail servers come again, most programs that \
              only send spam do not. Networks that came again are known for a month or two and not put off any more.",
    },
    PolicyOption {
        key: Key::GreylistScore,
        name: "greylist-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(4)),
        lowest_level: Level::Domain,
        doc: "From this score on a message is suspicious enough to be put off.",
    },
    PolicyOption {
        key: Key::Newsletter,
        name: "newsletter",
        kind: Kind::Choice(NewsletterAction::WORDS),
        default: DefaultValue::Word("deliver"),
        lowest_level: Level::Mailbox,
        doc: "What happens to newsletters: mail in bulk that says how to cancel it.",
    },
    PolicyOption {
        key: Key::KnownContacts,
        name: "known-contacts",
        kind: Kind::Choice(KnownContacts::WORDS),
        default: DefaultValue::Word("on"),
        lowest_level: Level::Mailbox,
        doc: "Whether mail of somebody whom the mailbox has written to in the last half year, and who proves to be him, gets \
              three points less.",
    },
    PolicyOption {
        key: Key::OwnDomain,
        name: "own-domain",
        kind: Kind::Choice(OwnDomainAction::WORDS),
        default: DefaultValue::Word("score"),
        lowest_level: Level::Domain,
        doc: "What happens to mail from outside that names one of this system's domains as its sender and cannot prove it.",
    },
    PolicyOption {
        key: Key::BlockedCountries,
        name: "blocked-countries",
        kind: Kind::Text { chars_max: 600 },
        default: DefaultValue::Text(""),
        lowest_level: Level::Mailbox,
        doc: "Countries whose mail servers are not wanted, by their two letters, with blanks or commas between them.",
    },
    PolicyOption {
        key: Key::WhenCountry,
        name: "when-country",
        kind: Kind::Choice(WhenCountry::WORDS),
        default: DefaultValue::Word("tag"),
        lowest_level: Level::Mailbox,
        doc: "What happens to mail from such a country.",
    },
    PolicyOption {
        key: Key::MessageSize,
        name: "message-size",
        kind: Kind::Number { min: 0, max: 2000, unit: "MB" },
        default: DefaultValue::Number(0),
        lowest_level: Level::Domain,
        doc: "Larger messages are refused. 0: as large as the system takes them.",
    },
    PolicyOption {
        key: Key::PlusAddressing,
        name: "plus-addressing",
        kind: Kind::Choice(PlusAddressing::WORDS),
        default: DefaultValue::Word("inbox"),
        lowest_level: Level::Mailbox,
        doc: "What `+word` in an address does: nothing, name the mailbox that mail goes into, or no such address exists.",
    },
    PolicyOption {
        key: Key::Forwarding,
        name: "forwarding",
        kind: Kind::Choice(Forwarding::WORDS),
        default: DefaultValue::Word("anywhere"),
        lowest_level: Level::Domain,
        doc: "Where mail may be forwarded to. Addresses elsewhere have to agree first.",
    },
    PolicyOption {
        key: Key::QuarantineDays,
        name: "quarantine-days",
        kind: Kind::Number { min: 7, max: 90, unit: "days" },
        default: DefaultValue::Number(30),
        lowest_level: Level::Domain,
        doc: "How long messages stay in quarantine.",
    },
    PolicyOption {
        key: Key::Digest,
        name: "digest",
        kind: Kind::Choice(Digest::WORDS),
        default: DefaultValue::Word("daily"),
        lowest_level: Level::Mailbox,
        doc: "How often a mail tells what is new in quarantine. Where nothing is new, none comes.",
    },
    PolicyOption {
        key: Key::DigestHour,
        name: "digest-hour",
        kind: Kind::Number { min: 0, max: 23, unit: "hours" },
        default: DefaultValue::Number(6),
        lowest_level: Level::Mailbox,
        doc: "From which hour of the day (UTC) on it comes.",
    },
    PolicyOption {
        key: Key::MailLanguage,
        name: "mail-language",
        kind: Kind::Choice(MailLanguage::WORDS),
        default: DefaultValue::Word("all"),
        lowest_level: Level::Mailbox,
        doc: "The language of what the system writes: digests and questions.",
    },
    PolicyOption {
        key: Key::AdminPreview,
        name: "admin-preview",
        kind: Kind::Choice(AdminPreview::WORDS),
        default: DefaultValue::Word("on"),
        lowest_level: Level::Domain,
        doc: "Whether those who administer the domain may read its messages in quarantine.",
    },
    PolicyOption {
        key: Key::SendingHour,
        name: "sending-hour",
        kind: Kind::Number { min: 0, max: 1_000_000, unit: "recipients" },
        default: DefaultValue::Number(0),
        lowest_level: Level::Domain,
        doc: "Recipients that a mailbox may write to within an hour. 0: as many as the node's configuration says.",
    },
    PolicyOption {
        key: Key::SendingDay,
        name: "sending-day",
        kind: Kind::Number { min: 0, max: 10_000_000, unit: "recipients" },
        default: DefaultValue::Number(0),
        lowest_level: Level::Domain,
        doc: "Recipients that a mailbox may write to within a day. 0: as many as the node's configuration says.",
    },
    PolicyOption {
        key: Key::OutboundSlowScore,
        name: "outbound-slow-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(5)),
        lowest_level: Level::System,
        doc: "From this score on an account that sends is asked to try again later: its way of sending, together with what \
              it sends, looks like that of a stolen password.",
    },
    PolicyOption {
        key: Key::OutboundHoldScore,
        name: "outbound-hold-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(8)),
        lowest_level: Level::System,
        doc: "From this score on what an account sends is taken and held in quarantine.",
    },
    PolicyOption {
        key: Key::OutboundLockScore,
        name: "outbound-lock-score",
        kind: ANY_SCORE,
        default: DefaultValue::Score(Score::points(12)),
        lowest_level: Level::System,
        doc: "From this score on an account may send no more, until its password is changed or an administrator allows \
              it; its owner and the postmaster are told.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_keys_and_itself() {
        for (key, option) in Key::ALL.into_iter().zip(&OPTIONS) {
            assert_eq!(option.key, key);
            assert_eq!(Key::from_name(option.name), Some(key));
            let default = option.default_value();
            assert_eq!(option.kind.parse(&default.to_string()), Some(default), "{}", option.name);
            assert!(!option.doc.is_empty());
        }
    }

    #[test]
    fn values_out_of_type_or_limits_are_refused() {
        for (key, text) in [
            (Key::TagScore, "0.4"),
            (Key::TagScore, "1001"),
            (Key::TagScore, "high"),
            (Key::WhenTagged, "Junk"),
            (Key::BlockedAttachments, "macros, cats"),
            (Key::SubjectTag, "two\nlines"),
            (Key::SubjectTag, &"x".repeat(41)),
        ] {
            assert_eq!(key.option().kind.parse(text), None, "{text}");
        }
        let words = |text: &str| Key::BlockedAttachments.option().kind.parse(text).unwrap().to_string();
        assert_eq!(
            (words("macros,executables"), words("none"), words("")),
            ("executables, macros".into(), "none".into(), "none".into())
        );
        assert!(Key::ScannerUnavailable.option().may_be_set_at(Level::System));
        assert!(!Key::ScannerUnavailable.option().may_be_set_at(Level::Domain));
    }
}
