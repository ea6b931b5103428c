//! What owners say of their messages.

use base::{AccountId, UtcMillis};

use super::entry::EmailId;
use super::flags::{Flags, Keyword};
use super::mailbox::Role;

/// An owner moved a message where spam goes, or out of there; or marked it (`$Junk`, `$NotJunk`). Kept until it was learned;
/// the last word counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerVerdict {
    pub account: AccountId,
    pub email: EmailId,
    pub is_spam: bool,
    pub given_at: UtcMillis,
}

/// What a move from one mailbox to another says of a message; `None` for nothing. Who throws spam away says nothing new.
pub(crate) fn of_move(from: Option<Role>, to: Option<Role>) -> Option<bool> {
    let is_bad = |role| matches!(role, Some(Role::Junk | Role::Quarantine));
    match (is_bad(from), to) {
        (false, Some(Role::Junk)) => Some(true),
        (true, Some(Role::Junk | Role::Quarantine | Role::Trash)) => None,
        (true, _) => Some(false),
        (false, _) => None,
    }
}

/// What new keywords say of a message (RFC 8457's registry: `$Junk`, `$NotJunk`). Those that a client sets by its own
/// judgement have other names.
pub(crate) fn of_flags(was: &Flags, is: &Flags) -> Option<bool> {
    let is_new = |name: &str| {
        let has =
            |flags: &Flags| flags.keywords.iter().any(|keyword: &Keyword| keyword.as_str().eq_ignore_ascii_case(name));
        has(is) && !has(was)
    };
    match (is_new("$Junk"), is_new("$NotJunk")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (true, true) | (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_speak() {
        for (from, to, says) in [
            (Some(Role::Inbox), Some(Role::Junk), Some(true)),
            (None, Some(Role::Junk), Some(true)),
            (Some(Role::Junk), Some(Role::Inbox), Some(false)),
            (Some(Role::Quarantine), Some(Role::Inbox), Some(false)),
            (Some(Role::Junk), None, Some(false)),
            (Some(Role::Junk), Some(Role::Trash), None),
            (Some(Role::Quarantine), Some(Role::Junk), None),
            (Some(Role::Junk), Some(Role::Junk), None),
            (Some(Role::Inbox), Some(Role::Trash), None),
            (Some(Role::Inbox), Some(Role::Archive), None),
        ] {
            assert_eq!(of_move(from, to), says, "{from:?} {to:?}");
        }
    }

    #[test]
    fn marks_speak_once() {
        let flags = |keywords: &[&str]| Flags {
            keywords: keywords.iter().map(|keyword| keyword.parse().unwrap()).collect(),
            ..Flags::default()
        };
        for (was, is, says) in [
            (&[][..], &["$Junk"][..], Some(true)),
            (&["$Junk"], &["$Junk", "$Later"], None),
            (&["$Junk"], &["$NotJunk"], Some(false)),
            (&[], &["NonJunk", "Junk"], None),
            (&["$Junk"], &[], None),
        ] {
            assert_eq!(of_flags(&flags(was), &flags(is)), says, "{was:?} {is:?}");
        }
    }
}
