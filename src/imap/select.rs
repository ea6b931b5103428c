//! SELECT, EXAMINE and CLOSE.

use std::collections::BTreeSet;

use base::Uid;
use store::{Flags, Keyword, Picture, SystemFlags};

use crate::connection::{Connection, Stop};
use crate::mailboxes::mailbox_id;
use crate::proto::{RawName, Reply, write};
use crate::session::{Phase, Selected};
use crate::sync::{Seen, untagged_number};

impl Connection {
    /// A failed SELECT leaves no mailbox open (RFC 3501 §6.3.1).
    pub async fn select(&mut self, name: &RawName, read_only: bool, condstore: bool) -> Result<Reply, Stop> {
        self.session.deselect();
        self.session.condstore |= condstore;
        let account = self.account()?;
        let name = name.decode().ok_or(Reply::no_mailbox())?;
        let mailbox = self.services.mail.mailbox(account, &name).await?.ok_or(Reply::no_mailbox())?;
        let view = self.services.views.open(account, mailbox.id).await?.ok_or(Reply::no_mailbox())?;
        let picture = view.current();

        let out = &mut self.wire.out;
        let keywords = keywords(&picture);
        let known = keywords.iter().map(Keyword::as_str);
        let system = SystemFlags::from_bits(u8::MAX);
        out.extend_from_slice(b"* FLAGS ");
        write::flags(out, system, known.clone());
        out.extend_from_slice(b"\r\n* OK [PERMANENTFLAGS ");
        if read_only {
            out.extend_from_slice(b"()");
        } else {
            write::flags(out, system, known.chain(["\\*"]));
        }
        out.extend_from_slice(b"] Flags kept\r\n");
        untagged_number(out, picture.len(), b"EXISTS");
        untagged_number(out, 0, b"RECENT");
        if let Some(entry) = picture.iter().find(|entry| !entry.flags.system.contains(SystemFlags::SEEN)) {
            out.extend_from_slice(format!("* OK [UNSEEN {}] First unseen\r\n", entry.index + 1).as_bytes());
        }
        let numbers = format!(
            "* OK [UIDVALIDITY {}] UIDs valid\r\n* OK [UIDNEXT {}] Next UID\r\n* OK [HIGHESTMODSEQ {}] Highest\r\n\
             * OK [MAILBOXID ({})] Mailbox id\r\n",
            mailbox.uid_validity,
            picture.uid_next(),
            picture.highest_modseq(),
            mailbox_id(&mailbox)
        );
        out.extend_from_slice(numbers.as_bytes());

        let seen = Seen { picture };
        let selected = Box::new(Selected { mailbox: mailbox.id, read_only, view, seen, owes_news: false });
        self.session.phase = Phase::Selected(account, selected);
        Ok(match read_only {
            true => Reply::ok("EXAMINE completed").with_code("READ-ONLY"),
            false => Reply::ok("SELECT completed").with_code("READ-WRITE"),
        })
    }

    /// CLOSE expunges without telling (RFC 3501 §6.4.2).
    pub async fn close(&mut self) -> Result<Reply, Stop> {
        let account = self.account()?;
        if let Some(selected) = self.session.deselect()
            && !selected.read_only
            && has_deleted(&selected.seen.picture)
        {
            let all = vec![Uid::MIN..=last_uid(&selected.seen.picture)];
            self.services.mail.expunge(account, selected.mailbox, all, true).await?;
        }
        Ok(Reply::ok("CLOSE completed"))
    }
}

pub fn has_deleted(picture: &Picture) -> bool {
    picture.iter().any(|entry| entry.flags.system.contains(SystemFlags::DELETED))
}

pub fn last_uid(picture: &Picture) -> Uid {
    picture.len().checked_sub(1).and_then(|index| picture.at(index)).map_or(Uid::MIN, |entry| entry.uid)
}

/// Keywords in use, at most [`KEYWORDS_LISTED`]. Entries with equal flags share one set in a picture, so neighbours
/// are told apart by address alone.
fn keywords(picture: &Picture) -> BTreeSet<Keyword> {
    let mut found = BTreeSet::new();
    let mut last: Option<&Flags> = None;
    for entry in picture.iter() {
        if last.is_some_and(|last| std::ptr::eq(last, entry.flags)) {
            continue;
        }
        last = Some(entry.flags);
        found.extend(
            entry.flags.keywords.iter().filter(|keyword| !found.contains(*keyword)).cloned().collect::<Vec<_>>(),
        );
        if found.len() >= KEYWORDS_LISTED {
            break;
        }
    }
    found
}

const KEYWORDS_LISTED: usize = 200;
