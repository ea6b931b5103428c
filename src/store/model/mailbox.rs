//! Mailboxes (folders) of an account.

use std::fmt;
use std::str::FromStr;

use base::{MailboxId, ModSeq, Uid, UidValidity};

/// A mailbox with its counters, as of one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    pub id: MailboxId,
    pub name: MailboxName,
    pub role: Option<Role>,
    pub subscribed: bool,
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    /// Highest mod-sequence of a change in this mailbox.
    pub highest_modseq: ModSeq,
    /// Mod-sequence of the last change of name, role, subscription or counters (for JMAP Mailbox/changes).
    pub changed_modseq: ModSeq,
    /// Mod-sequence at which it was created.
    pub created_modseq: ModSeq,
    pub messages: u32,
    pub unseen: u32,
    /// Entries flagged `\Deleted` (STATUS DELETED).
    pub deleted: u32,
    /// Sum of sizes as clients see them (STATUS SIZE).
    pub size_bytes: u64,
}

/// A full path such as `Work/2026`: UTF-8, levels separated by `/`. `INBOX` as first level is always upper case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxName(Box<str>);

impl MailboxName {
    pub const DELIMITER: char = '/';

    pub fn inbox() -> Self {
        Self("INBOX".into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn is_inbox(&self) -> bool {
        &*self.0 == "INBOX"
    }
    /// The path above, if there is one.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once(Self::DELIMITER).map(|(parent, _)| Self(parent.into()))
    }
    /// The last level.
    pub fn leaf(&self) -> &str {
        self.0.rsplit(Self::DELIMITER).next().unwrap_or(&self.0)
    }
    /// True for every level below `ancestor`, not for itself.
    pub fn is_below(&self, ancestor: &Self) -> bool {
        self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.starts_with(Self::DELIMITER))
    }
    /// The name with the leading `from` replaced by `to`; `None` if it is neither `from` nor below it.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*from.0)?;
        (rest.is_empty() || rest.starts_with(Self::DELIMITER)).then(|| format!("{to}{rest}").into()).map(Self)
    }
}

/// The text cannot name a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a mailbox name: levels must be non-empty, at most 255 octets and without control characters, `*` or `%`")]
pub struct InvalidMailboxName;

impl FromStr for MailboxName {
    type Err = InvalidMailboxName;

    /// At most 1000 octets in all and 32 levels. A trailing delimiter is dropped (RFC 9051 §6.3.4).
    fn from_str(text: &str) -> Result<Self, InvalidMailboxName> {
        let text = text.strip_suffix(Self::DELIMITER).unwrap_or(text);
        let level_fits = |level: &str| {
            (1..=255).contains(&level.len())
                && !level.chars().any(|c| c.is_control() || matches!(c, '*' | '%' | '\u{2028}' | '\u{2029}'))
        };
        if text.len() > 1000 || text.split(Self::DELIMITER).count() > 32 || !text.split(Self::DELIMITER).all(level_fits)
        {
            return Err(InvalidMailboxName);
        }
        let is_inbox = text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("inbox"))
            && matches!(text.as_bytes().get(5), None | Some(b'/'));
        Ok(Self(if is_inbox { format!("INBOX{}", &text[5..]).into() } else { text.into() }))
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Special use (RFC 6154, RFC 8621 §2). At most one mailbox of an account has each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Role {
    Inbox,
    Drafts,
    Sent,
    Archive,
    Junk,
    /// Where earlier versions kept what is worse than Junk; now it is held outside mailboxes.
    Quarantine,
    Trash,
}

impl Role {
    /// All, in the order in which they are shown, with the names that mailboxes with them usually have.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Inbox, "INBOX"),
        (Self::Drafts, "Drafts"),
        (Self::Sent, "Sent"),
        (Self::Archive, "Archive"),
        (Self::Junk, "Junk"),
        (Self::Quarantine, "Quarantine"),
        (Self::Trash, "Trash"),
    ];

    /// What every new account gets, with these names.
    pub const INITIAL: [(Self, &'static str); 6] = [
        (Self::Inbox, "INBOX"),
        (Self::Drafts, "Drafts"),
        (Self::Sent, "Sent"),
        (Self::Archive, "Archive"),
        (Self::Junk, "Junk"),
        (Self::Trash, "Trash"),
    ];

    /// RFC 6154 attribute; INBOX and Quarantine have none.
    pub const fn special_use(self) -> Option<&'static str> {
        match self {
            Self::Inbox | Self::Quarantine => None,
            Self::Drafts => Some("\\Drafts"),
            Self::Sent => Some("\\Sent"),
            Self::Archive => Some("\\Archive"),
            Self::Junk => Some("\\Junk"),
            Self::Trash => Some("\\Trash"),
        }
    }

    /// JMAP's role and the name on disk.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Drafts => "drafts",
            Self::Sent => "sent",
            Self::Archive => "archive",
            Self::Junk => "junk",
            Self::Quarantine => "quarantine",
            Self::Trash => "trash",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().map(|(role, _)| role).find(|role| role.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_normalise() {
        for (text, name) in [("inbox", "INBOX"), ("InBox/a", "INBOX/a"), ("inboxes", "inboxes"), ("a/b/", "a/b")] {
            assert_eq!(text.parse::<MailboxName>().unwrap().as_str(), name);
        }
        for text in ["", "/", "a//b", "/a", "a*b", "a%", "a\u{7}", &"x/".repeat(40)] {
            assert!(text.parse::<MailboxName>().is_err(), "{text}");
        }
        let (a, b): (MailboxName, MailboxName) = ("a".parse().unwrap(), "b/c".parse().unwrap());
        assert_eq!("a/x".parse::<MailboxName>().unwrap().moved(&a, &b).unwrap().as_str(), "b/c/x");
        assert!("ab".parse::<MailboxName>().unwrap().moved(&a, &b).is_none());
    }
}
