//! From a whole message to what is answered for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ByteSize, Clock, IdSource, MessageId, Quota, SessionId, event};
use bytes::Bytes;
use classifier::Classifier;
use directory::{Directory, Recipient, Resolution};
use filter::headers::{Keeps, without_own_fields};
use filter::{Filter, Judgement, Source, Stages};
use layers::Layers;
use mail::mime::Summary;
use mail::{Address, Enhanced, Envelope, ForwardPath, Status};
use mailauth::Resolver;
use moka::sync::Cache;
use net::{MemoryBudget, SpoolSettings};
use peers::Peers;
use policy::option::{Forwarding, PlusAddressing};
use policy::{Decision, Disposition, EffectivePolicy, Finding};
use relay::{CallAhead, Outgoing, Srs};
use reputation::Reputation;
use store::{
    AppendError, Committed, Delivery, Flags, HeldFacts, HeldId, MailboxName, NewHeld, Role, Storage, StoreError,
    StoredBlob, Target,
};
use tokio::sync::mpsc;
use trail::{Outcome, Trail};

use crate::content;
use crate::handover::{Handed, Handover};
use crate::judging::Unasked;
use crate::leaving::Leaving;
use crate::onward;
use crate::received::{self, Way};
use crate::seen::Done;
use crate::story::Story;

/// What the flow is built from.
pub struct IntakeParts {
    pub host_name: String,
    pub directory: Arc<dyn Directory>,
    pub storage: Arc<Storage>,
    /// The way to old servers.
    pub legacy: Arc<legacy::Gateway>,
    pub filter: Arc<Filter>,
    /// What each recipient's policy is.
    pub layers: Arc<Layers>,
    /// For the reverse-paths of what is forwarded.
    pub srs: Srs,
    pub classifier: Arc<Classifier>,
    pub reputation: Arc<Reputation>,
    /// What own users may send.
    pub limits: SendingLimits,
    /// Is told what was seen of other systems.
    pub peers: Arc<Peers>,
    /// Takes messages that came to `report_addresses`; `None`: they are only delivered.
    pub reports: Option<mpsc::Sender<Bytes>>,
    /// Lower case.
    pub report_addresses: Vec<String>,
    /// The way out.
    pub outgoing: Arc<Outgoing>,
    /// Asks servers of relayed domains which addresses they have.
    pub call_ahead: CallAhead,
    /// For seals; `None`: nothing is sealed.
    pub resolver: Option<Resolver>,
    /// Takes messages to learn without anybody's word; `None`: none are.
    pub lessons: Option<mpsc::Sender<Unasked>>,
    /// Mail that the filter sees; the rest is delivered as it is.
    pub judged: Judged,
    pub trail: Arc<Trail>,
    pub spool: Arc<SpoolSettings>,
    pub budget: MemoryBudget,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<IdSource>,
}

/// Recipients that own users may write to; `None`: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendingLimits {
    /// One account within an hour, and within a day.
    pub account_hour: Option<u64>,
    pub account_day: Option<u64>,
    /// All accounts of a domain within an hour.
    pub domain_hour: Option<u64>,
}

/// Mail that is judged, by the way it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    pub lmtp: bool,
    pub smtp: bool,
    pub submission: bool,
}

impl Judged {
    pub const ALL: Self = Self { lmtp: true, smtp: true, submission: true };

    pub(crate) fn holds_session(self, protocol: smtp::Protocol) -> bool {
        match protocol {
            smtp::Protocol::Smtp => self.smtp,
            smtp::Protocol::Submission => self.submission,
            smtp::Protocol::Lmtp => self.lmtp,
        }
    }

    pub(crate) fn holds(self, source: &Source) -> bool {
        match source {
            Source::Client { .. } => self.smtp,
            Source::Submitter { .. } => self.submission,
            Source::Relay => self.lmtp,
            Source::File => true,
        }
    }
}

/// The flow of messages into mailboxes.
pub struct Intake {
    pub(crate) parts: IntakeParts,
    /// Accounts found to have much room a moment ago: a burst of mail to one does not ask for each message.
    roomy: Cache<AccountId, ()>,
    pub(crate) handed: Handed,
}

/// One message with all that is known of it.
pub(crate) struct Incoming<'a> {
    pub id: MessageId,
    pub session: Option<SessionId>,
    pub way: Way<'a>,
    pub source: Source,
    /// Our own user who sends it.
    pub submitter: Option<Submitter>,
    pub envelope: Envelope,
    pub content: Bytes,
    /// Answer for each recipient, not for all at once: LMTP and our own webmail.
    pub answers_each: bool,
}

/// Our own user who sends.
#[derive(Clone, Debug)]
pub(crate) struct Submitter {
    pub account: AccountId,
    /// Of the client, if it says where its user is.
    pub ip: Option<IpAddr>,
}

/// Where a recipient of the envelope leads.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// To accounts of ours; to none, if a milter took it away.
    Here(Vec<Recipient>),
    /// To another system, by the queue.
    Elsewhere(Address),
}

impl Resolved {
    pub(crate) fn here(&self) -> &[Recipient] {
        match self {
            Self::Here(recipients) => recipients,
            Self::Elsewhere(_) => &[],
        }
    }
}

/// One copy to make.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Account(Recipient),
    Elsewhere(Address),
}

/// One copy of a message, and what is done with it. A recipient of the envelope may lead to several.
pub(crate) struct Destination {
    /// The recipient of the envelope, by its place there.
    pub at: usize,
    pub to: To,
    pub policy: Arc<EffectivePolicy>,
    /// What this account alone sees in the message.
    pub own: Vec<Finding>,
    pub decision: Decision,
    pub disposition: Disposition,
}

/// All copies of a message.
pub(crate) struct Destinations {
    pub all: Vec<Destination>,
    /// Recipients of the envelope that lead to an account which gets the message already, with the recipient by which it
    /// does: one copy, one answer.
    pub shared: Vec<(usize, usize)>,
}

impl Destination {
    pub(crate) fn account(&self) -> Option<AccountId> {
        match &self.to {
            To::Account(recipient) => Some(recipient.account),
            To::Elsewhere(_) => None,
        }
    }

    /// The copy that this recipient would get. Addresses that are in no directory may share an account; each gets its own.
    fn is_for(&self, recipient: &Recipient) -> bool {
        matches!(&self.to, To::Account(known) if known.account == recipient.account && known.address == recipient.address)
    }

    pub(crate) fn gets_it(&self) -> bool {
        match self.disposition {
            Disposition::Deliver | Disposition::DeliverTagged { .. } | Disposition::Junk | Disposition::Quarantine => {
                true
            }
            Disposition::Reject(_) | Disposition::Defer(_) => false,
        }
    }
}

pub(crate) const UNKNOWN: Status = Status::fixed(550, Enhanced(5, 1, 1), "No such recipient here");
pub(crate) const RELAY: Status = Status::fixed(554, Enhanced(5, 7, 1), "Relay access denied");
pub(crate) const UNAVAILABLE: Status = Status::fixed(451, Enhanced(4, 3, 0), "Temporary failure, try again later");
pub(crate) const FULL: Status = Status::fixed(452, Enhanced(4, 3, 1), "Insufficient storage, try again later");
/// Characters of a field that are kept for lists.
pub(crate) const TEXT_MAX: usize = 300;
/// Accounts of one message of whom it is asked what they taught, and whom they know.
pub(crate) const ASKED_MAX: usize = 200;
const LOOP: Status = Status::fixed(554, Enhanced(5, 4, 6), "Message refused: it runs in a circle");
const OVER_QUOTA: Status = Status::fixed(452, Enhanced(4, 2, 2), "The mailbox is full, try again later");

/// Messages up to this size are summed up on the spot; larger ones where work may block.
const INLINE_MAX: usize = 256 * 1024;

const ROOMY_MAX: u64 = 100_000;
const ROOMY_SIZE: ByteSize = ByteSize::mib(256);
const ROOMY_MESSAGES: u64 = 2000;
const ROOMY_FOR: Duration = Duration::from_secs(2);

impl Intake {
    pub fn new(parts: IntakeParts) -> Self {
        let roomy = Cache::builder().max_capacity(ROOMY_MAX).time_to_live(ROOMY_FOR).build();
        Self { parts, roomy, handed: Handed::default() }
    }

    /// Where a recipient leads, or why it is refused.
    pub(crate) async fn resolve(&self, path: &ForwardPath, is_own_user: bool) -> Result<Resolved, Status> {
        match self.parts.directory.resolve(path).await {
            Ok(Resolution::Local(recipients)) => {
                let recipients = self.verified(path, recipients).await?;
                self.with_details(recipients).await.map(Resolved::Here)
            }
            Ok(Resolution::UnknownAddress) => match self.bounced(path) {
                Some(home) => Ok(Resolved::Elsewhere(home)),
                None => self.unlisted(path).await.map(Resolved::Here),
            },
            Ok(Resolution::ForeignDomain) => match path {
                ForwardPath::Address(address)
                    if is_own_user || self.parts.outgoing.routes.load().accepts(&address.to_string()) =>
                {
                    Ok(Resolved::Elsewhere(address.clone()))
                }
                ForwardPath::Address(_) | ForwardPath::Postmaster => Err(RELAY),
            },
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, what = "directory", %error);
                Err(UNAVAILABLE)
            }
        }
    }

    /// Where a bounce of what we forwarded leads back to.
    fn bounced(&self, path: &ForwardPath) -> Option<Address> {
        let ForwardPath::Address(address) = path else { return None };
        self.parts.srs.restore(address, self.parts.clock.utc())
    }

    /// Without those who have no addresses with a detail; what one means in a relayed domain its own server knows.
    async fn with_details(&self, mut recipients: Vec<Recipient>) -> Result<Vec<Recipient>, Status> {
        for at in (0..recipients.len()).rev() {
            let has_detail = |one: &&Recipient| one.detail.is_some() && self.onward(one).is_none();
            let Some(recipient) = recipients.get(at).filter(has_detail) else { continue };
            if self.policy_at(recipient.position).await?.plus_addressing() == PlusAddressing::Off {
                recipients.remove(at);
            }
        }
        if recipients.is_empty() { Err(UNKNOWN) } else { Ok(recipients) }
    }

    /// The policy of what is there.
    pub(crate) async fn policy_at(&self, position: access::Position) -> Result<Arc<EffectivePolicy>, Status> {
        self.parts.layers.effective(position).await.map_err(|error| {
            tracing::error!(event = event::STORE_FAILED, what = "policy", %error);
            UNAVAILABLE
        })
    }

    /// The copies that the recipients of the envelope lead to; nothing is decided yet.
    async fn destinations(&self, resolved: Vec<Resolved>, first: usize) -> Result<Destinations, Status> {
        let mut out = Destinations { all: Vec::new(), shared: Vec::new() };
        for (at, resolved) in (first..).zip(resolved) {
            let copies: Vec<To> = match resolved {
                Resolved::Here(recipients) => recipients.into_iter().map(To::Account).collect(),
                Resolved::Elsewhere(address) => vec![To::Elsewhere(address)],
            };
            for to in copies {
                let position = match &to {
                    To::Account(recipient) => {
                        let known = out.all.iter().find(|one| one.is_for(recipient));
                        if let Some(known) = known.map(|known| known.at) {
                            out.shared.push((at, known));
                            continue;
                        }
                        recipient.position
                    }
                    To::Elsewhere(_) => access::Position::SYSTEM,
                };
                let policy = self.policy_at(position).await?;
                let (decision, disposition) = (Decision::NONE, Disposition::Deliver);
                out.all.push(Destination { at, to, policy, own: Vec::new(), decision, disposition });
            }
        }
        Ok(out)
    }

    /// Refuses recipients whose mailbox is known to be full, before their message is sent. An old server knows its own.
    pub(crate) async fn room_for(&self, recipients: &[Recipient]) -> Result<(), Status> {
        for recipient in recipients.iter().filter(|recipient| recipient.legacy.is_none()) {
            if self.roomy.contains_key(&recipient.account) {
                continue;
            }
            let usage = self.parts.storage.mail.usage(recipient.account).await.map_err(|error| {
                tracing::error!(event = event::STORE_FAILED, what = "usage", %error);
                UNAVAILABLE
            })?;
            if !usage.has_room(ByteSize(1)) {
                return Err(OVER_QUOTA);
            }
            let Quota { size, messages } = usage.quota;
            if size.is_none_or(|limit| limit.0.saturating_sub(usage.size.0) >= ROOMY_SIZE.0)
                && messages.is_none_or(|limit| limit.saturating_sub(usage.messages) >= ROOMY_MESSAGES)
            {
                self.roomy.insert(recipient.account, ());
            }
        }
        Ok(())
    }

    /// Judges, decides, commits; `stages` followed the session that it came by. One status for each recipient of the
    /// envelope, in order; where the protocol has one answer for all, they are all the same.
    pub(crate) async fn accept(&self, incoming: Incoming<'_>, stages: Option<&mut Stages>) -> Vec<Status> {
        let count = incoming.envelope.forward_paths.len();
        let story = Story {
            trail: &self.parts.trail,
            session: incoming.session,
            message: incoming.id,
            at: self.parts.clock.utc(),
        };
        let mut resolved = Vec::with_capacity(count);
        for path in &incoming.envelope.forward_paths {
            // Known a moment ago, at RCPT: what is gone by now is asked to come again and is refused there.
            match self.resolve(path, incoming.source.is_outbound()).await {
                Ok(found) => resolved.push(found),
                Err(_gone) => return vec![UNAVAILABLE; count],
            }
        }
        let mut destinations = match self.destinations(resolved, 0).await {
            Ok(destinations) => destinations,
            Err(status) => return vec![status; count],
        };
        if content::hops(&incoming.content) > content::HOPS_MAX {
            return turn_away(&story, &destinations, count, &LOOP);
        }
        let (mut judgement, took) = self.judge(&incoming, stages, &story).await;
        let watched = self.watch(&incoming, &mut judgement).await;
        self.tell_judgement(&incoming, &judgement, took, &story);
        if let (Some(watched), Some(submitter)) = (&watched, &incoming.submitter)
            && let Some(status) = self.refuse_sending(watched, submitter, &story).await
        {
            return turn_away(&story, &destinations, count, &status);
        }
        self.ask_own_lessons(&judgement, &mut destinations.all).await;
        self.ask_contacts(&judgement, &mut destinations.all).await;
        if let Err(status) = self.decide(&incoming, &judgement, &mut destinations.all) {
            if status.is_permanent() {
                self.saw(&incoming, &judgement, Done::Refused);
            }
            return turn_away(&story, &destinations, count, &status);
        }
        if let Some(watched) = &watched {
            Self::hold(watched, &mut destinations.all);
        }
        self.change_recipients(&incoming, &judgement, &mut destinations, &story).await;
        let mut statuses = self.commit(&incoming, &judgement, &destinations, &story).await;
        // The sender does not know of recipients that a milter added.
        for status in statuses.split_off(count.min(statuses.len())).iter().filter(|status| !status.is_success()) {
            tracing::warn!(event = event::RECIPIENT_REFUSED, queue_id = %incoming.id, added_by = "milter", %status);
        }
        if let Some(watched) = watched.filter(|_| statuses.iter().any(Status::is_success)) {
            self.sent(&watched);
        }
        if statuses.iter().all(|status| !status.is_transient()) {
            self.saw(&incoming, &judgement, Done::of(&destinations.all));
        }
        if statuses.iter().any(Status::is_success) {
            self.pass_on_reports(&incoming);
        }
        if incoming.answers_each { statuses } else { unanimous(statuses) }
    }

    /// Carries out what milters want of the recipients. Whom they remove gets nothing, as long as somebody does: a
    /// message that nobody would have goes into quarantine.
    async fn change_recipients(
        &self,
        incoming: &Incoming<'_>,
        judgement: &Judgement,
        destinations: &mut Destinations,
        story: &Story<'_>,
    ) {
        let mut added = Vec::new();
        let mut next = incoming.envelope.forward_paths.len();
        for address in &judgement.added {
            let path = ForwardPath::Address(address.clone());
            let found = match self.resolve(&path, incoming.source.is_outbound()).await {
                Ok(to) => self.destinations(vec![to], next).await,
                Err(status) => Err(status),
            };
            match found {
                Ok(found) => {
                    next += 1;
                    let known = |one: &Destination| {
                        one.account().is_some() && destinations.all.iter().any(|known| known.account() == one.account())
                    };
                    for mut one in found.all.into_iter().filter(|one| !known(one)) {
                        one.decision = policy::decide(&one.policy, &judgement.facts());
                        one.disposition = one.decision.disposition.clone();
                        added.push(one);
                    }
                }
                Err(status) => {
                    story.recipient_refused(&path, &status);
                    tracing::warn!(event = event::RECIPIENT_REFUSED, queue_id = %incoming.id, added_by = "milter", %status);
                }
            }
        }
        let is_removed = |at: usize| judgement.removed.contains(&at);
        let stays = destinations.all.iter().filter(|one| !is_removed(one.at));
        if stays.chain(&added).any(Destination::gets_it) {
            destinations.all.retain(|one| !is_removed(one.at));
        } else {
            for one in destinations.all.iter_mut().filter(|one| is_removed(one.at) && one.gets_it()) {
                one.disposition = Disposition::Quarantine;
            }
        }
        destinations.all.append(&mut added);
    }

    /// Old servers first: only their word makes a success. Then content, then the entries; only their proof makes one.
    async fn commit(
        &self,
        incoming: &Incoming<'_>,
        judgement: &Judgement,
        destinations: &Destinations,
        story: &Story<'_>,
    ) -> Vec<Status> {
        let host_name = &self.parts.host_name;
        let paths = &incoming.envelope.forward_paths;
        let mut front = received::field(&incoming.way, host_name, incoming.id, paths, story.at);
        if let Some(auth) = &judgement.auth {
            front.insert_str(0, &mailauth::authentication_results(host_name, auth));
        }
        let kept = match &judgement.edited {
            Some(edited) => edited.clone(),
            None => {
                // What hands over by LMTP without being judged is trusted to have judged.
                let is_trusted = incoming.source == Source::Relay && !self.parts.judged.lmtp;
                let keeps = if is_trusted { Keeps::Verdict } else { Keeps::Nothing };
                without_own_fields(&incoming.content, host_name, keeps)
            }
        };
        // RFC 6409 §8.
        let kept = if incoming.source.is_outbound() { content::without_bcc(&kept) } else { kept };
        if incoming.source.is_outbound() {
            front.push_str(&content::missing_fields(&kept, incoming.id, host_name, story.at));
        }
        let whole = Bytes::from([front.as_bytes(), kept.as_ref()].concat());
        drop(kept);
        let mut variants = Variants { plain: None, tagged: None };
        let mut plan: Vec<(&Destination, &Recipient)> = Vec::new();
        let mut deliveries: Vec<Delivery> = Vec::new();
        let mut keeping: Vec<(&Destination, &Recipient)> = Vec::new();
        let mut held: Vec<NewHeld> = Vec::new();
        let mut handovers: Vec<Handover<'_>> = Vec::new();
        let mut leaving: Vec<Leaving> = Vec::new();
        let last = destinations.all.iter().map(|one| one.at + 1).max().unwrap_or(0);
        let mut statuses: Vec<Option<Status>> = vec![None; last.max(paths.len())];
        for destination in &destinations.all {
            let at = destination.at;
            let (role, tag) = match &destination.disposition {
                Disposition::Deliver => (Role::Inbox, None),
                Disposition::DeliverTagged { subject_tag } => (Role::Inbox, subject_tag.clone()),
                Disposition::Junk => (Role::Junk, None),
                Disposition::Quarantine => (Role::Quarantine, None),
                Disposition::Reject(status) | Disposition::Defer(status) => {
                    match &destination.to {
                        To::Account(recipient) => story.turned_away(recipient, status),
                        To::Elsewhere(address) => story.turned_away_elsewhere(address, status),
                    }
                    settle(&mut statuses, at, status.clone());
                    continue;
                }
            };
            let recipient = match &destination.to {
                To::Account(recipient) => recipient,
                To::Elsewhere(address) => {
                    let outbound = incoming.source.is_outbound();
                    let spam =
                        if outbound { String::new() } else { self.spam_fields(incoming, judgement, destination) };
                    let held = (role == Role::Quarantine).then(|| destination.decision.cause.to_string());
                    // What our own users send goes out as they wrote it.
                    let tag = tag.filter(|_| !outbound);
                    let copy = Leaving { spam, tag, held, ..Leaving::new(at, address.clone()) };
                    leaving.push(copy);
                    continue;
                }
            };
            if let (Some(_), Role::Inbox, Some(ForwardPath::Address(address))) =
                (incoming.envelope.wishes.hold, role, paths.get(at))
            {
                let spam = String::new();
                leaving.push(Leaving { spam, tag, is_here: true, ..Leaving::new(at, address.clone()) });
                continue;
            }
            story.decided(recipient, &destination.decision, &destination.disposition, destination.own.iter());
            let spam = || self.spam_fields(incoming, judgement, destination);
            if role == Role::Inbox {
                let goes_on = self.forwards(incoming, destination, recipient).await;
                for (address, is_here) in goes_on {
                    let sender = if is_here { None } else { self.forwarding_sender(incoming, recipient, story) };
                    let spam = format!("Delivered-To: {}\r\n{}", recipient.address, spam());
                    leaving.push(Leaving {
                        spam,
                        tag: tag.clone(),
                        is_here,
                        sender,
                        ..Leaving::new(at, address.clone())
                    });
                }
                if !recipient.keeps && leaving.iter().any(|one| one.at == at) {
                    continue;
                }
            }
            if role != Role::Quarantine && self.onward(recipient).is_some() {
                let account = Some(recipient.account);
                let tells_sender = incoming.source.is_outbound() || onward::tells_sender(judgement);
                let copy = Leaving::new(at, onward::own_address(recipient));
                leaving.push(Leaving { spam: spam(), tag: tag.clone(), account, tells_sender, ..copy });
                continue;
            }
            // What is in quarantine waits here, also for those who are not here yet.
            if let Some(server) = recipient.legacy.as_deref().filter(|_| role != Role::Quarantine) {
                let is_junk = role == Role::Junk;
                handovers.push(Handover { at, recipient, server, spam: spam(), tag: tag.clone(), is_junk });
                continue;
            }
            let (blob, summary) = match variants.get(&self.parts.storage, &whole, tag.as_deref()).await {
                Ok(variant) => variant,
                Err(error) => return vec![self.failed(&error, incoming.id); statuses.len()],
            };
            let prefix = self.prefix(incoming, judgement, destination, recipient);
            if role == Role::Quarantine {
                keeping.push((destination, recipient));
                held.push(self.to_hold(incoming, destination, recipient, (blob, prefix, summary), story));
                continue;
            }
            let folder = recipient.detail.as_deref().filter(|_| role == Role::Inbox);
            let folder = folder.filter(|_| destination.policy.plus_addressing() == PlusAddressing::Folder);
            let target = match folder.map(str::parse::<MailboxName>) {
                Some(Ok(name)) => Target::Named(name),
                Some(Err(_)) | None => Target::Role(role),
            };
            plan.push((destination, recipient));
            deliveries.push(Delivery {
                account: recipient.account,
                message: incoming.id,
                target,
                blob,
                prefix,
                summary,
                flags: Flags::default(),
                received_at: story.at,
            });
        }
        let handed = self.hand_over(incoming, &handovers, &whole, story).await;
        for (handover, status) in handovers.iter().zip(&handed) {
            settle(&mut statuses, handover.at, status.clone());
        }
        // One answer for all: what failed there comes again, and so does what could be delivered here.
        if !incoming.answers_each && statuses.iter().flatten().any(|status| !status.is_success()) {
            deliveries.clear();
            held.clear();
            plan.drain(..).chain(keeping.drain(..)).for_each(|(one, _)| settle(&mut statuses, one.at, UNAVAILABLE));
        }
        let outcomes = self.parts.storage.mail.deliver(deliveries).await;
        let mut delivered: Vec<usize> = Vec::new();
        for ((destination, recipient), outcome) in plan.iter().zip(outcomes) {
            let status = self.answer(incoming.id, recipient, destination, outcome, story);
            if status.is_success() && !delivered.contains(&destination.at) {
                delivered.push(destination.at);
            }
            settle(&mut statuses, destination.at, status);
        }
        let outcomes = self.parts.storage.held.hold(held).await;
        for ((destination, recipient), outcome) in keeping.iter().zip(outcomes) {
            let status = self.answer_held(incoming.id, recipient, outcome, story);
            settle(&mut statuses, destination.at, status);
        }
        self.send_away(incoming, &leaving, &whole, &mut variants, &mut statuses, story).await;
        for (at, first) in &destinations.shared {
            if let Some(status) = statuses.get(*first).cloned().flatten() {
                settle(&mut statuses, *at, status);
            }
        }
        if !incoming.answers_each && statuses.iter().flatten().any(|status| !status.is_success()) {
            self.remember_handed(incoming, &handovers, &handed);
            // It comes again, and is told of then.
            delivered.clear();
        }
        self.confirm(incoming, &delivered, &whole, story).await;
        // A recipient whom a milter removed: somebody else has the message.
        let somebody = statuses.iter().flatten().find(|status| status.is_success()).cloned();
        statuses.into_iter().map(|status| status.or_else(|| somebody.clone()).unwrap_or(UNAVAILABLE)).collect()
    }

    /// The proof of a commit, or what failed, as a status.
    fn answer(
        &self,
        id: MessageId,
        recipient: &Recipient,
        destination: &Destination,
        outcome: Result<Committed, AppendError>,
        story: &Story<'_>,
    ) -> Status {
        let status = match outcome {
            Ok(committed) => {
                let outcome = match &destination.disposition {
                    Disposition::Junk => Outcome::Junk,
                    Disposition::Quarantine => Outcome::Quarantined,
                    Disposition::Deliver
                    | Disposition::DeliverTagged { .. }
                    | Disposition::Reject(_)
                    | Disposition::Defer(_) => Outcome::Delivered,
                };
                story.delivered(recipient, outcome, committed.mailbox_name().as_str(), committed.uid().as_raw());
                metrics::counter!("ortler_messages_delivered_total", "outcome" => outcome.as_str()).increment(1);
                tracing::info!(
                    event = event::MESSAGE_ACCEPTED,
                    queue_id = %id,
                    account = committed.account().0,
                    mailbox = %committed.mailbox_name(),
                    uid = committed.uid().as_raw(),
                );
                return queued(id);
            }
            Err(AppendError::OverQuota(_)) => {
                self.roomy.invalidate(&recipient.account);
                OVER_QUOTA
            }
            Err(AppendError::Store(error)) => self.failed(&error, id),
            Err(error @ AppendError::NoMailbox) => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %id, account = recipient.account.0, %error);
                UNAVAILABLE
            }
        };
        story.turned_away(recipient, &status);
        status
    }

    /// The same of a message that is held.
    fn answer_held(
        &self,
        id: MessageId,
        recipient: &Recipient,
        outcome: Result<HeldId, AppendError>,
        story: &Story<'_>,
    ) -> Status {
        let status = match outcome {
            Ok(held) => {
                story.held(recipient, held.email.0);
                let outcome = Outcome::Quarantined.as_str();
                metrics::counter!("ortler_messages_delivered_total", "outcome" => outcome).increment(1);
                tracing::info!(event = event::MESSAGE_ACCEPTED, queue_id = %id, account = recipient.account.0, held = held.email.0);
                return queued(id);
            }
            Err(AppendError::Store(error)) => self.failed(&error, id),
            Err(AppendError::NoMailbox | AppendError::OverQuota(_)) => UNAVAILABLE,
        };
        story.turned_away(recipient, &status);
        status
    }

    fn to_hold(
        &self,
        incoming: &Incoming<'_>,
        destination: &Destination,
        recipient: &Recipient,
        (blob, prefix, summary): (StoredBlob, Bytes, Arc<[u8]>),
        story: &Story<'_>,
    ) -> NewHeld {
        let cause = &destination.decision.cause;
        let days = destination.policy.number(policy::Key::QuarantineDays);
        let header = |name: &str| content::header_text(&incoming.content, name, TEXT_MAX);
        NewHeld {
            account: recipient.account,
            message: incoming.id,
            domain: recipient.position.domain.unwrap_or(base::DomainId(0)),
            facts: HeldFacts {
                reason: cause.reason().to_owned(),
                detail: cause.to_string(),
                score: destination.decision.score.0,
                sender: incoming.envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
                author: header("From"),
                recipient: recipient.address.to_string(),
                subject: header("Subject"),
            },
            blob,
            prefix,
            summary,
            held_at: story.at,
            expires_at: story.at.plus(Duration::from_secs(days.saturating_mul(86_400))),
        }
    }

    /// Where a copy goes besides, and whether that is here. What came from there, or was here before, goes nowhere: it would
    /// run in a circle.
    async fn forwards<'d>(
        &self,
        incoming: &Incoming<'_>,
        destination: &Destination,
        recipient: &'d Recipient,
    ) -> Vec<(&'d Address, bool)> {
        let wish = destination.policy.forwarding();
        if recipient.forwards.is_empty()
            || wish == Forwarding::Nowhere
            || content::was_delivered_to(&incoming.content, &recipient.address.to_folded())
        {
            return Vec::new();
        }
        let mut out = Vec::new();
        for target in &recipient.forwards {
            let is_here = match self.parts.directory.resolve(&ForwardPath::Address(target.clone())).await {
                Ok(Resolution::Local(_)) => true,
                Ok(Resolution::ForeignDomain) => false,
                // Nobody is there any more.
                Ok(Resolution::UnknownAddress) | Err(_) => continue,
            };
            if is_here || wish == Forwarding::Anywhere {
                out.push((target, is_here));
            }
        }
        out
    }

    /// The reverse-path of what an account forwards; `None`: as it came.
    fn forwarding_sender(&self, incoming: &Incoming<'_>, recipient: &Recipient, story: &Story<'_>) -> Option<Address> {
        let sender = incoming.envelope.reverse_path.address()?;
        if sender.domain == recipient.address.domain {
            return None;
        }
        self.parts.srs.rewrite(sender, &recipient.address.domain, story.at)
    }

    pub(crate) fn failed(&self, error: &StoreError, id: MessageId) -> Status {
        match error {
            StoreError::Full(_) => {
                tracing::warn!(event = event::DISK_FULL, queue_id = %id, %error);
                FULL
            }
            StoreError::Unavailable(source) => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %id, error = %source);
                UNAVAILABLE
            }
            StoreError::Damaged { what } => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %id, %what);
                UNAVAILABLE
            }
        }
    }

    /// The lines that only this recipient has.
    fn prefix(
        &self,
        incoming: &Incoming<'_>,
        judgement: &Judgement,
        destination: &Destination,
        recipient: &Recipient,
    ) -> Bytes {
        let spam = self.spam_fields(incoming, judgement, destination);
        let reverse_path = &incoming.envelope.reverse_path;
        format!("Return-Path: <{reverse_path}>\r\nDelivered-To: {}\r\n{spam}", recipient.address).into()
    }

    fn spam_fields(&self, incoming: &Incoming<'_>, judgement: &Judgement, destination: &Destination) -> String {
        if !self.parts.judged.holds(&incoming.source) {
            return String::new();
        }
        let required = destination.policy.score(policy::Key::TagScore);
        let done = Decision { disposition: destination.disposition.clone(), ..destination.decision.clone() };
        let findings: Vec<_> = judgement.findings.iter().chain(&destination.own).cloned().collect();
        filter::headers::spam_fields(&findings, &done, required)
    }
}

/// A message is stored once, and once more where policy writes into the subject.
pub(crate) struct Variants {
    plain: Option<(StoredBlob, Arc<[u8]>)>,
    tagged: Option<(StoredBlob, Arc<[u8]>)>,
}

impl Variants {
    pub(crate) async fn get(
        &mut self,
        storage: &Storage,
        whole: &Bytes,
        tag: Option<&str>,
    ) -> Result<(StoredBlob, Arc<[u8]>), StoreError> {
        let slot = if tag.is_some() { &mut self.tagged } else { &mut self.plain };
        if let Some(known) = slot {
            return Ok(known.clone());
        }
        let content = match tag {
            Some(tag) => content::with_subject_tag(whole, tag),
            None => whole.clone(),
        };
        let summary = summarise(content.clone()).await;
        let blob = storage.blobs.put(vec![content]).await?;
        Ok(slot.insert((blob, summary)).clone())
    }
}

/// [`Summary::of`], encoded, without holding up other sessions.
pub(crate) async fn summarise(content: Bytes) -> Arc<[u8]> {
    if content.len() <= INLINE_MAX {
        return Summary::of(&content).encode().into();
    }
    let summed = tokio::task::spawn_blocking(move || Summary::of(&content).encode());
    // Summing up never fails; if it did, the message is kept with an empty summary.
    summed.await.unwrap_or_else(|_| Summary::of(b"").encode()).into()
}

fn turn_away(story: &Story<'_>, destinations: &Destinations, count: usize, status: &Status) -> Vec<Status> {
    for destination in &destinations.all {
        match &destination.to {
            To::Account(recipient) => story.turned_away(recipient, status),
            To::Elsewhere(address) => story.turned_away_elsewhere(address, status),
        }
    }
    let event = if status.is_transient() { event::MESSAGE_DEFERRED } else { event::MESSAGE_REFUSED };
    tracing::info!(event, queue_id = %story.message, %status);
    vec![status.clone(); count]
}

pub(crate) fn queued(id: MessageId) -> Status {
    Status::with_text(250, Enhanced(2, 0, 0), &format!("Queued as {id}"))
}

/// The worst of a recipient's accounts counts: a failure must come again.
pub(crate) fn settle(statuses: &mut [Option<Status>], at: usize, status: Status) {
    if let Some(slot) = statuses.get_mut(at) {
        *slot = Some(match slot.take() {
            Some(known) if !known.is_success() => known,
            Some(_) | None => status,
        });
    }
}

/// One answer for all recipients: success only if every one is durable. Else the client keeps the message and comes
/// again; a copy that was committed already then arrives twice, which is better than not at all. Nobody has it and
/// nobody ever will: that is final.
fn unanimous(statuses: Vec<Status>) -> Vec<Status> {
    let failure = statuses.iter().find(|status| !status.is_success()).cloned();
    let is_final = statuses.iter().all(Status::is_permanent);
    match failure {
        None => statuses,
        Some(status) if status.is_transient() || is_final => vec![status; statuses.len()],
        Some(_) => vec![UNAVAILABLE; statuses.len()],
    }
}
