//! Where a role is held, and where things are.

use std::fmt;
use std::str::FromStr;

use base::{AccountId, DomainId, TenantId};

use crate::right::Role;

/// Where something is in the tree of tenants: an account has all that is above it, a tenant only what is above itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Position {
    pub reseller: Option<TenantId>,
    pub customer: Option<TenantId>,
    pub domain: Option<DomainId>,
    pub account: Option<AccountId>,
}

impl Position {
    /// Of what belongs to the whole system.
    pub const SYSTEM: Self = Self { reseller: None, customer: None, domain: None, account: None };

    /// Of the account's domain: its neighbours.
    #[must_use]
    pub const fn without_account(self) -> Self {
        Self { account: None, ..self }
    }
}

/// How far a grant reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reach {
    System,
    /// A reseller with its customers, or a customer.
    Tenant(TenantId),
    Domain(DomainId),
}

impl Reach {
    pub fn covers(self, position: Position) -> bool {
        match self {
            Self::System => true,
            Self::Tenant(tenant) => position.reseller == Some(tenant) || position.customer == Some(tenant),
            Self::Domain(domain) => position.domain == Some(domain),
        }
    }
}

impl fmt::Display for Reach {
    /// As it is kept: `system`, `tenant 4`, `domain 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Tenant(tenant) => write!(f, "tenant {}", tenant.0),
            Self::Domain(domain) => write!(f, "domain {}", domain.0),
        }
    }
}

/// The text is none that [`Reach`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidReach;

impl FromStr for Reach {
    type Err = InvalidReach;

    fn from_str(text: &str) -> Result<Self, InvalidReach> {
        match text.split_once(' ') {
            None if text == "system" => Ok(Self::System),
            Some(("tenant", number)) => number.parse().map(|id| Self::Tenant(TenantId(id))).map_err(|_| InvalidReach),
            Some(("domain", number)) => number.parse().map(|id| Self::Domain(DomainId(id))).map_err(|_| InvalidReach),
            None | Some(_) => Err(InvalidReach),
        }
    }
}

/// A role that somebody holds, and how far it reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Grant {
    pub role: Role,
    pub reach: Reach,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_reads_as_it_was_written() {
        for reach in [Reach::System, Reach::Tenant(TenantId(4)), Reach::Domain(DomainId(7))] {
            assert_eq!(reach.to_string().parse(), Ok(reach));
        }
        for text in ["", "tenant", "tenant x", "system 1", "planet 3"] {
            assert_eq!(text.parse::<Reach>(), Err(InvalidReach), "{text}");
        }
    }
}
