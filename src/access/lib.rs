//! Who may do what to what: roles, where they are held, and the one check of them.
//!
//! Floor: 1, pure. It must never know where grants are kept or who asks.
//! Main types: [`Grant`], a role held somewhere in the tree of tenants; [`Position`], where a thing is in that tree;
//! [`Right`]; [`may`], the check.
//! Surprise: nobody has a right over another's message text by being the provider's administrator: what people write is the
//! customers' own, and reading it is a right of theirs.

mod grant;
mod right;

pub use grant::{Grant, Position, Reach};
pub use right::{Right, Role, gives, may, may_grant, reach};
