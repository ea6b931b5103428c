//! Batches as bytes, for what waits on disk. A segment begins with [`MAGIC`], whose last byte is the version; then
//! records follow: length of the body (u32), the first eight bytes of its BLAKE3 digest, the body: writer (u64), number
//! (u64), events as a JSON array. Numbers are little-endian.

use base::{AccountId, MessageId, SessionId, UtcMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{Event, Kind, Outcome, Party};
use crate::store::Batch;

pub(crate) const MAGIC: [u8; 8] = *b"ORTSPIL\x01";
pub(crate) const HEAD: usize = 12;
/// A body that claims to be longer is damage.
pub(crate) const BODY_MAX: u32 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct DiskEvent {
    at: i64,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    party: Option<DiskParty>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct DiskParty {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<u64>,
    is_recipient: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
}

/// One record. `None` if the batch is too large for one, which no worker makes.
pub(crate) fn write(batch: &Batch) -> Option<Vec<u8>> {
    let mut record = vec![0; HEAD];
    record.extend(batch.writer.to_le_bytes());
    record.extend(batch.number.to_le_bytes());
    let events: Vec<DiskEvent> = batch.events.iter().map(to_disk).collect();
    serde_json::to_writer(&mut record, &events).ok()?;
    let (head, body) = record.split_at_mut(HEAD);
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= BODY_MAX)?;
    let digest = check(body);
    head.iter_mut().zip(length.to_le_bytes().into_iter().chain(digest)).for_each(|(to, from)| *to = from);
    Some(record)
}

/// The body of the whole record with which `bytes` begin, if it does.
pub(crate) fn read_record(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let (length, digest) = read_head(*head)?;
    rest.get(..usize::try_from(length).ok()?).filter(|body| check(body) == digest)
}

/// Where in `bytes`, past their beginning, a whole record begins. Within the text of a body none does: JSON has no octet
/// that is low enough for the last one of a length.
pub(crate) fn find_record(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).find(|at| bytes.get(*at..).is_some_and(|rest| read_record(rest).is_some()))
}

/// How many events damaged bytes seem to hold: as many begin in them, and one at least.
pub(crate) fn count_events(bytes: &[u8]) -> u64 {
    let begin = b"{\"at\":";
    (bytes.windows(begin.len()).filter(|text| text == begin).count() as u64).max(1)
}

/// Length and digest of the body that follows a head.
pub(crate) fn read_head(head: [u8; HEAD]) -> Option<(u32, [u8; 8])> {
    let (length, digest) = head.split_first_chunk::<4>()?;
    let length = Some(u32::from_le_bytes(*length)).filter(|length| (16..=BODY_MAX).contains(length))?;
    Some((length, digest.try_into().ok()?))
}

pub(crate) fn check(body: &[u8]) -> [u8; 8] {
    let mut digest = [0; 8];
    digest.iter_mut().zip(blake3::hash(body).as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// A body whose digest is right. Events of kinds that this version does not know become gaps.
pub(crate) fn read_body(body: &[u8]) -> Option<Batch> {
    let (writer, rest) = body.split_first_chunk::<8>()?;
    let (number, events) = rest.split_first_chunk::<8>()?;
    let events: Vec<DiskEvent> = serde_json::from_slice(events).ok()?;
    let events = events.into_iter().map(from_disk).collect();
    Some(Batch { writer: u64::from_le_bytes(*writer), number: u64::from_le_bytes(*number), events })
}

fn to_disk(event: &Event) -> DiskEvent {
    DiskEvent {
        at: event.at.0,
        kind: event.kind.as_str().to_owned(),
        session: event.session.map(|id| id.to_string()),
        message: event.message.map(|id| id.to_string()),
        party: event.party.as_ref().map(|party| DiskParty {
            address: party.address.clone(),
            account: party.account.map(|account| account.0),
            is_recipient: party.is_recipient,
            outcome: party.outcome.map(|outcome| outcome.as_str().to_owned()),
        }),
        fields: event.fields.clone(),
    }
}

fn from_disk(disk: DiskEvent) -> Event {
    let Some(kind) = Kind::from_name(&disk.kind) else {
        return Event::new(UtcMillis(disk.at), Kind::Gap).field("count", 1);
    };
    Event {
        at: UtcMillis(disk.at),
        session: disk.session.and_then(|id| id.parse::<SessionId>().ok()),
        message: disk.message.and_then(|id| id.parse::<MessageId>().ok()),
        kind,
        party: disk.party.map(|party| Party {
            address: party.address,
            account: party.account.map(AccountId),
            is_recipient: party.is_recipient,
            outcome: party.outcome.as_deref().and_then(Outcome::from_name),
        }),
        fields: disk.fields,
    }
}
