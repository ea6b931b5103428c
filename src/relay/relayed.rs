//! Domains whose mail goes on to their owners' servers, as the directory has them.

use std::collections::HashMap;
use std::sync::Arc;

use directory::{RelayedDomain, Verify};
use mail::Domain;
use store::Lane;

use crate::routes::{Route, Way};

/// A domain, and the way to its servers.
#[derive(Clone, Debug)]
pub struct Onward {
    pub domain: Domain,
    pub route: Arc<Route>,
    pub verify: Verify,
}

/// By each of their names.
#[derive(Clone, Default, Debug)]
pub struct RelayedDomains(HashMap<String, Arc<Onward>>);

/// Lanes to relayed domains: those that go where the DNS says have the domain's name alone.
const TO: &str = ":to:";

impl Onward {
    pub fn lane(&self) -> Lane {
        format!("{TO}{}", self.domain).into()
    }
}

impl RelayedDomains {
    pub fn new(domains: Vec<RelayedDomain>) -> Self {
        let mut all = HashMap::new();
        for RelayedDomain { name, aliases, relay } in domains {
            let route = Arc::new(Route::of_domain(&name, &relay));
            let onward = Arc::new(Onward { domain: name.clone(), route, verify: relay.verify });
            for name in aliases.iter().chain([&name]) {
                all.insert(name.as_str().to_owned(), Arc::clone(&onward));
            }
        }
        Self(all)
    }

    /// The domain of this name, or that it is a further name of.
    pub fn of(&self, domain: &str) -> Option<&Arc<Onward>> {
        self.0.get(domain)
    }

    /// Where a lane leads; `None`: it is none of theirs.
    pub(crate) fn way(&self, lane: &str) -> Option<Way> {
        let name = lane.strip_prefix(TO)?;
        Some(self.of(name).map_or_else(|| Way::Gone(name.to_owned()), |onward| Way::Via(Arc::clone(&onward.route))))
    }
}
