//! What is told to domains about mail in their name, and what they tell us.

use base::event;
use filter::{Judgement, Source};
use mail::{ForwardPath, ReversePath};
use mailauth::{AuthResult, DmarcPolicy, SpfIdentity};
use peers::{DmarcSeen, Signature};
use policy::Disposition;

use crate::intake::{Destination, Incoming, Intake};

/// Signatures told of one message.
const SIGNATURES_MAX: usize = 10;

impl Intake {
    /// Counts a message for the daily report to its author's domain, if that asks for one (RFC 9990).
    pub(crate) fn saw(&self, incoming: &Incoming<'_>, judgement: &Judgement, done: Done) {
        let Source::Client { ip, helo, .. } = &incoming.source else { return };
        let Some(auth) = judgement.auth.as_ref().filter(|auth| auth.dmarc.wants_reports) else { return };
        let dmarc = &auth.dmarc;
        let disposition = match (dmarc.result, done) {
            (AuthResult::Pass, _) => "pass",
            (_, Done::Taken) => "none",
            (_, Done::Apart) => "quarantine",
            (_, Done::Refused) => "reject",
        };
        let asked = if dmarc.result == AuthResult::Fail { dmarc.policy } else { DmarcPolicy::None };
        let is_as_asked = dmarc.result == AuthResult::Pass || disposition == asked.as_str();
        let overridden = match (is_as_asked, auth.is_vouched) {
            (true, _) => "",
            (false, true) => "trusted_forwarder",
            (false, false) => "local_policy",
        };
        let envelope_from = match &incoming.envelope.reverse_path {
            ReversePath::Address(address) => address.domain.to_string(),
            ReversePath::Null => String::new(),
        };
        let signature = |one: &mailauth::DkimOutcome| Signature {
            domain: one.domain.clone(),
            selector: one.selector.clone(),
            result: one.result.as_str().to_owned(),
        };
        let spf = auth.spf.as_ref();
        let seen = DmarcSeen {
            ip: *ip,
            disposition: disposition.to_owned(),
            overridden: overridden.to_owned(),
            dkim: dmarc.dkim,
            spf: dmarc.spf,
            envelope_from,
            signatures: auth.dkim.iter().take(SIGNATURES_MAX).map(signature).collect(),
            spf_domain: spf.map_or_else(|| helo.clone(), |spf| spf.domain.clone()),
            spf_helo: spf.is_some_and(|spf| spf.identity == SpfIdentity::Helo),
            spf_result: spf.map_or("none", |spf| spf.result.as_str()).to_owned(),
        };
        self.parts.peers.saw_dmarc(&dmarc.domain, &seen);
    }

    /// Hands on what came to an address where reports of others arrive. It is in its mailbox, whatever is read of it.
    pub(crate) fn pass_on_reports(&self, incoming: &Incoming<'_>) {
        let Some(reports) = &self.parts.reports else { return };
        let is_wanted = |path: &ForwardPath| {
            let address = path.to_string().to_lowercase();
            self.parts.report_addresses.contains(&address)
        };
        if incoming.envelope.forward_paths.iter().any(is_wanted) && reports.try_send(incoming.content.clone()).is_err()
        {
            tracing::warn!(event = event::REPORT_FAILED, queue_id = %incoming.id, next_step = "ortler reports read");
        }
    }
}

/// What became of a message, for its author's domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    Taken,
    /// In quarantine, or with the junk, for somebody.
    Apart,
    Refused,
}

impl Done {
    pub(crate) fn of(destinations: &[Destination]) -> Self {
        let is = |wanted: fn(&Disposition) -> bool| destinations.iter().any(|one| wanted(&one.disposition));
        if is(|done| matches!(done, Disposition::Quarantine | Disposition::Junk)) {
            Self::Apart
        } else if !destinations.iter().any(Destination::gets_it) && is(|done| matches!(done, Disposition::Reject(_))) {
            Self::Refused
        } else {
            Self::Taken
        }
    }
}
