//! `trusted_networks` and its kin: whose `Received` fields are believed.

use std::net::IpAddr;

/// Networks of rule files. Empty lists say nothing: see [`Networks::are_set`].
#[derive(Clone, Debug, Default)]
pub struct Networks {
    trusted: Vec<Network>,
    internal: Vec<Network>,
    msa: Vec<Network>,
}

/// First that holds an address wins.
#[derive(Clone, Debug)]
struct Network {
    address: IpAddr,
    bits: u8,
    /// Written with `!`: these are not meant.
    excluded: bool,
}

impl Networks {
    /// True if `trusted_networks` or `internal_networks` is given; each stands for the other where that is missing.
    pub fn are_set(&self) -> bool {
        !self.trusted.is_empty() || !self.internal.is_empty()
    }

    pub fn is_trusted(&self, ip: IpAddr) -> bool {
        holds(if self.trusted.is_empty() { &self.internal } else { &self.trusted }, ip)
    }

    pub fn is_internal(&self, ip: IpAddr) -> bool {
        holds(if self.internal.is_empty() { &self.trusted } else { &self.internal }, ip)
    }

    pub fn is_msa(&self, ip: IpAddr) -> bool {
        self.msa.iter().any(|network| !network.excluded && network.holds(ip))
    }

    fn list(&mut self, directive: &str) -> &mut Vec<Network> {
        match directive {
            "trusted_networks" => &mut self.trusted,
            "internal_networks" => &mut self.internal,
            _ => &mut self.msa,
        }
    }

    /// Adds the words of `trusted_networks`, `internal_networks` or `msa_networks`. The error names the wrong one.
    pub fn add(&mut self, directive: &str, words: &str) -> Result<(), String> {
        for word in words.split_ascii_whitespace() {
            let network = Network::parse(word).ok_or_else(|| format!("`{word}` is no network"))?;
            self.list(directive).push(network);
        }
        Ok(())
    }

    /// `clear_trusted_networks` and the like, without the first word.
    pub fn clear(&mut self, directive: &str) {
        self.list(directive).clear();
    }
}

/// One's own machine always belongs to one.
fn holds(list: &[Network], ip: IpAddr) -> bool {
    let network = list.iter().find(|network| network.holds(ip));
    network.map_or(ip.to_canonical().is_loopback(), |network| !network.excluded)
}

impl Network {
    /// `192.0.2.1`, `192.0.2.0/24`, `192.0.2.`, `2001:db8::/32`, with `!` before it to leave it out.
    fn parse(word: &str) -> Option<Self> {
        let (excluded, word) = word.strip_prefix('!').map_or((false, word), |word| (true, word));
        let (address, bits) = word.split_once('/').map_or((word, None), |(address, bits)| (address, Some(bits)));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let parts = address.split('.').filter(|part| !part.is_empty()).count();
        let short = !address.contains(':') && parts < 4;
        let full = if short {
            let zeros = [".0", ".0", ".0"].get(..4_usize.checked_sub(parts)?)?.concat();
            format!("{}{zeros}", address.trim_end_matches('.'))
        } else {
            address.to_owned()
        };
        let address: IpAddr = full.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= bits_max)?,
            None if short => u8::try_from(8 * parts).ok()?,
            None => bits_max,
        };
        Some(Self { address, bits, excluded })
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let shift = width.saturating_sub(u32::from(self.bits));
            shift >= width || one >> shift == other >> shift
        };
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_every_form() {
        for (words, ip, expected) in [
            ("192.0.2.0/24", "192.0.2.77", true),
            ("192.0.2.", "192.0.2.77", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("!192.0.2.1 192.0.2.0/24", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8::5", true),
            ("!0/0", "127.0.0.1", false),
            ("198.51.100.1", "127.0.0.1", true),
        ] {
            let mut networks = Networks::default();
            networks.add("trusted_networks", words).unwrap();
            assert_eq!(networks.is_trusted(ip.parse().unwrap()), expected, "{words} {ip}");
        }
        for word in ["x", "192.0.2.1/33", "300.1.1.1", "1.2.3.4.5"] {
            assert!(Networks::default().add("msa_networks", word).is_err(), "{word}");
        }
    }
}
