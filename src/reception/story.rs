//! What the trail is told.

use base::{AccountId, MessageId, SessionId, UtcMillis};
use directory::{Account, Recipient};
use filter::{Country, Judgement};
use mail::{Address, ForwardPath, ReversePath, Status};
use policy::{Decision, Disposition, Finding};
use serde_json::{Value, json};
use trail::{Event, Kind, Outcome, Party, Trail};

/// Writes the events of one message.
pub struct Story<'a> {
    pub trail: &'a Trail,
    pub session: Option<SessionId>,
    pub message: MessageId,
    pub at: UtcMillis,
}

/// Findings told of one message: the heaviest.
const FINDINGS_MAX: usize = 40;

impl Story<'_> {
    fn event(&self, kind: Kind) -> Event {
        let event = Event::new(self.at, kind).message(self.message);
        match self.session {
            Some(session) => event.session(session),
            None => event,
        }
    }

    /// `client`: its address, empty if it has none; `country`: where that is.
    pub fn started(
        &self,
        from: &ReversePath,
        client: &str,
        country: Option<Country>,
        helo: &str,
        sender: Option<Party>,
    ) {
        let mut event = self.event(Kind::Started).field("from", from.to_string()).field("client", client);
        if let Some(country) = country {
            event = event.field("country", country.as_str());
        }
        if !helo.is_empty() {
            event = event.field("helo", helo);
        }
        self.trail.record(match sender {
            Some(party) => event.party(party),
            None => event,
        });
    }

    /// The sender was refused at MAIL: there will be no message.
    pub fn sender_refused(&self, status: &Status) {
        let kind = if status.is_transient() { Kind::Deferred } else { Kind::Refused };
        self.trail.record(self.event(kind).field("status", status.to_string()).field("stage", "mail"));
    }

    pub fn recipient_accepted(&self, path: &ForwardPath) {
        self.trail.record(self.event(Kind::RecipientAccepted).field("recipient", path.to_string()));
    }

    pub fn recipient_refused(&self, path: &ForwardPath, status: &Status) {
        let outcome = if status.is_transient() { Outcome::Deferred } else { Outcome::Refused };
        let party = Party { address: path.to_string(), account: None, is_recipient: true, outcome: Some(outcome) };
        self.trail.record(self.event(Kind::RecipientRefused).party(party).field("status", status.to_string()));
    }

    pub fn judged(&self, judgement: &Judgement, subject: &str, author: &str, size: usize, took_ms: u64) {
        let mut findings: Vec<_> = judgement.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.score.0.unsigned_abs()));
        let told: Vec<Value> = findings.into_iter().take(FINDINGS_MAX).map(told).collect();
        let event = self
            .event(Kind::Judged)
            .field("facts", policy::record(&judgement.facts()))
            .field("subject", subject)
            .field("header_from", author)
            .field("size", size)
            .field("score", judgement.score.0)
            .field("verdict", judgement.verdict.as_str())
            .field("took_ms", took_ms)
            .field("findings", told);
        self.trail.record(match judgement.virus_name() {
            Some(virus) => event.field("virus", virus.to_string()),
            None => event,
        });
    }

    /// `own`: what this recipient's account alone sees in the message.
    pub fn decided<'f>(
        &self,
        recipient: &Recipient,
        decision: &Decision,
        done: &Disposition,
        own: impl Iterator<Item = &'f Finding>,
    ) {
        let own: Vec<Value> = own.map(told).collect();
        let mut event = self
            .event(Kind::Decided)
            .party(party(recipient, None))
            .field("disposition", done.as_str())
            .field("decided_by", decision.cause.to_string())
            .field("score", decision.score.0);
        if !own.is_empty() {
            event = event.field("findings", own);
        }
        self.trail.record(event);
    }

    pub fn delivered(&self, recipient: &Recipient, outcome: Outcome, mailbox: &str, uid: u32) {
        let event = self.event(Kind::Delivered).party(party(recipient, Some(outcome)));
        self.trail.record(event.field("mailbox", mailbox).field("uid", uid));
    }

    /// Kept back, under this number.
    pub fn held(&self, recipient: &Recipient, held: u64) {
        let event = self.event(Kind::Delivered).party(party(recipient, Some(Outcome::Quarantined)));
        self.trail.record(event.field("mailbox", "quarantine").field("held", held));
    }

    /// The old server `server` has taken it.
    pub fn handed_over(&self, recipient: &Recipient, outcome: Outcome, server: &str, said: &Status) {
        let event = self.event(Kind::Delivered).party(party(recipient, Some(outcome)));
        self.trail.record(event.field("mailbox", server).field("legacy", server).field("said", said.to_string()));
    }

    /// The message is not ours: refused or deferred, for this recipient.
    pub fn turned_away(&self, recipient: &Recipient, status: &Status) {
        let (kind, outcome) = match status.is_transient() {
            true => (Kind::Deferred, Outcome::Deferred),
            false => (Kind::Refused, Outcome::Refused),
        };
        self.trail.record(self.event(kind).party(party(recipient, Some(outcome))).field("status", status.to_string()));
    }

    /// The same for a recipient elsewhere.
    pub fn turned_away_elsewhere(&self, address: &Address, status: &Status) {
        let (kind, outcome) = match status.is_transient() {
            true => (Kind::Deferred, Outcome::Deferred),
            false => (Kind::Refused, Outcome::Refused),
        };
        self.trail.record(self.event(kind).party(elsewhere(address, outcome)).field("status", status.to_string()));
    }

    /// It waits in the queue for a recipient elsewhere; `held`: until somebody releases it.
    pub fn queued(&self, address: &Address, account: Option<AccountId>, lane: &str, held: Option<&str>) {
        let party = Party { account, ..elsewhere(address, Outcome::Deferred) };
        let event = self.event(Kind::Queued).party(party).field("lane", lane);
        self.trail.record(match held {
            Some(reason) => event.field("held", reason),
            None => event,
        });
    }

    /// The account may send no more; the message shows why.
    pub fn sending_locked(&self, account: &Account, reason: &str) {
        let (address, account) = (account.address.to_string(), Some(account.id));
        let party = Party { address, account, is_recipient: false, outcome: None };
        self.trail.record(self.event(Kind::SendingLocked).party(party).field("reason", reason));
    }

    pub fn abandoned(&self, reason: &Status) {
        self.trail.record(self.event(Kind::Abandoned).field("status", reason.to_string()));
    }
}

fn told(finding: &Finding) -> Value {
    json!({
        "name": &*finding.name,
        "stage": finding.stage.as_str(),
        "score": finding.score.0,
        "class": finding.class.as_str(),
        "description": &*finding.description,
        "evidence": finding.evidence,
    })
}

fn elsewhere(address: &Address, outcome: Outcome) -> Party {
    Party { address: address.to_string(), account: None, is_recipient: true, outcome: Some(outcome) }
}

fn party(recipient: &Recipient, outcome: Option<Outcome>) -> Party {
    Party { address: recipient.address.to_string(), account: Some(recipient.account), is_recipient: true, outcome }
}
