//! A batch as the arrays that `trail_append` takes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base::{MessageId, SessionId};
use engine::EngineError;
use jiff::civil::Date;

use super::Partitions;
use super::partition::number_of;
use crate::event::{Event, Outcome};
use crate::fold::{Folded, fold};
use crate::store::{Batch, day_of, day_of_event};

const APPEND: &str = "SELECT trail_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
     $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)";

/// Longer than any address; what an index takes has a limit.
const INDEXED_MAX: usize = 1000;

impl Partitions {
    pub(super) async fn append_batch(&self, batch: &Batch) -> Result<(), EngineError> {
        let oldest = self.oldest_day();
        // Older ones would be dropped with their day. The clock that counts minutes may lie before the message's.
        let is_kept = |event: &&Event| day_of_event(event) >= oldest && day_of(event.at) >= oldest;
        let kept: Vec<&Event> = batch.events.iter().filter(is_kept).collect();
        let days: BTreeSet<Date> = kept.iter().flat_map(|event| [day_of_event(event), day_of(event.at)]).collect();
        self.make_days(days.into_iter().collect()).await?;

        let mut held = self.writing.lock().await;
        if held.as_ref().is_some_and(|session| session.is_lost()) {
            *held = None;
            return Err(EngineError::Postgres { reason: "the connection was lost".to_owned() });
        }
        let session = match held.take() {
            Some(session) => session,
            None => {
                let session = self.writers.session().await?;
                session.batch("SET synchronous_commit = off").await?;
                session
            }
        };
        let events = Events::of(&kept);
        let folded = fold((1u64..).zip(kept.iter().copied()));
        let (messages, parties) = (Messages::of(&folded), Parties::of(&folded));
        let (writer, number) = (signed(batch.writer), signed(batch.number));
        let (now, oldest_minute) = (self.clock.utc().0, number_of(oldest) * 1440);
        let done = session
            .rows(
                APPEND,
                &[
                    &writer,
                    &number,
                    &now,
                    &oldest_minute,
                    &events.day,
                    &events.at,
                    &events.session,
                    &events.message,
                    &events.kind,
                    &events.party,
                    &events.account,
                    &events.is_recipient,
                    &events.outcome,
                    &events.fields,
                    &messages.id,
                    &messages.seq,
                    &messages.reverse_path,
                    &messages.subject,
                    &messages.size_bytes,
                    &messages.score,
                    &messages.client,
                    &messages.reason,
                    &messages.took_ms,
                    &parties.message,
                    &parties.is_recipient,
                    &parties.address,
                    &parties.domain,
                    &parties.account,
                    &parties.outcome,
                    &parties.minute,
                    &parties.mailbox,
                    &parties.reason,
                ],
            )
            .await;
        if !session.is_lost() {
            *held = Some(session);
        }
        done.map(drop)
    }
}

#[derive(Default)]
struct Events<'a> {
    day: Vec<i32>,
    at: Vec<i64>,
    session: Vec<Option<Vec<u8>>>,
    message: Vec<Option<Vec<u8>>>,
    kind: Vec<&'static str>,
    party: Vec<Option<&'a str>>,
    account: Vec<Option<i64>>,
    is_recipient: Vec<Option<bool>>,
    outcome: Vec<Option<i16>>,
    fields: Vec<String>,
}

impl<'a> Events<'a> {
    fn of(kept: &[&'a Event]) -> Self {
        let mut rows = Self::default();
        for event in kept {
            let party = event.party.as_ref();
            rows.day.push(i32::try_from(number_of(day_of_event(event))).unwrap_or(0));
            rows.at.push(event.at.0);
            rows.session.push(event.session.map(SessionId::to_bytes).map(Vec::from));
            rows.message.push(event.message.map(MessageId::to_bytes).map(Vec::from));
            rows.kind.push(event.kind.as_str());
            rows.party.push(party.map(|party| party.address.as_str()));
            rows.account.push(party.and_then(|party| party.account).map(|account| signed(account.0)));
            rows.is_recipient.push(party.map(|party| party.is_recipient));
            rows.outcome.push(party.and_then(|party| party.outcome).map(rank));
            // JSON escapes the octet zero, which the server takes in no text.
            rows.fields.push(serde_json::to_string(&event.fields).unwrap_or_else(|_| "{}".to_owned()));
        }
        rows
    }
}

#[derive(Default)]
struct Messages<'a> {
    id: Vec<Vec<u8>>,
    seq: Vec<i64>,
    reverse_path: Vec<Option<Cow<'a, str>>>,
    subject: Vec<Option<Cow<'a, str>>>,
    size_bytes: Vec<Option<i64>>,
    score: Vec<Option<i64>>,
    client: Vec<Option<Cow<'a, str>>>,
    reason: Vec<Option<Cow<'a, str>>>,
    took_ms: Vec<Option<i64>>,
}

impl<'a> Messages<'a> {
    fn of(folded: &Folded<'a>) -> Self {
        let mut rows = Self::default();
        for (id, change) in &folded.messages {
            rows.id.push(id.to_bytes().to_vec());
            rows.seq.push(signed(change.seq));
            rows.reverse_path.push(change.reverse_path.map(|path| text(crate::event::cut(path, INDEXED_MAX))));
            rows.subject.push(change.subject.map(text));
            rows.size_bytes.push(change.size_bytes);
            rows.score.push(change.score);
            rows.client.push(change.client.map(text));
            rows.reason.push(change.reason.map(text));
            rows.took_ms.push(change.took_ms);
        }
        rows
    }
}

#[derive(Default)]
struct Parties<'a> {
    message: Vec<Vec<u8>>,
    is_recipient: Vec<bool>,
    address: Vec<&'a str>,
    domain: Vec<String>,
    account: Vec<Option<i64>>,
    outcome: Vec<Option<i16>>,
    minute: Vec<i64>,
    mailbox: Vec<Option<Cow<'a, str>>>,
    reason: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Parties<'a> {
    fn of(folded: &Folded<'a>) -> Self {
        let mut rows = Self::default();
        for (key, change) in &folded.parties {
            rows.message.push(key.message.to_bytes().to_vec());
            rows.is_recipient.push(key.is_recipient);
            rows.address.push(key.address);
            rows.domain.push(change.domain.clone());
            rows.account.push(change.account.map(|account| signed(account.0)));
            rows.outcome.push(change.outcome.map(rank));
            rows.minute.push(change.minute);
            rows.mailbox.push(change.mailbox.map(text));
            rows.reason.push(change.reason.map(text));
        }
        rows
    }
}

/// Text without the octet zero, which the server refuses.
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

fn rank(outcome: Outcome) -> i16 {
    i16::try_from(outcome.rank()).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
