//! What a batch of events changes: one change for each message and each party, however many events speak of it.

use std::collections::BTreeMap;

use base::{AccountId, MessageId};
use serde_json::Value;

use crate::count::Span;
use crate::event::{Event, Kind, Outcome};
use crate::scope::domain_of;

/// In the order of ids, so that neighbours in an index are written together.
#[derive(Default)]
pub(crate) struct Folded<'a> {
    pub(crate) messages: BTreeMap<MessageId, MessageChange<'a>>,
    pub(crate) parties: BTreeMap<PartyKey<'a>, PartyChange<'a>>,
}

/// What is `None` stays as it is stored.
#[derive(Default)]
pub(crate) struct MessageChange<'a> {
    /// Number of the last event.
    pub(crate) seq: u64,
    pub(crate) reverse_path: Option<&'a str>,
    pub(crate) subject: Option<&'a str>,
    pub(crate) size_bytes: Option<i64>,
    pub(crate) score: Option<i64>,
    pub(crate) client: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) took_ms: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartyKey<'a> {
    pub(crate) message: MessageId,
    pub(crate) is_recipient: bool,
    pub(crate) address: &'a str,
}

#[derive(Default)]
pub(crate) struct PartyChange<'a> {
    pub(crate) domain: String,
    pub(crate) account: Option<AccountId>,
    pub(crate) outcome: Option<Outcome>,
    /// When the outcome became so, in minutes: there it counts.
    pub(crate) minute: i64,
    pub(crate) mailbox: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
}

/// Events with their numbers, in order.
pub(crate) fn fold<'a>(events: impl IntoIterator<Item = (u64, &'a Event)>) -> Folded<'a> {
    let mut folded = Folded::default();
    for (seq, event) in events {
        if let Some(message) = event.message {
            folded.add(seq, message, event);
        }
    }
    folded
}

impl<'a> Folded<'a> {
    fn add(&mut self, seq: u64, message: MessageId, event: &'a Event) {
        let text = |name: &str| event.fields.get(name).and_then(Value::as_str);
        let number = |name: &str| event.fields.get(name).and_then(Value::as_i64);
        let reason = match event.kind {
            Kind::Decided => text("decided_by"),
            Kind::RecipientRefused | Kind::Refused | Kind::Deferred => text("status"),
            _ => None,
        };
        let change = self.messages.entry(message).or_default();
        change.seq = seq;
        change.reverse_path = text("from").or(change.reverse_path);
        change.subject = text("subject").or(change.subject);
        change.size_bytes = number("size").or(change.size_bytes);
        change.score = number("score").or(change.score);
        change.client = text("client").or(change.client);
        change.reason = reason.or(change.reason);
        change.took_ms = number("took_ms").or(change.took_ms);
        let Some(party) = &event.party else { return };
        let key = PartyKey { message, is_recipient: party.is_recipient, address: &party.address };
        let change = self.parties.entry(key).or_insert_with(|| PartyChange {
            domain: domain_of(&party.address),
            minute: minute_of(event),
            ..PartyChange::default()
        });
        change.account = party.account.or(change.account);
        if party.outcome.is_some() {
            (change.outcome, change.minute) = (party.outcome, minute_of(event));
        }
        change.mailbox = text("mailbox").or(change.mailbox);
        change.reason = reason.or(change.reason);
    }
}

impl PartyChange<'_> {
    /// What a recipient's change counts as.
    pub(crate) fn counts_as(&self, key: &PartyKey<'_>) -> Option<Outcome> {
        self.outcome.filter(|_| key.is_recipient)
    }
}

fn minute_of(event: &Event) -> i64 {
    event.at.0.div_euclid(Span::MINUTE_MILLIS)
}
