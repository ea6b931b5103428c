//! Asks a relayed domain's server whether it has an address, as a sender would (RCPT), before mail for it is taken.

use std::sync::Arc;
use std::time::Duration;

use base::event;
use mail::{Address, Enhanced, Status};
use moka::sync::Cache;
use net::{Connectors, Trust};
use tokio::sync::Semaphore;

use crate::client::{Conversation, Target, Waits};
use crate::hosts::{Finder, NoPlan};
use crate::outgoing::Outgoing;
use crate::relayed::Onward;

/// What a server says of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It has it.
    Known,
    /// It does not.
    Unknown,
    /// It takes an address that nobody can have: what it says means nothing.
    Anything,
    /// It does not answer, or not now.
    Away(Status),
}

/// Asks, and remembers the answers.
pub struct CallAhead {
    outgoing: Arc<Outgoing>,
    host_name: String,
    connectors: Connectors,
    /// By address, in lower case: what it has.
    known: Cache<String, ()>,
    unknown: Cache<String, ()>,
    /// By domain: whether its server takes what nobody can have.
    takes_anything: Cache<String, bool>,
    /// By domain: conversations at a time.
    places: Cache<String, Arc<Semaphore>>,
}

const ANSWERS_MAX: u64 = 200_000;
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Somebody may just have got that address.
const UNKNOWN_FOR: Duration = Duration::from_secs(300);
const NATURE_FOR: Duration = Duration::from_secs(6 * 3600);
const PLACES: usize = 5;
/// The sender waits meanwhile (RFC 5321 §4.5.3.2.3 gives it five minutes).
const WAIT_MAX: Duration = Duration::from_secs(25);
const WAITS: Waits = Waits {
    connect: Duration::from_secs(5),
    greeting: Duration::from_secs(10),
    command: Duration::from_secs(10),
    message: Duration::from_secs(10),
};
const NO_ANSWER: Status =
    Status::fixed(451, Enhanced(4, 4, 1), "The domain's mail server does not answer, try again later");

impl CallAhead {
    /// `host_name`: as we greet.
    pub fn new(outgoing: Arc<Outgoing>, host_name: &str) -> Self {
        fn cache<K, V>(keep: Duration) -> Cache<K, V>
        where
            K: std::hash::Hash + Eq + Send + Sync + 'static,
            V: Clone + Send + Sync + 'static,
        {
            Cache::builder().max_capacity(ANSWERS_MAX).time_to_live(keep).build()
        }
        Self {
            outgoing,
            host_name: host_name.to_owned(),
            connectors: Connectors::default(),
            known: cache(KNOWN_FOR),
            unknown: cache(UNKNOWN_FOR),
            takes_anything: cache(NATURE_FOR),
            places: Cache::new(ANSWERS_MAX),
        }
    }

    /// What the servers of `onward` say of `address`, which is of one of its names.
    pub async fn ask(&self, onward: &Onward, address: &Address) -> Said {
        let key = address.to_folded();
        if let Some(said) = self.remembered(onward, &key) {
            return said;
        }
        let domain = onward.domain.as_str().to_owned();
        let places = self.places.get_with(domain.clone(), || Arc::new(Semaphore::new(PLACES)));
        let asking = async {
            let _place = places.acquire().await.ok()?;
            // Somebody else asked meanwhile.
            match self.remembered(onward, &key) {
                Some(said) => Some(said),
                None => Some(self.ask_now(onward, address).await),
            }
        };
        let said = tokio::time::timeout(WAIT_MAX, asking).await.ok().flatten().unwrap_or(Said::Away(NO_ANSWER));
        match &said {
            Said::Known => self.known.insert(key, ()),
            Said::Unknown => self.unknown.insert(key, ()),
            Said::Anything => {}
            Said::Away(status) => {
                metrics::counter!("ortler_call_ahead_failures_total").increment(1);
                tracing::warn!(event = event::CALL_AHEAD_FAILED, domain, %status);
            }
        }
        said
    }

    fn remembered(&self, onward: &Onward, key: &str) -> Option<Said> {
        if self.takes_anything.get(onward.domain.as_str()) == Some(true) {
            return Some(Said::Anything);
        }
        if self.known.contains_key(key) {
            return Some(Said::Known);
        }
        self.unknown.contains_key(key).then_some(Said::Unknown)
    }

    async fn ask_now(&self, onward: &Onward, address: &Address) -> Said {
        let routes = self.outgoing.routes.load_full();
        let finder = Finder {
            resolver: None,
            routes: &routes,
            host_name: &self.host_name,
            port: 25,
            turn: 0,
            policies: None,
            authorities: Trust::System,
            peers: None,
        };
        let plan = match finder.of_route(&onward.route).await {
            Ok(plan) => plan,
            Err(NoPlan::Later(status) | NoPlan::Never(status)) => return Said::Away(status),
        };
        let nature = self.takes_anything.get(onward.domain.as_str());
        let address = Address { domain: onward.domain.clone(), ..address.clone() };
        let mut asked = vec![address.to_string()];
        if nature.is_none() {
            asked.push(format!("{}@{}", nobody(), onward.domain));
        }
        let mut last = NO_ANSWER;
        for target in &plan.targets {
            let mut answers = match self.ask_at(target, &asked).await {
                Ok(answers) => answers.into_iter(),
                Err(status) => {
                    last = status;
                    continue;
                }
            };
            let (first, second) = (answers.next(), answers.next());
            let takes_anything = second.map(|status| status.is_success()).or(nature);
            if let Some(takes_anything) = takes_anything {
                self.takes_anything.insert(onward.domain.as_str().to_owned(), takes_anything);
            }
            return match first {
                Some(status) if status.is_success() && takes_anything == Some(true) => Said::Anything,
                Some(status) if status.is_success() => Said::Known,
                Some(status) if status.is_permanent() => Said::Unknown,
                Some(status) => Said::Away(status),
                None => Said::Away(NO_ANSWER),
            };
        }
        Said::Away(last)
    }

    /// What one server says of each address, or why it does not.
    async fn ask_at(&self, target: &Target, addresses: &[String]) -> Result<Vec<Status>, Status> {
        let away = |last, why: &str| Status::with_text(451, Enhanced(4, 4, last), why);
        let opened = Conversation::open(&self.connectors, target, &self.host_name, WAITS).await;
        let mut conversation = opened.map_err(|error| away(1, &error.to_string()))?;
        let answers = conversation.would_take(addresses).await;
        conversation.quit().await;
        answers.map_err(|reason| away(2, &reason))
    }
}

/// A local part that nobody has.
fn nobody() -> String {
    let mut octets = [0u8; 12];
    getrandom::fill(&mut octets).expect("the operating system gives random bytes");
    octets.iter().fold("nobody-".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}
