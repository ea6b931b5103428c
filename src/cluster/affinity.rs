//! Leads sessions to the node where their account belongs, so that what it keeps in memory serves all of them.

use std::sync::Arc;

use base::AccountId;
use tokio::sync::watch;

use crate::handoff::Handoff;
use crate::link::{Link, Links};
use crate::membership::{Membership, View};

/// A session that another node has taken.
pub struct Led {
    pub link: Link,
    pub lost: Lost,
}

/// Tells when the node at the other end is not heard of any more: one that stands still keeps its connections.
pub struct Lost {
    node: String,
    view: watch::Receiver<Arc<View>>,
}

impl Lost {
    /// Until then. Cancel safe. A node that was stopped ends its sessions itself.
    pub async fn wait(&mut self) {
        // After the server was away nobody has been heard of.
        let is_silent = |view: &Arc<View>| {
            view.is_steady && view.members.iter().any(|one| one.name == self.node && one.is_silent())
        };
        if self.view.wait_for(is_silent).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

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
    pub async fn lead(&self, handoff: &Handoff) -> Option<Led> {
        let view = self.membership.view();
        let member = view.elsewhere(handoff.account)?;
        let link = self.links.lead(member, handoff).await?;
        metrics::counter!("ortler_cluster_leads_total").increment(1);
        Some(Led { link, lost: Lost { node: member.name.clone(), view: self.membership.watch() } })
    }
}
