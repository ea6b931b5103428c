//! Commands about mailboxes: LIST, LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE.

use base::AccountId;
use store::{MailStore, Mailbox, MailboxName, Role, SystemFlags};

use crate::proto::{List, RawName, Reply, StatusItem, write};

/// LIST (RFC 3501 §6.3.8, RFC 5258, RFC 6154, RFC 5819).
pub async fn list(store: &dyn MailStore, account: AccountId, list: &List, out: &mut Vec<u8>) -> Result<Reply, Reply> {
    let done = Reply::ok("LIST completed");
    if list.basic && list.patterns.iter().all(Vec::is_empty) {
        // RFC 3501 §6.3.8: an empty pattern asks for the delimiter.
        out.extend_from_slice(b"* LIST (\\Noselect) \"/\" \"\"\r\n");
        return Ok(done);
    }
    let mailboxes = store.mailboxes(account).await?;
    let patterns = patterns(&list.reference, &list.patterns);
    for name in names(&mailboxes) {
        let mailbox = mailboxes.iter().find(|m| m.name == name);
        let subscribed = mailbox.is_some_and(|m| m.subscribed);
        let special_use = mailbox.and_then(|m| m.role).and_then(Role::special_use);
        let below = |m: &&Mailbox| m.name.is_below(&name);
        let child_info = list.select_recursive && mailboxes.iter().filter(below).any(|m| m.subscribed);
        let selected = (!list.select_subscribed || subscribed || child_info)
            && (!list.select_special_use || special_use.is_some())
            // RFC 3501 §6.3.8: a level without a mailbox shows where a pattern stops at it.
            && (mailbox.is_some() || !list.select_special_use);
        if !selected || !patterns.iter().any(|pattern| matches(pattern, name.as_str())) {
            continue;
        }
        let mut attributes: Vec<&str> = Vec::new();
        if mailbox.is_none() {
            attributes.push("\\NonExistent");
            attributes.push("\\Noselect");
        }
        let has_children = mailboxes.iter().any(|m| m.name.is_below(&name));
        attributes.push(if has_children { "\\HasChildren" } else { "\\HasNoChildren" });
        if subscribed && (list.return_subscribed || list.select_subscribed) {
            attributes.push("\\Subscribed");
        }
        attributes.extend(special_use);
        line(out, "LIST", &attributes, &name);
        if child_info && !subscribed {
            out.truncate(out.len() - 2);
            out.extend_from_slice(b" (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n");
        }
        if let (Some(mailbox), false) = (mailbox, list.return_status.is_empty()) {
            let items = &list.return_status;
            status_line(out, mailbox, items, deleted_storage(store, account, mailbox, items).await?);
        }
    }
    Ok(done)
}

/// LSUB (RFC 3501 §6.3.9).
pub async fn lsub(
    store: &dyn MailStore,
    account: AccountId,
    reference: &[u8],
    pattern: &[u8],
    out: &mut Vec<u8>,
) -> Result<Reply, Reply> {
    let mailboxes = store.mailboxes(account).await?;
    let patterns = patterns(reference, &[pattern.to_vec()]);
    for name in names(&mailboxes) {
        if !patterns.iter().any(|pattern| matches(pattern, name.as_str())) {
            continue;
        }
        if mailboxes.iter().any(|m| m.subscribed && m.name == name) {
            line(out, "LSUB", &[], &name);
        } else if mailboxes.iter().any(|m| m.subscribed && m.name.is_below(&name)) && pattern.ends_with(b"%") {
            // What `%` hides below is shown by the level above it.
            line(out, "LSUB", &["\\Noselect"], &name);
        }
    }
    Ok(Reply::ok("LSUB completed"))
}

pub async fn status(
    store: &dyn MailStore,
    account: AccountId,
    name: &RawName,
    items: &[StatusItem],
    out: &mut Vec<u8>,
) -> Result<Reply, Reply> {
    let name = name.decode().ok_or(Reply::bad_name())?;
    let mailbox = store.mailbox(account, &name).await?.ok_or(Reply::no_mailbox())?;
    status_line(out, &mailbox, items, deleted_storage(store, account, &mailbox, items).await?);
    Ok(Reply::ok("STATUS completed"))
}

pub async fn create(
    store: &dyn MailStore,
    account: AccountId,
    name: &RawName,
    role: Option<Result<Role, ()>>,
) -> Result<Reply, Reply> {
    let name = name.decode().ok_or(Reply::bad_name())?;
    let role = role.transpose().map_err(|()| Reply::no("USEATTR", "Special use is not known here"))?;
    let mailbox = store.create_mailbox(account, &name, role).await?;
    Ok(Reply::ok("CREATE completed").with_code(format!("MAILBOXID ({})", mailbox_id(&mailbox))))
}

pub async fn delete(store: &dyn MailStore, account: AccountId, name: &RawName) -> Result<Reply, Reply> {
    let name = name.decode().ok_or(Reply::no_mailbox())?;
    store.delete_mailbox(account, &name).await?;
    Ok(Reply::ok("DELETE completed"))
}

pub async fn rename(store: &dyn MailStore, account: AccountId, from: &RawName, to: &RawName) -> Result<Reply, Reply> {
    let from = from.decode().ok_or(Reply::no_mailbox())?;
    let to = to.decode().ok_or(Reply::bad_name())?;
    store.rename_mailbox(account, &from, &to).await?;
    Ok(Reply::ok("RENAME completed"))
}

pub async fn subscribe(
    store: &dyn MailStore,
    account: AccountId,
    name: &RawName,
    subscribed: bool,
) -> Result<Reply, Reply> {
    let name = name.decode().ok_or(Reply::bad_name())?;
    store.subscribe(account, &name, subscribed).await?;
    Ok(Reply::ok(if subscribed { "SUBSCRIBE completed" } else { "UNSUBSCRIBE completed" }))
}

/// OBJECTID's name of a mailbox (RFC 8474 §4).
pub fn mailbox_id(mailbox: &Mailbox) -> String {
    format!("F{}", mailbox.id)
}

/// Octets that an EXPUNGE of the mailbox would give back (RFC 9208 §4.1.4); zero if nobody asks.
async fn deleted_storage(
    store: &dyn MailStore,
    account: AccountId,
    mailbox: &Mailbox,
    items: &[StatusItem],
) -> Result<u64, Reply> {
    if mailbox.deleted == 0 || !items.contains(&StatusItem::DeletedStorage) {
        return Ok(0);
    }
    let states = store.email_states(account, Some(mailbox.id)).await?;
    let deleted = states.iter().filter(|email| email.state.flags.system.contains(SystemFlags::DELETED));
    Ok(deleted.map(|email| email.size_bytes).sum())
}

/// `* STATUS "x" (MESSAGES 3 …)`
fn status_line(out: &mut Vec<u8>, mailbox: &Mailbox, items: &[StatusItem], deleted_storage: u64) {
    out.extend_from_slice(b"* STATUS ");
    write::mailbox(out, &mailbox.name);
    out.extend_from_slice(b" (");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        let (name, value): (&str, u64) = match item {
            StatusItem::Messages => ("MESSAGES ", mailbox.messages.into()),
            StatusItem::Recent => ("RECENT ", 0),
            StatusItem::UidNext => ("UIDNEXT ", mailbox.uid_next.as_raw().into()),
            StatusItem::UidValidity => ("UIDVALIDITY ", mailbox.uid_validity.as_raw().into()),
            StatusItem::Unseen => ("UNSEEN ", mailbox.unseen.into()),
            StatusItem::Deleted => ("DELETED ", mailbox.deleted.into()),
            StatusItem::DeletedStorage => ("DELETED-STORAGE ", deleted_storage),
            StatusItem::Size => ("SIZE ", mailbox.size_bytes),
            StatusItem::HighestModSeq => ("HIGHESTMODSEQ ", mailbox.highest_modseq.as_raw()),
            StatusItem::MailboxId => {
                out.extend_from_slice(format!("MAILBOXID ({})", mailbox_id(mailbox)).as_bytes());
                continue;
            }
        };
        out.extend_from_slice(name.as_bytes());
        write::number(out, value);
    }
    out.extend_from_slice(b")\r\n");
}

fn line(out: &mut Vec<u8>, response: &str, attributes: &[&str], name: &MailboxName) {
    out.extend_from_slice(format!("* {response} ({}) \"/\" ", attributes.join(" ")).as_bytes());
    write::mailbox(out, name);
    out.extend_from_slice(b"\r\n");
}

/// Every mailbox and every level above one, INBOX first, each once.
fn names(mailboxes: &[Mailbox]) -> Vec<MailboxName> {
    let mut names: Vec<MailboxName> = Vec::with_capacity(mailboxes.len());
    for mailbox in mailboxes {
        let mut above = mailbox.name.parent();
        while let Some(name) = above {
            above = name.parent();
            names.push(name);
        }
        names.push(mailbox.name.clone());
    }
    names.sort_by(|a, b| b.is_inbox().cmp(&a.is_inbox()).then_with(|| a.cmp(b)));
    names.dedup();
    names
}

/// Reference and pattern are simply joined; a pattern that cannot be read matches nothing.
fn patterns(reference: &[u8], patterns: &[Vec<u8>]) -> Vec<String> {
    let join = |pattern: &Vec<u8>| mail::utf7::decode(&[reference, pattern].concat());
    patterns
        .iter()
        .filter_map(join)
        .map(|mut pattern| {
            // `INBOX` in any case, as in names.
            if pattern.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("inbox"))
                && matches!(pattern.as_bytes().get(5), None | Some(b'/' | b'%' | b'*'))
            {
                pattern.replace_range(..5, "INBOX");
            }
            pattern
        })
        .collect()
}

/// `*` stands for anything, `%` for anything within a level. Linear in pattern times name: each row of the table of
/// suffix matches follows from the one before.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for wanted in pattern {
        match wanted {
            b'*' | b'%' => {
                for at in 1..=name.len() {
                    fits[at] = fits[at] || (fits[at - 1] && (*wanted == b'*' || name[at - 1] != b'/'));
                }
            }
            _ => {
                for at in (1..=name.len()).rev() {
                    fits[at] = fits[at - 1] && name[at - 1] == *wanted;
                }
                fits[0] = false;
            }
        }
    }
    fits[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("a/%", "a/b", true),
            ("%/%", "a/b", true),
            ("a*c", "a/b/c", true),
            ("a%c", "a/c", false),
            ("", "", true),
            ("ab", "a", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(patterns(b"", &[b"inbox/%".to_vec()]), ["INBOX/%"]);
        assert_eq!(patterns(b"", &[b"inboxes".to_vec()]), ["inboxes"]);
        assert_eq!(patterns(b"a/", &[b"&AOk-*".to_vec()]), ["a/é*"]);
    }
}
