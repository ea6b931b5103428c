//! Leads sessions to the node where their account belongs, so that what it keeps in memory serves all of them.

use std::sync::Arc;

use base::AccountId;

use crate::handoff::Handoff;
use crate::link::{Link, Links};
use crate::membership::Membership;

pub struct Affinity {
    membership: Arc<Membership>,
    links: Arc<Links>,
}

impl Affinity {
    pub const fn new(membership: Arc<Membership>, links: Arc<Links>) -> Self {
        Self { membership, links }
    }

    /// True if the account's sessions belong on this node, or on no better one.
    pub fn is_here(&self, account: AccountId) -> bool {
        self.membership.view().elsewhere(account).is_none()
    }

    /// A connection to the node that has taken the session. `None` if it belongs here, or the other node does not take
    /// it: then it is served here, which is as right.
    pub async fn lead(&self, handoff: &Handoff) -> Option<Link> {
        let view = self.membership.view();
        let link = self.links.lead(view.elsewhere(handoff.account)?, handoff).await?;
        metrics::counter!("ortler_cluster_leads_total").increment(1);
        Some(link)
    }
}
