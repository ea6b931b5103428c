//! The servers that a message came through, as its `Received` fields tell: SpamAssassin's relay lists.

use std::net::IpAddr;

/// One hop. Texts are as the server wrote them; those it did not write are empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relay {
    pub ip: Option<IpAddr>,
    pub reverse_name: String,
    pub helo: String,
    pub by: String,
    pub ident: String,
    pub id: String,
    /// The kind of log-in that the server claims, such as `esmtpsa`.
    pub auth: String,
}

/// Hops in the order of the header: the nearest first.
#[derive(Clone, Debug, Default)]
pub struct Relays {
    pub trusted: Vec<Relay>,
    pub external: Vec<Relay>,
    /// `Received` fields that could not be read.
    pub unparseable: usize,
}

const RELAYS_MAX: usize = 50;

impl Relays {
    /// `client` is the server that handed the message to us, where the session knows it. Without it, the hops from
    /// private networks at the top count as our own.
    pub fn of<'f>(client: Option<Relay>, received: impl Iterator<Item = &'f str>) -> Self {
        let mut out = Self::default();
        let mut outside = client.is_some();
        out.external.extend(client);
        for value in received.take(RELAYS_MAX) {
            match Relay::parse(value) {
                Parsed::Relay(relay) => {
                    let private = relay.ip.is_some_and(is_private);
                    outside |= !private;
                    let list = if outside { &mut out.external } else { &mut out.trusted };
                    list.push(*relay);
                }
                Parsed::Local => {}
                Parsed::Unknown => out.unparseable += 1,
            }
        }
        out
    }

    /// The text of a pseudo-field such as `x-spam-relays-external`.
    pub fn field(&self, name: &str) -> Option<String> {
        let list = match name {
            "x-spam-relays-external" | "x-spam-relays-untrusted" => &self.external,
            "x-spam-relays-trusted" | "x-spam-relays-internal" => &self.trusted,
            _ => return None,
        };
        let inside = u8::from(matches!(name, "x-spam-relays-trusted" | "x-spam-relays-internal"));
        let texts: Vec<String> = list.iter().map(|relay| relay.text(inside)).collect();
        Some(texts.join(" "))
    }
}

enum Parsed {
    Relay(Box<Relay>),
    /// Handed over on the same machine: no hop.
    Local,
    Unknown,
}

impl Relay {
    fn text(&self, inside: u8) -> String {
        let ip = self.ip.map(|ip| ip.to_string()).unwrap_or_default();
        format!(
            "[ ip={ip} rdns={} helo={} by={} ident={} envfrom= intl={inside} id={} auth={} msa=0 ]",
            self.reverse_name, self.helo, self.by, self.ident, self.id, self.auth
        )
    }

    /// Reads the forms of the common servers: `from HELO (NAME [IP]) by …`, `from NAME ([IP] helo=HELO) by …`,
    /// `from unknown (HELO x) (IP) by …`.
    fn parse(value: &str) -> Parsed {
        let text: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.starts_with("by ") || text.starts_with("(from ") || text.starts_with("(qmail ") {
            return Parsed::Local;
        }
        let Some(rest) = text.strip_prefix("from ") else { return Parsed::Unknown };
        let (from, after) = rest.split_once(" by ").unwrap_or((rest, ""));
        let (first, notes) = from.split_once(' ').unwrap_or((from, ""));
        let mut relay = Self { by: word(after).to_owned(), ..Self::default() };
        relay.ip = address_in(notes).or_else(|| address_in(first));
        let helo =
            after_mark(notes, "helo=").or_else(|| after_mark(notes, "HELO ")).or_else(|| after_mark(notes, "EHLO "));
        let first = first.trim_matches(['[', ']']);
        match helo {
            Some(helo) => {
                relay.helo = helo;
                if !first.eq_ignore_ascii_case("unknown") && first.parse::<IpAddr>().is_err() {
                    relay.reverse_name = first.to_owned();
                }
            }
            None => {
                relay.helo = first.to_owned();
                let inside = notes.split_once('(').map_or("", |(_, inside)| inside);
                let name = word(inside).trim_end_matches(')');
                let name = name.rsplit_once('@').map_or(name, |(ident, name)| {
                    relay.ident = ident.to_owned();
                    name
                });
                let is_name = name.contains('.') && !name.starts_with('[') && name.parse::<IpAddr>().is_err();
                if is_name {
                    relay.reverse_name = name.trim_end_matches('.').to_owned();
                }
            }
        }
        if let Some(with) = after_mark(after, " with ")
            && with.to_ascii_lowercase().ends_with('a')
            && with.to_ascii_lowercase().starts_with("esmtp")
        {
            relay.auth = with.to_ascii_lowercase();
        }
        relay.id = after_mark(after, " id ").unwrap_or_default();
        if relay.ip.is_none() { Parsed::Unknown } else { Parsed::Relay(Box::new(relay)) }
    }
}

fn word(text: &str) -> &str {
    text.split([' ', ';']).next().unwrap_or_default()
}

/// The word after `mark`.
fn after_mark(text: &str, mark: &str) -> Option<String> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.find([' ', ')', ';', '(']).unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].trim_matches('<').trim_matches('>').to_owned())
}

/// The last address in brackets, or the last bare one.
fn address_in(text: &str) -> Option<IpAddr> {
    let mut pieces = text.split(['[', ']', '(', ')', ' ', '=']).rev();
    pieces.find_map(|piece| piece.strip_prefix("IPv6:").unwrap_or(piece).parse().ok())
}

pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_common_servers() {
        for (value, expected) in [
            (
                "from helo.example (rdns.example [192.0.2.1])\r\n\tby mx.example (Postfix) with ESMTPS id ABC; now",
                "[ ip=192.0.2.1 rdns=rdns.example helo=helo.example by=mx.example ident= envfrom= intl=0 id=ABC auth= msa=0 ]",
            ),
            (
                "from rdns.example ([192.0.2.1] helo=me) by mx.example with esmtpa (Exim 4.96) id 1a-b",
                "[ ip=192.0.2.1 rdns=rdns.example helo=me by=mx.example ident= envfrom= intl=0 id=1a-b auth=esmtpa msa=0 ]",
            ),
            ("from unknown (HELO spam) (joe@192.0.2.9) by mx.example with SMTP", ""),
            (
                "from unknown (HELO spam) (192.0.2.9) by mx.example with SMTP",
                "[ ip=192.0.2.9 rdns= helo=spam by=mx.example ident= envfrom= intl=0 id= auth= msa=0 ]",
            ),
            (
                "from [IPv6:2001:db8::1] (unknown [IPv6:2001:db8::1]) by mx.example",
                "[ ip=2001:db8::1 rdns= helo=IPv6:2001:db8::1 by=mx.example ident= envfrom= intl=0 id= auth= msa=0 ]",
            ),
        ] {
            let relays = Relays::of(None, std::iter::once(value));
            assert_eq!(relays.field("x-spam-relays-external").as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn private_hops_at_the_top_are_ours() {
        let received = [
            "from gw.example ([10.0.0.1]) by mx.example",
            "from out.example (out.example [192.0.2.1]) by gw.example",
            "from pc (pc [10.9.9.9]) by out.example",
            "by out.example (Postfix, from userid 1)",
            "nonsense",
        ];
        let relays = Relays::of(None, received.into_iter());
        assert_eq!((relays.trusted.len(), relays.external.len(), relays.unparseable), (1, 2, 1));
        assert_eq!(relays.field("x-spam-score"), None);
    }
}
