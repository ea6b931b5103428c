//! Reports to other mail systems, once a day, and those that come from them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{Clock, IdSource, MessageId, UtcMillis, event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use config::Config;
use mail::{Address, date};
use mailauth::{Resolver, Unresolved};
use peers::peers::{begin_of, day_of};
use peers::{DmarcSeen, Kind, Peers, Received, Report, TlsSeen, dmarc, tls};
use relay::{Home, Letter, Notices, Outgoing, Policies};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Storage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trail::Trail;

use super::Engines;

/// Messages that wait to be read.
pub const WAITING_MAX: usize = 64;
/// It is looked whether a day is over so often.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// So long after midnight: nodes have written down what they saw.
const SETTLED_AFTER: Duration = Duration::from_secs(900);
/// A node that dies at it is followed by another one after so long.
const LEASE: Duration = Duration::from_secs(300);
/// After people's mail.
const PRIORITY: u8 = 8;
/// Destinations of one domain's reports.
const DESTINATIONS_MAX: usize = 5;
/// Names above an author's that are asked for a record (RFC 9989 §4.10).
const WALK_MAX: usize = 8;
const SECONDS: i64 = 86_400;
/// Rows of one answer.
const ROWS_MAX: usize = 10_000;

/// Authors' domains, with what was seen of each.
type ByAuthor = Vec<(String, Vec<(DmarcSeen, u64)>)>;

/// What a command asks about reports.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ReportRequest {
    /// One row for each report that came.
    List { kind: String, domain: Option<String>, days: u32 },
    /// What all reports about a domain say together.
    Sum { kind: String, domain: String, days: u32 },
    /// A message to read; its octets follow.
    Read,
    /// Sends what was seen of a day (`2026-11-27`), whether or not it is over.
    Send { day: String },
}

/// What `ortler config check` looks at.
pub fn check(config: &Config) -> anyhow::Result<()> {
    for address in &config.reports.read {
        address.parse::<Address>().with_context(|| format!("`reports.read`: `{address}`"))?;
    }
    Ok(())
}

/// Who reports.
#[derive(Clone)]
struct Settings {
    from: Option<Address>,
    organization: String,
    dmarc: bool,
    tls: bool,
    host_name: String,
}

/// Sends reports of days that are over.
pub struct Reporter {
    settings: Settings,
    home: Arc<dyn Home>,
    policies: Option<Arc<Policies>>,
    resolver: Option<Resolver>,
    peers: Arc<Peers>,
    storage: Arc<Storage>,
    outgoing: Arc<Outgoing>,
    trail: Arc<Trail>,
    clock: Arc<dyn Clock>,
    ids: Arc<IdSource>,
}

/// Where a report goes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Destination {
    /// With the largest size that is wanted there, in octets; 0: any.
    Mail(String, u64),
    /// Host and path.
    Web(String, String),
}

impl Reporter {
    pub fn new(config: &Config, engines: &Engines, home: Arc<dyn Home>, policies: Option<Arc<Policies>>) -> Arc<Self> {
        let reports = &config.reports;
        let from = reports.from.clone().or_else(|| config.postmaster.clone());
        let domain = from.as_ref().map(|from| from.domain.to_string()).unwrap_or_default();
        let settings = Settings {
            organization: reports.organization.clone().unwrap_or(domain),
            from,
            dmarc: reports.dmarc,
            tls: reports.tls,
            host_name: config.node_name.clone(),
        };
        Arc::new(Self {
            settings,
            home,
            policies,
            resolver: engines.resolver.clone(),
            peers: Arc::clone(&engines.peers),
            storage: Arc::clone(&engines.storage),
            outgoing: Arc::clone(&engines.outgoing),
            trail: Arc::clone(&engines.trail),
            clock: Arc::clone(&engines.clock),
            ids: Arc::clone(&engines.ids),
        })
    }

    /// Sends each day's reports when the day is over, on one node at a time.
    pub async fn run(self: Arc<Self>, engines: Arc<Engines>, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            let day = day_of(self.clock.utc().minus(SETTLED_AFTER)) - 1;
            let Ok(Some(turn)) = engines.leases.take("reports", LEASE).await else { continue };
            tokio::select! {
                () = stop.cancelled() => {}
                done = self.send(day) => {
                    if let Err(error) = done {
                        tracing::warn!(event = event::REPORT_FAILED, error = %format!("{error:#}"));
                    }
                }
            }
            turn.give_up().await;
        }
    }

    /// Sends what was seen of a day, but for what was sent already; gives how many reports that were.
    async fn send(&self, day: i64) -> anyhow::Result<usize> {
        let (Some(from), Some(resolver)) = (&self.settings.from, &self.resolver) else { return Ok(0) };
        let peers = &self.peers;
        let mut sent = 0;
        if self.settings.tls {
            for (domain, seen) in peers.seen_tls(day).await? {
                if !peers.is_sent(day, Kind::Tls, &domain).await? {
                    sent += self.send_tls(from, resolver, day, &domain, &seen).await?;
                    peers.mark_sent(day, Kind::Tls, &domain).await?;
                }
            }
        }
        if self.settings.dmarc {
            let mut records: BTreeMap<String, (String, ByAuthor)> = BTreeMap::new();
            for (author, seen) in peers.seen_dmarc(day).await? {
                // Without an answer it is tried again, as long as the day is remembered.
                let Ok(found) = record_of(resolver, &author).await else { continue };
                if let Some((domain, record)) = found {
                    records.entry(domain).or_insert_with(|| (record, Vec::new())).1.push((author, seen));
                }
            }
            for (domain, (record, seen)) in records {
                if !peers.is_sent(day, Kind::Dmarc, &domain).await? {
                    sent += self.send_dmarc(from, resolver, day, &domain, &record, &seen).await?;
                    peers.mark_sent(day, Kind::Dmarc, &domain).await?;
                }
            }
        }
        Ok(sent)
    }

    async fn send_tls(
        &self,
        from: &Address,
        resolver: &Resolver,
        day: i64,
        domain: &str,
        seen: &[(TlsSeen, u64)],
    ) -> anyhow::Result<usize> {
        let texts = match resolver.lookup_texts(&format!("_smtp._tls.{domain}")).await {
            Ok(texts) => texts,
            Err(Unresolved::Absent) => return Ok(0),
            Err(Unresolved::Failed) => anyhow::bail!("_smtp._tls.{domain}: name servers do not answer"),
        };
        let record = texts.iter().find(|text| text.starts_with("v=TLSRPTv1"));
        let Some(destinations) = record.map(|record| destinations(record)) else { return Ok(0) };
        let (begin, end) = (begin_of(day), UtcMillis(begin_of(day + 1).0 - 1000));
        let id = self.ids.message(self.clock.utc());
        let submitter = from.domain.to_string();
        let heading = tls::Heading {
            submitter: self.settings.organization.clone(),
            contact: from.to_string(),
            id: format!("{id}_{domain}"),
            begin,
            end,
            domain: domain.to_owned(),
        };
        let packed = gzip(tls::write(&heading, seen).as_bytes())?;
        let (begin_s, end_s) = (begin.0 / 1000, end.0 / 1000);
        let form = Form {
            subject: format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{id}@{submitter}>"),
            fields: format!("TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {submitter}\r\nTLS-Required: No\r\n"),
            multipart: "report; report-type=\"tlsrpt\"",
            text: format!("This is a report about TLS with the mail servers of {domain} (RFC 8460), from {submitter}."),
            kind: "application/tlsrpt+gzip",
            file: format!("{submitter}!{domain}!{begin_s}!{end_s}.json.gz"),
        };
        self.deliver(from, id, destinations, &form, packed).await
    }

    async fn send_dmarc(
        &self,
        from: &Address,
        resolver: &Resolver,
        day: i64,
        domain: &str,
        record: &str,
        seen: &[(String, Vec<(DmarcSeen, u64)>)],
    ) -> anyhow::Result<usize> {
        let mut allowed = Vec::new();
        for destination in destinations(record) {
            if let Destination::Mail(address, _) = &destination
                && takes_reports(resolver, domain, address).await
            {
                allowed.push(destination);
            }
        }
        if allowed.is_empty() {
            return Ok(0);
        }
        let (begin, end) = (begin_of(day).0 / 1000, begin_of(day).0 / 1000 + SECONDS - 1);
        let id = self.ids.message(self.clock.utc());
        let submitter = from.domain.to_string();
        let heading = dmarc::Heading {
            submitter: self.settings.organization.clone(),
            contact: from.to_string(),
            id: id.to_string(),
            begin,
            end,
            domain: domain.to_owned(),
            tags: tags(record),
        };
        let packed = gzip(dmarc::write(&heading, seen).as_bytes())?;
        let form = Form {
            subject: format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{id}>"),
            fields: String::new(),
            multipart: "mixed",
            text: format!("This is a DMARC aggregate report about {domain} (RFC 9990), from {submitter}."),
            kind: "application/gzip",
            file: format!("{submitter}!{domain}!{begin}!{end}!{id}.xml.gz"),
        };
        self.deliver(from, id, allowed, &form, packed).await
    }

    /// Sends a report to all its destinations; gives to how many.
    async fn deliver(
        &self,
        from: &Address,
        id: MessageId,
        destinations: Vec<Destination>,
        form: &Form,
        packed: Vec<u8>,
    ) -> anyhow::Result<usize> {
        let (sender, signs) = (from.to_string(), from.domain.to_string());
        let mut sent = 0;
        for (nth, destination) in destinations.into_iter().take(DESTINATIONS_MAX).enumerate() {
            match destination {
                Destination::Mail(_, limit) if limit > 0 && packed.len() as u64 > limit => {}
                Destination::Mail(recipient, _) => {
                    let now = self.clock.utc();
                    let id = if nth == 0 { id } else { self.ids.message(now) };
                    let message = form.message(from, &recipient, id, &self.settings.host_name, now, &packed);
                    let notices = Notices {
                        blobs: &*self.storage.blobs,
                        home: &*self.home,
                        outgoing: &self.outgoing,
                        trail: &self.trail,
                        ids: &self.ids,
                        host_name: &self.settings.host_name,
                        postmaster: None,
                        at: now,
                    };
                    let letter = Letter {
                        id,
                        sender: &sender,
                        recipient: &recipient,
                        signs: &signs,
                        subject: &form.subject,
                        message,
                        priority: PRIORITY,
                        smtputf8: false,
                    };
                    let enqueued = notices.letter(letter).await.map_err(|error| super::engines::explain(&error))?;
                    let done = self.storage.queue.enqueue(vec![enqueued]).await;
                    done.map_err(|error| super::engines::explain(&error))?;
                    self.outgoing.wake();
                    sent += 1;
                }
                Destination::Web(host, path) => {
                    let Some(policies) = &self.policies else { continue };
                    match policies.https().post(&host, &path, form.kind, Bytes::from(packed.clone())).await {
                        Ok(()) => sent += 1,
                        // What cannot be had today is not tried tomorrow: the report was due today.
                        Err(error) => tracing::info!(event = event::REPORT_FAILED, %error),
                    }
                }
            }
        }
        Ok(sent)
    }
}

/// The letter around a report.
struct Form {
    subject: String,
    /// Whole header fields.
    fields: String,
    multipart: &'static str,
    text: String,
    kind: &'static str,
    file: String,
}

impl Form {
    fn message(&self, from: &Address, to: &str, id: MessageId, host_name: &str, at: UtcMillis, packed: &[u8]) -> Bytes {
        let Self { subject, fields, multipart, text, kind, file } = self;
        let encoded = STANDARD.encode(packed);
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
        format!(
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@{host_name}>\r\n{fields}\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{multipart};\r\n\tboundary=\"={id}=\"\r\n\r\n\
             --={id}=\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n\r\n\
             --={id}=\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n\tfilename=\"{file}\"\r\n\r\n{content}\r\n--={id}=--\r\n",
            date = date::format_rfc5322(at),
            content = lines.join("\r\n"),
        )
        .into()
    }
}

fn gzip(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

/// Tags of a record, names in lower case.
fn tags(record: &str) -> Vec<(String, String)> {
    let pairs = record.split(';').filter_map(|tag| tag.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// What `rua=` names, as far as it is known.
fn destinations(record: &str) -> Vec<Destination> {
    let all = tags(record).into_iter().find(|(name, _)| name == "rua").map(|(_, value)| value).unwrap_or_default();
    let one = |uri: &str| {
        let uri = uri.trim();
        if let Some(rest) = uri.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("mailto:")).map(|_| &uri[7..]) {
            let (address, limit) = rest.split_once('!').map_or((rest, 0), |(address, limit)| (address, size(limit)));
            let address = address.split('?').next().unwrap_or_default();
            return address.parse::<Address>().ok().map(|address| Destination::Mail(address.to_string(), limit));
        }
        let rest = uri.strip_prefix("https://")?;
        let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, path.to_owned()));
        let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic());
        (is_host && is_path).then(|| Destination::Web(host.to_ascii_lowercase(), format!("/{path}")))
    };
    all.split(',').filter_map(one).take(DESTINATIONS_MAX).collect()
}

/// `50m` (RFC 7489 §6.2); 0 for none that is understood.
fn size(text: &str) -> u64 {
    let text = text.trim().to_ascii_lowercase();
    let (digits, shift) = match text.strip_suffix(['k', 'm', 'g', 't']) {
        Some(digits) => (
            digits,
            match text.as_bytes().last() {
                Some(b'k') => 10,
                Some(b'm') => 20,
                Some(b'g') => 30,
                _ => 40,
            },
        ),
        None => (text.as_str(), 0),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_shl(shift)).unwrap_or(0)
}

/// The record of an author's domain, its own or the nearest above, and where it is.
async fn record_of(resolver: &Resolver, author: &str) -> Result<Option<(String, String)>, Unresolved> {
    let mut rest = author;
    for _ in 0..WALK_MAX {
        match resolver.lookup_texts(&format!("_dmarc.{rest}")).await {
            Ok(texts) => {
                if let Some(record) = texts.iter().find(|text| text.starts_with("v=DMARC1")) {
                    return Ok(Some((rest.to_owned(), record.to_string())));
                }
            }
            Err(Unresolved::Absent) => {}
            Err(Unresolved::Failed) => return Err(Unresolved::Failed),
        }
        match rest.split_once('.') {
            Some((_, parent)) if parent.contains('.') => rest = parent,
            _ => break,
        }
    }
    Ok(None)
}

/// True if the address wants reports about the domain: its own, or one that says so (RFC 9990 §4).
async fn takes_reports(resolver: &Resolver, domain: &str, address: &str) -> bool {
    let Some((_, there)) = address.rsplit_once('@') else { return false };
    let registered = |name: &str| psl::domain_str(name).unwrap_or(name).to_ascii_lowercase();
    if registered(domain) == registered(there) {
        return true;
    }
    let texts = resolver.lookup_texts(&format!("{domain}._report._dmarc.{there}")).await;
    texts.is_ok_and(|texts| texts.iter().any(|text| text.starts_with("v=DMARC1")))
}

/// Reads messages for reports, until `stop`.
pub async fn read_all(engines: Arc<Engines>, mut messages: mpsc::Receiver<Bytes>, stop: CancellationToken) {
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = messages.recv() => message,
        };
        let Some(message) = message else { return };
        match read(&engines, message).await {
            Ok(_) => {}
            Err(error) => tracing::warn!(event = event::REPORT_FAILED, error = %format!("{error:#}")),
        }
    }
}

/// Keeps what a message reports; gives how many reports that were, and what could not be read.
async fn read(engines: &Engines, message: Bytes) -> anyhow::Result<Value> {
    let (found, unreadable) = tokio::task::spawn_blocking(move || peers::read(&message)).await?;
    let now = engines.clock.utc();
    let received: Vec<Received> = found.into_iter().flat_map(|report| report.into_received(now)).collect();
    if !received.is_empty() {
        engines.peers.keep(&received).await?;
    }
    for one in &received {
        let (kind, domain, submitter) = (one.kind.as_str(), &one.domain, &one.submitter);
        tracing::info!(event = event::REPORT_READ, kind, domain, submitter);
    }
    for why in &unreadable {
        tracing::warn!(event = event::REPORT_FAILED, error = %why);
    }
    let problems: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
    Ok(json!({ "reports": received.len(), "problems": problems }))
}

/// Carries out what a command asks; `content` is the message that came with it.
pub async fn execute(engines: &Engines, request: ReportRequest, content: Bytes) -> anyhow::Result<Value> {
    match request {
        ReportRequest::Read => read(engines, content).await,
        ReportRequest::List { kind, domain, days } => {
            let found = received(engines, &kind, domain.as_deref(), days).await?;
            Ok(found.iter().map(row).collect())
        }
        ReportRequest::Sum { kind, domain, days } => {
            let found = received(engines, &kind, Some(&domain), days).await?;
            let reports = found.iter().filter_map(|one| serde_json::from_str::<Report>(&one.report).ok());
            Ok(sum(reports))
        }
        ReportRequest::Send { day } => {
            let reporter = engines.reporter.get().context("the node does not run; start it first")?;
            reporter.send_now(&day).await
        }
    }
}

async fn received(engines: &Engines, kind: &str, domain: Option<&str>, days: u32) -> anyhow::Result<Vec<Received>> {
    let kind = Kind::from_name(kind).with_context(|| format!("`{kind}` is no kind: dmarc, tls or abuse"))?;
    let since = engines.clock.utc().minus(Duration::from_secs(u64::from(days) * 86_400));
    let domain = domain.map(str::to_lowercase);
    Ok(engines.peers.received(domain.as_deref(), kind, since, ROWS_MAX).await?)
}

fn row(one: &Received) -> Value {
    let counts = match serde_json::from_str::<Report>(&one.report) {
        Ok(Report::Dmarc(report)) => {
            let of = |wanted: bool| {
                let rows = report.rows.iter().filter(|row| (row.dkim || row.spf) == wanted);
                rows.map(|row| row.count).sum::<u64>()
            };
            (of(true), of(false))
        }
        Ok(Report::Tls(report)) => {
            let of = |count: fn(&peers::TlsPolicy) -> u64| report.policies.iter().map(count).sum::<u64>();
            (of(|policy| policy.successes), of(|policy| policy.failures))
        }
        Ok(Report::Abuse(_)) | Err(_) => (0, 1),
    };
    json!({
        "domain": one.domain,
        "kind": one.kind.as_str(),
        "from": date::format_utc(one.begin_at),
        "to": date::format_utc(one.end_at),
        "submitter": one.submitter,
        "passed": counts.0,
        "failed": counts.1,
    })
}

/// All reports about a domain together: by sender of the mail, by trouble, or each complaint.
fn sum(reports: impl Iterator<Item = Report>) -> Value {
    let (mut by_ip, mut by_trouble, mut complaints) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for report in reports {
        match report {
            Report::Dmarc(report) => {
                for row in report.rows {
                    let ip = row.ip.map(|ip| ip.to_string()).unwrap_or_default();
                    let sums: &mut [u64; 5] = by_ip.entry((ip, row.header_from.clone())).or_default();
                    sums[0] += row.count;
                    sums[1] += if row.dkim { row.count } else { 0 };
                    sums[2] += if row.spf { row.count } else { 0 };
                    sums[3] += if row.dkim || row.spf { 0 } else { row.count };
                    sums[4] += if matches!(row.disposition.as_str(), "quarantine" | "reject") { row.count } else { 0 };
                }
            }
            Report::Tls(report) => {
                for policy in report.policies {
                    let well = ("successful".to_owned(), String::new(), policy.kind.clone());
                    *by_trouble.entry(well).or_insert(0) += policy.successes;
                    for detail in policy.details {
                        *by_trouble.entry((detail.result, detail.host, policy.kind.clone())).or_insert(0) +=
                            detail.sessions;
                    }
                }
            }
            Report::Abuse(abuse) => complaints.push(json!({
                "at": date::format_utc(UtcMillis(abuse.at.saturating_mul(1000))),
                "feedback": abuse.feedback,
                "from": abuse.original_from,
                "to": abuse.original_to,
                "message": abuse.message_id,
                "subject": abuse.subject,
                "ip": abuse.ip.map(|ip| ip.to_string()),
                "submitter": abuse.submitter,
            })),
        }
    }
    let mut sources: Vec<((String, String), [u64; 5])> = by_ip.into_iter().collect();
    sources.sort_by_key(|(_, sums)| std::cmp::Reverse(sums[0]));
    let source = |((ip, author), [messages, dkim, spf, failed, turned_away]): ((String, String), [u64; 5])| {
        json!({
            "ip": ip, "author": author, "messages": messages, "dkim": dkim, "spf": spf, "failed": failed,
            "turned_away": turned_away,
        })
    };
    let trouble = |((result, host, policy), sessions): ((String, String, String), u64)| json!({ "result": result, "host": host, "policy": policy, "sessions": sessions });
    let sources = sources.into_iter().map(source);
    let rows: Vec<Value> = sources.chain(by_trouble.into_iter().map(trouble)).chain(complaints).collect();
    rows.into()
}

impl Reporter {
    /// Sends a day's reports now; gives how many.
    pub async fn send_now(&self, day: &str) -> anyhow::Result<Value> {
        anyhow::ensure!(self.settings.from.is_some(), "nobody reports: set reports.from or node.postmaster");
        let at = date::parse_utc(day).with_context(|| format!("`{day}` is no day, such as 2026-11-27"))?;
        self.peers.flush().await?;
        Ok(json!({ "reports": self.send(day_of(at)).await? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read() {
        let mail = |address: &str, limit| Destination::Mail(address.to_owned(), limit);
        let web = |host: &str, path: &str| Destination::Web(host.to_owned(), path.to_owned());
        for (record, expected) in [
            ("v=DMARC1; p=none; rua=mailto:a@a.test", vec![mail("a@a.test", 0)]),
            (
                "v=DMARC1;rua=mailto:a@a.test!10m, MAILTO:b@b.test!5k",
                vec![mail("a@a.test", 10 << 20), mail("b@b.test", 5120)],
            ),
            ("v=TLSRPTv1; rua=https://Reports.a.test/v1?x=1", vec![web("reports.a.test", "/v1?x=1")]),
            ("v=TLSRPTv1; rua=https://a.test", vec![web("a.test", "/")]),
            ("v=TLSRPTv1; rua=http://a.test/,ftp:x,mailto:nobody,https://a b/", vec![]),
            ("v=DMARC1; p=none", vec![]),
        ] {
            assert_eq!(destinations(record), expected, "{record}");
        }
    }

    #[test]
    fn letters_are_whole() {
        let form = Form {
            subject: "Report Domain: a.test".to_owned(),
            fields: "TLS-Report-Domain: a.test\r\n".to_owned(),
            multipart: "report; report-type=\"tlsrpt\"",
            text: "hello".to_owned(),
            kind: "application/tlsrpt+gzip",
            file: "us!a.test!1!2.json.gz".to_owned(),
        };
        let heading = tls::Heading {
            submitter: "us.test".to_owned(),
            contact: "r@us.test".to_owned(),
            id: "1".to_owned(),
            begin: UtcMillis(0),
            end: UtcMillis(1000),
            domain: "a.test".to_owned(),
        };
        let seen = TlsSeen { policy: "sts".into(), strings: Vec::new(), hosts: Vec::new(), failure: None };
        let packed = gzip(tls::write(&heading, &[(seen, 4)]).as_bytes()).unwrap();
        let id: MessageId = base::IdSource::system().message(UtcMillis(1_795_780_800_000));
        let at = UtcMillis(1_795_780_800_000);
        let message = form.message(&"r@us.test".parse().unwrap(), "tls@a.test", id, "mx.us.test", at, &packed);
        assert!(message.split(|byte| *byte == b'\n').all(|line| line.len() <= 300));
        let (found, bad) = peers::read(&message);
        assert!(bad.is_empty());
        let [Report::Tls(report)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((report.policies[0].domain.as_str(), report.policies[0].successes), ("a.test", 4));
    }
}
