//! Mails that tell what is new in quarantine, to whom it belongs; and the links in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, UtcMillis, event};
use directory::Account;
use mail::date::format_utc;
use policy::option::{Digest, MailLanguage};
use policy::{Key, ReleasedBy};
use reception::Letter;
use store::{Held, HeldBy, HeldFilter, HeldNote};
use tokio_util::sync::CancellationToken;
use web::links::{Action, Links};

use super::Engines;
use super::engines::explain;
use super::letters::Texts;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A node that dies at it is followed by another one after so long.
const LEASE: Duration = Duration::from_secs(300);
const PAGE: usize = 500;
/// Messages named in one mail; of further ones their number.
const NAMED_MAX: usize = 50;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Links work for so long.
const LINKS_FOR: Duration = Duration::from_secs(7 * 86_400);

/// The last moment at or before `now` at which a mail was due.
fn last_due(digest: Digest, hour: u64, now: UtcMillis) -> Option<UtcMillis> {
    let at_hour = i64::try_from(hour.min(23)).unwrap_or(0) * HOUR;
    let mut day = now.0.div_euclid(DAY);
    if now.0 < day * DAY + at_hour {
        day -= 1;
    }
    // 1 January 1970 was a Thursday: Monday is 0.
    let weekday = |day: i64| (day + 3).rem_euclid(7);
    match digest {
        Digest::Off => return None,
        Digest::Hourly => return Some(UtcMillis(now.0.div_euclid(HOUR) * HOUR)),
        Digest::Daily => {}
        Digest::Weekdays => day -= (weekday(day) - 4).max(0),
        Digest::Weekly => day -= weekday(day),
    }
    Some(UtcMillis(day * DAY + at_hour))
}

/// Sends what is due, on one node at a time. Ends with `stop`.
pub async fn run(engines: Arc<Engines>, stop: CancellationToken) {
    // Mails are due at full hours alone: one look after each is enough.
    let mut looked = None;
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let hour = engines.clock.utc().0.div_euclid(HOUR);
        if looked == Some(hour) {
            continue;
        }
        let Ok(Some(turn)) = engines.leases.take("digests", LEASE).await else { continue };
        match send(&engines, HeldBy::Anybody, When::Due, &stop).await {
            Ok(_) => looked = Some(hour),
            Err(error) => {
                tracing::warn!(event = event::STORE_FAILED, what = "digests", error = %format!("{error:#}"));
            }
        }
        turn.give_up().await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Due,
    /// Whatever the hour; only to who wants such mails.
    Now,
}

/// Gives how many mails were sent.
pub async fn send(engines: &Engines, whose: HeldBy, when: When, stop: &CancellationToken) -> anyhow::Result<usize> {
    let now = engines.clock.utc();
    let filter = HeldFilter { untold: true, ..HeldFilter::of(whose) };
    let mut of_account: BTreeMap<AccountId, Vec<Held>> = BTreeMap::new();
    let mut before = None;
    loop {
        let page = engines.storage.held.held(&filter, before, PAGE).await.map_err(|error| explain(&error))?;
        let is_last = page.len() < PAGE;
        before = page.last().map(|last| (last.held_at, last.id));
        for one in page {
            of_account.entry(one.id.account).or_default().push(one);
        }
        if is_last || stop.is_cancelled() {
            break;
        }
    }
    let mut sent = 0;
    for (account, held) in of_account {
        if stop.is_cancelled() {
            break;
        }
        let Some(account) = engines.directory.account_by_id(account).await? else { continue };
        let policy = engines.layers.effective(account.position).await?;
        let due = last_due(policy.digest(), policy.number(Key::DigestHour), now);
        // Nothing of it was there when a mail was due last.
        let is_new = |due: UtcMillis| when == When::Due && held.iter().all(|one| one.held_at >= due);
        if due.is_none_or(is_new) {
            continue;
        }
        tell(engines, &account, &held, policy.mail_language(), now).await?;
        let ids = held.iter().map(|one| one.id).collect();
        engines.storage.held.note_held(ids, HeldNote::Told).await.map_err(|error| explain(&error))?;
        sent += 1;
    }
    Ok(sent)
}

async fn tell(
    engines: &Engines,
    account: &Account,
    held: &[Held],
    language: MailLanguage,
    now: UtcMillis,
) -> anyhow::Result<()> {
    let Some(intake) = engines.intake.get() else { return Ok(()) };
    let links = Links::new(&engines.directory.system_secret("links").await?);
    let (count, url) = (held.len(), &engines.web_url);
    let until = now.plus(LINKS_FOR);
    let link = |one: &Held, action| format!("{url}/held/{}", links.make(one.id, action, until));
    let subject = Texts {
        de: format!("{count} Nachrichten in Quarant\u{e4}ne"),
        it: format!("{count} messaggi in quarantena"),
        en: format!("{count} messages in quarantine"),
    };
    let head = Texts {
        de: format!("F\u{fc}r {} zur\u{fc}ckgehalten:", account.address),
        it: format!("Trattenuti per {}:", account.address),
        en: format!("Held back for {}:", account.address),
    };
    let foot = Texts {
        de: format!("Alle ansehen: {url}/filter/quarantine"),
        it: format!("Vedere tutti: {url}/filter/quarantine"),
        en: format!("See all of them: {url}/filter/quarantine"),
    };
    let release = Texts { de: "zustellen".into(), it: "consegna".into(), en: "release".into() }.of(language, " / ");
    let delete = Texts { de: "l\u{f6}schen".into(), it: "elimina".into(), en: "delete".into() }.of(language, " / ");
    let mut text = format!("{}\n\n", head.of(language, "\n"));
    let mut rows = String::new();
    for one in held.iter().take(NAMED_MAX) {
        let facts = &one.facts;
        let (author, subject, at) = (bare(&facts.author), bare(&facts.subject), format_utc(one.held_at));
        let reason = reason_words(&facts.reason).of(language, " / ");
        text.push_str(&format!("{at}  {author}\n  {subject}\n  {reason}\n"));
        let mut actions = vec![(delete.as_str(), link(one, Action::Delete))];
        if ReleasedBy::of_reason(&facts.reason) == ReleasedBy::Owner {
            actions.insert(0, (release.as_str(), link(one, Action::Release)));
        }
        for (word, to) in &actions {
            text.push_str(&format!("  {word}: {to}\n"));
        }
        text.push('\n');
        let cells: Vec<String> =
            actions.iter().map(|(word, to)| format!("<a href=\"{}\">{}</a>", escape(to), escape(word))).collect();
        rows.push_str(&format!(
            "<tr><td>{}</td><td>{}<br><b>{}</b><br>{}</td><td>{}</td></tr>\n",
            escape(&at),
            escape(&author),
            escape(&subject),
            escape(&reason),
            cells.join("<br>")
        ));
    }
    if count > NAMED_MAX {
        text.push_str(&format!("+ {}\n\n", count - NAMED_MAX));
    }
    text.push_str(&foot.of(language, "\n"));
    text.push('\n');
    let html = format!(
        "<!doctype html><html><body><p>{}</p>\n<table border=\"1\" cellpadding=\"6\" cellspacing=\"0\">\n{rows}</table>\n\
         <p>{}</p></body></html>\n",
        escape(&head.of(language, "\n")).replace('\n', "<br>"),
        escape(&foot.of(language, "\n")).replace('\n', "<br>"),
    );
    let letter = Letter {
        to: account.address.clone(),
        from_domain: account.address.domain.to_string(),
        subject: subject.of(language, " / "),
        text,
        html: Some(html),
    };
    intake.send(letter).await.map_err(|error| explain(&error))
}

/// One line, without what could make up a link of its own.
fn bare(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(120).collect();
    if text.trim().is_empty() { "-".to_owned() } else { text }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Why a message is held, for people.
pub fn reason_words(reason: &str) -> Texts {
    let texts = |de: &str, it: &str, en: &str| Texts { de: de.to_owned(), it: it.to_owned(), en: en.to_owned() };
    match reason {
        "spam" => texts("Spam", "Spam", "Spam"),
        "newsletter" => texts("Newsletter", "Newsletter", "Newsletter"),
        "virus" => texts("Virus", "Virus", "Virus"),
        "suspicious" => texts("m\u{f6}glicherweise sch\u{e4}dlich", "forse dannoso", "may be harmful"),
        "attachment" => texts("unerw\u{fc}nschte Datei", "file non ammesso", "a file of a kind that is not wanted"),
        "forged" => texts("gef\u{e4}lschter Absender", "mittente falsificato", "forged sender"),
        "blocked" => texts("gesperrter Absender", "mittente bloccato", "blocked sender"),
        "country" => texts("unerw\u{fc}nschtes Land", "Paese non ammesso", "a country that is not wanted"),
        "sending" => texts("verd\u{e4}chtiger Versand", "invio sospetto", "suspicious sending"),
        _ => texts("zur\u{fc}ckgehalten", "trattenuto", "held back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(digest: Digest, hour: u64, now: &str) -> String {
        let now = mail::date::parse_utc(now).unwrap();
        last_due(digest, hour, now).map(format_utc).unwrap_or_default()
    }

    #[test]
    fn mails_are_due_at_their_hours() {
        // A Friday.
        let now = "2026-11-27T05:30:00Z";
        for (digest, hour, now, expected) in [
            (Digest::Off, 6, now, ""),
            (Digest::Hourly, 6, now, "2026-11-27T05:00:00Z"),
            (Digest::Daily, 5, now, "2026-11-27T05:00:00Z"),
            (Digest::Daily, 6, now, "2026-11-26T06:00:00Z"),
            (Digest::Weekdays, 6, "2026-11-29T12:00:00Z", "2026-11-27T06:00:00Z"),
            (Digest::Weekdays, 6, "2026-11-30T05:00:00Z", "2026-11-27T06:00:00Z"),
            (Digest::Weekdays, 6, "2026-11-30T06:00:00Z", "2026-11-30T06:00:00Z"),
            (Digest::Weekly, 6, now, "2026-11-23T06:00:00Z"),
            (Digest::Weekly, 6, "2026-11-23T05:59:59Z", "2026-11-16T06:00:00Z"),
        ] {
            assert_eq!(due(digest, hour, now), expected, "{digest:?} {hour} {now}");
        }
    }
}
