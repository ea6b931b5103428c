//! Which folders of other systems are Sent, Drafts, Junk and Trash.

use std::collections::BTreeMap;

use store::{MailboxName, Role};

/// Usual names of a role's folder in English, German and Italian, lower case, the most telling first.
const NAMES: &[(Role, &[&str])] = &[
    (Role::Inbox, &["inbox"]),
    (Role::Drafts, &["drafts", "draft", "entwürfe", "entwurf", "bozze", "bozza"]),
    (
        Role::Sent,
        &[
            "sent",
            "sent items",
            "sent messages",
            "sent mail",
            "sent-mail",
            "gesendet",
            "gesendete objekte",
            "gesendete elemente",
            "gesendete nachrichten",
            "inviati",
            "inviata",
            "posta inviata",
            "elementi inviati",
            "messaggi inviati",
        ],
    ),
    (Role::Archive, &["archive", "archives", "archiv", "archivio", "archiviati"]),
    (
        Role::Junk,
        &[
            "junk",
            "spam",
            "junk e-mail",
            "junk email",
            "junk mail",
            "junk-e-mail",
            "bulk mail",
            "unerwünscht",
            "unerwünschte werbung",
            "werbung",
            "posta indesiderata",
            "indesiderata",
        ],
    ),
    (Role::Quarantine, &["quarantine"]),
    (
        Role::Trash,
        &[
            "trash",
            "deleted items",
            "deleted messages",
            "papierkorb",
            "gelöscht",
            "gelöschte objekte",
            "gelöschte elemente",
            "cestino",
            "eliminata",
            "posta eliminata",
            "elementi eliminati",
        ],
    ),
];

/// The roles of `folders`. Each role goes to one folder at most, the most telling of them: a system that has both `Sent`
/// and `Sent Items` keeps two folders.
pub fn roles<'a>(folders: impl IntoIterator<Item = &'a MailboxName>) -> BTreeMap<MailboxName, Role> {
    let mut best: BTreeMap<Role, (usize, &MailboxName)> = BTreeMap::new();
    for name in folders {
        let below_inbox = name.as_str().strip_prefix("INBOX/");
        let wanted = below_inbox.unwrap_or(name.as_str()).to_lowercase();
        for (role, names) in NAMES {
            let Some(rank) = names.iter().position(|usual| *usual == wanted) else { continue };
            let rank = rank * 2 + usize::from(below_inbox.is_some());
            if best.get(role).is_none_or(|(before, _)| rank < *before) {
                best.insert(*role, (rank, name));
            }
        }
    }
    best.into_iter().map(|(role, (_, name))| (name.clone(), role)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_folders_are_known_by_their_names() {
        let check = |names: &[&str], expected: &[(&str, Role)]| {
            let names: Vec<MailboxName> = names.iter().map(|name| name.parse().unwrap()).collect();
            let found = roles(&names);
            let found: Vec<(&str, Role)> = found.iter().map(|(name, role)| (name.as_str(), *role)).collect();
            assert_eq!(found, expected);
        };
        check(&["Gesendete Objekte", "Work"], &[("Gesendete Objekte", Role::Sent)]);
        check(&["Cestino", "BOZZE"], &[("BOZZE", Role::Drafts), ("Cestino", Role::Trash)]);
        check(&["Sent Items", "Sent"], &[("Sent", Role::Sent)]);
        check(&["INBOX/Spam", "inbox", "Work/Sent"], &[("INBOX", Role::Inbox), ("INBOX/Spam", Role::Junk)]);
    }
}
