//! Reverse-paths of mail that is forwarded: they lead back to its sender by way of us, so that SPF does not fail, and a bounce
//! comes home. What we rewrite is sealed: nobody else can have us send on in that form.

use base::UtcMillis;
use mail::{Address, Domain};

/// Rewrites, and reads what was rewritten.
pub struct Srs {
    key: [u8; 32],
}

/// Characters of the seal: five bits each.
const SEAL_CHARS: usize = 8;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// A bounce comes within.
const DAYS_MAX: i64 = 21;
const DAYS_ROUND: i64 = 1024;
/// RFC 5321 §4.5.3.1.1 has 64; all that count take more, and what is longer is sent with the null path's cost: no rewriting.
const LOCAL_MAX: usize = 250;

impl Srs {
    /// `secret`: what all nodes have alike.
    pub fn new(secret: &[u8]) -> Self {
        Self { key: *blake3::Hasher::new().update(b"ortler srs").update(secret).finalize().as_bytes() }
    }

    fn seal(&self, text: &str) -> String {
        let digest = blake3::keyed_hash(&self.key, text.to_ascii_lowercase().as_bytes());
        digest.as_bytes().iter().take(SEAL_CHARS).map(|octet| char::from(ALPHABET[usize::from(octet % 32)])).collect()
    }

    /// The reverse-path under which `domain`, one of ours, sends on what `sender` wrote. `None` if it would be too long: then
    /// it goes on under its own.
    pub fn rewrite(&self, sender: &Address, domain: &Domain, now: UtcMillis) -> Option<Address> {
        let local = sender.local.as_str();
        let local = match split(local) {
            // What somebody else rewrote already leads to him, and he knows the way back.
            Some(("SRS0", rest)) => {
                let body = format!("{}={rest}", sender.domain);
                format!("SRS1={}={body}", self.seal(&format!("1{body}")))
            }
            Some(("SRS1", rest)) => {
                let (_, body) = rest.split_once('=')?;
                format!("SRS1={}={body}", self.seal(&format!("1{body}")))
            }
            _ => {
                let body = format!("{}={}={local}", day_text(day(now)), sender.domain);
                format!("SRS0={}={body}", self.seal(&body))
            }
        };
        if local.len() > LOCAL_MAX {
            return None;
        }
        format!("{local}@{domain}").parse().ok()
    }

    /// True for an address in that form, ours or not.
    pub fn is_rewritten(address: &Address) -> bool {
        split(address.local.as_str()).is_some()
    }

    /// Where what we rewrote leads back to; `None` if it is not ours, or too old.
    pub fn restore(&self, address: &Address, now: UtcMillis) -> Option<Address> {
        let (form, rest) = split(address.local.as_str())?;
        let (seal, body) = rest.split_once('=')?;
        if form == "SRS1" {
            if !self.seal(&format!("1{body}")).eq_ignore_ascii_case(seal) {
                return None;
            }
            let (domain, rest) = body.split_once('=')?;
            return format!("SRS0={rest}@{domain}").parse().ok();
        }
        if !self.seal(body).eq_ignore_ascii_case(seal) {
            return None;
        }
        let mut parts = body.splitn(3, '=');
        let age = (day(now) - day_number(parts.next()?)?).rem_euclid(DAYS_ROUND);
        let (domain, local) = (parts.next()?, parts.next()?);
        (age <= DAYS_MAX).then(|| format!("{local}@{domain}").parse().ok())?
    }
}

/// The form and what follows it. Servers on the way may have written it in another case.
fn split(local: &str) -> Option<(&'static str, &str)> {
    let form =
        ["SRS0", "SRS1"].into_iter().find(|form| local.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(form)))?;
    let rest = local.get(4..)?;
    rest.starts_with(['=', '+', '-']).then(|| (form, &rest[1..]))
}

fn day(now: UtcMillis) -> i64 {
    (now.0.div_euclid(86_400_000)).rem_euclid(DAYS_ROUND)
}

fn day_text(day: i64) -> String {
    let char_of = |number: i64| char::from(ALPHABET[usize::try_from(number.rem_euclid(32)).unwrap_or(0)]);
    [char_of(day / 32), char_of(day)].iter().collect()
}

fn day_number(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let mut digits = lower.bytes().map(|octet| ALPHABET.iter().position(|known| *known == octet));
    let (high, low) = (digits.next()??, digits.next()??);
    digits.next().is_none().then(|| i64::try_from(high * 32 + low).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcMillis = UtcMillis(1_795_500_000_000);

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn a_bounce_finds_its_way_back() {
        let srs = Srs::new(b"secret");
        let (ours, later) = ("example.test".parse().unwrap(), UtcMillis(NOW.0 + 20 * 86_400_000));
        for sender in ["anna@a.test", "Anna.B+c=d@sub.a.test", "\"a b\"@a.test"] {
            let Some(sent) = srs.rewrite(&address(sender), &ours, NOW) else { continue };
            assert!(Srs::is_rewritten(&sent) && sent.domain == ours, "{sent}");
            assert_eq!(srs.restore(&sent, later).unwrap().to_folded(), address(sender).to_folded());
            let upper = address(&format!("{}@{}", sent.local.as_str().to_uppercase(), sent.domain));
            assert_eq!(srs.restore(&upper, later).unwrap().to_folded(), address(sender).to_folded());
            assert_eq!(srs.restore(&sent, UtcMillis(NOW.0 + 30 * 86_400_000)), None, "too late");
            assert_eq!(Srs::new(b"other").restore(&sent, NOW), None, "not ours");
            // On by a second server, and by a third.
            let (other, third) = (Srs::new(b"other"), Srs::new(b"third"));
            let on = other.rewrite(&sent, &"b.test".parse().unwrap(), NOW).unwrap();
            let further = third.rewrite(&on, &"c.test".parse().unwrap(), NOW).unwrap();
            assert_eq!(third.restore(&further, later).unwrap().to_folded(), sent.to_folded());
            assert_eq!(other.restore(&on, later).unwrap().to_folded(), sent.to_folded());
        }
        let forged = "SRS0=aaaaaaaa=aa=victim.test=anna@example.test";
        assert_eq!(srs.restore(&address(forged), NOW), None);
        for text in ["anna@example.test", "SRS0@example.test", "SRS0=x@example.test", "SRS1=x=y@example.test"] {
            assert_eq!(srs.restore(&address(text), NOW), None, "{text}");
        }
        let long = format!("{}@{}.test", "x".repeat(60), "y.".repeat(90).trim_end_matches('.'));
        assert_eq!(srs.rewrite(&address(&long), &ours, NOW), None);
    }
}
