//! Proof of the sender: SPF, DKIM, DMARC, ARC and reverse names, through one caching resolver.
//!
//! Floor: 2. It must never know about scores, policies or what happens to a message.
//! Main types: [`Resolver`], [`AuthOutcome`], [`AuthResult`].
//! Surprise: verification always ends, in bounded time and with an outcome; what DNS did not answer in time
//! is `temperror`. The mail-auth crate appears in no public type.

pub mod cache;
pub mod chain;
pub mod dnssec;
pub mod outage;
pub mod resolver;
pub mod results;
pub mod sign;
pub mod verify;

#[cfg(any(test, feature = "stub"))]
#[doc(hidden)]
pub mod stub;

pub use chain::SealedSet;
pub use dnssec::{ProofSettings, Proven};
pub use resolver::{Resolver, ResolverError, ResolverSettings, Unresolved};
pub use results::{authentication_results, is_forged};
pub use sign::{KeyError, KeyKind, KeyPair, Published, Signer};
pub use verify::{
    ArcOutcome, AuthOutcome, AuthResult, Begun, ConnectionFacts, DkimOutcome, DmarcOutcome, DmarcPolicy, IprevOutcome,
    SpfIdentity, SpfOutcome, verify,
};
