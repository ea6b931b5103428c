//! One message to one destination.

use std::sync::Arc;

use bytes::Bytes;
use mail::{Enhanced, Status};
use net::{TlsFacts, TlsTrouble};
use store::{Needs, QueueItem, QueueJob, StoreError};

use crate::client::{Answer, ConnectError, Conversation, Parcel, ParcelRecipient, Target};
use crate::hosts::{Plan, failure};
use crate::outcome::{Conclusion, Outcome};
use crate::site::Site;
use crate::worker::Relay;

/// Where a lane leads.
#[derive(Clone)]
pub(crate) enum Course {
    Local,
    Servers(Arc<Plan>, Arc<Site>),
}

/// What an attempt came to.
pub(crate) struct Attempted {
    pub outcomes: Vec<Outcome>,
    pub done: Done,
}

/// What an attempt says of the lane.
pub(crate) enum Done {
    /// A server answered.
    Reached,
    /// None did.
    Away(Status),
    /// It did not come so far.
    Nothing,
}

/// All of the same item.
pub(crate) async fn run(relay: Arc<Relay>, course: Course, jobs: Vec<QueueJob>) -> Attempted {
    match course {
        Course::Local => deliver_here(&relay, jobs).await,
        Course::Servers(plan, site) => send(&relay, &plan, &site, jobs).await,
    }
}

impl Relay {
    /// A message of the queue as it goes out: the item's own lines, then the content.
    pub(crate) async fn content(&self, item: &QueueItem) -> Result<Vec<Bytes>, StoreError> {
        let content = self.parts.storage.blobs.read(item.blob, 0..u64::MAX).await?;
        Ok(vec![item.prefix.clone(), content])
    }
}

fn later(jobs: Vec<QueueJob>, status: &Status) -> Attempted {
    let deferred =
        |job| Outcome { job, conclusion: Conclusion::Deferred(status.clone()), host: String::new(), tls: None };
    Attempted { outcomes: jobs.into_iter().map(deferred).collect(), done: Done::Nothing }
}

fn unreadable(error: &StoreError) -> Status {
    Status::with_text(451, Enhanced(4, 3, 0), &format!("The message cannot be read: {error}"))
}

async fn deliver_here(relay: &Relay, jobs: Vec<QueueJob>) -> Attempted {
    let Some(first) = jobs.first() else { return Attempted { outcomes: Vec::new(), done: Done::Nothing } };
    let item = Arc::clone(&first.item);
    let _share = relay.memory.take(item.size_bytes).await;
    let content: Bytes = match relay.content(&item).await {
        Ok(pieces) => pieces.concat().into(),
        Err(error) => return later(jobs, &unreadable(&error)),
    };
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        let recipient = &job.recipient.address;
        let status = relay.parts.home.deliver(item.message, &item.sender, recipient, content.clone()).await;
        let conclusion = match (status.is_success(), status.is_permanent()) {
            (true, _) => Conclusion::Delivered { status, tells: false, is_final: true },
            (false, true) => Conclusion::Failed(status),
            (false, false) => Conclusion::Deferred(status),
        };
        outcomes.push(Outcome { job, conclusion, host: String::new(), tls: None });
    }
    Attempted { outcomes, done: Done::Reached }
}

async fn send(relay: &Relay, plan: &Plan, site: &Arc<Site>, jobs: Vec<QueueJob>) -> Attempted {
    let Some(first) = jobs.first() else { return Attempted { outcomes: Vec::new(), done: Done::Nothing } };
    let item = Arc::clone(&first.item);
    let _turn = site.turn(&*relay.parts.clock).await;
    // The semaphore is never closed.
    let _place = relay.attempts.acquire().await;
    let _share = relay.memory.take(item.size_bytes).await;
    let content = match relay.content(&item).await {
        Ok(content) => content,
        Err(error) => return later(jobs, &unreadable(&error)),
    };
    let parcel = Parcel {
        sender: item.sender.clone(),
        recipients: jobs
            .iter()
            .map(|job| ParcelRecipient {
                address: job.recipient.address.clone(),
                original: job.recipient.original.clone(),
                notify: job.recipient.notify,
            })
            .collect(),
        needs: Needs { ..item.needs },
        envelope_id: item.envelope_id.clone(),
        content,
    };
    let now = || relay.parts.clock.now();
    if let Some(mut known) = site.take_idle(|idle| fits(idle, plan), now()) {
        let answers = known.deliver(&parcel).await;
        // A server may close a connection while it waits; what it cannot have is sent again by a new one.
        if known.is_open() || known.may_have_it || answers.iter().any(|answer| answer.status.is_success()) {
            return told(relay, site, known, jobs, answers);
        }
    }
    let mut from = 0;
    loop {
        match connect(relay, plan, site, from).await {
            Ok((at, mut new)) => {
                let answers = new.deliver(&parcel).await;
                from = at + 1;
                // Another server may take it (RFC 5321 §5.1).
                if new.is_unwilling && !new.is_turned_away && from < plan.targets.len() {
                    site.keep(new, now());
                    continue;
                }
                return told(relay, site, new, jobs, answers);
            }
            Err((status, host)) => {
                let deferred = |job| Outcome {
                    job,
                    conclusion: Conclusion::Deferred(status.clone()),
                    host: host.clone(),
                    tls: None,
                };
                return Attempted { outcomes: jobs.into_iter().map(deferred).collect(), done: Done::Away(status) };
            }
        }
    }
}

fn fits(idle: &Conversation, plan: &Plan) -> bool {
    plan.targets.iter().any(|target| {
        let of = &idle.target;
        (of.address, &of.host, &of.protection, of.transport, &of.login)
            == (target.address, &target.host, &target.protection, target.transport, &target.login)
    })
}

/// The first of the servers from `from` on that answers, and its place.
async fn connect(
    relay: &Relay,
    plan: &Plan,
    site: &Site,
    from: usize,
) -> Result<(usize, Conversation), (Status, String)> {
    let mut last = (Status::fixed(451, Enhanced(4, 4, 1), "No server"), String::new());
    for (at, target) in plan.targets.iter().enumerate().skip(from) {
        let host = name_of(target);
        let opened =
            Conversation::open(&relay.connectors, target, &relay.settings.host_name, relay.settings.waits).await;
        tell(relay, plan, target, &opened);
        match opened {
            Ok(conversation) => return Ok((at, conversation)),
            Err(ConnectError::Refused(status)) => {
                site.is_too_much(relay.parts.clock.now());
                let text = format!("The server turned us away: {} {}", status.code(), status.text());
                last = (Status::with_text(451, Enhanced(4, 4, 1), &text), host);
            }
            Err(ConnectError::Unreachable(reason)) => {
                last = (Status::with_text(451, Enhanced(4, 4, 1), &reason), host);
            }
            Err(ConnectError::Tls { reason, .. }) => {
                last = (Status::with_text(451, Enhanced(4, 7, 5), &format!("TLS: {reason}")), host);
            }
        }
    }
    Err(last)
}

/// Notes how TLS went, for a domain that wants to know.
fn tell(relay: &Relay, plan: &Plan, target: &Target, opened: &Result<Conversation, ConnectError>) {
    let Some(reporting) = &plan.reporting else { return };
    let trouble = match opened {
        Ok(conversation) => conversation.trouble.clone(),
        Err(ConnectError::Tls { trouble, reason }) => Some((*trouble, reason.clone())),
        // It did not come so far.
        Err(ConnectError::Refused(_) | ConnectError::Unreachable(_)) => return,
    };
    let word = |trouble: TlsTrouble| match (trouble, reporting.policy) {
        (TlsTrouble::NotOffered, _) => "starttls-not-supported",
        (TlsTrouble::Expired, _) => "certificate-expired",
        (TlsTrouble::WrongName, _) => "certificate-host-mismatch",
        (TlsTrouble::NotTrusted, "tlsa") => "tlsa-invalid",
        (TlsTrouble::NotTrusted, _) => "certificate-not-trusted",
        (TlsTrouble::Other, _) => "validation-failure",
    };
    let failure = trouble.map(|(trouble, reason)| failure(word(trouble), &target.host, Some(target), &reason));
    relay.parts.peers.saw_tls(&reporting.domain, &reporting.seen(failure));
}

fn name_of(target: &Target) -> String {
    format!("{} [{}]:{}", target.host, target.address.ip(), target.address.port())
}

fn told(
    relay: &Relay,
    site: &Arc<Site>,
    conversation: Conversation,
    jobs: Vec<QueueJob>,
    answers: Vec<Answer>,
) -> Attempted {
    let (host, tls): (String, Option<TlsFacts>) = (name_of(&conversation.target), conversation.tls.clone());
    let now = relay.parts.clock.now();
    if conversation.is_turned_away {
        site.is_too_much(now);
    } else if answers.iter().any(|answer| answer.status.is_success()) {
        site.went_well();
    }
    let is_final = conversation.target.transport == crate::client::Transport::Lmtp;
    site.keep(conversation, now);
    let outcomes = jobs.into_iter().zip(answers).map(|(job, Answer { status, tells })| {
        let conclusion = match (status.is_success(), status.is_permanent()) {
            (true, _) => Conclusion::Delivered { status, tells, is_final },
            (false, true) => Conclusion::Failed(status),
            (false, false) => Conclusion::Deferred(status),
        };
        Outcome { job, conclusion, host: host.clone(), tls: tls.clone() }
    });
    Attempted { outcomes: outcomes.collect(), done: Done::Reached }
}
