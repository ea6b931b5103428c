//! What both engines do alike for held messages.

use base::{AccountId, BlobId, DomainId, MailboxId, MessageId, ModSeq, Uid, UtcMillis};
use bytes::Bytes;
use engine::EngineError;
use engine::table::{Columns as _, Place, Row, Statement, Value, having};

use crate::error::StoreError;
use crate::model::{
    EmailId, Entry, Flags, Held, HeldBy, HeldFacts, HeldFilter, HeldId, HeldMessage, HeldNote, ThreadId,
};

const COLUMNS: &str = "account_id, email_id, message_id, domain_id, reason, detail, score, sender, author, recipient,
    subject, size_bytes, held_at, expires_at, told_at, asked_at";

/// Characters kept of each text.
const TEXT_MAX: usize = 400;

/// As they are kept: within their bounds.
pub(crate) fn bounded(facts: &HeldFacts) -> HeldFacts {
    let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect::<String>();
    HeldFacts {
        reason: cut(&facts.reason),
        detail: cut(&facts.detail),
        score: facts.score,
        sender: cut(&facts.sender),
        author: cut(&facts.author),
        recipient: cut(&facts.recipient),
        subject: cut(&facts.subject),
    }
}

fn read(row: &Row) -> Result<Held, EngineError> {
    let strange = |what: &str| EngineError::damaged(format!("a held message's {what}"));
    Ok(Held {
        id: HeldId { account: AccountId(row.number(0)?), email: EmailId(row.number(1)?) },
        message: MessageId::from_bytes(row.bytes(2)?.try_into().map_err(|_| strange("id"))?),
        domain: DomainId(row.number(3)?),
        facts: HeldFacts {
            reason: row.text(4)?.to_owned(),
            detail: row.text(5)?.to_owned(),
            score: i32::try_from(row.int(6)?).map_err(|_| strange("score"))?,
            sender: row.text(7)?.to_owned(),
            author: row.text(8)?.to_owned(),
            recipient: row.text(9)?.to_owned(),
            subject: row.text(10)?.to_owned(),
        },
        size_bytes: row.number(11)?,
        held_at: UtcMillis(row.int(12)?),
        expires_at: UtcMillis(row.int(13)?),
        told_at: row.int_opt(14)?.map(UtcMillis),
        asked_at: row.int_opt(15)?.map(UtcMillis),
    })
}

/// A condition with the values of its marks.
fn clause(filter: &HeldFilter) -> (String, Vec<Value>) {
    let (mut parts, mut values) = (vec!["1 = 1".to_owned()], Vec::new());
    let mut mark = |value: Value| {
        values.push(value);
        format!("${}", values.len())
    };
    match &filter.by {
        HeldBy::Anybody => {}
        HeldBy::Account(account) => parts.push(format!("account_id = {}", mark(account.0.into()))),
        HeldBy::Domains(domains) if domains.is_empty() => parts.push("1 = 0".to_owned()),
        HeldBy::Domains(domains) => {
            let marks: Vec<String> = domains.iter().map(|domain| mark(domain.0.into())).collect();
            parts.push(format!("domain_id IN ({})", marks.join(", ")));
        }
    }
    if let Some(reason) = &filter.reason {
        parts.push(format!("reason = {}", mark(reason.as_str().into())));
    }
    if !filter.text.is_empty() {
        let wanted = mark(having(&filter.text.to_lowercase()).into());
        let columns = ["sender", "author", "recipient", "subject"];
        let each: Vec<String> =
            columns.iter().map(|column| format!("lower({column}) LIKE {wanted} ESCAPE '\\'")).collect();
        parts.push(format!("({})", each.join(" OR ")));
    }
    if filter.asked {
        parts.push("asked_at IS NOT NULL".to_owned());
    }
    if filter.untold {
        parts.push("told_at IS NULL".to_owned());
    }
    if let Some(since) = filter.since {
        parts.push(format!("held_at >= {}", mark(since.0.into())));
    }
    (parts.join(" AND "), values)
}

/// The newest first, from after a key on.
pub(crate) async fn list(
    place: &Place,
    filter: &HeldFilter,
    before: Option<(UtcMillis, HeldId)>,
    limit: usize,
) -> Result<Vec<Held>, StoreError> {
    let (mut text, mut values) = clause(filter);
    if let Some((at, id)) = before {
        let first = values.len() + 1;
        text.push_str(&format!(" AND (held_at, account_id, email_id) < (${first}, ${}, ${})", first + 1, first + 2));
        values.extend([at.0.into(), id.account.0.into(), id.email.0.into()]);
    }
    let text = format!(
        "SELECT {COLUMNS} FROM held WHERE {text} ORDER BY held_at DESC, account_id DESC, email_id DESC LIMIT {limit}"
    );
    Ok(place.query(&text, values).await?.iter().map(read).collect::<Result<_, _>>()?)
}

/// How many there are, by reason.
pub(crate) async fn counts(place: &Place, filter: &HeldFilter) -> Result<Vec<(String, u64)>, StoreError> {
    let (text, values) = clause(filter);
    let text = format!("SELECT reason, count(*) FROM held WHERE {text} GROUP BY reason ORDER BY reason");
    let rows = place.query(&text, values).await?;
    Ok(rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.number(1)?))).collect::<Result<_, EngineError>>()?)
}

pub(crate) async fn one(place: &Place, id: HeldId) -> Result<Option<HeldMessage>, StoreError> {
    let columns: Vec<String> = COLUMNS.split(',').map(|column| format!("h.{}", column.trim())).collect();
    let text = format!(
        "SELECT {}, c.blob_id, c.prefix, c.summary FROM held h
         JOIN content c ON c.account_id = h.account_id AND c.content_id = h.content_id
         WHERE h.account_id = $1 AND h.email_id = $2",
        columns.join(", ")
    );
    let rows = place.query(&text, vec![id.account.0.into(), id.email.0.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let held = read(row)?;
    let blob = row.bytes(16)?.try_into().map_err(|_| EngineError::damaged("a held message's blob"))?;
    let entry = Entry {
        mailbox: MailboxId(0),
        uid: Uid::MIN,
        email: id.email,
        thread: ThreadId(id.email.0),
        modseq: ModSeq::MIN,
        created_modseq: ModSeq::MIN,
        flags: Flags::default(),
        internal_date: held.held_at,
        size_bytes: held.size_bytes,
        blob: BlobId::from_bytes(blob),
        prefix: Bytes::from(row.bytes(17)?.to_vec()),
        summary: Bytes::from(row.bytes(18)?.to_vec()),
    };
    Ok(Some(HeldMessage { held, entry }))
}

/// Notes something of held messages; gives how many were still there.
pub(crate) async fn note(place: &Place, ids: &[HeldId], note: HeldNote, at: UtcMillis) -> Result<u64, StoreError> {
    let column = match note {
        HeldNote::Told => "told_at",
        HeldNote::Asked => "asked_at",
    };
    let text = format!("UPDATE held SET {column} = $3 WHERE account_id = $1 AND email_id = $2");
    let step = |id: &HeldId| Statement::new(&*text, vec![id.account.0.into(), id.email.0.into(), at.0.into()]);
    let mut count = 0;
    // One account at a time: no change touches two.
    for id in ids {
        if let Ok(done) = place.change(vec![step(id)]).await? {
            count += done.iter().map(|one| one.count).sum::<u64>();
        }
    }
    Ok(count)
}

/// Those whose time is over, at most `limit`.
pub(crate) async fn expired(place: &Place, now: UtcMillis, limit: usize) -> Result<Vec<HeldId>, StoreError> {
    let text =
        format!("SELECT account_id, email_id FROM held WHERE expires_at <= $1 ORDER BY expires_at LIMIT {limit}");
    let rows = place.query(&text, vec![now.0.into()]).await?;
    let id = |row: &Row| Ok(HeldId { account: AccountId(row.number(0)?), email: EmailId(row.number(1)?) });
    Ok(rows.iter().map(id).collect::<Result<_, EngineError>>()?)
}
