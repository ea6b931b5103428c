//! What rules ask of DNS: collected here, answered elsewhere.

use std::sync::Arc;

use super::answer::Subtest;

/// One rule that needs an answer from the network. Whoever asks gives it in [`super::Context::listed`] where the answer
/// makes it hit.
#[derive(Clone, Debug)]
pub struct NetRule {
    pub rule: Arc<str>,
    pub question: Question,
    pub subtest: Subtest,
    pub scope: Scope,
    /// Defined by the product, not by the administrator.
    pub is_shipped: bool,
}

/// A rule that hits because of what the network answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub rule: Arc<str>,
    /// The name that was asked for, and the answer.
    pub evidence: String,
}

/// `tflags` that say what is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Only hosts that are addresses, or only those that are none.
    pub ips_only: bool,
    pub domains_only: bool,
    /// The host as it stands, not the name that was registered.
    pub whole_host: bool,
    /// Of the addresses of a link's host itself.
    pub own_address: bool,
    /// Of the addresses of its domain's name servers: what holds without either.
    pub name_server_address: bool,
}

impl Scope {
    pub fn of(flags: &[String]) -> Self {
        let has = |word: &str| flags.iter().any(|flag| flag == word);
        Self {
            ips_only: has("ips_only"),
            domains_only: has("domains_only"),
            whole_host: has("notrim"),
            own_address: has("a"),
            name_server_address: has("ns") || !has("a"),
        }
    }
}

/// What is asked, and which answers make the rule hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// A list of addresses of servers: `zone` behind a relay's reversed address. `set` is the list's name for
    /// [`Self::RelaySub`]; what follows a hyphen says which relays count, such as `lastexternal`.
    Relay { set: String, zone: String, text: bool, subtest: Option<String> },
    /// Another reading of the answers for `set`.
    RelaySub { set: String, subtest: String },
    /// A list of sender domains. `set` is as above.
    Sender { set: String, zone: String, subtest: Option<String>, of: SenderPart },
    /// A list of domains in links, or of addresses or name servers that they lead to.
    Link { zone: String, record: String, subtest: Option<String>, asks: LinkPart },
    /// A name made of tags of the message, such as `_DKIMDOMAIN_.list.example`, and a pattern on the answers.
    Template { name: String, record: String, subtest: Option<String> },
    /// A function of SpamAssassin that asks a service of its own.
    Service { function: String, arguments: Vec<String> },
}

/// Which of the sender's domains are looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderPart {
    /// Hosts of all addresses that say who wrote.
    Author,
    /// The names that were registered, of the same.
    AuthorDomain,
    Envelope,
    /// The name servers of the envelope's domain.
    NameServer,
    /// What the farthest server called itself, and its address.
    Received,
    /// Addresses and hosts in these fields, lower case.
    Fields(Vec<String>),
}

/// What of a link is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkPart {
    Domain,
    /// Addresses: of the host or of its domain's name servers, see [`Scope`].
    Address,
    /// The registered name of each name server.
    NameServer,
    /// The whole name of each name server.
    NameServerHost,
}

/// Functions that ask the network; what they ask.
pub fn question(function: &str, arguments: &[String]) -> Option<Question> {
    let argument = |at: usize| arguments.get(at).cloned();
    let zone = |at: usize| argument(at).unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    Some(match function {
        "check_rbl" | "check_rbl_txt" => Question::Relay {
            set: argument(0)?,
            zone: zone(1),
            text: function == "check_rbl_txt",
            subtest: argument(2),
        },
        "check_rbl_accreditor" => {
            Question::Relay { set: argument(0)?, zone: zone(1), text: false, subtest: argument(2) }
        }
        "check_rbl_sub" => Question::RelaySub { set: argument(0)?, subtest: argument(1)? },
        "check_rbl_from_host"
        | "check_rbl_from_domain"
        | "check_rbl_envfrom"
        | "check_rbl_ns_from"
        | "check_rbl_rcvd"
        | "check_rbl_headers" => Question::Sender {
            set: argument(0)?,
            zone: zone(1),
            subtest: argument(2),
            of: match function {
                "check_rbl_from_host" => SenderPart::Author,
                "check_rbl_from_domain" => SenderPart::AuthorDomain,
                "check_rbl_envfrom" => SenderPart::Envelope,
                "check_rbl_ns_from" => SenderPart::NameServer,
                "check_rbl_rcvd" => SenderPart::Received,
                _ => {
                    let fields = argument(3).unwrap_or_else(|| FIELDS.to_owned());
                    SenderPart::Fields(fields.split(',').map(|name| name.trim().to_ascii_lowercase()).collect())
                }
            },
        },
        "check_hashbl_emails"
        | "check_hashbl_uris"
        | "check_hashbl_bodyre"
        | "check_hashbl_tag"
        | "check_hashbl_attachments"
        | "check_dns_sender"
        | "check_pyzor"
        | "check_razor2"
        | "check_razor2_range"
        | "check_dcc"
        | "check_dcc_reputation_range"
        | "short_url_redir"
        | "short_url_200"
        | "short_url_404"
        | "short_url_code"
        | "short_url_chained"
        | "short_url_maxchain"
        | "short_url_loop"
        | "check_uridnsbl" => Question::Service { function: function.to_owned(), arguments: arguments.to_vec() },
        _ => return None,
    })
}

/// `urirhssub RULE zone A subtest` and its kin: the rule and its question.
pub fn link_list(directive: &str, rest: &str) -> Option<(String, Question)> {
    let asks = match directive {
        "urirhsbl" | "urirhssub" => LinkPart::Domain,
        "uridnsbl" | "uridnssub" => LinkPart::Address,
        "urinsrhsbl" | "urinsrhssub" => LinkPart::NameServer,
        "urifullnsrhsbl" | "urifullnsrhssub" => LinkPart::NameServerHost,
        _ => return None,
    };
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    let (rule, zone, record) = (words.next()?, words.next()?, words.next()?);
    let zone = zone.trim_end_matches('.').to_ascii_lowercase();
    Some((rule, Question::Link { zone, record, subtest: words.next(), asks }))
}

/// `askdns RULE name type subtest`
pub fn template(rest: &str) -> Option<(String, Question)> {
    let mut words = rest.split_ascii_whitespace();
    let (rule, name) = (words.next()?, words.next()?);
    let record = words.next().unwrap_or("A").to_owned();
    let subtest = words.collect::<Vec<_>>().join(" ");
    let subtest = (!subtest.is_empty()).then_some(subtest);
    Some((rule.to_owned(), Question::Template { name: name.to_owned(), record, subtest }))
}

/// Fields that `check_rbl_headers` looks at if it is told of none.
const FIELDS: &str = "EnvelopeFrom,Reply-To,Disposition-Notification-To,X-WebmailclientIP,X-Source-IP";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (function, arguments, expected) in [
            (
                "check_rbl",
                "zen-lastexternal zen.list.example.",
                "Relay { set: \"zen-lastexternal\", zone: \"zen.list.example\", text: false, subtest: None }",
            ),
            ("check_rbl_sub", "zen 127.0.0.2", "RelaySub { set: \"zen\", subtest: \"127.0.0.2\" }"),
        ] {
            assert_eq!(format!("{:?}", question(function, &words(arguments)).unwrap()), expected);
        }
        assert_eq!(question("html_test", &[]), None);
        let (rule, asked) = link_list("urirhssub", "URIBL_X multi.list.example. A 2").unwrap();
        assert_eq!(rule, "URIBL_X");
        assert!(
            matches!(asked, Question::Link { zone, subtest: Some(_), asks: LinkPart::Domain, .. } if zone == "multi.list.example")
        );
        assert_eq!(link_list("urirhssub", "X"), None);
        assert!(template("R _DKIMDOMAIN_.x.example TXT /a b/").is_some_and(|(rule, _)| rule == "R"));
    }
}
