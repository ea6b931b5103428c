//! Which conversation a message belongs to (RFC 8621 §3): messages that name a common Message-ID and whose subjects are
//! equal but for reply and forward marks.

use rusqlite::{Connection, OptionalExtension};

/// What a message is threaded by: one key per Message-ID it has or refers to, each mixed with the base subject.
/// Two messages that share a key share a thread.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct ThreadKeys(Vec<i64>);

/// References beyond are left out: the message's own id, its parents and the root are what joins it.
const KEYS_MAX: usize = 24;

/// Words before a colon that mean reply or forward: English, German, Italian, and what other clients leave behind.
const MARKS: &[&str] = &["re", "fw", "fwd", "aw", "wg", "antw", "r", "rif", "i", "sv", "vs", "tr", "ref"];

impl ThreadKeys {
    /// Of an encoded summary; no keys if it cannot be read.
    pub(crate) fn of(summary: &[u8]) -> Self {
        let Ok(summary) = mail::mime::Summary::decode(summary) else { return Self::default() };
        let fields = &summary.envelope;
        Self::from_fields(
            fields.message_id.as_deref(),
            fields.in_reply_to.as_deref(),
            fields.references.as_deref(),
            fields.subject.as_deref().map(mail::mime::decode::decode_header_text).as_deref().map(str::as_bytes),
        )
    }

    /// With commas between: one text for a statement that takes the keys of many messages.
    pub(crate) fn joined(&self) -> String {
        self.0.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
    }

    fn from_fields(
        message_id: Option<&[u8]>,
        in_reply_to: Option<&[u8]>,
        references: Option<&[u8]>,
        subject: Option<&[u8]>,
    ) -> Self {
        let subject = base_subject(subject.unwrap_or_default());
        let own = message_id.into_iter().flat_map(ids);
        let parents: Vec<&[u8]> = references.into_iter().chain(in_reply_to).flat_map(ids).collect();
        // The root comes first in References and the nearest parents last.
        let nearest = parents.iter().rev().take(KEYS_MAX - 2);
        let mut keys: Vec<i64> = Vec::new();
        for id in own.take(1).chain(parents.first().copied()).chain(nearest.copied()) {
            let key = key(id, &subject);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Self(keys)
    }
}

/// The thread that one of the keys belongs to, else a new one numbered `email`; all keys belong to it afterwards.
pub(super) fn join(sql: &Connection, account: u64, keys: &ThreadKeys, email: u64) -> rusqlite::Result<u64> {
    let mut find = sql.prepare_cached("SELECT thread_id FROM thread_ref WHERE account_id = ?1 AND key = ?2")?;
    let mut thread: Option<u64> = None;
    let mut missing = Vec::new();
    for key in &keys.0 {
        match find.query_row((account, key), |row| row.get(0)).optional()? {
            Some(found) => thread = thread.or(Some(found)),
            None => missing.push(key),
        }
    }
    let thread = thread.unwrap_or(email);
    let mut add = sql.prepare_cached("INSERT INTO thread_ref (account_id, key, thread_id) VALUES (?1, ?2, ?3)")?;
    for key in missing {
        add.execute((account, key, thread))?;
    }
    Ok(thread)
}

fn key(id: &[u8], subject: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id).update(&[0]).update(subject.as_bytes());
    let digest = hasher.finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    i64::from_be_bytes(first)
}

/// What stands in angle brackets.
fn ids(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|b| *b == b'<').skip(1).filter_map(|rest| {
        let end = memchr_gt(rest)?;
        rest.get(..end).filter(|id| !id.is_empty() && id.len() <= 998)
    })
}

fn memchr_gt(text: &[u8]) -> Option<usize> {
    text.iter().position(|b| *b == b'>')
}

/// The subject without marks of reply and forward and list names in front, white space folded, in lower case.
fn base_subject(subject: &[u8]) -> String {
    let text = String::from_utf8_lossy(subject).split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut rest = text.as_str();
    loop {
        let trimmed = rest.trim_start();
        let unlisted = match trimmed.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((_, after)) if !after.trim().is_empty() => after.trim_start(),
            _ => trimmed,
        };
        let unmarked = match unlisted.split_once(':') {
            Some((mark, after)) if is_mark(mark) => after,
            _ => unlisted,
        };
        if unmarked == rest {
            return rest.trim_end().trim_end_matches("(fwd)").trim_end().to_owned();
        }
        rest = unmarked;
    }
}

/// `re`, and counted as in `re[2]` and `re(2)`.
fn is_mark(word: &str) -> bool {
    let word = word.trim().trim_end_matches([']', ')']).trim_end_matches(|c: char| c.is_ascii_digit());
    MARKS.contains(&word.trim_end_matches(['[', '(']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_equal_but_for_marks() {
        for subject in
            ["Offer", "Re: Offer", "RE:  re[2]: offer", "[list] AW: Offer", "WG: [x] R: Offer (fwd)", "offer "]
        {
            assert_eq!(base_subject(subject.as_bytes()), "offer", "{subject}");
        }
        assert_eq!(base_subject(b"[ticket]"), "[ticket]");
        assert_eq!(base_subject(b"Note: Offer"), "note: offer");
        assert_eq!(base_subject(b"Re:"), "");
    }

    #[test]
    fn a_reply_shares_a_key_and_a_stranger_none() {
        let first = ThreadKeys::from_fields(Some(b"<a@x>"), None, None, Some(b"Offer"));
        let reply = ThreadKeys::from_fields(Some(b"<b@x>"), Some(b"<a@x>"), Some(b"<a@x>"), Some(b"AW: Offer"));
        let other = ThreadKeys::from_fields(Some(b"<c@x>"), Some(b"<a@x>"), None, Some(b"Something else"));
        assert!(reply.0.contains(&first.0[0]) && reply.0.len() == 2);
        assert!(!other.0.contains(&first.0[0]));
        let long: Vec<u8> = (0..500).flat_map(|n| format!("<{n}@x> ").into_bytes()).collect();
        assert_eq!(ThreadKeys::from_fields(Some(b"<z@x>"), None, Some(&long), None).0.len(), KEYS_MAX);
        assert_eq!(ThreadKeys::of(b"no summary"), ThreadKeys::default());
    }
}
