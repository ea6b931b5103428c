//! Keys by which a domain's mail is signed (RFC 6376). What they are made of, the caller knows.

use base::{Secret, UtcMillis};

use crate::RegistryError;
use crate::tables::refused;

/// What a key is good for now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyState {
    /// Made, and not yet in the DNS.
    Prepared,
    /// Mail is signed by it.
    Active,
    /// No mail is signed by it any more; what was signed is still on its way to being looked at.
    Retired,
}

impl KeyState {
    pub const ALL: [Self; 3] = [Self::Prepared, Self::Active, Self::Retired];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A key of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainKey {
    /// A-labels in lower case. It need not be a domain of this system: so are those of the servers' own names.
    pub domain: String,
    /// Lower case; its name in the DNS is `SELECTOR._domainkey.DOMAIN`.
    pub selector: String,
    /// As the DNS names it.
    pub kind: String,
    pub state: KeyState,
    /// DER; empty once it is retired.
    pub private: Secret<Vec<u8>>,
    /// `p=` in the DNS.
    pub public: String,
    pub created_at: UtcMillis,
    /// When it came to be what it is.
    pub changed_at: UtcMillis,
}

const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

impl DomainKey {
    /// The name of its record.
    pub fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        let is_label = |label: &str| {
            let is_word = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            (1..=LABEL_MAX).contains(&label.len()) && is_word && !label.starts_with('-') && !label.ends_with('-')
        };
        if !self.selector.split('.').all(is_label) || self.name().len() > NAME_MAX {
            let selector = &self.selector;
            return Err(refused(format!(
                "the selector `{selector}` is not of a-z, 0-9 and `-`, with at most {LABEL_MAX} of them between dots"
            )));
        }
        Ok(())
    }
}

/// A row as both engines keep it.
pub(crate) struct KeyRow {
    pub domain: String,
    pub selector: String,
    pub kind: String,
    pub state: String,
    pub private: Vec<u8>,
    pub public: String,
    pub created_at: i64,
    pub changed_at: i64,
}

pub(crate) const COLUMNS: &str = "domain, selector, kind, state, private_key, public_key, created_at, changed_at";

impl KeyRow {
    /// A state of a later version signs nothing.
    pub(crate) fn read(self) -> DomainKey {
        DomainKey {
            state: KeyState::from_name(&self.state).unwrap_or(KeyState::Retired),
            domain: self.domain,
            selector: self.selector,
            kind: self.kind,
            private: Secret::new(self.private),
            public: self.public,
            created_at: UtcMillis(self.created_at),
            changed_at: UtcMillis(self.changed_at),
        }
    }
}
