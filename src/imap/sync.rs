//! What changed in the open mailbox since the client last heard of it.

use std::sync::Arc;

use store::{EntryState, EntryView, Picture};

use crate::proto::write;

/// The picture that a client has been told: all that a session keeps of its mailbox.
pub struct Seen {
    pub picture: Arc<Picture>,
}

/// Which news may be told now, and how.
#[derive(Clone, Copy, Default)]
pub struct Telling<'a> {
    /// False while sequence numbers must stay (RFC 3501 §7.4.1): news then wait if some of them are expunges.
    pub may_expunge: bool,
    /// What the client changed itself and has been answered, by rising UID.
    pub own: &'a [EntryState],
    pub condstore: bool,
}

impl Seen {
    /// Writes EXPUNGE, EXISTS and FETCH for what leads from the picture told to `next`, which becomes it.
    pub fn advance(&mut self, next: Arc<Picture>, telling: Telling<'_>, out: &mut Vec<u8>) {
        if Arc::ptr_eq(&self.picture, &next) || next.highest_modseq() < self.picture.highest_modseq() {
            return;
        }
        let news = Picture::differences(&self.picture, &next);
        if !telling.may_expunge && !news.vanished.is_empty() {
            return;
        }
        for (gone_before, (index, _)) in news.vanished.iter().enumerate() {
            untagged_number(out, index + 1 - gone_before, b"EXPUNGE");
        }
        if news.appended > 0 {
            untagged_number(out, next.len(), b"EXISTS");
        }
        for entry in news.changed.iter().filter_map(|index| next.at(*index)) {
            let own = telling.own.binary_search_by_key(&entry.uid, |state| state.uid);
            let is_own = own.is_ok_and(|at| telling.own.get(at).is_some_and(|state| state.modseq == entry.modseq));
            if !is_own {
                flags_changed(out, entry, telling.condstore);
            }
        }
        self.picture = next;
    }
}

/// `* 5 EXISTS` and its like.
pub fn untagged_number(out: &mut Vec<u8>, number: usize, what: &[u8]) {
    out.extend_from_slice(b"* ");
    write::number(out, number as u64);
    out.push(b' ');
    out.extend_from_slice(what);
    out.extend_from_slice(b"\r\n");
}

/// `* 5 FETCH (UID 9 FLAGS (\Seen))`
pub fn flags_changed(out: &mut Vec<u8>, entry: EntryView<'_>, condstore: bool) {
    out.extend_from_slice(b"* ");
    write::number(out, entry.index as u64 + 1);
    out.extend_from_slice(b" FETCH (UID ");
    write::number(out, entry.uid.as_raw().into());
    out.extend_from_slice(b" FLAGS ");
    write::flags(out, entry.flags.system, entry.flags.keywords.iter().map(store::Keyword::as_str));
    if condstore {
        out.extend_from_slice(b" MODSEQ (");
        write::number(out, entry.modseq.as_raw());
        out.push(b')');
    }
    out.extend_from_slice(b")\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ModSeq, Uid};
    use store::{Changes, EmailId, Flags, SystemFlags};

    fn state((uid, modseq, bits): &(u32, u64, u8)) -> EntryState {
        EntryState {
            uid: Uid::new(*uid).unwrap(),
            email: EmailId(1),
            modseq: ModSeq::new(*modseq).unwrap(),
            flags: Flags::system(SystemFlags::from_bits(*bits)),
        }
    }

    fn picture(entries: &[(u32, u64, u8)], at: u64) -> Arc<Picture> {
        Arc::new(Picture::of(Changes {
            changed: entries.iter().map(state).collect(),
            vanished: Vec::new(),
            highest_modseq: ModSeq::new(at).unwrap(),
            uid_next: Uid::new(100).unwrap(),
        }))
    }

    fn told(telling: Telling<'_>) -> (String, usize) {
        let mut seen = Seen { picture: picture(&[(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)], 1) };
        let mut out = Vec::new();
        seen.advance(picture(&[(2, 5, 1), (4, 1, 0), (7, 5, 0)], 5), telling, &mut out);
        (String::from_utf8(out).unwrap(), seen.picture.len())
    }

    #[test]
    fn news_are_told_in_order() {
        let all = Telling { may_expunge: true, ..Telling::default() };
        let text = "* 1 EXPUNGE\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n* 1 FETCH (UID 2 FLAGS (\\Seen))\r\n";
        assert_eq!(told(all), (text.to_owned(), 3));
        let answered = [state(&(2, 5, 1))];
        assert!(!told(Telling { own: &answered, ..all }).0.contains("FETCH"));
        let older = [state(&(2, 4, 1))];
        assert!(told(Telling { own: &older, ..all }).0.contains("FETCH"));
        assert!(told(Telling { condstore: true, ..all }).0.contains(" MODSEQ (5)"));
    }

    #[test]
    fn expunges_wait_for_a_command_that_allows_them() {
        assert_eq!(told(Telling::default()), (String::new(), 4));
    }
}
