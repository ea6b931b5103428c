//! One day's file: writing a batch, reading lists, stories and counts.

use std::collections::BTreeMap;

use base::{AccountId, MessageId, SessionId, UtcMillis};
use mail::Domain;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use serde_json::{Map, Value};

use crate::count::{Bucket, Span};
use crate::event::{Event, Kind, Outcome};
use crate::fold::{MessageChange, PartyChange, PartyKey, fold};
use crate::query::Query;
use crate::row::{MessageRow, PartyRow, StoredEvent, StoredMessage, StoredParty, ToldEvent};
use crate::scope::{Scope, account_value};
use crate::sql::{Dialect, Sql, Value as SqlValue};
use crate::store::{CHANGES_MAX, PARTIES_MAX, STORY_MAX};

/// Writes a batch in the caller's transaction: events, and the rows and counters they change.
pub(crate) fn write(sql: &Connection, batch: &[(u64, &Event)]) -> rusqlite::Result<()> {
    let mut insert = sql.prepare_cached(
        "INSERT INTO event (seq, at, session, message, kind, party, account, is_recipient, outcome, fields)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for (seq, event) in batch {
        let party = event.party.as_ref();
        insert.execute(params![
            seq,
            event.at.0,
            event.session.map(SessionId::to_bytes),
            event.message.map(MessageId::to_bytes),
            event.kind.as_str(),
            party.map(|party| party.address.as_str()),
            party.and_then(|party| party.account).map(|account| account.0),
            party.map(|party| party.is_recipient),
            party.and_then(|party| party.outcome).map(Outcome::rank),
            serde_json::to_string(&event.fields).unwrap_or_else(|_| "{}".to_owned()),
        ])?;
    }
    let folded = fold(batch.iter().copied());
    let mut counts = BTreeMap::new();
    for (key, change) in &folded.parties {
        write_party(sql, key, change, &mut counts)?;
    }
    for (id, change) in &folded.messages {
        write_message(sql, *id, change)?;
    }
    let mut statement = sql.prepare_cached(
        "INSERT INTO minute (domain, minute, outcome, count) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (domain, minute, outcome) DO UPDATE SET count = count + excluded.count",
    )?;
    for ((domain, minute, outcome), count) in counts.into_iter().filter(|(_, count)| *count != 0) {
        statement.execute(params![domain, minute, outcome, count])?;
    }
    Ok(())
}

type Counts<'a> = BTreeMap<(&'a str, i64, i64), i64>;

fn write_party<'a>(
    sql: &Connection,
    key: &PartyKey<'_>,
    change: &'a PartyChange<'_>,
    counts: &mut Counts<'a>,
) -> rusqlite::Result<()> {
    let id = key.message.to_bytes();
    let outcome = change.outcome.map(Outcome::rank);
    if let Some(new) = change.counts_as(key).map(Outcome::rank) {
        let before: Option<(Option<i64>, Option<i64>)> = sql
            .prepare_cached(
                "SELECT outcome, counted FROM party WHERE message = ?1 AND is_recipient = ?2 AND address = ?3",
            )?
            .query_row(params![id, key.is_recipient, key.address], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let old = before.and_then(|(outcome, counted)| Some((counted.unwrap_or(change.minute), outcome?, -1)));
        for domain in ["", change.domain.as_str()] {
            // The outcome changed (a deferred message came back): it counts once, as what it is now.
            for (minute, outcome, step) in old.into_iter().chain([(change.minute, new, 1)]) {
                *counts.entry((domain, minute, outcome)).or_default() += step;
            }
        }
    }
    sql.prepare_cached(
        "INSERT INTO party (message, address, is_recipient, domain, account, outcome, counted, mailbox, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (message, is_recipient, address) DO UPDATE SET account = coalesce(excluded.account, account),
             outcome = coalesce(excluded.outcome, outcome), counted = coalesce(excluded.counted, counted),
             mailbox = coalesce(excluded.mailbox, mailbox), reason = coalesce(excluded.reason, reason)",
    )?
    .execute(params![
        id,
        key.address,
        key.is_recipient,
        change.domain,
        change.account.map(|account| account.0),
        outcome,
        outcome.map(|_| change.minute),
        change.mailbox,
        change.reason,
    ])?;
    Ok(())
}

fn write_message(sql: &Connection, id: MessageId, change: &MessageChange<'_>) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT INTO message (id, at, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms, outcome)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
                 (SELECT min(outcome) FROM party WHERE message = ?1 AND is_recipient))
         ON CONFLICT (id) DO UPDATE SET seq = excluded.seq,
             reverse_path = coalesce(excluded.reverse_path, reverse_path), subject = coalesce(excluded.subject, subject),
             size_bytes = coalesce(excluded.size_bytes, size_bytes), score = coalesce(excluded.score, score),
             client = coalesce(excluded.client, client), reason = coalesce(excluded.reason, reason),
             took_ms = coalesce(excluded.took_ms, took_ms), outcome = excluded.outcome",
    )?
    .execute(params![
        id.to_bytes(),
        id.made_at().0,
        change.seq,
        change.reverse_path,
        change.subject,
        change.size_bytes,
        change.score,
        change.client,
        change.reason,
        change.took_ms,
    ])?;
    Ok(())
}

const COLUMNS: &str =
    "m.id, m.at, m.seq, m.reverse_path, m.subject, m.size_bytes, m.score, m.client, m.reason, m.took_ms, m.outcome";

/// Messages in scope, newest first, at most `limit`.
pub(crate) fn messages(
    sql: &Connection,
    scope: &Scope,
    query: &Query,
    limit: usize,
) -> rusqlite::Result<Vec<StoredMessage>> {
    let mut found = BTreeMap::new();
    // A list for each domain walks its own index from the newest message and stops at the limit.
    for key in keys(scope) {
        for row in messages_of(sql, scope, &key, query, limit)? {
            found.insert(row.id, row);
        }
    }
    let newest = found.into_values().rev().take(limit);
    newest.map(|row| Ok(StoredMessage { parties: parties(sql, scope, row.id)?, row })).collect()
}

/// By what the messages of a scope are found.
enum Key<'a> {
    All,
    Account(AccountId),
    Domain(&'a Domain),
}

fn keys(scope: &Scope) -> Vec<Key<'_>> {
    match scope {
        Scope::System => vec![Key::All],
        Scope::Account(account) => vec![Key::Account(*account)],
        Scope::Domains(domains) => domains.iter().map(Key::Domain).collect(),
    }
}

fn messages_of(
    sql: &Connection,
    scope: &Scope,
    key: &Key<'_>,
    query: &Query,
    limit: usize,
) -> rusqlite::Result<Vec<MessageRow>> {
    let mut values = Sql::new(Dialect::Sqlite);
    let narrow = scope.narrow(&mut values);
    let by = match key {
        Key::All => None,
        Key::Account(account) => Some(format!("p.account = {}", values.mark(account_value(*account)))),
        Key::Domain(domain) => Some(format!("p.domain = {}", values.mark(SqlValue::Text(domain.as_str().to_owned())))),
    };
    let words = query.condition(&mut values, &narrow);
    let (id, rows, group) = match by {
        None => ("m.id", format!("message m WHERE {words}"), ""),
        Some(by) => {
            let rows = format!("party p CROSS JOIN message m ON m.id = p.message WHERE {by} AND {words}");
            ("p.message", rows, "GROUP BY p.message")
        }
    };
    let bounds = query.bounds(&mut values, id);
    let limit = values.mark(SqlValue::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
    let text = format!("SELECT {COLUMNS} FROM {rows} AND {bounds} {group} ORDER BY {id} DESC LIMIT {limit}");
    let mut statement = sql.prepare_cached(&text)?;
    let found = statement.query_map(params_from_iter(values.values), read_message)?;
    found.collect()
}

/// One message, with its parties in scope.
pub(crate) fn message(sql: &Connection, scope: &Scope, id: MessageId) -> rusqlite::Result<Option<StoredMessage>> {
    let row = sql
        .prepare_cached(&format!("SELECT {COLUMNS} FROM message m WHERE m.id = ?1"))?
        .query_row([id.to_bytes()], read_message)
        .optional()?;
    row.map(|row| Ok(StoredMessage { parties: parties(sql, scope, id)?, row })).transpose()
}

/// Everything that happened to a message, in order.
pub(crate) fn story(sql: &Connection, id: MessageId) -> rusqlite::Result<Vec<ToldEvent>> {
    // The connection's own events carry the session only.
    let mut statement = sql.prepare_cached(
        "SELECT seq, at, session, message, kind, party, outcome, fields, account FROM event
         WHERE message = ?1 OR (message IS NULL AND session IN (SELECT session FROM event WHERE message = ?1))
         ORDER BY seq LIMIT ?2",
    )?;
    let read = |row: &Row<'_>| {
        let account = row.get::<_, Option<u64>>(8)?.map(AccountId);
        Ok(ToldEvent { event: read_event(row)?, account })
    };
    statement.query_map(params![id.to_bytes(), STORY_MAX], read)?.collect()
}

/// Numbers of events after `after` and up to `upto` that are about messages, oldest first, at most [`CHANGES_MAX`].
pub(crate) fn changes(sql: &Connection, after: u64, upto: u64) -> rusqlite::Result<Vec<(u64, MessageId)>> {
    let mut statement = sql.prepare_cached(
        "SELECT seq, message FROM event WHERE seq > ?1 AND seq <= ?2 AND message IS NOT NULL ORDER BY seq LIMIT ?3",
    )?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, MessageId::from_bytes(row.get(1)?)));
    statement.query_map(params![after, upto, CHANGES_MAX], read)?.collect()
}

/// Counts of a span. A single account's are counted from its own rows; everything else comes from the counters.
pub(crate) fn buckets(sql: &Connection, scope: &Scope, span: Span) -> rusqlite::Result<Vec<Bucket>> {
    let mut found: BTreeMap<i64, [u64; 5]> = BTreeMap::new();
    let mut add = |at: i64, rank: i64, count: i64| {
        let counts = found.entry(span.bucket_of(at)).or_default();
        if let Some(slot) = usize::try_from(rank).ok().and_then(|rank| counts.get_mut(rank)) {
            *slot = slot.saturating_add_signed(count);
        }
    };
    match scope {
        Scope::Account(account) => {
            let mut statement = sql.prepare_cached(
                "SELECT m.at, p.outcome FROM party p JOIN message m ON m.id = p.message
                 WHERE p.account = ?1 AND p.is_recipient AND p.outcome IS NOT NULL AND m.at >= ?2 AND m.at < ?3",
            )?;
            let mut rows = statement.query(params![account.0, span.from.0, span.to.0])?;
            while let Some(row) = rows.next()? {
                add(row.get(0)?, row.get(1)?, 1);
            }
        }
        Scope::System | Scope::Domains(_) => {
            let names = match scope {
                Scope::Domains(domains) => domains.iter().map(|domain| domain.as_str().to_owned()).collect(),
                Scope::System | Scope::Account(_) => vec![String::new()],
            };
            let mut statement = sql.prepare_cached(
                "SELECT minute, outcome, count FROM minute WHERE domain = ?1 AND minute >= ?2 AND minute < ?3",
            )?;
            let minutes =
                [span.from.0, span.to.0 + Span::MINUTE_MILLIS - 1].map(|at| at.div_euclid(Span::MINUTE_MILLIS));
            for name in names {
                let mut rows = statement.query(params![name, minutes[0], minutes[1]])?;
                while let Some(row) = rows.next()? {
                    add(row.get::<_, i64>(0)? * Span::MINUTE_MILLIS, row.get(1)?, row.get(2)?);
                }
            }
        }
    }
    Ok(found.into_iter().map(|(at, counts)| Bucket { at: UtcMillis(at), counts }).collect())
}

/// The last sequence number in the file.
pub(crate) fn last_seq(sql: &Connection) -> rusqlite::Result<u64> {
    sql.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0))
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: MessageId::from_bytes(row.get(0)?),
        at: UtcMillis(row.get(1)?),
        seq: row.get(2)?,
        reverse_path: row.get(3)?,
        subject: row.get(4)?,
        size_bytes: row.get(5)?,
        score: row.get(6)?,
        client: row.get(7)?,
        reason: row.get(8)?,
        took_ms: row.get(9)?,
        outcome: row.get::<_, Option<i64>>(10)?.and_then(Outcome::from_rank),
        recipients: Vec::new(),
    })
}

/// Sender and recipients, as far as the scope goes.
fn parties(sql: &Connection, scope: &Scope, message: MessageId) -> rusqlite::Result<Vec<StoredParty>> {
    let mut values = Sql::new(Dialect::Sqlite);
    let id = values.mark(SqlValue::Bytes(message.to_bytes()));
    let seen = scope.narrow(&mut values).on("p");
    let mut statement = sql.prepare_cached(&format!(
        "SELECT p.address, p.account, p.outcome, p.mailbox, p.reason, p.is_recipient FROM party p
         WHERE p.message = {id} AND {seen} ORDER BY p.is_recipient, p.address LIMIT {PARTIES_MAX}"
    ))?;
    let read = |row: &Row<'_>| {
        let party = PartyRow {
            address: row.get(0)?,
            account: row.get::<_, Option<u64>>(1)?.map(AccountId),
            outcome: row.get::<_, Option<i64>>(2)?.and_then(Outcome::from_rank),
            mailbox: row.get(3)?,
            reason: row.get(4)?,
        };
        Ok(StoredParty { is_recipient: row.get(5)?, row: party })
    };
    statement.query_map(params_from_iter(values.values), read)?.collect()
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let fields: String = row.get(7)?;
    let fields = match serde_json::from_str(&fields) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    Ok(StoredEvent {
        seq: row.get(0)?,
        at: UtcMillis(row.get(1)?),
        session: row.get::<_, Option<[u8; 16]>>(2)?.map(SessionId::from_bytes),
        message: row.get::<_, Option<[u8; 16]>>(3)?.map(MessageId::from_bytes),
        kind: Kind::from_name(row.get_ref(4)?.as_str()?).unwrap_or(Kind::Gap),
        party: row.get(5)?,
        outcome: row.get::<_, Option<i64>>(6)?.and_then(Outcome::from_rank),
        fields,
    })
}
