//! Lists, stories, counts. Every statement is bounded: by a limit, or by a span of time.

use std::collections::BTreeMap;

use base::{AccountId, MessageId, SessionId, UtcMillis};
use engine::EngineError;
use engine::postgres::types::ToSql;
use engine::postgres::{Pool, Row, value};
use jiff::civil::Date;
use serde_json::{Map, Value as Json};

use super::partition::number_of;
use crate::count::{Bucket, Span};
use crate::event::{Kind, Outcome};
use crate::query::Query;
use crate::row::{MessageRow, PartyRow, StoredEvent, StoredMessage, StoredParty, ToldEvent};
use crate::scope::{Narrow, Scope, account_value};
use crate::sql::{Dialect, Sql, Value};
use crate::store::{CHANGES_MAX, Changes, PARTIES_MAX, STORY_MAX, day_of};

type Result<T> = std::result::Result<T, EngineError>;

const COLUMNS: &str =
    "m.id, m.seq, m.reverse_path, m.subject, m.size_bytes, m.score, m.client, m.reason, m.took_ms, m.outcome";

/// Runs a text that was put together: such texts have many forms, and none is kept prepared. `ids` come after the values.
async fn ask(pool: &Pool, text: &str, values: &[Value], ids: Option<&Vec<Vec<u8>>>) -> Result<Vec<Row>> {
    let values: Vec<Box<dyn ToSql + Sync + Send>> = values
        .iter()
        .map(|value| -> Box<dyn ToSql + Sync + Send> {
            match value {
                Value::Int(number) => Box::new(*number),
                Value::Text(text) => Box::new(text.replace('\0', "")),
                Value::Bytes(bytes) => Box::new(bytes.to_vec()),
            }
        })
        .collect();
    let mut params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| -> &(dyn ToSql + Sync) { &**value }).collect();
    if let Some(ids) = ids {
        params.push(ids);
    }
    pool.query_once(text, &params).await
}

pub(super) async fn messages(pool: &Pool, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<StoredMessage>> {
    let mut sql = Sql::new(Dialect::Postgres);
    let text = list_text(&mut sql, scope, query, limit);
    let rows = ask(pool, &text, &sql.values, None).await?;
    let rows = rows.iter().map(read_message).collect::<Result<Vec<_>>>()?;
    with_parties(pool, scope, rows).await
}

/// A list walks one index from the newest message and stops at the limit: of all messages, or of the parties of one
/// address, account or domain; of several domains each gives its newest.
fn list_text(sql: &mut Sql, scope: &Scope, query: &Query, limit: usize) -> String {
    let narrow = scope.narrow(sql);
    let words = query.condition(sql, &narrow);
    let mut conditions = format!("{} AND {words}", query.bounds(sql, "m.id"));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if query.recipient().is_none() && *scope == Scope::System {
        return format!("SELECT {COLUMNS} FROM trail_message m WHERE {conditions} ORDER BY m.id DESC LIMIT {limit}");
    }
    conditions = format!("{conditions} AND {}", query.bounds(sql, "p.message"));
    let list_by = |by: &str| {
        format!(
            "SELECT DISTINCT ON (p.message) {COLUMNS} FROM trail_party p JOIN trail_message m ON m.id = p.message
             WHERE {by} AND {conditions} ORDER BY p.message DESC LIMIT {limit}"
        )
    };
    match (query.recipient(), &narrow) {
        (Some(address), _) => {
            let mark = sql.mark(Value::Text(address.to_owned()));
            list_by(&format!("{} = {mark} AND p.is_recipient AND {}", sql.folded("p.address"), narrow.on("p")))
        }
        (None, Narrow::Domains(names)) if names.len() > 1 => format!(
            "SELECT DISTINCT ON (m.id) {COLUMNS} FROM unnest(ARRAY[{}]) AS d (name) CROSS JOIN LATERAL ({}) m
             ORDER BY m.id DESC LIMIT {limit}",
            names.join(", "),
            list_by("p.domain = d.name")
        ),
        (None, Narrow::All(_) | Narrow::Account(_) | Narrow::Domains(_)) => list_by(&narrow.on("p")),
    }
}

/// Messages by their ids, each with the number to show instead of its own, if any; those that are not there, or concern
/// nobody in the scope, are left out.
pub(super) async fn by_ids(pool: &Pool, scope: &Scope, ids: &[(MessageId, Option<u64>)]) -> Result<Vec<StoredMessage>> {
    let bytes: Vec<Vec<u8>> = ids.iter().map(|(id, _)| id.to_bytes().to_vec()).collect();
    let text = format!("SELECT {COLUMNS} FROM unnest($1::bytea[]) AS i (id) JOIN trail_message m ON m.id = i.id");
    let rows = pool.query(&text, &[&bytes]).await?;
    let rows = rows.iter().map(read_message).collect::<Result<Vec<_>>>()?;
    let numbers: BTreeMap<MessageId, Option<u64>> = ids.iter().copied().collect();
    let mut found = with_parties(pool, scope, rows).await?;
    for message in &mut found {
        if let Some(Some(seq)) = numbers.get(&message.row.id) {
            message.row.seq = *seq;
        }
    }
    Ok(found)
}

async fn with_parties(pool: &Pool, scope: &Scope, rows: Vec<MessageRow>) -> Result<Vec<StoredMessage>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new(Dialect::Postgres);
    let seen = scope.narrow(&mut sql).on("p");
    let ids: Vec<Vec<u8>> = rows.iter().map(|row| row.id.to_bytes().to_vec()).collect();
    let text = format!(
        "SELECT f.* FROM unnest(${}::bytea[]) AS i (id) CROSS JOIN LATERAL (
             SELECT p.message, p.is_recipient, p.address, p.account, p.outcome, p.mailbox, p.reason FROM trail_party p
             WHERE p.message = i.id AND {seen} ORDER BY p.is_recipient, p.address LIMIT {PARTIES_MAX}) f",
        sql.values.len() + 1
    );
    let mut parties: BTreeMap<MessageId, Vec<StoredParty>> = BTreeMap::new();
    for row in ask(pool, &text, &sql.values, Some(&ids)).await? {
        let party = PartyRow {
            address: value(&row, 2)?,
            account: account(&row, 3)?,
            outcome: outcome(&row, 4)?,
            mailbox: value(&row, 5)?,
            reason: value(&row, 6)?,
        };
        let party = StoredParty { is_recipient: value(&row, 1)?, row: party };
        parties.entry(message_id(&row, 0)?).or_default().push(party);
    }
    let whole = |row: MessageRow| StoredMessage { parties: parties.remove(&row.id).unwrap_or_default(), row };
    Ok(rows.into_iter().map(whole).collect())
}

/// Everything that happened to a message, in the order of time: nodes write when they can.
pub(super) async fn story(pool: &Pool, id: MessageId) -> Result<Vec<ToldEvent>> {
    let text = "WITH own AS MATERIALIZED (SELECT * FROM trail_event WHERE message = $1 AND day = $2)
         SELECT seq, at, session, message, kind, party, outcome, fields, account FROM (
             SELECT * FROM own
             UNION ALL
             -- The connection's own events carry the session only.
             SELECT e.* FROM trail_event e WHERE e.message IS NULL AND e.day BETWEEN $2 - 1 AND $2 + 1
                 AND e.session = ANY (ARRAY(SELECT DISTINCT own.session FROM own WHERE own.session IS NOT NULL))
         ) e ORDER BY at, seq LIMIT $3";
    let day = i32::try_from(number_of(day_of(id.made_at()))).unwrap_or(0);
    let limit = i64::try_from(STORY_MAX).unwrap_or(i64::MAX);
    let rows = pool.query(text, &[&id.to_bytes().as_slice(), &day, &limit]).await?;
    rows.iter().map(|row| Ok(ToldEvent { event: read_event(row)?, account: account(row, 8)? })).collect()
}

pub(super) async fn changes(pool: &Pool, scope: &Scope, after: u64, since: Date) -> Result<Changes> {
    let text = "SELECT seq, message FROM trail_event WHERE seq > $1 AND day >= $2 AND message IS NOT NULL
         ORDER BY seq LIMIT $3";
    let after_here = i64::try_from(after).unwrap_or(i64::MAX);
    let day = i32::try_from(number_of(since)).unwrap_or(0);
    let limit = i64::try_from(CHANGES_MAX).unwrap_or(i64::MAX);
    let rows = pool.query(text, &[&after_here, &day, &limit]).await?;
    let (mut upto, mut last) = (after, BTreeMap::new());
    for row in &rows {
        upto = unsigned(row, 0)?;
        last.insert(message_id(row, 1)?, Some(upto));
    }
    let ids: Vec<(MessageId, Option<u64>)> = last.into_iter().collect();
    let mut messages = match ids.is_empty() {
        true => Vec::new(),
        false => by_ids(pool, scope, &ids).await?,
    };
    messages.sort_unstable_by_key(|message| message.row.seq);
    Ok(Changes { messages, upto, has_more: rows.len() >= CHANGES_MAX })
}

/// Counts of a span. A single account's are counted from its own rows; everything else comes from the counters.
pub(super) async fn buckets(pool: &Pool, scope: &Scope, span: Span) -> Result<Vec<Bucket>> {
    let mut found: BTreeMap<i64, [u64; 5]> = BTreeMap::new();
    let mut add = |at: i64, rank: i16, count: i64| {
        let counts = found.entry(span.bucket_of(at)).or_default();
        if let Some(slot) = usize::try_from(rank).ok().and_then(|rank| counts.get_mut(rank)) {
            *slot = slot.saturating_add_signed(count);
        }
    };
    let mut sql = Sql::new(Dialect::Postgres);
    if let Scope::Account(own) = scope {
        let own = sql.mark(account_value(*own));
        let [from, to] = [span.from, span.to].map(|at| sql.mark(Value::Bytes(MessageId::first_at(at).to_bytes())));
        let text = format!(
            "SELECT p.message, p.outcome FROM trail_party p WHERE p.account = {own} AND p.is_recipient
             AND p.outcome IS NOT NULL AND p.message >= {from} AND p.message < {to}"
        );
        for row in ask(pool, &text, &sql.values, None).await? {
            add(message_id(&row, 0)?.made_at().0, value(&row, 1)?, 1);
        }
    } else {
        let names = match scope {
            Scope::Domains(domains) => domains.iter().map(|domain| domain.as_str().to_owned()).collect(),
            Scope::System | Scope::Account(_) => vec![String::new()],
        };
        let text = "SELECT minute / $4 * $4, outcome, sum(count)::bigint FROM trail_minute
             WHERE domain = ANY ($1) AND minute >= $2 AND minute < $3 GROUP BY 1, 2 ORDER BY 1, 2";
        let [from, to] =
            [span.from.0, span.to.0 + Span::MINUTE_MILLIS - 1].map(|at| at.div_euclid(Span::MINUTE_MILLIS));
        let step = i64::from(span.step_minutes.max(1));
        for row in pool.query(text, &[&names, &from, &to, &step]).await? {
            add(value::<i64>(&row, 0)? * Span::MINUTE_MILLIS, value(&row, 1)?, value(&row, 2)?);
        }
    }
    Ok(found.into_iter().map(|(at, counts)| Bucket { at: UtcMillis(at), counts }).collect())
}

pub(super) async fn last_seq(pool: &Pool) -> Result<u64> {
    let rows = pool.query("SELECT seq FROM trail_state", &[]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, 0))
}

fn read_message(row: &Row) -> Result<MessageRow> {
    let id = message_id(row, 0)?;
    Ok(MessageRow {
        id,
        at: id.made_at(),
        seq: unsigned(row, 1)?,
        reverse_path: value(row, 2)?,
        subject: value(row, 3)?,
        size_bytes: value::<Option<i64>>(row, 4)?.and_then(|size| u64::try_from(size).ok()),
        score: value::<Option<i64>>(row, 5)?.and_then(|score| i32::try_from(score).ok()),
        client: value(row, 6)?,
        reason: value(row, 7)?,
        took_ms: value::<Option<i64>>(row, 8)?.and_then(|took| u64::try_from(took).ok()),
        outcome: outcome(row, 9)?,
        recipients: Vec::new(),
    })
}

fn read_event(row: &Row) -> Result<StoredEvent> {
    let fields = match serde_json::from_str(value::<&str>(row, 7)?) {
        Ok(Json::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let session = value::<Option<&[u8]>>(row, 2)?.and_then(|bytes| bytes.try_into().ok());
    let message = value::<Option<&[u8]>>(row, 3)?.and_then(|bytes| bytes.try_into().ok());
    Ok(StoredEvent {
        seq: unsigned(row, 0)?,
        at: UtcMillis(value(row, 1)?),
        session: session.map(SessionId::from_bytes),
        message: message.map(MessageId::from_bytes),
        kind: Kind::from_name(value(row, 4)?).unwrap_or(Kind::Gap),
        party: value(row, 5)?,
        outcome: outcome(row, 6)?,
        fields,
    })
}

fn message_id(row: &Row, at: usize) -> Result<MessageId> {
    let bytes = value::<&[u8]>(row, at)?.try_into();
    bytes.map(MessageId::from_bytes).map_err(|_| EngineError::damaged("a message id has not 16 octets"))
}

fn outcome(row: &Row, at: usize) -> Result<Option<Outcome>> {
    Ok(value::<Option<i16>>(row, at)?.and_then(|rank| Outcome::from_rank(i64::from(rank))))
}

fn account(row: &Row, at: usize) -> Result<Option<AccountId>> {
    Ok(value::<Option<i64>>(row, at)?.and_then(|id| u64::try_from(id).ok()).map(AccountId))
}

fn unsigned(row: &Row, at: usize) -> Result<u64> {
    u64::try_from(value::<i64>(row, at)?).map_err(|_| EngineError::damaged("a number below zero"))
}
