//! How much at once a provider is given: by rules, and by what its servers say.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base::Clock;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::client::Conversation;

/// Limits of the servers whose names end so.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteRule {
    pub name: String,
    /// `mx.example.net`, or `.example.net` for all below.
    pub hosts: Vec<String>,
    /// Connections at a time.
    #[serde(default = "connections")]
    pub connections: u32,
    /// Messages through one connection.
    #[serde(default = "messages_per_connection")]
    pub messages_per_connection: usize,
    /// Recipients of one message at a time.
    #[serde(default = "recipients_per_message")]
    pub recipients_per_message: usize,
    /// Messages in a minute; 0: no limit.
    #[serde(default)]
    pub messages_per_minute: u32,
}

const fn connections() -> u32 {
    20
}
const fn messages_per_connection() -> usize {
    100
}
const fn recipients_per_message() -> usize {
    100
}

impl SiteRule {
    fn usual(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            connections: connections(),
            messages_per_connection: messages_per_connection(),
            recipients_per_message: recipients_per_message(),
            messages_per_minute: 0,
        }
    }

    fn holds(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| match known.strip_prefix('.') {
            Some(_) => host.ends_with(known.as_str()),
            None => host == known,
        })
    }
}

/// All rules; the first that fits counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sites(Vec<SiteRule>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shipped {
    site: Vec<SiteRule>,
}

impl Sites {
    /// The rules in `policies/sites.toml`.
    pub fn shipped() -> Self {
        let shipped: Shipped =
            toml::from_str(include_str!("../../policies/sites.toml")).expect("a test reads the shipped rules");
        Self(shipped.site)
    }

    /// With an administrator's rules before them.
    pub(crate) fn with(self, mut own: Vec<SiteRule>) -> Result<Self, String> {
        for rule in &mut own {
            let SiteRule { connections, messages_per_connection, recipients_per_message, .. } = rule;
            if *connections == 0 || *messages_per_connection == 0 || *recipients_per_message == 0 {
                return Err(format!("site `{}`: its limits are above 0", rule.name));
            }
            rule.hosts.iter_mut().for_each(|host| *host = host.to_lowercase());
        }
        own.extend(self.0);
        Ok(Self(own))
    }

    /// The rule for a domain's first mail server. Without one, all servers of a provider are one site.
    pub fn rule_for(&self, host: &str) -> SiteRule {
        match self.0.iter().find(|rule| rule.holds(host)) {
            Some(rule) => rule.clone(),
            None => SiteRule::usual(registered(host)),
        }
    }

    /// The rule for a route.
    pub fn rule_for_route(&self, name: &str) -> SiteRule {
        SiteRule { connections: 50, messages_per_connection: 1000, ..SiteRule::usual(&format!(":via:{name}")) }
    }
}

fn registered(host: &str) -> &str {
    if host.starts_with('[') { host } else { psl::domain_str(host).unwrap_or(host) }
}

/// A site at work.
pub struct Site {
    pub rule: SiteRule,
    /// Nodes that share its limits.
    nodes: Arc<AtomicU32>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    active: u32,
    /// Connections that are allowed now, in tenths: what the servers say makes it smaller, and what they take larger again.
    allowed: u32,
    /// Nothing is begun before.
    pause_until: Option<Instant>,
    /// Tokens of the rate, in thousandths of a message, and when they were counted.
    tokens: u64,
    counted_at: Instant,
    idle: Vec<(Instant, Conversation)>,
    /// Open, but of no more use: they are said farewell to.
    over: Vec<Conversation>,
}

/// Connections that wait for the next message.
const IDLE_MAX: usize = 20;
/// So long.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// After a server said that it is too much.
const PAUSE: Duration = Duration::from_secs(10);

/// The right to use one connection; dropping it gives it back.
pub struct Turn(Arc<Site>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.lock().active -= 1;
        self.0.changed.notify_one();
    }
}

impl Site {
    pub fn new(rule: SiteRule, nodes: Arc<AtomicU32>, now: Instant) -> Self {
        let state = State {
            active: 0,
            allowed: rule.connections * 10,
            pause_until: None,
            tokens: u64::from(rule.messages_per_minute) * 1000,
            counted_at: now,
            idle: Vec::new(),
            over: Vec::new(),
        };
        Self { rule, nodes, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Waits for a turn. Cancel safe.
    pub async fn turn(self: &Arc<Self>, clock: &dyn Clock) -> Turn {
        loop {
            let waiting = self.changed.notified();
            match self.try_turn(clock.now()) {
                Ok(turn) => return turn,
                Err(wait) => {
                    let _ = tokio::time::timeout(wait, waiting).await;
                }
            }
        }
    }

    /// A turn, or how long to wait at most before asking again.
    pub(crate) fn try_turn(self: &Arc<Self>, now: Instant) -> Result<Turn, Duration> {
        let mut state = self.state.lock();
        if let Some(until) = state.pause_until {
            if now < until {
                return Err(until - now);
            }
            state.pause_until = None;
        }
        let nodes = self.nodes.load(Ordering::Relaxed).max(1);
        if state.active >= (state.allowed / 10 / nodes).max(1) {
            return Err(Duration::from_secs(60));
        }
        if self.rule.messages_per_minute > 0 {
            let whole = (u64::from(self.rule.messages_per_minute) * 1000 / u64::from(nodes)).max(1000);
            let passed = u64::try_from(now.saturating_duration_since(state.counted_at).as_millis()).unwrap_or(u64::MAX);
            state.tokens = state.tokens.saturating_add(passed.saturating_mul(whole) / 60_000).min(whole);
            state.counted_at = now;
            if state.tokens < 1000 {
                let missing = (1000 - state.tokens) * 60_000 / whole.max(1);
                return Err(Duration::from_millis(missing + 1));
            }
            state.tokens -= 1000;
        }
        state.active += 1;
        drop(state);
        Ok(Turn(Arc::clone(self)))
    }

    /// A server took a message.
    pub fn went_well(&self) {
        let mut state = self.state.lock();
        let whole = self.rule.connections * 10;
        if state.allowed < whole {
            state.allowed = (state.allowed + 1).min(whole);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// A server said that this is too much: half as many connections, after a pause.
    pub fn is_too_much(&self, now: Instant) {
        let mut state = self.state.lock();
        // Those that were under way say the same: it counts once.
        if state.pause_until.is_none_or(|until| now >= until) {
            state.allowed = (state.allowed / 2).max(10);
            state.pause_until = Some(now + PAUSE);
        }
    }

    /// Connections allowed now.
    pub fn allowed(&self) -> u32 {
        (self.state.lock().allowed / 10).max(1)
    }

    /// A conversation with this server that is open, if one waits.
    pub fn take_idle(&self, fits: impl Fn(&Conversation) -> bool, now: Instant) -> Option<Conversation> {
        let mut state = self.state.lock();
        state.idle.retain(|(since, _)| now.saturating_duration_since(*since) < IDLE_FOR);
        let at = state.idle.iter().rposition(|(_, idle)| fits(idle))?;
        Some(state.idle.swap_remove(at).1)
    }

    /// Keeps a conversation for the next message, or until it is said farewell to.
    pub fn keep(&self, conversation: Conversation, now: Instant) {
        if !conversation.is_open() {
            return;
        }
        let mut state = self.state.lock();
        if conversation.messages >= self.rule.messages_per_connection || state.idle.len() >= IDLE_MAX {
            state.over.push(conversation);
        } else {
            state.idle.push((now, conversation));
        }
    }

    /// Conversations that waited in vain, or are over.
    pub fn take_stale(&self, now: Instant) -> Vec<Conversation> {
        let mut state = self.state.lock();
        let (stale, fresh) = std::mem::take(&mut state.idle)
            .into_iter()
            .partition(|(since, _)| now.saturating_duration_since(*since) >= IDLE_FOR);
        state.idle = fresh;
        let stale: Vec<(Instant, Conversation)> = stale;
        let over = std::mem::take(&mut state.over);
        stale.into_iter().map(|(_, conversation)| conversation).chain(over).collect()
    }

    fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        state.active == 0 && state.idle.is_empty() && state.over.is_empty() && state.pause_until.is_none()
    }
}

/// The sites that this node works with.
pub struct AtWork {
    sites: Mutex<HashMap<String, Arc<Site>>>,
    /// Nodes that send: each takes its share of what a site is given.
    nodes: Arc<AtomicU32>,
}

impl Default for AtWork {
    fn default() -> Self {
        Self { sites: Mutex::default(), nodes: Arc::new(AtomicU32::new(1)) }
    }
}

/// Sites at rest are forgotten beyond so many.
const REMEMBERED: usize = 10_000;

impl AtWork {
    /// So many nodes send now.
    pub fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    pub fn site(&self, rule: SiteRule, now: Instant) -> Arc<Site> {
        let mut sites = self.sites.lock();
        if let Some(known) = sites.get(&rule.name).filter(|known| known.rule == rule) {
            return Arc::clone(known);
        }
        if sites.len() >= REMEMBERED {
            sites.retain(|_, site| !site.is_at_rest());
        }
        let site = Arc::new(Site::new(rule, Arc::clone(&self.nodes), now));
        sites.insert(site.rule.name.clone(), Arc::clone(&site));
        site
    }

    /// Of all sites.
    pub fn take_stale(&self, now: Instant) -> Vec<Conversation> {
        let sites: Vec<Arc<Site>> = self.sites.lock().values().cloned().collect();
        sites.iter().flat_map(|site| site.take_stale(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(connections: u32, messages_per_minute: u32, now: Instant) -> Arc<Site> {
        let rule = SiteRule { connections, messages_per_minute, ..SiteRule::usual("x.test") };
        Arc::new(Site::new(rule, Arc::new(AtomicU32::new(1)), now))
    }

    #[test]
    fn a_site_is_given_no_more_than_it_takes() {
        let now = base::SystemClock.now();
        let site = site(4, 0, now);
        let turns: Vec<_> = (0..4).map(|_| site.try_turn(now).ok().unwrap()).collect();
        assert!(site.try_turn(now).is_err());
        drop(turns);
        // It says it is too much: half as many, after a pause; many at once say it once.
        site.is_too_much(now);
        site.is_too_much(now);
        assert!(site.try_turn(now).is_err());
        let later = now + PAUSE;
        let turns: Vec<_> = (0..2).map(|_| site.try_turn(later).ok().unwrap()).collect();
        assert!(site.try_turn(later).is_err());
        // Message by message it gets more again.
        (0..20).for_each(|_| site.went_well());
        assert_eq!(site.allowed(), 4);
        drop(turns);
        for _ in 0..10 {
            site.is_too_much(later + PAUSE * 100);
        }
        assert_eq!(site.allowed(), 2);
    }

    #[test]
    fn nodes_share_what_a_site_is_given() {
        let now = base::SystemClock.now();
        let at_work = AtWork::default();
        let rule = SiteRule { connections: 6, messages_per_minute: 60, ..SiteRule::usual("x.test") };
        let site = at_work.site(rule, now);
        at_work.set_nodes(3);
        let turns: Vec<_> = (0..2).map(|_| site.try_turn(now).ok().unwrap()).collect();
        assert!(site.try_turn(now).is_err());
        drop(turns);
        at_work.set_nodes(100);
        let turn = site.try_turn(now + Duration::from_secs(60)).ok().unwrap();
        assert!(site.try_turn(now + Duration::from_secs(60)).is_err(), "one at least, and no more");
        drop(turn);
    }

    #[test]
    fn a_rate_is_kept() {
        let begun = base::SystemClock.now();
        let site = site(1000, 60, begun);
        let mut taken = 0;
        for ms in 0..180_000u64 {
            taken += u32::from(site.try_turn(begun + Duration::from_millis(ms)).is_ok());
        }
        // A minute's worth at once, then one a second.
        assert!((238..=240).contains(&taken), "{taken}");
    }

    #[test]
    fn domains_of_a_provider_are_one_site() {
        let sites = Sites::shipped();
        for (host, name) in [
            ("alt1.aspmx.l.google.com", "google"),
            ("gmail-smtp-in.l.google.com", "google"),
            ("example-com.mail.protection.outlook.com", "microsoft"),
            ("mx1.hoster.co.uk", "hoster.co.uk"),
            ("mx2.eu.hoster.co.uk", "hoster.co.uk"),
            ("[192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(sites.rule_for(host).name, name);
        }
    }
}
