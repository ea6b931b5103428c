//! The nodes of one system: who is there, who serves, and which of them each account's sessions belong on.
//!
//! Floor: 2. It must never know what sessions say: it names a node, others bring the session there.
//! Main types: [`Membership`] (this node among the others), [`View`] (all of them at one moment), [`Member`],
//! [`Affinity`] (leads a session to its node), [`Handoff`] (what the nodes tell each other of it), [`Counters`] (what all
//! count together), [`Leases`] (work of one node at a time), [`share`] (hints of what changed).
//! Surprise: nothing here is needed for a right answer. A view that is old or empty costs warm caches, never mail: any
//! node can serve any account at any time.

mod affinity;
mod authority;
mod counters;
mod handoff;
mod hints;
mod identity;
mod invitation;
mod leases;
mod link;
mod member;
mod membership;
mod nodes;
mod rendezvous;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use affinity::{Affinity, Led, Lost};
pub use counters::{Counted, Counters};
pub use handoff::Handoff;
pub use hints::{Changes, LookFailed, Sessions, share};
pub use invitation::{Accepted, Invitation, JoinError, Joiner};
pub use leases::{Lease, LeaseLost, Leases};
pub use link::{Link, Links, notice_loss};
pub use member::{Member, State, Wish};
pub use membership::{Beat, Membership, Settings, View};
pub use nodes::{ClusterError, invite, open};
