//! The seam between those who need to know who exists and those who know it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, Secret};
use mail::{Address, ForwardPath};

use crate::account::{Account, Resolution};
use crate::domain_key::DomainKey;
use crate::error::{DirectoryError, LoginError};
use crate::hold::{Hold, Rights};
use crate::legacy::{Elsewhere, LegacyServer};

/// Where somebody signs in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    Submission,
    Imap,
    Pop3,
    ManageSieve,
    Web,
}

impl Protocol {
    pub const ALL: [Self; 5] = [Self::Submission, Self::Imap, Self::Pop3, Self::ManageSieve, Self::Web];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::ManageSieve => "managesieve",
            Self::Web => "web",
        }
    }
}

/// An attempt to sign in.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// As typed: an address, in any case.
    pub name: &'a str,
    pub password: &'a Secret<String>,
    pub protocol: Protocol,
    pub peer: IpAddr,
    /// Of the second factor, where there is one; the web's sign-in asks for it.
    pub code: Option<&'a str>,
}

/// A sign-in that went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignIn {
    pub account: AccountId,
    pub peer: IpAddr,
}

/// Lookups and sign-in. Implementations cache: an answer may be seconds old, but a password that was changed on this
/// node counts at once.
#[async_trait]
pub trait Directory: Send + Sync {
    /// Where mail for `path` goes. `<Postmaster>` goes to the configured address.
    async fn resolve(&self, path: &ForwardPath) -> Result<Resolution, DirectoryError>;

    /// Puts an address of a relayed domain into the directory, which its server has just said that it has; gives where it
    /// leads. A directory without relayed domains knows no more than before.
    async fn take_in(&self, address: &Address) -> Result<Resolution, DirectoryError> {
        self.resolve(&ForwardPath::Address(address.clone())).await
    }

    /// The account, if it still exists.
    async fn account(&self, id: AccountId) -> Result<Option<Account>, DirectoryError>;

    /// Every address that `id` may send from: its own and the aliases that lead to it.
    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, DirectoryError>;

    /// Checks a password. Takes the same time for unknown names. Failures count against the peer's network.
    ///
    /// # Errors
    /// [`LoginError::SecondFactor`] by [`Protocol::Web`] alone: the right password without a code; elsewhere an account with a
    /// second factor is opened by app passwords alone. [`LoginError::Elsewhere`] for an account on a legacy server, whatever the password: only that server knows it. The
    /// caller asks there, and tells what came of it by [`Directory::accepted_elsewhere`] or [`Directory::refused_elsewhere`].
    async fn authenticate(&self, login: Login<'_>) -> Result<Account, LoginError>;

    /// For as long as something serves a client that signed in with these rights (`None`: with those that the account has
    /// now): it ends when they no longer hold, within seconds wherever they were taken. Wait for it, beside the client.
    async fn hold(&self, account: AccountId, rights: Option<Rights>) -> Hold;

    /// A legacy server took this password. It is kept where the server is set so.
    async fn accepted_elsewhere(&self, elsewhere: &Elsewhere, password: &Secret<String>) -> Result<(), DirectoryError>;

    /// A legacy server refused a password: counts as any failure; the caller answers after the delay.
    fn refused_elsewhere(&self, peer: IpAddr) -> Duration;

    /// Lets an account read but not send, until it gets a new password or an administrator allows it. It stays as it was
    /// if it is locked already; gives whether it was not.
    async fn lock_sending(&self, account: &Account, reason: &str) -> Result<bool, DirectoryError>;

    /// The keys that mail of a domain is signed by: its own, else those of the nearest domain that it lies in. Empty: it is
    /// not signed.
    async fn signing_keys(&self, domain: &str) -> Result<Arc<[DomainKey]>, DirectoryError>;

    /// The legacy server of this name.
    async fn legacy(&self, name: &str) -> Result<Option<Arc<LegacyServer>>, DirectoryError>;
}
