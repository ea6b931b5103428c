//! What both engines do alike for the queue.

use std::time::Duration;

use crate::error::StoreError;
use crate::model::{QueueAction, QueueFilter};

/// A lane where something was done is looked at again for so long: what is put into it at the same moment on another node
/// may come to be seen after it was left.
pub(crate) const WARM_FOR: Duration = Duration::from_secs(60);
/// So often.
pub(crate) const COLD_AFTER: Duration = Duration::from_secs(3);
/// Recipients that one step of an action changes.
pub(crate) const ACTION_STEP: usize = 500;
/// What somebody takes up again is tried for at least so long.
pub(crate) const NEW_LIFE: Duration = Duration::from_secs(86_400);

const STATUS_MAX: usize = 500;
const LANE_MAX: usize = 300;

/// How an engine writes what the other writes differently.
pub(crate) struct Dialect {
    /// What a parameter's number follows.
    pub mark: char,
    /// The last characters of the first that are as many as the second has.
    pub ends: fn(&str, &str) -> String,
    /// True where the first has the second in it.
    pub has: fn(&str, &str) -> String,
}

pub(crate) enum Param {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Which recipients `r` and items `i` a filter means, with the values of its marks from 1 on.
pub(crate) fn clause(filter: &QueueFilter, dialect: &Dialect) -> (String, Vec<Param>) {
    let mut parts = vec!["TRUE".to_owned()];
    let mut values: Vec<Param> = Vec::new();
    let mut add = |value: Param, text: &dyn Fn(&str) -> String| {
        values.push(value);
        parts.push(text(&format!("{}{}", dialect.mark, values.len())));
    };
    if let Some(message) = filter.message {
        add(Param::Bytes(message.to_bytes().to_vec()), &|mark| format!("r.message_id = {mark}"));
    }
    if let Some(nth) = filter.nth {
        add(Param::Int(i64::from(nth)), &|mark| format!("r.nth = {mark}"));
    }
    for (column, wanted) in [("i.sender", &filter.sender), ("r.address", &filter.recipient)] {
        let Some(wanted) = wanted else { continue };
        let lower = format!("lower({column})");
        let wanted = wanted.to_lowercase();
        if wanted.starts_with('@') {
            add(Param::Text(wanted), &|mark| format!("{} = {mark}", (dialect.ends)(&lower, mark)));
        } else {
            add(Param::Text(wanted), &|mark| format!("{lower} = {mark}"));
        }
    }
    if let Some(lane) = &filter.lane {
        add(Param::Text(lane.to_string()), &|mark| format!("r.lane = {mark}"));
    }
    if let Some(state) = filter.state {
        add(Param::Int(state.raw()), &|mark| format!("r.state = {mark}"));
    }
    if let Some(account) = filter.account {
        let number = i64::try_from(account.0).unwrap_or(i64::MAX);
        add(Param::Int(number), &|mark| format!("i.account_id = {mark}"));
    }
    if let Some(before) = filter.before {
        let id = base::MessageId::first_at(before);
        add(Param::Bytes(id.to_bytes().to_vec()), &|mark| format!("r.message_id < {mark}"));
    }
    for (column, wanted) in [("r.last_status", &filter.status), ("i.subject", &filter.subject)] {
        if let Some(wanted) = wanted {
            let lower = format!("lower({column})");
            add(Param::Text(wanted.to_lowercase()), &|mark| (dialect.has)(&lower, mark));
        }
    }
    (parts.join(" AND "), values)
}

/// As it is kept: within its bound, and without what PostgreSQL's text cannot hold.
pub(crate) fn status(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(STATUS_MAX).collect()
}

/// # Errors
/// A lane's name is too long.
pub(crate) fn check(action: &QueueAction) -> Result<(), StoreError> {
    match action {
        QueueAction::Reroute(lane) if lane.len() > LANE_MAX || lane.is_empty() => {
            Err(StoreError::Damaged { what: format!("a lane of {} octets", lane.len()) })
        }
        _ => Ok(()),
    }
}

/// No repair brings it back.
pub(crate) const LOST: &str = "the queued message's blob is not there";

/// What is wrong with the queue's rows, as queries that both engines understand; each gives messages.
pub(crate) const RULES: [(&str, &str); 4] = [
    (
        LOST,
        "SELECT i.message_id FROM queue_item i LEFT JOIN blob b ON b.blob_id = i.blob_id WHERE b.blob_id IS NULL LIMIT 100",
    ),
    (
        "the queued message's count of recipients is wrong",
        "SELECT i.message_id FROM queue_item i WHERE i.recipients <> (SELECT count(*) FROM queue_recipient r
             WHERE r.message_id = i.message_id AND r.variant = i.variant) LIMIT 100",
    ),
    (
        "the queued recipient has no message",
        "SELECT r.message_id FROM queue_recipient r WHERE NOT EXISTS (SELECT 1 FROM queue_item i
             WHERE i.message_id = r.message_id AND i.variant = r.variant) LIMIT 100",
    ),
    (
        "the queued recipient's lane is not there",
        "SELECT r.message_id FROM queue_recipient r WHERE NOT EXISTS (SELECT 1 FROM queue_lane l WHERE l.lane = r.lane)
             LIMIT 100",
    ),
];

/// Sets right what follows from other rows. A message whose content is lost stays: its sender must be told.
pub(crate) const REPAIRS: &str = "
    DELETE FROM queue_recipient WHERE NOT EXISTS (SELECT 1 FROM queue_item i
        WHERE i.message_id = queue_recipient.message_id AND i.variant = queue_recipient.variant);
    DELETE FROM queue_item WHERE NOT EXISTS (SELECT 1 FROM queue_recipient r
        WHERE r.message_id = queue_item.message_id AND r.variant = queue_item.variant);
    UPDATE queue_item SET recipients = (SELECT count(*) FROM queue_recipient r
            WHERE r.message_id = queue_item.message_id AND r.variant = queue_item.variant)
        WHERE recipients <> (SELECT count(*) FROM queue_recipient r
            WHERE r.message_id = queue_item.message_id AND r.variant = queue_item.variant);";
