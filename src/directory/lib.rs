//! Who exists: tenants, domains, accounts and aliases; where an address leads; whether a password is right.
//!
//! Floor: 2. It must never know about mailboxes, protocols or policy.
//! Main types: [`Directory`], the seam that mail flow and sign-in use; [`Registry`], our own tables behind it, in a file
//! or in PostgreSQL;
//! [`Account`], [`Resolution`], [`LegacyServer`]; [`Hold`], which ends what a password opened.
//! Surprise: addresses compare without case, also in the local part.

mod account;
mod answered;
mod audit;
mod audit_log;
#[cfg(test)]
mod audit_log_tests;
mod both;
mod copy;
mod credential;
#[cfg(test)]
mod credential_tests;
mod directory;
#[cfg(test)]
mod disk_tests;
mod domain_key;
mod error;
mod foreign_hash;
mod guard;
mod hold;
mod legacy;
mod password;
mod person;
#[cfg(test)]
mod person_tests;
mod postgres;
mod postgres_keys;
mod postgres_legacy;
mod quota;
mod registry;
mod relayed;
#[cfg(test)]
mod relayed_tests;
mod schema;
mod sqlite;
mod sqlite_keys;
mod sqlite_legacy;
mod tables;
#[cfg(test)]
mod tests;
mod web_session;

pub use account::{
    Access, Account, Alias, DomainEntry, NewAccount, Recipient, Resolution, SendingLock, Tenant, TenantKind,
};
pub use answered::Call;
pub use audit::Damage;
pub use audit_log::AuditEntry;
pub use credential::{ApiToken, AppPassword, TOKEN_PREFIX};
pub use directory::{Directory, Login, Protocol, SignIn};
pub use domain_key::{DomainKey, KeyState};
pub use error::{DirectoryError, LoginError, RegistryError};
pub use guard::{Failures, LoginGuard};
pub use hold::{Hold, Holds, Rights};
pub use legacy::{DeliveryEndpoint, DeliveryProtocol, Elsewhere, LegacyChange, LegacyServer, Placement};
pub use password::{InvalidHash, PasswordHash};
pub use person::{Forward, GrantEntry, session_name};
pub use quota::{Limits, QuotaChange};
pub use registry::Registry;
pub use relayed::{DomainRelay, RelayedDomain, Verify};
pub use tables::{AccountChange, KeyListing, Listing};
pub use web_session::WebSession;
