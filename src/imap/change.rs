//! Commands that change messages: STORE, COPY, MOVE, EXPUNGE.

use base::{MailboxId, ModSeq, Uid};
use store::model::Copied;
use store::{EntryView, FlagOutcome, Picture};

use crate::connection::{Connection, Stop};
use crate::proto::{Ranges, RawName, Reply, SequenceSet, Store, write};
use crate::select::{has_deleted, last_uid};
use crate::sync::{Telling, flags_changed};

impl Connection {
    pub async fn store(&mut self, by_uid: bool, set: &SequenceSet, store: Store) -> Result<Reply, Stop> {
        let done = Reply::ok("STORE completed");
        let uids = self.uids(by_uid, set)?;
        if uids.is_empty() {
            return Ok(done);
        }
        self.session.condstore |= store.unchanged_since.is_some();
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        // No message has a mod-sequence of zero: such a condition only tests for existence, and always fails.
        let unchanged_since = store.unchanged_since.map(|modseq| ModSeq::new(modseq).unwrap_or(ModSeq::MIN));
        let mail = &self.services.mail;
        let outcome = mail.set_flags(account, mailbox, uids, store.change, unchanged_since).await?;

        let condstore = self.session.condstore;
        if let Some(selected) = self.session.selected() {
            if !store.silent || condstore {
                tell_outcome(&selected.seen.picture, &outcome, condstore, &mut self.wire.out);
            }
            let modified = match by_uid {
                true => Ranges::of(outcome.modified.iter().map(|uid| uid.as_raw())),
                false => numbers(&selected.seen.picture, &outcome.modified),
            };
            self.tell_news(Telling { may_expunge: by_uid, own: &outcome.changed, condstore }).await?;
            if !modified.is_empty() {
                return Ok(done.with_code(format!("MODIFIED {}", text(&modified))));
            }
        }
        Ok(done)
    }

    pub async fn copy(&mut self, by_uid: bool, set: &SequenceSet, to: &RawName) -> Result<Reply, Stop> {
        let done = Reply::ok("COPY completed");
        let uids = self.uids(by_uid, set)?;
        let to = self.target(to).await?;
        if uids.is_empty() {
            return Ok(done);
        }
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        let copied = self.services.mail.copy(account, mailbox, uids, to).await?;
        Ok(match copy_uid(&copied) {
            Some(code) => done.with_code(code),
            None => done,
        })
    }

    /// RFC 6851: the new UIDs come before the expunges, so that the client can follow.
    pub async fn r#move(&mut self, by_uid: bool, set: &SequenceSet, to: &RawName) -> Result<Reply, Stop> {
        let uids = self.uids(by_uid, set)?;
        let to = self.target(to).await?;
        if !uids.is_empty() {
            let (account, mailbox) = (self.account()?, self.mailbox()?);
            let moved = self.services.mail.r#move(account, mailbox, uids, to).await?;
            if let Some(code) = copy_uid(&moved) {
                self.wire.out.extend_from_slice(format!("* OK [{code}] Moved\r\n").as_bytes());
            }
        }
        Ok(Reply::ok("MOVE completed"))
    }

    pub async fn expunge(&mut self, set: Option<&SequenceSet>) -> Result<Reply, Stop> {
        let done = Reply::ok("EXPUNGE completed");
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        // Another session may have flagged since: look at the latest.
        self.tell_news(Telling { may_expunge: true, own: &[], condstore: self.session.condstore }).await?;
        let uids = match (set, self.session.selected()) {
            (Some(set), _) => self.uids(true, set)?,
            (None, Some(selected)) if has_deleted(&selected.seen.picture) => {
                vec![Uid::MIN..=last_uid(&selected.seen.picture)]
            }
            (None, _) => Vec::new(),
        };
        if !uids.is_empty() {
            self.services.mail.expunge(account, mailbox, uids, true).await?;
        }
        Ok(done)
    }

    pub fn mailbox(&mut self) -> Result<MailboxId, Reply> {
        self.session.selected().map(|selected| selected.mailbox).ok_or(Reply::bad("Select a mailbox first"))
    }

    async fn target(&self, name: &RawName) -> Result<MailboxId, Stop> {
        let name = name.decode().ok_or(Reply::bad_name())?;
        let found = self.services.mail.mailbox(self.account()?, &name).await?;
        Ok(found.ok_or(Reply::try_create())?.id)
    }
}

fn tell_outcome(picture: &Picture, outcome: &FlagOutcome, condstore: bool, out: &mut Vec<u8>) {
    for state in &outcome.changed {
        if let Some(index) = picture.index_of(state.uid) {
            let entry =
                EntryView { index, uid: state.uid, email: state.email, modseq: state.modseq, flags: &state.flags };
            flags_changed(out, entry, condstore);
        }
    }
}

fn numbers(picture: &Picture, uids: &[Uid]) -> Ranges {
    let number = |uid: &Uid| u32::try_from(picture.index_of(*uid)? + 1).ok();
    Ranges::of(uids.iter().filter_map(number))
}

/// `COPYUID 7 1:3 11:13`
fn copy_uid(copied: &Copied) -> Option<String> {
    if copied.uids.is_empty() {
        return None;
    }
    let from = Ranges::of(copied.uids.iter().map(|(from, _)| from.as_raw()));
    let to = Ranges::of(copied.uids.iter().map(|(_, to)| to.as_raw()));
    Some(format!("COPYUID {} {} {}", copied.uid_validity, text(&from), text(&to)))
}

fn text(ranges: &Ranges) -> String {
    let mut out = Vec::new();
    write::ranges(&mut out, ranges.as_slice());
    String::from_utf8_lossy(&out).into_owned()
}
