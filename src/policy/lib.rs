//! What is done with a judged message: options with their levels, and the disposition of each recipient.
//!
//! Floor: 1, pure (no async, no I/O, no clock). It must never know how findings are made or mail is stored.
//! Main types: [`Finding`], [`Score`], [`Layer`], [`EffectivePolicy`], [`Disposition`].
//! Surprise: a preset counts as set at the level that chose it, so a domain's preset wins over the system's own
//! values; scores are whole thousandths, so that sums do not depend on their order.

pub mod disposition;
pub mod finding;
pub mod layer;
pub mod list;
pub mod option;
pub mod outbound;
pub mod preset;
pub mod record;
pub mod resolve;

pub use disposition::{
    Attachments, Cause, Decision, Disposition, DmarcWish, ExternalWish, Facts, Greylisting, ReleasedBy, SessionOutcome,
    VirusState,
};
pub use disposition::{combine, decide};
pub use finding::{Finding, ReasonClass, Score, Stage};
pub use layer::{Layer, PolicyError, Setting};
pub use list::{Listed, Lists, SenderFacts, Skips, Word};
pub use option::{AttachmentClass, Key, Kind, Level, Value};
pub use outbound::{Sending, decide_outbound};
pub use preset::Presets;
pub use record::{record, recorded};
pub use resolve::{EffectivePolicy, Origin, Resolved};
