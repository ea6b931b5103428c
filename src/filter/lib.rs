//! Judges messages: rules, lists, scanners and their sum.
//!
//! Floor: 3. It must never know how mail is received, stored or delivered.
//! Main types: [`Filter`], [`Stages`], [`MessageFacts`], [`Judgement`], [`rules::RuleSet`], [`rules::Targets`].
//! Surprise: text that no rule can need is never made; each view of a message exists only once asked for.

pub mod address;
pub mod av;
pub mod countries;
pub mod facts;
mod files;
pub mod headers;
pub mod history;
pub mod learned;
pub mod lists;
pub mod milter;
pub mod own;
pub mod pipeline;
pub mod proof;
pub mod rules;
pub mod score;
mod sender;
pub mod sending;
pub mod stages;
pub mod url;
pub mod verdict;

pub use address::ServiceAddress;
pub use av::{Clamd, ClamdSettings, Scanned, Scanner, ScannerState, ScannerVersion};
pub use countries::{Countries, CountriesError, Country};
pub use facts::{MessageFacts, Source};
pub use history::Marks;
pub use lists::{ListSettings, ListState};
pub use milter::{Greeting, Login, MilterSettings, Peer, Start, WhenAway};
pub use own::OwnDomains;
pub use pipeline::{Filter, FilterParts};
pub use stages::Stages;
pub use verdict::{Judgement, Verdict};
