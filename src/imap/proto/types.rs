//! Commands as values.

use base::{ModSeq, Secret, UtcMillis};
use mail::utf7;
use store::{FlagChange, Flags, MailboxName, Role};

use super::sequence::SequenceSet;

/// One client command.
#[derive(Debug)]
pub struct Command {
    /// Printable ASCII without what the grammar forbids.
    pub tag: String,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    /// `initial` is still in base 64 (RFC 4959); `=` stands for an empty one.
    Authenticate {
        mechanism: String,
        initial: Option<Secret<String>>,
    },
    Login {
        login: Vec<u8>,
        password: Secret<Vec<u8>>,
    },
    /// Names as sent, upper case.
    Enable(Vec<String>),
    Select {
        mailbox: RawName,
        read_only: bool,
        condstore: bool,
    },
    /// `role` is `Err` for a special use that we do not have (RFC 6154 §3).
    Create {
        mailbox: RawName,
        role: Option<Result<Role, ()>>,
    },
    Delete(RawName),
    Rename {
        from: RawName,
        to: RawName,
    },
    Subscribe(RawName),
    Unsubscribe(RawName),
    List(List),
    Lsub {
        reference: Vec<u8>,
        pattern: Vec<u8>,
    },
    Namespace,
    /// RFC 9208. Root names as sent.
    GetQuota(Vec<u8>),
    GetQuotaRoot(RawName),
    Status {
        mailbox: RawName,
        items: Vec<StatusItem>,
    },
    Idle,
    Check,
    Close,
    Unselect,
    Expunge,
    UidExpunge(SequenceSet),
    Search {
        by_uid: bool,
        search: Search,
    },
    Fetch {
        by_uid: bool,
        set: SequenceSet,
        fetch: Fetch,
    },
    Store {
        by_uid: bool,
        set: SequenceSet,
        store: Store,
    },
    Copy {
        by_uid: bool,
        set: SequenceSet,
        to: RawName,
    },
    Move {
        by_uid: bool,
        set: SequenceSet,
        to: RawName,
    },
}

/// A mailbox name as sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawName(pub Vec<u8>);

impl RawName {
    /// `None` if no mailbox can have this name.
    pub fn decode(&self) -> Option<MailboxName> {
        utf7::decode(&self.0)?.parse().ok()
    }
}

/// LIST with the options of RFC 5258, RFC 6154 and RFC 5819.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct List {
    pub reference: Vec<u8>,
    pub patterns: Vec<Vec<u8>>,
    pub select_subscribed: bool,
    pub select_recursive: bool,
    pub select_special_use: bool,
    pub return_subscribed: bool,
    pub return_children: bool,
    pub return_special_use: bool,
    pub return_status: Vec<StatusItem>,
    /// The old form: attributes that cost nothing are given anyway, as RFC 6154 §2 allows.
    pub basic: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    DeletedStorage,
    Size,
    HighestModSeq,
    MailboxId,
}

/// What APPEND says before its message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendHead {
    pub tag: String,
    pub mailbox: RawName,
    pub options: AppendOptions,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AppendOptions {
    pub flags: Flags,
    pub internal_date: Option<UtcMillis>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    pub items: Vec<FetchItem>,
    /// RFC 7162 §3.1.4.1
    pub changed_since: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchItem {
    Uid,
    Flags,
    InternalDate,
    Size,
    Envelope,
    /// BODYSTRUCTURE; with `extended` false, BODY.
    Structure {
        extended: bool,
    },
    ModSeq,
    EmailId,
    ThreadId,
    Preview,
    Section(SectionItem),
}

/// `BODY[…]` and its three old names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SectionItem {
    pub section: Section,
    /// Offset and length.
    pub partial: Option<(u64, u64)>,
    pub peek: bool,
    /// How the response names it, such as `BODY[HEADER.FIELDS (DATE)]<0>`.
    pub label: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Part numbers, none zero; empty for the whole message.
    pub path: Vec<u32>,
    pub text: SectionText,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SectionText {
    All,
    Header,
    /// Lower case names; with `except`, all the others.
    HeaderFields {
        names: Vec<String>,
        except: bool,
    },
    Text,
    Mime,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    pub change: FlagChange,
    pub silent: bool,
    /// RFC 7162 §3.1.3; may be zero.
    pub unchanged_since: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Search {
    /// `Some` asks for an ESEARCH response (RFC 4731).
    pub options: Option<SearchReturn>,
    /// All must hold.
    pub keys: Vec<SearchKey>,
    /// The charset, if one was named that we do not have.
    pub unknown_charset: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SearchReturn {
    pub min: bool,
    pub max: bool,
    pub all: bool,
    pub count: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SearchKey {
    All,
    Flag(store::SystemFlags, bool),
    /// `None`: a text that no keyword can be.
    Keyword(Option<store::Keyword>, bool),
    /// Days since 1970-01-01, time and zone left out (RFC 3501 §6.4.4).
    Received(DayIs, i64),
    Sent(DayIs, i64),
    /// Lower-case name; an empty text asks for the field's presence.
    Header(String, Vec<u8>),
    Body(Vec<u8>),
    Text(Vec<u8>),
    Larger(u64),
    Smaller(u64),
    Uids(SequenceSet),
    Numbers(SequenceSet),
    ModSeq(ModSeq),
    /// RFC 5032: seconds before now.
    Older(u32),
    Younger(u32),
    EmailId(Vec<u8>),
    ThreadId(Vec<u8>),
    Not(Box<SearchKey>),
    Or(Box<SearchKey>, Box<SearchKey>),
    And(Vec<SearchKey>),
    /// Known never to match, as RECENT and NEW here.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DayIs {
    Before,
    On,
    Since,
}
