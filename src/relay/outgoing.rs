//! What those who put mail into the queue share with the worker that takes it out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::UtcMillis;
use mail::Domain;
use store::{Lane, Needs, Notify, QueueRecipient, QueueState};
use tokio::sync::watch;

use crate::keyring::Keyring;
use crate::relayed::{Onward, RelayedDomains};
use crate::routes::{Routes, Way};
use crate::schedule::Schedule;

/// The way out, for whoever has mail for it.
pub struct Outgoing {
    pub routes: ArcSwap<Routes>,
    /// Domains that have servers of their own, which mail goes on to.
    pub relayed: ArcSwap<RelayedDomains>,
    pub schedule: Schedule,
    pub keyring: Keyring,
    /// Rises when something was put into the queue here.
    pub(crate) news: watch::Sender<u64>,
}

/// What a sender asks for one recipient.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wish {
    pub notify: Notify,
    /// RFC 3461 §4.2.
    pub original: Option<String>,
}

/// What applies to all recipients of a message.
#[derive(Clone, Copy, Debug)]
pub struct Posting<'a> {
    /// Without brackets; empty for the null reverse-path.
    pub sender: &'a str,
    pub created_at: UtcMillis,
    /// Not tried before (RFC 4865).
    pub not_before: Option<UtcMillis>,
    /// Why it is not tried until somebody releases it.
    pub held: Option<&'a str>,
    pub needs: Needs,
}

/// People's mail.
const PRIORITY: u8 = 5;

impl Outgoing {
    pub fn new(routes: Routes, schedule: Schedule, keyring: Keyring) -> Arc<Self> {
        Arc::new(Self {
            routes: ArcSwap::from_pointee(routes),
            relayed: ArcSwap::default(),
            schedule,
            keyring,
            news: watch::Sender::new(0),
        })
    }

    /// The lane of a recipient whose mailbox is not here.
    pub fn lane(&self, sender: &str, recipient: &str) -> Lane {
        let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain).to_lowercase();
        match self.relayed.load().of(&domain) {
            Some(onward) => onward.lane(),
            None => self.routes.load().lane(sender, recipient),
        }
    }

    /// The lane that an administrator names: a route, a relayed domain, or any other.
    ///
    /// # Errors
    /// The text is none of them.
    pub fn lane_named(&self, text: &str) -> Result<Lane, String> {
        let relayed = self.relayed.load();
        let named = text.trim().to_lowercase();
        match relayed.of(&named) {
            Some(onward) => Ok(onward.lane()),
            // Also of a domain that is not relayed any more: its mail still waits.
            None if relayed.way(&named).is_some() => Ok(named.into()),
            None => self.routes.load().lane_named(text),
        }
    }

    /// Where a lane leads.
    pub fn way(&self, lane: &str) -> Way {
        self.relayed.load().way(lane).unwrap_or_else(|| self.routes.load().way(lane))
    }

    /// A relayed domain, by any of its names.
    pub fn onward(&self, domain: &Domain) -> Option<Arc<Onward>> {
        self.relayed.load().of(domain.as_str()).cloned()
    }

    /// Something was put into the queue: it is looked at now.
    pub fn wake(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A recipient as the queue has it first.
    pub fn recipient(&self, nth: u32, address: &str, wish: Wish, posting: &Posting<'_>) -> QueueRecipient {
        let Posting { sender, created_at, not_before, held, .. } = *posting;
        // What waits by its sender's wish is not late.
        let begins_at = not_before.map_or(created_at, |at| at.max(created_at));
        QueueRecipient {
            nth,
            address: address.to_owned(),
            original: wish.original,
            notify: wish.notify,
            lane: self.lane(sender, address),
            priority: PRIORITY,
            state: if held.is_some() { QueueState::Held } else { QueueState::Waiting },
            next_at: begins_at,
            alarm_at: self.schedule.first_alarm(begins_at, sender, wish.notify.delay),
            expires_at: self.schedule.expires_at(begins_at, sender),
            attempts: 0,
            last_at: None,
            last_status: held.unwrap_or_default().to_owned(),
            last_host: String::new(),
        }
    }
}
