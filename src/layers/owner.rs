//! Whose a layer is.

use access::Position;
use policy::Level;

/// A level and, but for the system, a number of the directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    pub level: Level,
    /// Zero for the system.
    pub id: u64,
}

impl Owner {
    pub const SYSTEM: Self = Self { level: Level::System, id: 0 };

    /// All whose layers count for what is at `position`, the system first.
    pub fn above(position: Position) -> Vec<Self> {
        let of = |level, id: Option<u64>| id.map(|id| Self { level, id });
        [
            Some(Self::SYSTEM),
            of(Level::Reseller, position.reseller.map(|id| id.0)),
            of(Level::Customer, position.customer.map(|id| id.0)),
            of(Level::Domain, position.domain.map(|id| id.0)),
            of(Level::Mailbox, position.account.map(|id| id.0)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The lowest of those: whose `position` it is.
    pub fn of(position: Position) -> Self {
        Self::above(position).pop().unwrap_or(Self::SYSTEM)
    }
}
