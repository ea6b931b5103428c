//! Every option, defined once: name, type, limits, default, documentation.

use std::time::Duration;

use base::ByteSize;

/// What an option's value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// A path; relative ones count from the folder of the configuration file.
    Path,
    /// `true` or `false`.
    Flag,
    Count {
        min: u64,
        max: u64,
    },
    Size {
        min: ByteSize,
        max: ByteSize,
    },
    Span {
        min: Duration,
        max: Duration,
    },
    Choice(&'static [&'static str]),
    /// One or more of these.
    Choices(&'static [&'static str]),
    /// Any of these, or none.
    AnyOf(&'static [&'static str]),
    Texts,
    Paths,
    /// `address:port` each.
    SocketAddresses,
    /// `192.0.2.0/24` or a single address each.
    Networks,
    MailAddress,
}

/// One option of a section.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// `section.key`.
    pub path: &'static str,
    pub kind: Kind,
    /// As it would stand in the file; `None`: no default. A required option says so in `required`.
    pub default: Option<&'static str>,
    pub required: bool,
    pub doc: &'static str,
}

const fn optional(path: &'static str, kind: Kind, doc: &'static str) -> OptionSpec {
    OptionSpec { path, kind, default: None, required: false, doc }
}

const fn with(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec { path, kind, default: Some(default), required: false, doc }
}

const fn required(path: &'static str, kind: Kind, doc: &'static str) -> OptionSpec {
    OptionSpec { path, kind, default: None, required: true, doc }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: ByteSize, max: ByteSize) -> Kind {
    Kind::Size { min, max }
}

const fn span(min_secs: u64, max_secs: u64) -> Kind {
    Kind::Span { min: Duration::from_secs(min_secs), max: Duration::from_secs(max_secs) }
}

const DAY_SECS: u64 = 86_400;

/// All options, in the order of the reference page.
pub const OPTIONS: &[OptionSpec] = &[
    required(
        "node.name",
        Kind::Text,
        "Host name of this node, as it greets and as it stands in Received fields. A fully qualified name that resolves to this node's address.",
    ),
    with("node.data", Kind::Path, "\"/var/lib/ortler\"", "Folder of the embedded engine. Must lie on a local disk."),
    with(
        "node.roles",
        Kind::Choices(&["filter", "store", "web"]),
        "[\"filter\", \"store\", \"web\"]",
        "What this node does: `filter` takes mail, `store` serves IMAP, POP3 and ManageSieve, `web` serves HTTP.",
    ),
    optional(
        "node.user",
        Kind::Text,
        "User to become after the listeners are bound, when started as root. Without it a node started as root stays root and says so.",
    ),
    optional(
        "node.postmaster",
        Kind::MailAddress,
        "Account that takes mail for <Postmaster> and for postmaster@ of domains that have none.",
    ),
    with(
        "node.shutdown_wait",
        span(1, 600),
        "\"30 s\"",
        "Longest wait for open sessions to finish when the node stops.",
    ),
    optional(
        "tls.certificate",
        Kind::Path,
        "PEM file with the certificate chain. Without it a self-signed certificate is made and kept in the data folder.",
    ),
    optional("tls.key", Kind::Path, "PEM file with the certificate's private key."),
    with(
        "network.trusted_proxies",
        Kind::Networks,
        "[]",
        "Balancers: connections from here may begin with a PROXY header and SMTP clients may use XCLIENT.",
    ),
    with("dns.servers", Kind::SocketAddresses, "[]", "Name servers to ask; empty takes those of /etc/resolv.conf."),
    with(
        "dns.timeout",
        span(1, 30),
        "\"2 s\"",
        "Longest wait for one answer of one server; asked at most twice. While no server answers, lookups fail at once.",
    ),
    optional(
        "dns.trust_anchor",
        Kind::Path,
        "File with all DNSKEY records, as in a zone's file, of a zone whose signatures are believed, in the place of the root's keys that the program knows. For DANE.",
    ),
    with(
        "smtp.message_size_max",
        size(ByteSize::kib(64), ByteSize::mib(1024)),
        "\"50 MB\"",
        "Largest message taken, announced by SIZE.",
    ),
    with("smtp.recipients_max", count(100, 100_000), "1000", "Recipients in one transaction."),
    with(
        "smtp.sessions_max",
        count(1, 1_000_000),
        "4000",
        "Open sessions on each listener; further clients are turned away with 421.",
    ),
    with("smtp.sessions_per_client_max", count(1, 1_000_000), "50", "Open sessions of one client address (IPv6: /64)."),
    with(
        "smtp.memory_for_messages",
        size(ByteSize::mib(64), ByteSize::mib(1 << 20)),
        "\"512 MB\"",
        "Memory that messages being judged, appended or composed may take together; further ones wait. Content that is still coming may take a quarter of it more, uploads to the webmail 32 MB.",
    ),
    with("imap.sessions_max", count(1, 1_000_000), "20000", "Open IMAP sessions on each listener."),
    with("imap.sessions_per_client_max", count(1, 1_000_000), "200", "Open IMAP sessions of one client address."),
    with("pop3.sessions_max", count(1, 1_000_000), "4000", "Open sessions on each listener for POP3 or ManageSieve."),
    with(
        "pop3.sessions_per_client_max",
        count(1, 1_000_000),
        "50",
        "Open sessions of one client address on each listener for POP3 or ManageSieve.",
    ),
    with("web.sessions_max", count(1, 1_000_000), "10000", "Open HTTP connections on each listener."),
    optional(
        "web.url",
        Kind::Text,
        "Where people reach the web interface, such as \"https://mail.example.net\": for links in what the system writes to \
         them. Not given: https:// and the node's name.",
    ),
    with(
        "login.plaintext",
        Kind::Choice(&["never", "loopback"]),
        "\"never\"",
        "Where passwords are taken without TLS.",
    ),
    with(
        "login.staff_second_factor",
        Kind::Choice(&["required", "optional"]),
        "\"required\"",
        "Whether the roles of the provider's own people (`isp-admin`, `isp-operator`, `service-centre`, `service-centre-senior`, `auditor`) count in the web interface and the API only once their account has a second factor. Until then they see what every user sees, and where to set it up.",
    ),
    optional(
        "filter.rules",
        Kind::Paths,
        "Rule files or folders of *.cf files in SpamAssassin's language, read after the shipped ones.",
    ),
    with(
        "filter.judged",
        Kind::AnyOf(&["lmtp", "smtp", "submission"]),
        "[\"lmtp\", \"smtp\", \"submission\"]",
        "Mail that is judged, by the way it came. A mailbox server behind filters of its own leaves `lmtp` out: that mail keeps the X-Spam fields it came with. What is left out is delivered without any check, also for viruses.",
    ),
    optional(
        "filter.policy",
        Kind::Path,
        "TOML file with the system's policy; without it the shipped `balanced` preset applies.",
    ),
    with(
        "filter.autolearn",
        Kind::Flag,
        "true",
        "Whether messages of which all other checks are sure are learned without anybody's word, a few hundred a day and for little.",
    ),
    with(
        "filter.clamd",
        Kind::Texts,
        "[]",
        "Virus scanners: `host:port` or the path of a socket, each. They share the load.",
    ),
    optional(
        "filter.countries",
        Kind::Path,
        "Database of countries by address in MaxMind's format (`.mmdb`), such as GeoLite2-Country of maxmind.com (with a free account), IP to Country Lite of db-ip.com (free, a new file each month) or IPinfo Lite; those of cities serve as well. With it an account that is used from several countries within hours is noticed, rules see `X-Relay-Countries`, and the log names countries. A file that changes is read again within seconds: put a new one in place with `mv`.",
    ),
    with(
        "filter.trusted_sealers",
        Kind::Texts,
        "[]",
        "Domains of forwarders, such as mailing lists, whose ARC seals are believed: where their chain is intact, all of it sealed by domains named here, and the first saw DMARC pass, that it fails now is not held against the message.",
    ),
    with(
        "filter.dns_lists",
        Kind::Texts,
        "[]",
        "DNS lists to ask, by zone, of those that the shipped file 80_dns_lists.cf knows, such as `zen.spamhaus.org` or `multi.surbl.org`. None by default: most have terms of use, answer only name servers of one's own, or want to know who asks. Lists that rule files of your own ask need not be named here.",
    ),
    with(
        "filter.dns_list_keys",
        Kind::Texts,
        "[]",
        "Names under which lists are asked in truth, for whoever is registered there: `zen.spamhaus.org=KEY.zen.dq.spamhaus.net` each. The key appears in no log.",
    ),
    with(
        "filter.dns_list_wait",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(30) },
        "\"3 s\"",
        "For all DNS lists together, for each message; what is not answered by then counts as not listed.",
    ),
    with(
        "filter.dns_list_questions_per_day",
        count(0, 1_000_000_000),
        "100000",
        "Questions to each DNS list in a day (UTC) that memory cannot answer; beyond, the list is not asked until the next. 0: no limit.",
    ),
    with("filter.dns_list_questions_per_second", count(0, 1_000_000), "100", "The same in a second."),
    with(
        "filter.milters",
        Kind::Texts,
        "[]",
        "External milters to ask, in order, at each stage of a session: `host:port` or `unix:/path`, and if wanted, after commas, `down=defer` or `down=pass`, and patience in seconds: `connect=5`, `reply=30` for one answer, `content=120` from header to end.",
    ),
    with(
        "filter.milter_down",
        Kind::Choice(&["defer", "pass"]),
        "\"defer\"",
        "When a milter without a `down=` of its own does not answer.",
    ),
    optional(
        "queue.routes",
        Kind::Path,
        "Routing file (TOML): ways for domains, senders or all mail, limits of providers, source addresses; read again when it changes. Without it mail goes where the DNS says.",
    ),
    with("queue.port", count(1, 65_535), "25", "Port where servers of the world take mail."),
    with(
        "queue.dane",
        Kind::Flag,
        "true",
        "Whether certificates of mail servers are compared with what the DNS, proven by DNSSEC, says of them (RFC 7672). Name servers must answer with DNSSEC; where they do not, nothing is compared.",
    ),
    with(
        "queue.mta_sts",
        Kind::Flag,
        "true",
        "Whether domains are asked over HTTPS which mail servers they have, and that TLS with those is a must (RFC 8461).",
    ),
    with("queue.mta_sts_port", count(1, 65_535), "443", "Port where their web servers listen."),
    optional(
        "queue.authorities",
        Kind::Path,
        "PEM file with the authorities that sign certificates of mail servers and of web servers with policies, in the place of those that the system knows.",
    ),
    with("queue.connections_max", count(1, 20_000), "500", "Connections to servers elsewhere at a time."),
    with(
        "queue.first_wait",
        span(1, DAY_SECS),
        "\"2 min\"",
        "Between the first attempt and the second; each further wait is twice as long.",
    ),
    with("queue.longest_wait", span(1, 7 * DAY_SECS), "\"2 h\"", "No wait is longer."),
    with(
        "queue.warn_after",
        span(0, 30 * DAY_SECS),
        "\"4 h\"",
        "A sender is told that a message is still on its way; 0 for never.",
    ),
    with("queue.expire_after", span(60, 60 * DAY_SECS), "\"5 d\"", "A message is given up, and its sender told."),
    with(
        "queue.expire_notices_after",
        span(60, 60 * DAY_SECS),
        "\"2 d\"",
        "A notice to a sender that cannot be delivered is given up.",
    ),
    with(
        "sending.recipients_per_hour",
        count(0, 10_000_000),
        "1000",
        "Recipients that an account may write to within an hour, on all nodes together, by submission and webmail; beyond, it is asked to try again later. 0: no limit.",
    ),
    with("sending.recipients_per_day", count(0, 100_000_000), "10000", "The same within a day."),
    with(
        "sending.domain_recipients_per_hour",
        count(0, 100_000_000),
        "0",
        "The same within an hour for all accounts of a domain together.",
    ),
    optional(
        "reports.from",
        Kind::MailAddress,
        "Address that reports to other mail systems come from, and where answers go; by itself node.postmaster. Without either none are sent.",
    ),
    optional("reports.organization", Kind::Text, "Who reports; by itself the domain of reports.from."),
    with(
        "reports.dmarc",
        Kind::Flag,
        "true",
        "Whether domains that ask for it are told each day what was seen of mail in their name (RFC 9990).",
    ),
    with(
        "reports.tls",
        Kind::Flag,
        "true",
        "Whether domains that ask for it are told each day how TLS with their mail servers went (RFC 8460).",
    ),
    with(
        "reports.read",
        Kind::Texts,
        "[]",
        "Addresses here whose mail is read for reports of others: those in `rua=` and `ruf=` of own domains' records, and of feedback loops. It is delivered as well. `ortler reports` shows what they say.",
    ),
    with(
        "storage.engine",
        Kind::Choice(&["embedded", "postgresql"]),
        "\"embedded\"",
        "Where mail and accounts are kept: `embedded` in files of node.data, by this node alone, or `postgresql` on a server that any number of nodes share.",
    ),
    optional(
        "storage.postgresql",
        Kind::Text,
        "The server, version 15 or later, as libpq writes it: `host=db1,db2,db3 port=5432 user=ortler dbname=ortler`, or `postgresql://`. Several hosts may be named: the one that takes writes is used.",
    ),
    optional("storage.postgresql_password_file", Kind::Path, "File whose first line is the password."),
    with(
        "storage.postgresql_tls",
        Kind::Choice(&["off", "require", "verify-full"]),
        "\"require\"",
        "`require` encrypts, `verify-full` also checks that the server's certificate is signed by storage.postgresql_ca and names the host. A local socket is never encrypted.",
    ),
    optional("storage.postgresql_ca", Kind::Path, "PEM file with the authorities that sign the server's certificate."),
    with(
        "storage.postgresql_connections",
        count(2, 1000),
        "16",
        "Open connections to the server at a time for mail and accounts. Of the others one hears of changes, one tells that the node is there, one is held while the node audits, and the log has six of its own.",
    ),
    with("storage.postgresql_connect_wait", span(1, 60), "\"3 s\"", "Longest wait for each named host to answer."),
    with(
        "storage.postgresql_statement_wait",
        span(10, 600),
        "\"30 s\"",
        "Longest run of a statement; the server stops it then.",
    ),
    with(
        "storage.undelete",
        span(0, 366 * DAY_SECS),
        "\"14 d\"",
        "How long expunged messages and deleted mailboxes can be brought back.",
    ),
    with(
        "storage.object_store",
        Kind::Texts,
        "[]",
        "With PostgreSQL: endpoints of an S3-compatible object store for large content, `https://host:port` each. All lead to the same bucket; after a failure the next one is asked. The bucket's rules should clear away incomplete multipart uploads after a day or more, and nothing else.",
    ),
    optional("storage.object_store_bucket", Kind::Text, "The bucket, for Ortler alone; it must exist."),
    with("storage.object_store_region", Kind::Text, "\"us-east-1\"", "Region that requests are signed for."),
    optional("storage.object_store_access_key", Kind::Text, "Access key id."),
    optional("storage.object_store_secret_file", Kind::Path, "File whose first line is the secret access key."),
    with(
        "storage.object_store_path_style",
        Kind::Flag,
        "true",
        "`https://endpoint/bucket/` as most servers want it; false for `https://bucket.endpoint/`.",
    ),
    with(
        "storage.object_store_from",
        size(ByteSize::kib(4), ByteSize::mib(4)),
        "\"128 KB\"",
        "Content of this size or more becomes an object; smaller content stays in PostgreSQL, which takes it many times faster. What is stored already stays where it is.",
    ),
    with(
        "storage.free_space_min",
        size(ByteSize(0), ByteSize::mib(1 << 20)),
        "\"1 GB\"",
        "Embedded engine: while less than this is free where the data lies, or a twentieth of that file system if it is less, new messages and copies are put off; reading and deleting go on.",
    ),
    with(
        "storage.audit_every",
        span(0, 366 * DAY_SECS),
        "\"7 d\"",
        "How often the node checks all of its store in the background, slowly, content included; 0 for never. Nodes that share a store take turns. \
         `ortler audit --last` shows what it found, and so does /metrics.",
    ),
    optional(
        "cluster.address",
        Kind::Text,
        "`host:port` where the other nodes on the same PostgreSQL server reach this one's listener of protocol `cluster`; the listener's own address if that names one. Without it sessions stay where they are.",
    ),
    optional(
        "trail.postgresql",
        Kind::Text,
        "Server of the log with `storage.engine` `postgresql`, if it is another one than storage.postgresql; written the same way, with the same password, TLS and waits.",
    ),
    with("trail.retention", span(DAY_SECS, 366 * DAY_SECS), "\"21 d\"", "How long the log of single messages is kept."),
    with(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "How much is logged to standard error.",
    ),
    with("log.format", Kind::Choice(&["text", "json"]), "\"text\"", "Form of a log line."),
];

pub(crate) fn find(path: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.path == path)
}
