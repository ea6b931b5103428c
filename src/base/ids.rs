//! Identities. Distinct types, so that the compiler keeps them apart.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::sync::Mutex;

use crate::clock::UtcMillis;

/// Declares a 128-bit, time-ordered identity: 48 bits of UTC milliseconds, then 80 random bits.
/// Its text form is 26 characters of Crockford's base 32 (lower case), which sorts as the number does.
macro_rules! time_ordered_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id as a number, for storage.
            pub const fn as_u128(self) -> u128 { self.0 }
            /// From storage.
            pub const fn from_u128(raw: u128) -> Self { Self(raw) }
            /// Big-endian bytes: order is kept.
            pub const fn to_bytes(self) -> [u8; 16] { self.0.to_be_bytes() }
            pub const fn from_bytes(raw: [u8; 16]) -> Self { Self(u128::from_be_bytes(raw)) }
            /// The lowest id that can be made at `at`; the highest of all if no id reaches so far.
            pub const fn first_at(at: UtcMillis) -> Self {
                match at.0 {
                    ..0 => Self(0),
                    0..=MILLIS_MAX => Self((at.0 as u128) << 80),
                    _ => Self(u128::MAX),
                }
            }
            /// When the id was made, to the millisecond.
            pub const fn made_at(self) -> UtcMillis { UtcMillis((self.0 >> 80) as i64) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write_base32(self.0, f) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write_base32(self.0, f) }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> { parse_base32(text).map(Self) }
        }
    };
}

time_ordered_id! {
    /// One connection, in any protocol.
    SessionId
}
time_ordered_id! {
    /// One message with us, from MAIL FROM to the mailbox and the trail: "queue id" on the wire.
    MessageId
}
time_ordered_id! {
    /// Immutable stored content.
    BlobId
}

/// The last millisecond that an id can hold.
const MILLIS_MAX: i64 = (1 << 48) - 1;

/// Declares a small numeric identity that the store hands out.
macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

numeric_id! {
    /// A person or thing that signs in and owns mailboxes.
    AccountId, u64
}
numeric_id! {
    /// A mail domain.
    DomainId, u64
}
numeric_id! {
    /// A reseller or customer that owns domains.
    TenantId, u64
}
numeric_id! {
    /// A mailbox (folder) within its account; never reused there.
    MailboxId, u32
}

/// Whose accounts share a quota.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PoolId {
    Domain(DomainId),
    /// A customer, or a reseller with all its customers.
    Tenant(TenantId),
}

impl PoolId {
    /// One number for each, for storage.
    pub const fn as_raw(self) -> u64 {
        match self {
            Self::Domain(id) => id.0 << 1,
            Self::Tenant(id) => id.0 << 1 | 1,
        }
    }
    /// From storage.
    pub const fn from_raw(raw: u64) -> Self {
        if raw & 1 == 0 { Self::Domain(DomainId(raw >> 1)) } else { Self::Tenant(TenantId(raw >> 1)) }
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(id) => write!(f, "domain {id}"),
            Self::Tenant(id) => write!(f, "tenant {id}"),
        }
    }
}

/// Declares a number that IMAP forbids to be zero.
macro_rules! nonzero_number {
    ($(#[$doc:meta])* $name:ident, $nonzero:ty, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name($nonzero);

        impl $name {
            pub const MIN: Self = Self(<$nonzero>::MIN);
            pub const MAX: Self = Self(<$nonzero>::MAX);
            /// `None` for zero.
            pub const fn new(raw: $raw) -> Option<Self> {
                match <$nonzero>::new(raw) { Some(n) => Some(Self(n)), None => None }
            }
            pub const fn as_raw(self) -> $raw { self.0.get() }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

nonzero_number! {
    /// Names a message in a mailbox, rising, never reused (RFC 9051 §2.3.1.1).
    Uid, NonZeroU32, u32
}
nonzero_number! {
    /// Changes only when UIDs of a mailbox name lose their meaning (RFC 9051 §2.3.1.1).
    UidValidity, NonZeroU32, u32
}
nonzero_number! {
    /// The account's change counter: CONDSTORE's mod-sequence (RFC 7162) and JMAP's state in one.
    ModSeq, NonZeroU64, u64
}

/// Makes time-ordered ids. Ids of one source rise strictly, also within a millisecond.
pub struct IdSource {
    last: Mutex<u128>,
    random: fn(&mut [u8]),
}

impl IdSource {
    /// Ids with randomness from the operating system.
    pub fn system() -> Self {
        Self { last: Mutex::new(0), random: system_random }
    }

    /// Ids that repeat run after run: for tests.
    pub fn fixed() -> Self {
        Self { last: Mutex::new(0), random: |buffer| buffer.fill(7) }
    }

    fn make(&self, now: UtcMillis) -> u128 {
        let mut tail = [0u8; 16];
        (self.random)(&mut tail[6..]);
        let fresh = ((now.0.max(0) as u128) << 80) | (u128::from_be_bytes(tail) & ((1 << 80) - 1));
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = if fresh > *last { fresh } else { *last + 1 };
        *last
    }

    pub fn session(&self, now: UtcMillis) -> SessionId {
        SessionId(self.make(now))
    }
    pub fn message(&self, now: UtcMillis) -> MessageId {
        MessageId(self.make(now))
    }
    pub fn blob(&self, now: UtcMillis) -> BlobId {
        BlobId(self.make(now))
    }
}

/// The text is not an id: wrong length or a character outside the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 26 characters of 0-9 and a-z without i, l, o, u")]
pub struct InvalidId;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn write_base32(raw: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; 26];
    for (place, slot) in text.iter_mut().rev().enumerate() {
        *slot = ALPHABET[((raw >> (5 * place)) & 31) as usize];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse_base32(text: &str) -> Result<u128, InvalidId> {
    let bytes = text.as_bytes();
    // 26 characters hold 130 bits: the first may only use three of its five.
    if bytes.len() != 26 || !matches!(bytes.first(), Some(b'0'..=b'7')) {
        return Err(InvalidId);
    }
    bytes.iter().try_fold(0u128, |sum, byte| {
        let digit = ALPHABET.iter().position(|c| c == byte).ok_or(InvalidId)?;
        Ok((sum << 5) | digit as u128)
    })
}

fn system_random(buffer: &mut [u8]) {
    // A kernel without randomness cannot run TLS either: nothing sensible is left to do.
    getrandom::fill(buffer).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_sorts_like_the_number() {
        let ids = IdSource::system();
        let mut before = ids.message(UtcMillis(1_700_000_000_000));
        for step in 0..200 {
            let id = ids.message(UtcMillis(1_700_000_000_000 + step / 50));
            assert!(id > before && id.to_string() > before.to_string());
            assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
            before = id;
        }
        assert_eq!(before.made_at().0, 1_700_000_000_003);
    }

    #[test]
    fn the_first_id_of_a_moment_is_below_those_that_are_made_then() {
        let now = UtcMillis(1_700_000_000_000);
        let made = IdSource::system().message(now);
        assert!(MessageId::first_at(now) <= made && made < MessageId::first_at(UtcMillis(now.0 + 1)));
        for (at, expected) in [(-1, 0), (0, 0), (5, 5 << 80), (i64::MAX, u128::MAX), (1 << 48, u128::MAX)] {
            assert_eq!(MessageId::first_at(UtcMillis(at)).as_u128(), expected, "{at}");
        }
    }

    #[test]
    fn foreign_text_is_no_id() {
        for text in
            ["", "1", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "0123456789abcdefghjkmnpqru", "0123456789abcdefghjkmnpqr\u{e9}"]
        {
            assert_eq!(text.parse::<BlobId>(), Err(InvalidId), "{text}");
        }
    }

    #[test]
    fn zero_is_no_uid() {
        assert!(Uid::new(0).is_none() && ModSeq::new(0).is_none());
    }
}
