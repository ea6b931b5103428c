//! Who may see what. Enforced here, once: every query and every live stream takes a [`Scope`].

use base::AccountId;
use mail::Domain;

use crate::event::Party;

/// What a viewer may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything: staff.
    System,
    /// Messages with a sender or recipient in one of these domains.
    Domains(Vec<Domain>),
    /// Messages from or to this account.
    Account(AccountId),
}

impl Scope {
    /// True if the viewer may see what concerns `party`.
    pub fn admits(&self, party: Option<&Party>) -> bool {
        match (self, party) {
            (Self::System, _) => true,
            (Self::Account(account), Some(party)) => party.account == Some(*account),
            (Self::Domains(domains), Some(party)) => {
                let domain = domain_of(&party.address);
                domains.iter().any(|known| known.as_str() == domain)
            }
            (Self::Account(_) | Self::Domains(_), None) => false,
        }
    }
}

pub(crate) fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_ascii_lowercase())
}
