//! One day's file: writing a batch, reading lists, stories and counts.

use std::collections::BTreeMap;

use base::{AccountId, MessageId, SessionId, UtcMillis};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use serde_json::{Map, Value};

use crate::count::{Bucket, Span};
use crate::event::{Event, Kind, Outcome};
use crate::query::Query;
use crate::row::{MessageRow, PartyRow, StoredEvent};
use crate::scope::{Scope, domain_of};

/// Writes a batch in the caller's transaction: events, and the rows and counters they change.
pub(crate) fn write(sql: &Connection, batch: &[(u64, Event)]) -> rusqlite::Result<()> {
    let mut insert = sql.prepare_cached(
        "INSERT OR IGNORE INTO event (seq, at, session, message, kind, party, account, is_recipient, outcome, fields)
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
            Value::Object(event.fields.clone()).to_string(),
        ])?;
        if let Some(message) = event.message {
            write_rows(sql, *seq, message, event)?;
        }
    }
    Ok(())
}

fn write_rows(sql: &Connection, seq: u64, message: MessageId, event: &Event) -> rusqlite::Result<()> {
    let text = |name: &str| event.fields.get(name).and_then(Value::as_str);
    let number = |name: &str| event.fields.get(name).and_then(Value::as_i64);
    let reason = match event.kind {
        Kind::Decided => text("decided_by"),
        Kind::RecipientRefused | Kind::Refused | Kind::Deferred => text("status"),
        _ => None,
    };
    sql.prepare_cached(
        "INSERT INTO message (id, at, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET seq = excluded.seq,
             reverse_path = coalesce(excluded.reverse_path, reverse_path), subject = coalesce(excluded.subject, subject),
             size_bytes = coalesce(excluded.size_bytes, size_bytes), score = coalesce(excluded.score, score),
             client = coalesce(excluded.client, client), reason = coalesce(excluded.reason, reason),
             took_ms = coalesce(excluded.took_ms, took_ms)",
    )?
    .execute(params![
        message.to_bytes(),
        message.made_at().0,
        seq,
        text("from"),
        text("subject"),
        number("size"),
        number("score"),
        text("client"),
        reason,
        number("took_ms"),
    ])?;
    let Some(party) = &event.party else { return Ok(()) };
    let domain = domain_of(&party.address);
    let before: Option<Option<i64>> = sql
        .prepare_cached("SELECT outcome FROM party WHERE message = ?1 AND is_recipient = ?2 AND address = ?3")?
        .query_row(params![message.to_bytes(), party.is_recipient, party.address], |row| row.get(0))
        .optional()?;
    sql.prepare_cached(
        "INSERT INTO party (message, address, is_recipient, domain, account, outcome, mailbox, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (message, is_recipient, address) DO UPDATE SET account = coalesce(excluded.account, account),
             outcome = coalesce(excluded.outcome, outcome), mailbox = coalesce(excluded.mailbox, mailbox),
             reason = coalesce(excluded.reason, reason)",
    )?
    .execute(params![
        message.to_bytes(),
        party.address,
        party.is_recipient,
        domain,
        party.account.map(|account| account.0),
        party.outcome.map(Outcome::rank),
        text("mailbox"),
        reason,
    ])?;
    let Some(outcome) = party.outcome.filter(|_| party.is_recipient) else { return Ok(()) };
    sql.prepare_cached(
        "UPDATE message SET outcome = (SELECT min(outcome) FROM party WHERE message = ?1 AND is_recipient) WHERE id = ?1",
    )?
    .execute([message.to_bytes()])?;
    let minute = event.at.0.div_euclid(Span::MINUTE_MILLIS);
    count(sql, &domain, minute, outcome.rank(), 1)?;
    // The outcome changed (a deferred message came back): it counts once, as what it is now.
    if let Some(old) = before.flatten() {
        count(sql, &domain, minute, old, -1)?;
    }
    Ok(())
}

fn count(sql: &Connection, domain: &str, minute: i64, outcome: i64, step: i64) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached(
        "INSERT INTO minute (domain, minute, outcome, count) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (domain, minute, outcome) DO UPDATE SET count = count + excluded.count",
    )?;
    statement.execute(params![domain, minute, outcome, step])?;
    statement.execute(params!["", minute, outcome, step])?;
    Ok(())
}

/// Messages in scope, newest first, at most `limit`.
pub(crate) fn messages(
    sql: &Connection,
    scope: &Scope,
    query: &Query,
    limit: usize,
) -> rusqlite::Result<Vec<MessageRow>> {
    let (scope_sql, mut values) = scope_condition(scope);
    let (query_sql, query_values) = query.to_sql();
    values.extend(query_values);
    values.push(Sql::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut statement = sql.prepare_cached(&format!(
        "SELECT id, at, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms, outcome FROM message m
         WHERE {scope_sql} AND {query_sql} ORDER BY id DESC LIMIT ?"
    ))?;
    let rows = statement.query_map(params_from_iter(values), read_message)?;
    rows.map(|row| with_parties(sql, scope, row?)).collect()
}

/// The row of one message, if the scope admits it.
pub(crate) fn message(sql: &Connection, scope: &Scope, id: MessageId) -> rusqlite::Result<Option<MessageRow>> {
    let (scope_sql, mut values) = scope_condition(scope);
    values.insert(0, Sql::Blob(id.to_bytes().to_vec()));
    let row = sql
        .prepare_cached(&format!(
            "SELECT id, at, seq, reverse_path, subject, size_bytes, score, client, reason, took_ms, outcome FROM message m
             WHERE m.id = ? AND {scope_sql}"
        ))?
        .query_row(params_from_iter(values), read_message)
        .optional()?;
    row.map(|row| with_parties(sql, scope, row)).transpose()
}

/// Everything that happened to a message, in order. Lines about recipients outside the scope are left out.
pub(crate) fn story(sql: &Connection, scope: &Scope, id: MessageId) -> rusqlite::Result<Vec<StoredEvent>> {
    if message(sql, scope, id)?.is_none() {
        return Ok(Vec::new());
    }
    // The connection's own events carry the session only.
    let mut statement = sql.prepare_cached(
        "SELECT seq, at, session, message, kind, party, outcome, fields, account FROM event
         WHERE message = ?1 OR (message IS NULL AND session IN (SELECT session FROM event WHERE message = ?1))
         ORDER BY seq LIMIT 5000",
    )?;
    let rows = statement.query_map([id.to_bytes()], |row| Ok((read_event(row)?, row.get::<_, Option<u64>>(8)?)))?;
    let mut events = Vec::new();
    for row in rows {
        let (event, account) = row?;
        let visible = match (scope, &event.party) {
            (Scope::System, _) | (_, None) => true,
            (Scope::Account(own), Some(_)) => account == Some(own.0),
            (Scope::Domains(domains), Some(address)) => {
                let domain = domain_of(address);
                domains.iter().any(|known| known.as_str() == domain)
            }
        };
        if visible {
            events.push(event);
        }
    }
    Ok(events)
}

/// Messages that events after `seq` changed, oldest change first: what a reconnecting viewer missed.
pub(crate) fn changed_after(
    sql: &Connection,
    scope: &Scope,
    seq: u64,
    limit: usize,
) -> rusqlite::Result<Vec<MessageRow>> {
    let mut statement = sql.prepare_cached(
        "SELECT message FROM event WHERE seq > ?1 AND message IS NOT NULL GROUP BY message ORDER BY max(seq) LIMIT ?2",
    )?;
    let ids = statement
        .query_map(params![seq, limit], |row| row.get(0).map(MessageId::from_bytes))?
        .collect::<Result<Vec<_>, _>>()?;
    let rows = ids.into_iter().filter_map(|id| message(sql, scope, id).transpose());
    rows.collect()
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

fn scope_condition(scope: &Scope) -> (String, Vec<Sql>) {
    match scope {
        Scope::System => ("1".to_owned(), Vec::new()),
        Scope::Account(AccountId(account)) => (
            "m.id IN (SELECT message FROM party WHERE account = ?)".to_owned(),
            vec![Sql::Integer(i64::try_from(*account).unwrap_or(i64::MAX))],
        ),
        Scope::Domains(domains) => {
            let marks = vec!["?"; domains.len()].join(", ");
            let values = domains.iter().map(|domain| Sql::Text(domain.as_str().to_owned())).collect();
            (format!("m.id IN (SELECT message FROM party WHERE domain IN ({marks}))"), values)
        }
    }
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

/// Adds the recipients that the scope admits; a viewer's own outcome stands for the message.
fn with_parties(sql: &Connection, scope: &Scope, mut row: MessageRow) -> rusqlite::Result<MessageRow> {
    let mut statement = sql.prepare_cached(
        "SELECT address, account, outcome, mailbox, reason, domain FROM party
         WHERE message = ?1 AND is_recipient ORDER BY address LIMIT 1000",
    )?;
    let mut parties = statement.query([row.id.to_bytes()])?;
    while let Some(party) = parties.next()? {
        let (account, domain): (Option<u64>, String) = (party.get(1)?, party.get(5)?);
        let visible = match scope {
            Scope::System => true,
            Scope::Account(own) => account == Some(own.0),
            Scope::Domains(domains) => domains.iter().any(|known| known.as_str() == domain),
        };
        if visible {
            row.recipients.push(PartyRow {
                address: party.get(0)?,
                account: account.map(AccountId),
                outcome: party.get::<_, Option<i64>>(2)?.and_then(Outcome::from_rank),
                mailbox: party.get(3)?,
                reason: party.get(4)?,
            });
        }
    }
    if *scope != Scope::System && !row.recipients.is_empty() {
        row.outcome = row.recipients.iter().filter_map(|party| party.outcome).min();
    }
    Ok(row)
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
