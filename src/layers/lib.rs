//! What each level of a policy says, kept: options with their history, lists of senders, changes to come; and what that makes
//! for one recipient.
//!
//! Floor: 2. It must never know what a value does: that is `policy`'s matter.
//! Main types: [`Layers`]; [`Owner`], whose a layer is; [`Edit`], a change of one option; [`Entry`], a line of a list.
//! Surprise: a recipient's policy is put together from the levels that say anything and shared by all who have the same
//! ones: a hundred thousand mailboxes without wishes of their own hold one policy for each of their domains.

mod change;
mod copy;
mod entry;
mod layers;
mod owner;
mod plan;
#[cfg(test)]
mod tests;

pub use change::{Change, Edit, OptionState, What};
pub use entry::{Entry, NewEntry};
pub use layers::{LayerError, Layers};
pub use owner::Owner;
pub use plan::Plan;
