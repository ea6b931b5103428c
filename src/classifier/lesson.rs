//! What is learned.

use base::AccountId;

/// Whose weights a lesson changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// Everybody's.
    All,
    /// Those that one account has beside them.
    Account(AccountId),
}

impl Owner {
    /// As rows have it: 0 for all; accounts are numbered from 1.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::All => 0,
            Self::Account(account) => i64::try_from(account.0).unwrap_or(i64::MAX),
        }
    }

    pub(crate) fn from_number(number: i64) -> Self {
        match u64::try_from(number) {
            Ok(0) | Err(_) => Self::All,
            Ok(account) => Self::Account(AccountId(account)),
        }
    }
}

/// What a message is said to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    Ham,
    Spam,
}

impl Class {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ham => "ham",
            Self::Spam => "spam",
        }
    }

    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Ham => 0,
            Self::Spam => 1,
        }
    }

    pub(crate) const fn from_number(number: i64) -> Self {
        if number == 0 { Self::Ham } else { Self::Spam }
    }
}

/// Tells a message from others, however often it is learned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(pub [u8; 16]);

/// One message to learn.
#[derive(Clone, Debug)]
pub struct Lesson {
    pub owner: Owner,
    pub key: Key,
    pub class: Class,
    /// Numbers of its features, each once.
    pub numbers: Vec<u32>,
    /// Which set of features the numbers are of. One of another version is never taken back: its numbers are gone.
    pub version: u8,
    /// How much it counts, in thousandths of a full lesson; 1000 at most.
    pub strength: u16,
}

/// What came of a lesson.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    New,
    /// It had been learned as the other class, or for less; that was taken back.
    Corrected,
    /// It had been learned so before: nothing changed.
    Known,
    /// Taken back.
    Unlearned,
    /// There was nothing to take back.
    NotKnown,
}

/// A lesson as it is kept: what is added to the counts of its features.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub owner: Owner,
    pub key: Key,
    pub class: Class,
    pub version: u8,
    pub amount: i32,
    /// False for one that takes another back.
    pub is_new: bool,
    pub numbers: Vec<u32>,
}

/// What is known of a message that was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub class: Class,
    pub amount: i32,
    pub version: u8,
}
