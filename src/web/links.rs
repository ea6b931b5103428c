//! Links in mails that do something without a sign-in: sealed, for one message and one act, until a day.

use base::{AccountId, UtcMillis};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use store::{EmailId, HeldId};
use subtle::ConstantTimeEq as _;

/// What a link does, once its reader has confirmed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Release,
    Delete,
}

/// Makes links, and reads those that it made.
pub struct Links {
    key: [u8; 32],
}

const LENGTH: usize = 1 + 8 + 8 + 8;
const SEAL: usize = 16;

impl Links {
    /// `secret`: what all nodes have alike.
    pub fn new(secret: &[u8]) -> Self {
        Self { key: *blake3::Hasher::new().update(b"ortler links").update(secret).finalize().as_bytes() }
    }

    /// The last part of a link's path.
    pub fn make(&self, id: HeldId, action: Action, until: UtcMillis) -> String {
        let mut octets = vec![match action {
            Action::Release => b'r',
            Action::Delete => b'd',
        }];
        octets.extend(id.account.0.to_be_bytes());
        octets.extend(id.email.0.to_be_bytes());
        octets.extend(until.0.to_be_bytes());
        let seal = blake3::keyed_hash(&self.key, &octets);
        octets.extend(&seal.as_bytes()[..SEAL]);
        BASE64_URL_SAFE_NO_PAD.encode(octets)
    }

    /// `None` if it is none of ours, or too old.
    pub fn read(&self, text: &str, now: UtcMillis) -> Option<(HeldId, Action)> {
        let octets = BASE64_URL_SAFE_NO_PAD.decode(text).ok().filter(|octets| octets.len() == LENGTH + SEAL)?;
        let (told, seal) = octets.split_at(LENGTH);
        let expected = blake3::keyed_hash(&self.key, told);
        if !bool::from(expected.as_bytes()[..SEAL].ct_eq(seal)) {
            return None;
        }
        let number = |at: usize| Some(u64::from_be_bytes(told.get(at..at + 8)?.try_into().ok()?));
        let id = HeldId { account: AccountId(number(1)?), email: EmailId(number(9)?) };
        let until = UtcMillis(i64::from_be_bytes(told.get(17..25)?.try_into().ok()?));
        let action = match told.first()? {
            b'r' => Action::Release,
            b'd' => Action::Delete,
            _ => return None,
        };
        (now < until).then_some((id, action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_links_are_read_until_their_day() {
        let (links, now) = (Links::new(b"secret"), UtcMillis(1_795_500_000_000));
        let id = HeldId { account: AccountId(7), email: EmailId(9) };
        let link = links.make(id, Action::Release, UtcMillis(now.0 + 1000));
        assert_eq!(links.read(&link, now), Some((id, Action::Release)));
        assert_eq!(links.read(&link, UtcMillis(now.0 + 1000)), None);
        assert_eq!(Links::new(b"other").read(&link, now), None);
        for at in 0..link.len() {
            let mut other = link.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(other == link || links.read(&other, now).is_none(), "{other}");
        }
        assert_eq!(links.read("", now), None);
        assert_eq!(links.read("!!", now), None);
    }
}
