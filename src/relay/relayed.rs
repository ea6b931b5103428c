//! Domains whose mail goes on to their owners' servers, as the directory has them.

use std::collections::HashMap;
use std::sync::Arc;

use directory::{RelayedDomain, Verify};
use mail::Domain;
use store::Lane;

use crate::routes::Route;

/// A domain, and the way to its servers.
#[derive(Clone, Debug)]
pub struct Onward {
    pub domain: Domain,
    pub route: Route,
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
            let route = Route::of_domain(&name, &relay);
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

    /// Where a lane leads; `None`: it is none of theirs. A domain that is no longer relayed is an error, with its name.
    pub(crate) fn way<'a>(&self, lane: &'a str) -> Option<Result<&Arc<Onward>, &'a str>> {
        let name = lane.strip_prefix(TO)?;
        Some(self.0.get(name).ok_or(name))
    }
}
