//! From text to [`Config`]: every complaint at once, each with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Secret;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::listener::{Listener, Service};
use crate::model::{
    Config, LogFormat, ObjectStore, Postgres, PostgresTls, Queue, Reports, Role, SendingLimits, TlsFiles, Way, WhenDown,
};
use crate::option::{Kind, OPTIONS, OptionSpec, find};
use crate::value::{Value, check};

/// Everything that is wrong with a file; one line each when displayed: `file:line: what`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub file: PathBuf,
    /// Line, counted from 1 (0: the whole file), and what is wrong there.
    pub complaints: Vec<(usize, String)>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (line, what)) in self.complaints.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "\n" })?;
            match line {
                0 => write!(f, "{}: {what}", self.file.display())?,
                line => write!(f, "{}:{line}: {what}", self.file.display())?,
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) => Err(ConfigError { file: file.to_path_buf(), complaints: vec![(0, error.to_string())] }),
        }
    }

    /// Checks a text; `file` names it in complaints and relative paths count from its folder.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader { text, values: BTreeMap::new(), listeners: Vec::new(), complaints: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => reader.read(table.get_ref()),
            Err(error) => {
                let line = error.span().map_or(0, |span| line_of(text, span.start));
                let what = error.message().lines().next().unwrap_or_default().to_owned();
                reader.complaints.push((line, what));
            }
        }
        if reader.complaints.is_empty() {
            reader.complain_about_whole();
        }
        if reader.complaints.is_empty() {
            let mut config = reader.finish(file.parent().unwrap_or(Path::new(".")));
            config.file = std::path::absolute(file).ok();
            Ok(config)
        } else {
            reader.complaints.sort_by_key(|(line, _)| *line);
            Err(ConfigError { file: file.to_path_buf(), complaints: reader.complaints })
        }
    }

    /// A complaint of somebody who knows more than this crate does, at the line where `text` stands in the list `path`, if
    /// the file can still be read.
    pub fn complaint(&self, path: &str, text: &str, what: String) -> ConfigError {
        let file = self.file.clone().unwrap_or_default();
        let line = std::fs::read_to_string(&file).ok().and_then(|content| line_of_text(&content, path, text));
        ConfigError { file, complaints: vec![(line.unwrap_or(0), what)] }
    }

    /// What holds when a file gives only the node's name and listeners.
    pub fn with_defaults(node_name: &str, data: PathBuf, listeners: Vec<Listener>) -> Self {
        let mut reader = Reader { text: "", values: BTreeMap::new(), listeners, complaints: Vec::new() };
        reader.values.insert("node.name", Value::Text(node_name.to_owned()));
        let mut config = reader.finish(Path::new("."));
        config.data = data;
        config
    }
}

struct Reader<'a> {
    text: &'a str,
    values: BTreeMap<&'static str, Value>,
    listeners: Vec<Listener>,
    complaints: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn read(&mut self, table: &DeTable<'_>) {
        for (section, content) in table {
            let name = section.get_ref().as_ref();
            if name == "listener" {
                self.read_listeners(content);
            } else if !OPTIONS.iter().any(|option| option.path.split('.').next() == Some(name)) {
                self.complain(section.span(), format!("unknown section [{name}]{}", similar(name, sections())));
            } else if let Some(keys) = content.get_ref().as_table() {
                self.read_section(name, keys);
            } else {
                self.complain(section.span(), format!("`{name}` is a section: write [{name}] on a line of its own"));
            }
        }
    }

    fn read_section(&mut self, section: &str, keys: &DeTable<'_>) {
        for (key, value) in keys {
            let path = format!("{section}.{}", key.get_ref());
            match find(&path) {
                None if path == "filter.clamd_down" => {
                    let why = "`filter.clamd_down` is gone: set `scanner-unavailable` in the file of `filter.policy`";
                    self.complain(key.span(), why.to_owned());
                }
                None => {
                    let known = OPTIONS.iter().map(|option| option.path);
                    self.complain(key.span(), format!("unknown option `{path}`{}", similar(&path, known)));
                }
                Some(option) => match check(option.kind, value.get_ref()) {
                    Ok(value) => {
                        self.values.insert(option.path, value);
                    }
                    Err(why) => self.complain(value.span(), format!("`{path}` {why}")),
                },
            }
        }
    }

    fn read_listeners(&mut self, content: &Spanned<DeValue<'_>>) {
        let Some(list) = content.get_ref().as_array() else {
            return self.complain(content.span(), "write each listener as a [[listener]] section".to_owned());
        };
        for item in list.iter() {
            let Some(keys) = item.get_ref().as_table() else {
                self.complain(item.span(), "write each listener as a [[listener]] section".to_owned());
                continue;
            };
            let (mut service, mut address) = (None, None);
            for (key, value) in keys {
                let text = value.get_ref().as_str().unwrap_or_default();
                match key.get_ref().as_ref() {
                    "protocol" => match Service::from_name(text) {
                        Some(known) => service = Some(known),
                        None => self.complain(value.span(), format!("`protocol` must be one of {}", protocols())),
                    },
                    "address" => match text.parse::<SocketAddr>() {
                        Ok(parsed) => address = Some(parsed),
                        Err(_) => {
                            let why = "`address` must be an IP address with a port, such as 0.0.0.0:25 or [::]:25";
                            self.complain(value.span(), why.to_owned());
                        }
                    },
                    other => self.complain(
                        key.span(),
                        format!("unknown option `listener.{other}`; a listener has `protocol` and `address`"),
                    ),
                }
            }
            match (service, address) {
                (Some(service), Some(address)) => {
                    if self.listeners.iter().any(|known| known.address == address) {
                        self.complain(item.span(), format!("{address} is listened on twice"));
                    }
                    self.listeners.push(Listener { service, address });
                }
                (None, _) | (_, None) if self.complaints.is_empty() => {
                    self.complain(item.span(), "a listener needs `protocol` and `address`".to_owned());
                }
                (None, _) | (_, None) => {}
            }
        }
    }

    /// What only the whole file can show.
    fn complain_about_whole(&mut self) {
        for option in OPTIONS.iter().filter(|option| option.required && !self.values.contains_key(option.path)) {
            self.complaints.push((0, format!("`{}` is missing: {}", option.path, option.doc)));
        }
        if self.listeners.is_empty() {
            self.complaints.push((0, "there is no [[listener]]: the node would serve nobody".to_owned()));
        }
        if self.values.contains_key("tls.certificate") != self.values.contains_key("tls.key") {
            self.complaints.push((0, "`tls.certificate` and `tls.key` go together".to_owned()));
        }
        if !self.says("storage.engine", "postgresql") {
            return;
        }
        let missing = OBJECT_STORE.iter().filter(|path| !self.values.contains_key(**path));
        let missing: Vec<String> = missing.map(|path| format!("`{path}`")).collect();
        if self.values.contains_key("storage.object_store") && !missing.is_empty() {
            let why = format!("{} is missing: `storage.object_store` needs it", missing.join(", "));
            self.complaints.push((0, why));
        }
        if !self.values.contains_key("storage.postgresql") {
            let why = "`storage.postgresql` is missing: with `storage.engine` `postgresql` it names the server";
            self.complaints.push((0, why.to_owned()));
        }
        if self.says("storage.postgresql_tls", "verify-full") && !self.values.contains_key("storage.postgresql_ca") {
            let why = "`storage.postgresql_ca` is missing: `verify-full` checks the server's certificate against it";
            self.complaints.push((0, why.to_owned()));
        }
    }

    /// True if the file gives the option this text.
    fn says(&self, path: &str, text: &str) -> bool {
        matches!(self.values.get(path), Some(Value::Text(given)) if given == text)
    }

    fn complain(&mut self, span: Range<usize>, what: String) {
        self.complaints.push((line_of(self.text, span.start), what));
    }

    /// The value from the file, else the default.
    fn take(&mut self, path: &'static str) -> Option<Value> {
        let given = self.values.remove(path);
        given.or_else(|| find(path).and_then(default_of))
    }

    fn text(&mut self, path: &'static str) -> String {
        self.take(path).map(Value::into_text).unwrap_or_default()
    }
    fn texts(&mut self, path: &'static str) -> Vec<String> {
        self.take(path).map(Value::into_texts).unwrap_or_default()
    }
    fn count(&mut self, path: &'static str) -> usize {
        self.take(path).map(Value::into_count).unwrap_or_default()
    }
    fn flag(&mut self, path: &'static str) -> bool {
        matches!(self.take(path), Some(Value::Flag(true)))
    }
    fn down(&mut self, path: &'static str) -> WhenDown {
        if self.text(path) == "pass" { WhenDown::Pass } else { WhenDown::Defer }
    }

    fn span(&mut self, path: &'static str) -> Duration {
        self.take(path).map(Value::into_span).unwrap_or_default()
    }

    fn postgres(&mut self, folder: &Path) -> Option<Postgres> {
        let is_chosen = self.text("storage.engine") == "postgresql";
        let url = self.take("storage.postgresql").filter(|_| is_chosen)?;
        let ca = self.take("storage.postgresql_ca").map(|value| folder.join(value.into_text()));
        Some(Postgres {
            url: Secret::new(url.into_text()),
            trail_url: self.take("trail.postgresql").map(|url| Secret::new(url.into_text())),
            password_file: self.take("storage.postgresql_password_file").map(|value| folder.join(value.into_text())),
            tls: match (self.text("storage.postgresql_tls").as_str(), ca) {
                ("off", _) => PostgresTls::Off,
                ("verify-full", Some(ca)) => PostgresTls::VerifyFull(ca),
                _ => PostgresTls::Require,
            },
            connections: self.count("storage.postgresql_connections"),
            connect_wait: self.span("storage.postgresql_connect_wait"),
            statement_wait: self.span("storage.postgresql_statement_wait"),
        })
    }

    fn queue(&mut self, folder: &Path) -> Queue {
        Queue {
            routes: self.take("queue.routes").map(|value| folder.join(value.into_text())),
            port: u16::try_from(self.count("queue.port")).unwrap_or(25),
            connections_max: self.count("queue.connections_max"),
            first_wait: self.span("queue.first_wait"),
            longest_wait: self.span("queue.longest_wait"),
            warn_after: self.span("queue.warn_after"),
            expire_after: self.span("queue.expire_after"),
            expire_notices_after: self.span("queue.expire_notices_after"),
            dane: self.flag("queue.dane"),
            mta_sts: self.flag("queue.mta_sts"),
            mta_sts_port: u16::try_from(self.count("queue.mta_sts_port")).unwrap_or(443),
            authorities: self.take("queue.authorities").map(|value| folder.join(value.into_text())),
        }
    }

    fn sending(&mut self) -> SendingLimits {
        let mut limit = |option| u64::try_from(self.count(option)).ok().filter(|limit| *limit > 0);
        SendingLimits {
            account_hour: limit("sending.recipients_per_hour"),
            account_day: limit("sending.recipients_per_day"),
            domain_hour: limit("sending.domain_recipients_per_hour"),
        }
    }

    fn reports(&mut self) -> Reports {
        Reports {
            from: match self.take("reports.from") {
                Some(Value::MailAddress(address)) => Some(address),
                _ => None,
            },
            organization: self.take("reports.organization").map(Value::into_text),
            dmarc: self.flag("reports.dmarc"),
            tls: self.flag("reports.tls"),
            read: self.texts("reports.read"),
        }
    }

    fn object_store(&mut self, folder: &Path) -> Option<ObjectStore> {
        let store = ObjectStore {
            endpoints: self.texts("storage.object_store"),
            bucket: self.text("storage.object_store_bucket"),
            region: self.text("storage.object_store_region"),
            access_key: self.text("storage.object_store_access_key"),
            secret_file: folder.join(self.text("storage.object_store_secret_file")),
            path_style: matches!(self.take("storage.object_store_path_style"), Some(Value::Flag(true))),
            from: self.take("storage.object_store_from").map(Value::into_size).unwrap_or_default(),
        };
        Some(store).filter(|store| !store.endpoints.is_empty())
    }

    fn finish(mut self, folder: &Path) -> Config {
        let postgres = self.postgres(folder);
        let (queue, reports, sending) = (self.queue(folder), self.reports(), self.sending());
        let object_store = self.object_store(folder).filter(|_| postgres.is_some());
        let mut path = |option| self.take(option).map(|value| folder.join(value.into_text()));
        let (data, policy) = (path("node.data").unwrap_or_default(), path("filter.policy"));
        let countries = path("filter.countries");
        let dns_trust_anchor = path("dns.trust_anchor");
        let tls = path("tls.certificate").zip(path("tls.key"));
        let roles = self.texts("node.roles").into_iter().map(|name| match name.as_str() {
            "filter" => Role::Filter,
            "store" => Role::Store,
            _ => Role::Web,
        });
        let judged = self.texts("filter.judged").into_iter().map(|name| match name.as_str() {
            "lmtp" => Way::Lmtp,
            "smtp" => Way::Smtp,
            _ => Way::Submission,
        });
        let judged = judged.collect();
        let of_listener = self.listeners.iter().find(|one| one.service == Service::Cluster).map(|one| one.address);
        let of_listener = of_listener.filter(|address| !address.ip().is_unspecified()).map(|one| one.to_string());
        let cluster_address = self.take("cluster.address").map(Value::into_text).or(of_listener);
        Config {
            file: None,
            roles: roles.collect(),
            node_name: self.text("node.name"),
            data,
            user: self.take("node.user").map(Value::into_text),
            postmaster: match self.take("node.postmaster") {
                Some(Value::MailAddress(address)) => Some(address),
                _ => None,
            },
            shutdown_wait: self.take("node.shutdown_wait").map(Value::into_span).unwrap_or_default(),
            listeners: std::mem::take(&mut self.listeners),
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            trusted_proxies: match self.take("network.trusted_proxies") {
                Some(Value::Networks(networks)) => networks,
                _ => Vec::new(),
            },
            dns_servers: match self.take("dns.servers") {
                Some(Value::SocketAddresses(servers)) => servers,
                _ => Vec::new(),
            },
            dns_timeout: self.take("dns.timeout").map(Value::into_span).unwrap_or_default(),
            dns_trust_anchor,
            message_size_max: self.take("smtp.message_size_max").map(Value::into_size).unwrap_or_default(),
            recipients_max: self.count("smtp.recipients_max"),
            smtp_sessions_max: self.count("smtp.sessions_max"),
            smtp_sessions_per_client_max: self.count("smtp.sessions_per_client_max"),
            memory_for_messages: self.take("smtp.memory_for_messages").map(Value::into_size).unwrap_or_default(),
            imap_sessions_max: self.count("imap.sessions_max"),
            imap_sessions_per_client_max: self.count("imap.sessions_per_client_max"),
            pop3_sessions_max: self.count("pop3.sessions_max"),
            pop3_sessions_per_client_max: self.count("pop3.sessions_per_client_max"),
            web_sessions_max: self.count("web.sessions_max"),
            web_url: self.take("web.url").map(|url| url.into_text().trim_end_matches('/').to_owned()),
            plaintext_on_loopback: self.text("login.plaintext") == "loopback",
            staff_second_factor: self.text("login.staff_second_factor") == "required",
            queue,
            reports,
            sending,
            rules: self
                .take("filter.rules")
                .map(Value::into_paths)
                .unwrap_or_default()
                .iter()
                .map(|p| folder.join(p))
                .collect(),
            policy,
            judged,
            autolearn: matches!(self.take("filter.autolearn"), Some(Value::Flag(true))),
            clamd: self.texts("filter.clamd"),
            countries,
            trusted_sealers: self.texts("filter.trusted_sealers"),
            dns_lists: self.texts("filter.dns_lists"),
            dns_list_keys: self.texts("filter.dns_list_keys").into_iter().map(Secret::new).collect(),
            dns_list_wait: self.take("filter.dns_list_wait").map(Value::into_span).unwrap_or_default(),
            dns_list_questions_per_day: self.count("filter.dns_list_questions_per_day"),
            dns_list_questions_per_second: self.count("filter.dns_list_questions_per_second"),
            milters: self.texts("filter.milters"),
            milter_down: self.down("filter.milter_down"),
            free_space_min: self.take("storage.free_space_min").map(Value::into_size).unwrap_or_default(),
            postgres,
            object_store,
            undelete: self.take("storage.undelete").map(Value::into_span).unwrap_or_default(),
            audit_every: self.take("storage.audit_every").map(Value::into_span).unwrap_or_default(),
            cluster_address,
            trail_retention: self.take("trail.retention").map(Value::into_span).unwrap_or_default(),
            log_level: self.text("log.level"),
            log_format: if self.text("log.format") == "json" { LogFormat::Json } else { LogFormat::Text },
        }
    }
}

/// The default of an option, through the same check as a value from a file.
pub(crate) fn default_of(option: &OptionSpec) -> Option<Value> {
    let value = DeValue::parse(option.default?).ok()?;
    check(option.kind, value.get_ref()).ok()
}

/// Words for the kind's type and limits, for the reference page.
pub(crate) fn describe(kind: Kind) -> String {
    use base::units::format_duration;
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Count { min, max } => format!("whole number, {min} to {max}"),
        Kind::Size { min, max } => format!("size, {min} to {max}"),
        Kind::Span { min, max } => format!("duration, {} to {}", format_duration(min), format_duration(max)),
        Kind::Choice(choices) => format!("one of {}", choices.join(", ")),
        Kind::Choices(choices) | Kind::AnyOf(choices) => format!("list of {}", choices.join(", ")),
        Kind::Texts => "list of texts".to_owned(),
        Kind::Paths => "list of paths".to_owned(),
        Kind::SocketAddresses => "list of address:port".to_owned(),
        Kind::Networks => "list of networks, such as 192.0.2.0/24".to_owned(),
        Kind::MailAddress => "mail address".to_owned(),
    }
}

pub(crate) fn protocols() -> String {
    Service::ALL.map(|(_, name, _)| name).join(", ")
}

fn sections() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter_map(|option| option.path.split('.').next()).chain(["listener"])
}

/// Where one of the texts of a list stands.
fn line_of_text(content: &str, path: &str, text: &str) -> Option<usize> {
    let (section, key) = path.split_once('.')?;
    let table = DeTable::parse(content).ok()?;
    let list = table.get_ref().get(section)?.get_ref().as_table()?.get(key)?;
    let elements = list.get_ref().as_array()?;
    let element = elements.iter().find(|element| element.get_ref().as_str() == Some(text));
    Some(line_of(content, element.map_or(list.span(), Spanned::span).start))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// "; did you mean `x`?" for the nearest known name, if it is near.
fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|candidate| (distance(name, candidate), candidate)).min();
    match nearest {
        Some((changes, candidate)) if changes <= 1 + name.len() / 4 => format!("; did you mean `{candidate}`?"),
        Some(_) | None => "; `ortler config reference` lists all".to_owned(),
    }
}

/// Levenshtein distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let best = (diagonal + usize::from(x != y)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// What an object store needs beside its endpoints.
const OBJECT_STORE: [&str; 3] =
    ["storage.object_store_bucket", "storage.object_store_access_key", "storage.object_store_secret_file"];
