//! The words of the directory.

use access::{Grant, Position};
use base::{AccountId, DomainId, Quota, TenantId, UtcMillis};
use mail::{Address, Domain};

use crate::hold::Rights;
use crate::legacy::Placement;
use crate::password::PasswordHash;
use crate::relayed::DomainRelay;

/// What an account may do beyond its own mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Own mail, own settings, own log.
    User,
    /// Everything on this system.
    Admin,
}

impl Access {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Admin].into_iter().find(|access| access.as_str() == name)
    }
}

/// A person or thing that signs in and owns mailboxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub id: AccountId,
    /// Primary address: also the login.
    pub address: Address,
    /// For people; may be empty.
    pub name: String,
    pub access: Access,
    /// Roles that it holds; one for whom everything is open holds the administrator's.
    pub grants: Vec<Grant>,
    pub position: Position,
    /// Its password alone opens nothing but mail programs' doors, and those only to passwords of their own.
    pub has_second_factor: bool,
    /// False: no sign-in; mail is still taken.
    pub enabled: bool,
    /// As of when it was read; see [`crate::Hold`].
    pub rights: Rights,
    /// The legacy server where its mailbox still is.
    pub legacy: Option<String>,
    /// Its mail goes on to its domain's own server: there is no mailbox here to sign in to.
    pub is_relayed: bool,
    /// Set: it may not send.
    pub sending_lock: Option<SendingLock>,
    pub quota: Quota,
    pub created_at: UtcMillis,
}

impl Account {
    /// Whether who reads its mail may see what is held of it. Its mail is read elsewhere; nothing else is opened by that.
    pub fn signs_in_by_mail(&self) -> bool {
        self.is_relayed && self.enabled && self.grants.is_empty() && !self.has_second_factor
    }
}

/// Why and since when an account may read but not send. A new password lifts it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendingLock {
    pub at: UtcMillis,
    /// One line for administrators.
    pub reason: String,
}

/// What is needed to make an account.
#[derive(Clone, Debug)]
pub struct NewAccount {
    pub address: Address,
    pub name: String,
    pub access: Access,
    pub password: PasswordHash,
    pub quota: Quota,
    pub placement: Placement,
}

/// An address that leads to others. `local` is `None` for a catch-all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alias {
    /// `sales@example.test`, or `@example.test` for a catch-all.
    pub address: String,
    pub targets: Vec<Address>,
    pub created_at: UtcMillis,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainEntry {
    pub id: DomainId,
    pub name: Domain,
    pub position: Position,
    pub tenant: Option<String>,
    /// The legacy server where its new accounts begin.
    pub legacy: Option<String>,
    /// Set: its mail goes on to a server of its owner's.
    pub relay: Option<DomainRelay>,
    pub accounts: u64,
    pub aliases: u64,
    /// Of all its accounts together.
    pub quota: Quota,
    pub created_at: UtcMillis,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TenantKind {
    /// Has customers below it.
    Reseller,
    /// Owns domains.
    Customer,
}

impl TenantKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reseller => "reseller",
            Self::Customer => "customer",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reseller, Self::Customer].into_iter().find(|kind| kind.as_str() == name)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub kind: TenantKind,
    /// The reseller above.
    pub parent: Option<String>,
    pub position: Position,
    pub domains: u64,
    /// Of all accounts of its domains, and of its customers', together.
    pub quota: Quota,
    pub created_at: UtcMillis,
}

/// One account that an envelope recipient leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    pub account: AccountId,
    /// The account's primary address.
    pub address: Address,
    /// What followed `+` in the local part, as written.
    pub detail: Option<String>,
    /// The legacy server where its mail goes.
    pub legacy: Option<String>,
    pub position: Position,
    /// Where its mail goes, too; whoever reads there agreed.
    pub forwards: Vec<Address>,
    /// False: what is forwarded is kept there alone.
    pub keeps: bool,
}

/// Where an envelope recipient leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// To these accounts, at least one, each once.
    Local(Vec<Recipient>),
    /// A domain of ours without such an address.
    UnknownAddress,
    /// Not a domain of ours.
    ForeignDomain,
}
