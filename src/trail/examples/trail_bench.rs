//! Measures the trail: `cargo run --release -p trail --example trail_bench -- DIR [CONNECTION]`, with a PostgreSQL connection
//! string or, without one, on the embedded engine. Needs a folder and a database of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, IdSource, SessionId, SystemClock};
use engine::postgres::PgSettings;
use trail::{Event, Kind, Outcome, Party, Query, Scope, Settings, Span, Trail, Worker};

type Failure = Box<dyn std::error::Error>;

/// Messages, so about a seventh of the events.
const MESSAGES: u64 = 400_000;
const DOMAINS: u64 = 500;
/// Looks of each kind.
const LOOKS: usize = 40;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("trail-bench");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(folder, arguments.next()))
}

async fn open(folder: &std::path::Path, server: Option<&str>, ids: &IdSource) -> Result<(Arc<Trail>, Worker), Failure> {
    let settings = Settings::in_folder(folder.to_owned());
    let clock = Arc::new(SystemClock);
    Ok(match server {
        Some(url) => Trail::open_postgres(settings, PgSettings::parse(url, 8)?, clock, ids).await?,
        None => Trail::open(settings, clock)?,
    })
}

async fn run(folder: PathBuf, server: Option<String>) -> Result<(), Failure> {
    let (clock, ids) = (SystemClock, IdSource::system());
    let (trail, worker) = open(&folder, server.as_deref(), &ids).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(worker.run(async { drop(stopped.await) }));
    let begin = clock.now();
    let mut events = 0u64;
    for nth in 0..MESSAGES {
        events += message(&trail, &ids, &clock, nth);
        // Half of the buffer at most, so that nothing is dropped and the server is never thought away.
        while events.saturating_sub(trail.last_seq().await?) > 40_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if nth == MESSAGES / 2 {
            looks(&trail, "while it is written").await?;
        }
    }
    while trail.last_seq().await? < events {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = clock.now().duration_since(begin);
    println!("{events} events in {took:.1?}: {:.0}/s", events as f64 / took.as_secs_f64());
    looks(&trail, "at rest").await?;
    drop(stop);
    tasks.join_all().await;
    Ok(())
}

/// Domain 0 has half of the mail.
fn domain_of(nth: u64) -> u64 {
    if nth.is_multiple_of(2) { 0 } else { nth.wrapping_mul(0x9E37_79B9) % DOMAINS }
}

/// The life of one message; gives the number of its events.
fn message(trail: &Trail, ids: &IdSource, clock: &SystemClock, nth: u64) -> u64 {
    let now = clock.utc();
    let (id, session): (_, SessionId) = (ids.message(now), ids.session(now));
    let event = |kind| Event::new(now, kind).session(session).message(id);
    let account = domain_of(nth) * 1000 + nth % 97;
    let party = |outcome| Party {
        address: format!("user{}@domain{}.example", nth % 97, domain_of(nth)),
        account: Some(AccountId(account)),
        is_recipient: true,
        outcome,
    };
    let outcome = if nth.is_multiple_of(9) { Outcome::Junk } else { Outcome::Delivered };
    let findings = serde_json::json!([{"name": "DKIM_VALID", "score": -100, "class": "sender"}, {"name": "URI_PLAIN", "score": 20, "class": "content"}]);
    for event in [
        Event::new(now, Kind::Connected).session(session).field("client", "198.51.100.7").field("port", 25),
        event(Kind::Started).field("from", format!("s{}@sender.example", nth % 5000)).field("client", "198.51.100.7"),
        event(Kind::RecipientAccepted).field("recipient", party(None).address),
        event(Kind::Judged)
            .field("subject", format!("Subject number {nth}"))
            .field("size", 4096)
            .field("score", 1200)
            .field("findings", findings),
        event(Kind::Decided).party(party(None)).field("disposition", "deliver").field("decided_by", "score"),
        event(Kind::Delivered).party(party(Some(outcome))).field("mailbox", "INBOX").field("uid", nth),
    ] {
        trail.record(event);
    }
    6
}

async fn looks(trail: &Trail, when: &str) -> Result<(), Failure> {
    let domain = |nth: u64| Ok::<_, Failure>(Scope::Domains(vec![format!("domain{nth}.example").parse()?]));
    let now = SystemClock.utc();
    let span = Span { from: now.minus(Duration::from_secs(86_400)), to: now, step_minutes: 10 };
    for (name, scope, text) in [
        ("last 100 of all", Scope::System, ""),
        ("last 100 of the biggest domain", domain(0)?, ""),
        ("last 100 of a small domain", domain(77)?, ""),
        ("last 100 of an absent domain", domain(DOMAINS + 1)?, ""),
        ("last 100 of one account", Scope::Account(AccountId(5)), ""),
        ("last 100 to one address", Scope::System, "to:<user5@domain0.example>"),
        ("last 100 junk of the biggest domain", domain(0)?, "outcome:junk"),
        ("a word that is nowhere, biggest domain", domain(0)?, "subject:nowhere"),
    ] {
        let query: Query = text.parse()?;
        let rare = text.contains("nowhere");
        let mut times = Vec::new();
        for _ in 0..if rare { 3 } else { LOOKS } {
            let begin = SystemClock.now();
            trail.messages(&scope, &query, 100).await?;
            times.push(SystemClock.now().duration_since(begin));
        }
        show(when, name, times);
    }
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let begin = SystemClock.now();
        trail.histogram(&domain(0)?, span).await?;
        times.push(SystemClock.now().duration_since(begin));
    }
    show(when, "graph of a day, biggest domain", times);
    Ok(())
}

fn show(when: &str, name: &str, mut times: Vec<Duration>) {
    times.sort();
    let (Some(middle), Some(worst)) = (times.get(times.len() / 2), times.last()) else { return };
    println!("{when}: {name}: median {middle:.2?}, worst {worst:.2?}");
}
