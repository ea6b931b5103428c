//! Who exists: tenants, domains, accounts and aliases; where an address leads; whether a password is right.
//!
//! Floor: 2. It must never know about mailboxes, protocols or policy.
//! Main types: [`Directory`], the seam that mail flow and sign-in use; [`EmbeddedDirectory`], our own tables behind it;
//! [`Account`], [`Resolution`].
//! Surprise: addresses compare without case, also in the local part.

mod account;
mod directory;
mod embedded;
mod error;
mod guard;
mod password;
mod quota;
mod schema;
#[cfg(test)]
mod tests;

pub use account::{Access, Account, Alias, DomainEntry, NewAccount, Recipient, Resolution, Tenant, TenantKind};
pub use directory::{Directory, Login, Protocol};
pub use embedded::{AccountChange, EmbeddedDirectory, Listing};
pub use error::{DirectoryError, LoginError, RegistryError};
pub use guard::LoginGuard;
pub use password::{InvalidHash, PasswordHash};
pub use quota::{Limits, QuotaChange};
