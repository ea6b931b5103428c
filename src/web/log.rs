//! The log: lists, life stories, graphs, and what happens right now.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use base::UtcMillis;
use mail::date::format_utc;
use serde::Deserialize;
use serde_json::{Value, json};
use trail::{MessageRow, Outcome, Span, StoredEvent};

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::events::{Place, Source};
use crate::permission::{LogScope, log_scope};
use crate::server::Inner;

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    q: String,
    /// Dates in RFC 3339.
    before: Option<String>,
    since: Option<String>,
    /// The message that ended the page before.
    below: Option<String>,
    limit: Option<usize>,
    /// A domain or an account; `own`; else all that the viewer may see.
    of: Option<String>,
}

/// Of which log.
#[derive(Deserialize)]
pub(crate) struct Of {
    of: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct SpanQuery {
    from: String,
    to: String,
    /// Minutes of one bar.
    step: Option<u32>,
    of: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    /// Where to go on; `Last-Event-ID` counts more.
    after: Option<u64>,
    /// Only messages that match, as in a list.
    #[serde(default)]
    q: String,
    of: Option<String>,
}

const LIMIT_MAX: usize = 500;

pub(crate) async fn messages(
    State(web): State<Arc<Inner>>,
    Query(query): Query<ListQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let mut wanted: trail::Query =
        query.q.parse().map_err(|error: trail::InvalidQuery| ApiError::Invalid(error.to_string()))?;
    wanted.before = query.before.as_deref().map(parse_date).transpose()?;
    let below = query.below.as_deref().map(str::parse).transpose();
    wanted.below = below.map_err(|_| ApiError::Invalid("below: not a message id".to_owned()))?;
    wanted.since = query.since.as_deref().map(parse_date).transpose()?;
    let limit = query.limit.unwrap_or(100).clamp(1, LIMIT_MAX);
    let trail = &web.services.trail;
    // Before the rows are read: what changes meanwhile comes again by the stream, which does no harm.
    let seq = trail.last_seq().await?;
    let log = log_scope(&web, &viewer, query.of.as_deref()).await?;
    check_exact(&log, &wanted)?;
    let rows = trail.messages(&log.scope, &wanted, limit).await?;
    let has_more = rows.len() == limit;
    let rows: Vec<Value> = rows.iter().map(|row| row_to_json(row, log.has_subjects)).collect();
    Ok(Json(json!({ "messages": rows, "hasMore": has_more, "seq": seq })))
}

pub(crate) async fn message(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    let (trail, log) = (&web.services.trail, log_scope(&web, &viewer, query.of.as_deref()).await?);
    let row = trail.message(&log.scope, id).await?.ok_or(ApiError::NotFound)?;
    let story = trail.story(&log.scope, id).await?;
    let mut out = row_to_json(&row, log.has_subjects);
    if let Some(fields) = out.as_object_mut() {
        fields.insert("events".to_owned(), story.iter().map(|event| event_to_json(event, log.has_subjects)).collect());
    }
    Ok(Json(out))
}

pub(crate) async fn story(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    Query(query): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    let log = log_scope(&web, &viewer, query.of.as_deref()).await?;
    let story = web.services.trail.story(&log.scope, id).await?;
    if story.is_empty() {
        return Err(ApiError::NotFound);
    }
    Ok(Json(json!({ "events": story.iter().map(|event| event_to_json(event, log.has_subjects)).collect::<Vec<_>>() })))
}

pub(crate) async fn histogram(
    State(web): State<Arc<Inner>>,
    Query(query): Query<SpanQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let step_minutes = query.step.unwrap_or(10).clamp(1, 1440);
    let span = Span { from: parse_date(&query.from)?, to: parse_date(&query.to)?, step_minutes };
    let buckets = span.to.0.saturating_sub(span.from.0) / (i64::from(step_minutes) * 60_000);
    if !(0..=Span::BUCKETS_MAX).contains(&buckets) {
        return Err(ApiError::Invalid("from, to and step make too many bars or none".to_owned()));
    }
    let log = log_scope(&web, &viewer, query.of.as_deref()).await?;
    if log.is_exact {
        return Err(ApiError::Forbidden);
    }
    let buckets = web.services.trail.histogram(&log.scope, span).await?;
    let show = |bucket: &trail::Bucket| {
        let counts = Outcome::ALL.iter().zip(bucket.counts);
        let counts: serde_json::Map<String, Value> =
            counts.map(|((_, name), count)| ((*name).to_owned(), json!(count))).collect();
        json!({ "at": exact(bucket.at), "counts": counts })
    };
    let shown: Vec<Value> = buckets.iter().map(show).collect();
    Ok(Json(json!({ "stepMinutes": step_minutes, "buckets": shown })))
}

/// New and changed messages as they come. A viewer that reconnects says what it saw last and misses nothing.
pub(crate) async fn stream(
    State(web): State<Arc<Inner>>,
    Query(query): Query<StreamQuery>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter: trail::Query =
        query.q.parse().map_err(|error: trail::InvalidQuery| ApiError::Invalid(error.to_string()))?;
    let place = Place::take(&web, viewer.hold(&web).await)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let log = log_scope(&web, &viewer, query.of.as_deref()).await?;
    check_exact(&log, &filter)?;
    let rows = web.services.trail.live(log.scope, last.or(query.after));
    let live = Live { rows, filter, has_subjects: log.has_subjects, pending: Vec::new() };
    Ok(place.answer(live, Some(std::time::Duration::from_secs(25))))
}

/// The live log of one viewer.
struct Live {
    rows: trail::Live,
    filter: trail::Query,
    has_subjects: bool,
    /// Rows to tell, the next one last.
    pending: Vec<MessageRow>,
}

impl Source for Live {
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(row) = self.pending.pop() {
                if self.filter.admits(&row) {
                    let event = Event::default().event("message").id(row.seq.to_string());
                    return Some(event.data(row_to_json(&row, self.has_subjects).to_string()));
                }
            }
            // A failure ends the stream, and the viewer comes back.
            let mut rows = self.rows.next().await.ok()??;
            rows.reverse();
            self.pending = rows;
        }
    }
}

/// Who may search for addresses alone names one in full.
fn check_exact(log: &LogScope, query: &trail::Query) -> Result<(), ApiError> {
    if log.is_exact && !query.names_address() {
        let why = "name an address in full: from:<anna@example.org> or to:<anna@example.org>".to_owned();
        return Err(ApiError::InvalidField { field: "q".to_owned(), why });
    }
    if !log.has_subjects && query.asks_subject() {
        let why = "subjects are none of your log".to_owned();
        return Err(ApiError::InvalidField { field: "q".to_owned(), why });
    }
    Ok(())
}

fn parse_date(text: &str) -> Result<UtcMillis, ApiError> {
    let at = text.parse::<jiff::Timestamp>();
    at.map(|at| UtcMillis(at.as_millisecond())).map_err(|_| ApiError::Invalid(format!("{text}: not a date")))
}

/// With milliseconds, so that a page can begin exactly where the last ended.
fn exact(at: UtcMillis) -> String {
    let whole = format_utc(at);
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), at.0.rem_euclid(1000))
}

fn row_to_json(row: &MessageRow, has_subject: bool) -> Value {
    let party = |party: &trail::PartyRow| {
        json!({
            "address": party.address, "outcome": party.outcome.map(Outcome::as_str), "mailbox": party.mailbox,
            "reason": party.reason,
        })
    };
    json!({
        "id": row.id.to_string(),
        "seq": row.seq,
        "at": exact(row.at),
        "from": row.reverse_path,
        "subject": row.subject.as_ref().filter(|_| has_subject),
        "size": row.size_bytes,
        "score": row.score.map(|score| f64::from(score) / 1000.0),
        "client": row.client,
        "reason": row.reason,
        "tookMs": row.took_ms,
        "outcome": row.outcome.map(Outcome::as_str),
        "recipients": row.recipients.iter().map(party).collect::<Vec<_>>(),
    })
}

fn event_to_json(event: &StoredEvent, has_subject: bool) -> Value {
    let mut fields = event.fields.clone();
    if !has_subject {
        fields.remove("subject");
    }
    json!({
        "seq": event.seq,
        "at": exact(event.at),
        "session": event.session.map(|id| id.to_string()),
        "kind": event.kind.as_str(),
        "party": event.party,
        "outcome": event.outcome.map(Outcome::as_str),
        "fields": fields,
    })
}
