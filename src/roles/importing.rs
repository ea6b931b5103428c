//! Many accounts at once, from a table (RFC 4180) with names of columns in its first line.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use base::Quota;
use directory::{Access, DomainEntry, NewAccount, PasswordHash, Placement};
use futures_util::StreamExt as _;
use mail::{Address, Domain};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Engines;
use super::control::{Secrets, hash};
use super::limits::{self, QuotaPatch};

/// What is asked for.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ImportRequest {
    /// The table, if it does not come as the request's content.
    #[serde(default)]
    pub table: Option<String>,
    /// Only says what would fail.
    #[serde(default)]
    pub dry_run: bool,
    /// Only into these domains.
    #[serde(default)]
    pub within: Option<Vec<String>>,
}

/// A line that makes sense by itself.
struct Line {
    number: u64,
    address: Address,
    name: String,
    secrets: Option<Secrets>,
    quota: Quota,
    aliases: Vec<String>,
}

impl Line {
    fn failed(&self, why: String) -> Failed {
        Failed { number: self.number, address: self.address.to_string(), why }
    }
}

/// What did not come about, by the line where it stands.
struct Failed {
    number: u64,
    address: String,
    why: String,
}

const COLUMNS: [&str; 7] = ["address", "name", "password", "password_hash", "quota", "messages", "aliases"];
const LINES_MAX: usize = 500_000;
/// Lines under way together: one commit holds many of them.
const AT_ONCE: usize = 128;
/// Failures that are told one by one.
const TOLD_MAX: usize = 10_000;

/// Adds what can be added and tells of the rest.
///
/// # Errors
/// The table has no names of columns, or names one that is not known: then nothing is added.
pub async fn execute(engines: &Engines, request: ImportRequest, content: &[u8]) -> anyhow::Result<Value> {
    let text = request.table.as_deref().map_or(content, str::as_bytes);
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (lines, mut failed) = read(text)?;
    let count = lines.len() + failed.len();
    let domains = domains(engines, &lines, request.within.as_deref()).await?;
    // Hashing is heavy: a few at a time, while others are written.
    let hashing = Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from));
    let adding = futures_util::stream::iter(lines).map(|line| add(engines, line, &domains, &hashing, request.dry_run));
    let mut adding = adding.buffer_unordered(AT_ONCE);
    let (mut added, mut aliases) = (0u64, Vec::new());
    while let Some(outcome) = adding.next().await {
        match outcome {
            Ok(line) => {
                added += 1;
                aliases.push(line);
            }
            Err(why) => failed.push(why),
        }
    }
    // Once all accounts are there: an alias must not take the address of one.
    if !request.dry_run {
        for line in aliases {
            failed.extend(add_aliases(engines, line).await);
        }
    }
    failed.sort_by_key(|one| one.number);
    let told: Vec<Value> = failed
        .iter()
        .take(TOLD_MAX)
        .map(|one| json!({ "line": one.number, "address": one.address, "error": one.why }))
        .collect();
    Ok(json!({ "lines": count, "added": added, "failed": failed.len(), "errors": told, "dry": request.dry_run }))
}

/// Where a record begins. The reader's own numbers of lines lag behind where lines end in CR LF.
struct Place<'a> {
    text: &'a [u8],
    octets: usize,
    line: u64,
}

impl Place<'_> {
    /// Records come in their order.
    fn line_of(&mut self, position: Option<&csv::Position>) -> u64 {
        let mut at = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.octets);
        while self.text.get(at).is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
            at += 1;
        }
        let passed = self.text.get(self.octets..at).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.octets = at.max(self.octets);
        self.line
    }
}

fn read(text: &[u8]) -> anyhow::Result<(Vec<Line>, Vec<Failed>)> {
    let head = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // Spreadsheets of some countries.
    let delimiter = if head.contains(&b';') && !head.contains(&b',') { b';' } else { b',' };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).trim(csv::Trim::All).from_reader(text);
    let names: Vec<String> = reader.headers().context("line 1")?.iter().map(str::to_ascii_lowercase).collect();
    for name in &names {
        anyhow::ensure!(COLUMNS.contains(&name.as_str()), "line 1: `{name}` is no column: {}", COLUMNS.join(", "));
    }
    anyhow::ensure!(names.iter().any(|name| name == "address"), "line 1: there is no column `address`");
    anyhow::ensure!(names.iter().collect::<HashSet<_>>().len() == names.len(), "line 1: a column is named twice");
    let (mut lines, mut failed, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut place = Place { text, octets: 0, line: 1 };
    for record in reader.records() {
        anyhow::ensure!(lines.len() + failed.len() < LINES_MAX, "more than {LINES_MAX} lines: split the table");
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let number = place.line_of(error.position());
                let why = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8".to_owned(),
                    _ => error.to_string(),
                };
                failed.push(Failed { number, address: String::new(), why });
                continue;
            }
        };
        let number = place.line_of(record.position());
        let field = |name: &str| {
            let at = names.iter().position(|known| known == name)?;
            record.get(at).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let address = field("address").unwrap_or_default();
        let parsed = match record.len() {
            length if length != names.len() => {
                Err(anyhow::anyhow!("{length} fields where the first line names {}", names.len()))
            }
            _ => line(number, &field),
        };
        match parsed {
            Ok(line) if !seen.insert(line.address.to_folded()) => {
                failed.push(Failed { number, address, why: "the address is in the table twice".to_owned() });
            }
            Ok(line) => lines.push(line),
            Err(error) => failed.push(Failed { number, address, why: format!("{error:#}") }),
        }
    }
    Ok((lines, failed))
}

fn line(number: u64, field: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Line> {
    let address: Address = field("address").context("no address")?.parse()?;
    let secrets = match (field("password"), field("password_hash")) {
        (Some(_), Some(_)) => anyhow::bail!("a password and a hash of one"),
        (Some(password), None) => Some(Secrets::Password(password)),
        (None, Some(text)) => {
            text.parse::<PasswordHash>()?;
            Some(Secrets::Hash(text))
        }
        (None, None) => None,
    };
    let change = QuotaPatch { quota: field("quota"), messages: field("messages") }.change()?;
    let quota = Quota { size: change.size.flatten(), messages: change.messages.flatten() };
    let aliases = field("aliases").unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    Ok(Line { number, address, name: field("name").unwrap_or_default(), secrets, quota, aliases })
}

/// Domains that the lines name, as far as they may be changed.
async fn domains(
    engines: &Engines,
    lines: &[Line],
    within: Option<&[String]>,
) -> anyhow::Result<HashMap<Domain, DomainEntry>> {
    let named: HashSet<&Domain> = lines.iter().map(|line| &line.address.domain).collect();
    let mut found = HashMap::new();
    for name in named {
        if within.is_some_and(|within| !within.iter().any(|known| known == name.as_str())) {
            continue;
        }
        if let Some(entry) = engines.directory.domain(name).await? {
            found.insert(name.clone(), entry);
        }
    }
    Ok(found)
}

/// Gives the line back once its account is there.
async fn add(
    engines: &Engines,
    line: Line,
    domains: &HashMap<Domain, DomainEntry>,
    hashing: &Semaphore,
    dry_run: bool,
) -> Result<Line, Failed> {
    match add_account(engines, &line, domains, hashing, dry_run).await {
        Ok(()) => Ok(line),
        Err(error) => Err(line.failed(format!("{error:#}"))),
    }
}

/// Tells of the first that fails.
async fn add_aliases(engines: &Engines, line: Line) -> Option<Failed> {
    for alias in &line.aliases {
        if let Err(error) = engines.directory.put_alias(alias, vec![line.address.clone()], false).await {
            return Some(line.failed(format!("the account is added, the alias {alias} is not: {error}")));
        }
    }
    None
}

async fn add_account(
    engines: &Engines,
    line: &Line,
    domains: &HashMap<Domain, DomainEntry>,
    hashing: &Semaphore,
    dry_run: bool,
) -> anyhow::Result<()> {
    let Line { address, name, secrets, quota, aliases, .. } = line;
    let domain = domains.get(&address.domain);
    let domain = domain.with_context(|| format!("the domain {} does not exist", address.domain))?;
    for alias in aliases {
        let of = alias.rsplit_once('@').map_or("", |(_, domain)| domain);
        anyhow::ensure!(
            domains.keys().any(|known| known.as_str() == of),
            "the alias {alias} is of a domain that the table does not name"
        );
    }
    let needs_none = domain.relay.is_some() || domain.legacy.is_some();
    anyhow::ensure!(secrets.is_some() || needs_none, "neither a password nor a hash of one");
    if dry_run {
        anyhow::ensure!(
            engines.directory.account_by_address(address).await?.is_none(),
            "the account {address} exists already"
        );
        return Ok(());
    }
    let password = match secrets {
        Some(secrets) => {
            let _place = hashing.acquire().await?;
            hash(secrets.clone()).await?
        }
        None => PasswordHash::of_nobody(),
    };
    let (address, name) = (address.clone(), name.clone());
    let (access, placement) = (Access::User, Placement::OfDomain);
    let account = NewAccount { address, name, access, password, quota: *quota, placement };
    let id = engines.directory.add_account(account).await?;
    limits::apply(engines, id).await
}
