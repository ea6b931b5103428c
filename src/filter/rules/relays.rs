//! The servers that a message came through, as its `Received` fields tell: SpamAssassin's relay lists.

use std::net::IpAddr;

use super::networks::Networks;
use super::received::Parsed;
use crate::countries::Countries;

/// One hop. Texts are as the server wrote them; those it did not write are empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relay {
    pub ip: Option<IpAddr>,
    /// The address as written.
    pub ip_text: String,
    pub reverse_name: String,
    pub helo: String,
    pub by: String,
    pub ident: String,
    pub id: String,
    /// How the client proved itself, such as `esmtpsa`.
    pub auth: String,
    /// MAIL FROM, where the server notes it.
    pub envelope_from: Option<String>,
    /// The server asked DNS for the client's name.
    pub looked_up: bool,
    /// Handed over by one of `msa_networks`.
    pub is_msa: bool,
}

/// Hops in the order of the header: the nearest first.
#[derive(Clone, Debug, Default)]
pub struct Relays {
    pub trusted: Vec<Relay>,
    pub untrusted: Vec<Relay>,
    pub internal: Vec<Relay>,
    pub external: Vec<Relay>,
    /// `Received` fields that could not be read.
    pub unparseable: usize,
    /// How many `Received` fields, from the top, trusted and internal servers wrote.
    pub trusted_fields: usize,
    pub internal_fields: usize,
}

const RELAYS_MAX: usize = 100;

impl Relays {
    /// `client` is the server that handed the message to us, where the session knows it. Without networks, the hops
    /// from private networks and of users who proved themselves count as our own.
    pub fn of<'f>(client: Option<Relay>, received: impl Iterator<Item = &'f str>, networks: &Networks) -> Self {
        let mut out = Self::default();
        let mut trust = Trust { trusted: true, internal: true, msa: false };
        if let Some(client) = client {
            out.add(client, &mut trust, networks);
        }
        for value in received.take(RELAYS_MAX) {
            match Parsed::of(value) {
                Parsed::Relay(relay) => {
                    out.add(*relay, &mut trust, networks);
                    out.trusted_fields += usize::from(trust.trusted);
                    out.internal_fields += usize::from(trust.internal);
                    continue;
                }
                Parsed::Fetched if out.untrusted.is_empty() => {
                    // What came before is only how the mail got from the mailbox to here.
                    out.trusted.clear();
                    out.internal.clear();
                    out.external.clear();
                }
                Parsed::Skipped | Parsed::Fetched => {}
                Parsed::Unknown => out.unparseable += 1,
            }
            out.trusted_fields += usize::from(trust.trusted);
            out.internal_fields += usize::from(trust.internal);
        }
        out
    }

    fn add(&mut self, mut relay: Relay, trust: &mut Trust, networks: &Networks) {
        if trust.trusted && !trust.msa {
            trust.narrow(&mut relay, networks);
        }
        if trust.internal { &mut self.internal } else { &mut self.external }.push(relay.clone());
        if trust.trusted { &mut self.trusted } else { &mut self.untrusted }.push(relay);
    }

    /// The text of a pseudo-field such as `x-spam-relays-external`; empty without hops.
    pub fn field(&self, name: &str) -> Option<String> {
        let list = match name {
            "x-spam-relays-external" => &self.external,
            "x-spam-relays-untrusted" => &self.untrusted,
            "x-spam-relays-trusted" => &self.trusted,
            "x-spam-relays-internal" => &self.internal,
            _ => return None,
        };
        let texts: Vec<String> = list.iter().map(|relay| relay.text(self.internal.contains(relay))).collect();
        Some(texts.join(" "))
    }

    /// The text of a pseudo-field such as `x-relay-countries-external`: two letters for each hop, `XX` where the country is not
    /// known and `**` within private networks.
    pub fn countries(&self, name: &str, countries: &Countries) -> Option<String> {
        let hops: Vec<&Relay> = match name {
            "x-relay-countries" => self.untrusted.iter().collect(),
            "x-relay-countries-external" => self.external.iter().collect(),
            "x-relay-countries-all" => self.internal.iter().chain(&self.external).collect(),
            // From the first on whose client proved itself.
            "x-relay-countries-auth" => self.trusted.iter().skip_while(|relay| relay.auth.is_empty()).collect(),
            _ => return None,
        };
        let word = |relay: &&Relay| match relay.ip {
            Some(ip) if is_private(ip) => "**".to_owned(),
            ip => ip.and_then(|ip| countries.of(ip)).map_or_else(|| "XX".to_owned(), |country| country.to_string()),
        };
        Some(hops.iter().map(word).collect::<Vec<_>>().join(" "))
    }

    pub fn is_empty(&self) -> bool {
        self.trusted.is_empty() && self.untrusted.is_empty()
    }
}

/// How far from us the hops are that we have come to.
struct Trust {
    trusted: bool,
    internal: bool,
    /// Behind a server that takes mail from users only, all are trusted.
    msa: bool,
}

impl Trust {
    fn narrow(&mut self, relay: &mut Relay, networks: &Networks) {
        if !networks.are_set() {
            let ours = relay.ip.is_some_and(is_private) || !relay.auth.is_empty();
            self.trusted &= ours;
            self.internal &= ours;
            return;
        }
        let signed_in = !relay.auth.is_empty();
        if !signed_in && !relay.ip.is_some_and(|ip| networks.is_trusted(ip)) {
            self.trusted = false;
            self.internal = false;
            return;
        }
        self.internal &= signed_in || relay.ip.is_some_and(|ip| networks.is_internal(ip));
        if relay.ip.is_some_and(|ip| networks.is_msa(ip)) {
            self.msa = true;
            relay.is_msa = true;
        }
    }
}

impl Relay {
    pub fn text(&self, internal: bool) -> String {
        format!(
            "[ ip={} rdns={} helo={} by={} ident={} envfrom={} intl={} id={} auth={} msa={} ]",
            self.ip_text,
            self.reverse_name,
            self.helo,
            self.by,
            self.ident,
            self.envelope_from.as_deref().unwrap_or_default(),
            u8::from(internal),
            self.id,
            self.auth,
            u8::from(self.is_msa),
        )
    }

    /// The server looked for a name of the client and found none.
    pub fn has_no_name(&self) -> bool {
        self.reverse_name.is_empty() && self.looked_up
    }
}

pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_hops_at_the_top_are_ours() {
        let received = [
            "from gw.example ([10.0.0.1]) by mx.example (8.1) with SMTP",
            "from out.example (out.example [192.0.2.1]) by gw.example (8.1) with SMTP",
            "from pc (pc [10.9.9.9]) by out.example (8.1) with SMTP",
            "by out.example (Postfix, from userid 1)",
            "from nonsense",
        ];
        let relays = Relays::of(None, received.into_iter(), &Networks::default());
        assert_eq!((relays.trusted.len(), relays.external.len(), relays.unparseable), (1, 2, 1));
        assert_eq!((relays.trusted_fields, relays.internal_fields), (1, 1));
        assert_eq!(relays.field("x-spam-score"), None);
    }

    #[test]
    fn networks_decide_where_they_are_set() {
        let mut networks = Networks::default();
        for (list, words) in [
            ("trusted_networks", "!192.0.2.9 192.0.2.0/24"),
            ("internal_networks", "192.0.2.1"),
            ("msa_networks", "192.0.2.5"),
        ] {
            networks.add(list, words).unwrap();
        }
        let hop = |ip: &str| format!("from h.example (r.example [{ip}]) by m.example (8.1) with SMTP");
        for (ips, trusted, internal) in [
            (&["192.0.2.1", "192.0.2.2", "198.51.100.1"][..], 2, 1),
            (&["192.0.2.9"], 0, 0),
            (&["192.0.2.5", "198.51.100.1"], 2, 0),
        ] {
            let fields: Vec<String> = ips.iter().map(|ip| hop(ip)).collect();
            let relays = Relays::of(None, fields.iter().map(String::as_str), &networks);
            assert_eq!((relays.trusted.len(), relays.internal.len()), (trusted, internal), "{ips:?}");
        }
    }
}
