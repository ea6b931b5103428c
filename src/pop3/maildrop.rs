//! The messages of one session, and the lock that keeps others out meanwhile.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{AccountId, Uid, UidValidity};
use parking_lot::Mutex;

/// Which maildrops are open on this node (RFC 1939 §4: one session at a time).
#[derive(Default)]
pub struct Maildrops {
    open: Mutex<HashSet<AccountId>>,
}

impl Maildrops {
    /// `None` if another session has it. Dropping the lock lets it go.
    pub fn lock(self: &Arc<Self>, account: AccountId) -> Option<Lock> {
        let free = self.open.lock().insert(account);
        free.then(|| Lock { maildrops: Arc::clone(self), account })
    }
}

pub struct Lock {
    maildrops: Arc<Maildrops>,
    account: AccountId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.maildrops.open.lock().remove(&self.account);
    }
}

/// The inbox as it was at sign-in: numbers do not change while the session lasts.
pub struct Maildrop {
    pub uid_validity: UidValidity,
    pub messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub uid: Uid,
    /// As sent, dots not doubled.
    pub size_bytes: u64,
    pub deleted: bool,
    /// Read in this session.
    pub retrieved: bool,
}

impl Maildrop {
    /// The message of a number that is not marked deleted.
    pub fn message(&self, number: usize) -> Option<&Message> {
        self.messages.get(number.checked_sub(1)?).filter(|message| !message.deleted)
    }

    pub fn message_mut(&mut self, number: usize) -> Option<&mut Message> {
        self.messages.get_mut(number.checked_sub(1)?).filter(|message| !message.deleted)
    }

    /// Numbers and messages that are not marked deleted.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &Message)> {
        self.messages.iter().enumerate().map(|(at, message)| (at + 1, message)).filter(|(_, message)| !message.deleted)
    }

    /// Stable for the life of the message: UIDs are never reused under one UIDVALIDITY (RFC 1939 §7).
    pub fn unique_id(&self, message: &Message) -> String {
        format!("{}.{}", self.uid_validity, message.uid)
    }

    pub fn deleted_uids(&self) -> Vec<RangeInclusive<Uid>> {
        uids(self.messages.iter().filter(|message| message.deleted))
    }

    pub fn retrieved_uids(&self) -> Vec<RangeInclusive<Uid>> {
        uids(self.messages.iter().filter(|message| message.retrieved && !message.deleted))
    }
}

fn uids<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<RangeInclusive<Uid>> {
    let mut ranges: Vec<RangeInclusive<Uid>> = Vec::new();
    for uid in messages.map(|message| message.uid) {
        match ranges.last_mut() {
            Some(last) if last.end().as_raw().checked_add(1) == Some(uid.as_raw()) => *last = *last.start()..=uid,
            _ => ranges.push(uid..=uid),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_at_a_time() {
        let maildrops = Arc::new(Maildrops::default());
        let lock = maildrops.lock(AccountId(1));
        assert!(lock.is_some() && maildrops.lock(AccountId(1)).is_none() && maildrops.lock(AccountId(2)).is_some());
        drop(lock);
        assert!(maildrops.lock(AccountId(1)).is_some());
    }
}
