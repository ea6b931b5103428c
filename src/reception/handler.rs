//! The flow as SMTP, submission and LMTP sessions see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, MessageId, event};
use directory::{Elsewhere, LoginError};
use filter::{Greeting, Login, Peer, Source, Stages, Start};
use mail::{Address, Enhanced, ForwardPath, ReversePath, Status};
use net::{Spool, SpoolError, Spooled};
use smtp::{Credentials, Handler, Identity, MailParameters, Onward, Protocol, SessionFacts, SignIn, Transaction};
use trail::{Event, Kind, Party};

use crate::intake::{FULL, Incoming, Intake, Resolved, Submitter, UNAVAILABLE, UNKNOWN};
use crate::received::Way;
use crate::sending;
use crate::story::Story;

/// Answers one session out of an [`Intake`].
pub struct Reception {
    intake: Arc<Intake>,
    /// The filter's view of the session; `None` where its mail is not judged.
    stages: Option<Stages>,
    /// Once the client has signed in.
    hold: Option<directory::Hold>,
}

/// Of a message in memory while it is judged and stored: as it came, as milters made it, as it is kept, and so with a tag
/// in its subject. Besides it is text that rules look into, which has bounds of its own.
const COPIES: u64 = 4;
const LOGIN_REFUSED: Status = Status::fixed(535, Enhanced(5, 7, 8), "Authentication failed");
const LOGIN_TOO_MANY: Status = Status::fixed(454, Enhanced(4, 7, 0), "Too many failed attempts, try again later");
const LOGIN_UNAVAILABLE: Status = Status::fixed(454, Enhanced(4, 7, 0), "Temporary authentication failure");
const REVOKED: Status = Status::fixed(421, Enhanced(4, 7, 0), "Password or access was changed, sign in again");
const LOGIN_NOWHERE: Status =
    Status::fixed(454, Enhanced(4, 7, 0), "Mail cannot be submitted for this mailbox, ask your provider");
const SEPARATELY: Status = Status::fixed(452, Enhanced(4, 5, 3), "Send to this recipient in another transaction");
const NOT_YOURS: Status = Status::fixed(553, Enhanced(5, 7, 1), "The sender address is not yours");

impl Reception {
    pub fn new(intake: Arc<Intake>) -> Self {
        Self { intake, stages: None, hold: None }
    }

    fn story(&self, facts: &SessionFacts, message: MessageId) -> Story<'_> {
        let parts = &self.intake.parts;
        Story { trail: &parts.trail, session: Some(facts.id), message, at: parts.clock.utc() }
    }

    fn record(&self, facts: &SessionFacts, kind: Kind, fields: &[(&str, String)]) {
        self.intake.parts.trail.record(self.event(facts, kind, fields));
    }

    fn event(&self, facts: &SessionFacts, kind: Kind, fields: &[(&str, String)]) -> Event {
        let event = Event::new(self.intake.parts.clock.utc(), kind).session(facts.id);
        fields.iter().fold(event, |event, (name, value)| event.field(name, value.as_str()))
    }
}

impl Reception {
    /// Writes down who was turned away before there was a message.
    fn refused_at(&self, stage: &str, facts: &SessionFacts, answer: Result<(), Status>) -> Result<(), Status> {
        answer.inspect_err(|status| {
            let fields = [("status", status.to_string()), ("stage", stage.to_owned())];
            self.record(facts, Kind::ConnectionRefused, &fields);
            tracing::info!(event = event::SESSION_REFUSED, session = %facts.id, stage, %status);
        })
    }

    /// Signs in on the old server where the account's mailbox is: all that follows is its matter.
    async fn authenticate_elsewhere(
        &self,
        facts: &SessionFacts,
        credentials: &Credentials,
        elsewhere: &Elsewhere,
    ) -> Result<Box<Onward>, Status> {
        let (parts, server) = (&self.intake.parts, &elsewhere.server);
        let Some((_, endpoint)) = server.endpoint(directory::Protocol::Submission) else {
            return Err(LOGIN_NOWHERE);
        };
        let place = legacy::Place { endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
        let (name, password) = (credentials.login.as_str(), &credentials.password);
        let client = legacy::Client { address: facts.client, helo: &facts.helo, name, password };
        match parts.legacy.sign_in(legacy::Protocol::Submission, place, client).await {
            Ok(opened) => {
                tracing::info!(
                    event = event::LOGIN_ACCEPTED, session = %facts.id, account = elsewhere.account.id.0, legacy = server.name
                );
                if let Err(error) = parts.directory.accepted_elsewhere(elsewhere, password).await {
                    tracing::warn!(event = event::STORE_FAILED, session = %facts.id, %error);
                }
                Ok(Box::new(Onward { stream: opened.stream, said: opened.said }))
            }
            Err(legacy::Failure::Refused) => {
                tracing::info!(
                    event = event::LOGIN_REFUSED, session = %facts.id, peer = %facts.client.ip(), legacy = server.name
                );
                tokio::time::sleep(parts.directory.refused_elsewhere(facts.client.ip())).await;
                Err(LOGIN_REFUSED)
            }
            Err(legacy::Failure::InUse | legacy::Failure::Unavailable(_)) => Err(LOGIN_UNAVAILABLE),
        }
    }

    /// A transaction of SMTP has one answer for all its recipients, so all of them are here, or on the same old server.
    async fn fits_together(&self, transaction: &Transaction, resolved: &Resolved) -> Result<(), Status> {
        let Some(first) = transaction.envelope.forward_paths.first() else { return Ok(()) };
        // Accepted a moment ago.
        let first = self.intake.resolve(first, true).await.map_err(|_gone| UNAVAILABLE)?;
        if places(&first) == places(resolved) { Ok(()) } else { Err(SEPARATELY) }
    }

    async fn message_done(&mut self) {
        if let Some(stages) = &mut self.stages {
            stages.message_done().await;
        }
    }
}

#[async_trait]
impl Handler for Reception {
    async fn connected(&mut self, facts: &SessionFacts) -> Result<(), Status> {
        let tls = facts.tls.as_ref().map(|tls| tls.version.clone()).unwrap_or_default();
        let client = facts.client.ip().to_string();
        self.record(
            facts,
            Kind::Connected,
            &[("client", client), ("port", facts.client.port().to_string()), ("tls", tls)],
        );
        if !self.intake.parts.judged.holds_session(facts.protocol) {
            return Ok(());
        }
        let stages = self.stages.get_or_insert_with(|| Stages::new(Arc::clone(&self.intake.parts.filter)));
        let answer = stages.connected(peer(facts)).await;
        self.refused_at("connect", facts, answer)
    }

    async fn greeted(&mut self, facts: &SessionFacts) -> Result<(), Status> {
        let Some(stages) = &mut self.stages else { return Ok(()) };
        let tls = facts.tls.as_ref().map(|tls| (tls.version.clone(), tls.cipher.clone()));
        let answer = stages.helo(Greeting { helo: facts.helo.clone(), tls }).await;
        self.refused_at("helo", facts, answer)
    }

    async fn authenticate(&mut self, facts: &SessionFacts, credentials: Credentials) -> Result<SignIn, Status> {
        let login = directory::Login {
            name: &credentials.login,
            password: &credentials.password,
            protocol: directory::Protocol::Submission,
            peer: facts.client.ip(),
            code: None,
        };
        let told = [
            ("login", credentials.login.chars().take(320).collect()),
            ("protocol", directory::Protocol::Submission.as_str().to_owned()),
            ("client", facts.client.ip().to_string()),
        ];
        match self.intake.parts.directory.authenticate(login).await {
            Ok(account) => {
                tracing::info!(event = event::LOGIN_ACCEPTED, session = %facts.id, account = account.id.0);
                self.hold = Some(self.intake.parts.directory.hold(account.id, Some(account.rights)).await);
                let mechanism = credentials.mechanism;
                let identity = Identity { account: account.id, address: account.address, mechanism };
                let accepted = self.event(facts, Kind::LoginAccepted, &told).party(sender_of(&identity));
                self.intake.parts.trail.record(accepted);
                Ok(SignIn::Here(identity))
            }
            Err(LoginError::Elsewhere(elsewhere)) => {
                let outcome = self.authenticate_elsewhere(facts, &credentials, &elsewhere).await;
                let (kind, party) = match &outcome {
                    Ok(_) => (Kind::LoginAccepted, Some(&elsewhere.account)),
                    Err(_) => (Kind::LoginRefused, None),
                };
                let event = self.event(facts, kind, &told).field("legacy", elsewhere.server.name.as_str());
                self.intake.parts.trail.record(match party {
                    Some(account) => event.party(sender(account.id, &account.address)),
                    None => event,
                });
                outcome.map(SignIn::Elsewhere)
            }
            Err(error) => {
                tracing::info!(event = event::LOGIN_REFUSED, session = %facts.id, peer = %facts.client.ip(), %error);
                self.record(facts, Kind::LoginRefused, &told);
                Err(match error {
                    LoginError::Refused { delay } => {
                        tokio::time::sleep(delay).await;
                        LOGIN_REFUSED
                    }
                    LoginError::TooMany => LOGIN_TOO_MANY,
                    LoginError::SecondFactor => LOGIN_REFUSED,
                    LoginError::Unavailable(_) | LoginError::Elsewhere(_) => LOGIN_UNAVAILABLE,
                })
            }
        }
    }

    async fn sender(
        &mut self,
        facts: &SessionFacts,
        id: MessageId,
        reverse_path: &ReversePath,
        _parameters: &MailParameters,
    ) -> Result<(), Status> {
        let parts = &self.intake.parts;
        if !parts.storage.has_room() {
            return Err(FULL);
        }
        let mut sender = None;
        if self.hold.as_ref().is_some_and(directory::Hold::has_ended) {
            return Err(REVOKED);
        }
        if let Some(identity) = &facts.identity {
            let account = parts.directory.account(identity.account).await.map_err(|_| UNAVAILABLE)?;
            if account.is_some_and(|account| account.sending_lock.is_some()) {
                return Err(policy::outbound::LOCKED);
            }
            if let Some(address) = reverse_path.address() {
                let own = parts.directory.sender_addresses(identity.account).await.map_err(|_| UNAVAILABLE)?;
                if !own.iter().any(|own| own.to_folded() == address.to_folded()) {
                    return Err(NOT_YOURS);
                }
            }
            sender = Some(sender_of(identity));
        }
        let client = facts.client.ip();
        let country = parts.filter.country(client);
        self.story(facts, id).started(reverse_path, &client.to_string(), country, &facts.helo, sender);
        let Some(stages) = &mut self.stages else { return Ok(()) };
        let start = start(facts, id, reverse_path);
        let client = (facts.protocol == Protocol::Smtp && facts.identity.is_none()).then(|| facts.client.ip());
        let answer = stages.sender(&start, client).await;
        answer.inspect_err(|status| {
            self.story(facts, id).sender_refused(status);
            tracing::info!(event = event::MESSAGE_REFUSED, queue_id = %id, session = %facts.id, stage = "mail", %status);
        })
    }

    async fn recipient(
        &mut self,
        facts: &SessionFacts,
        transaction: &Transaction,
        forward_path: &ForwardPath,
    ) -> Result<(), Status> {
        let resolved = self.intake.resolve(forward_path, facts.identity.is_some()).await;
        let mut answer = match &resolved {
            Ok(resolved) => self.intake.room_for(resolved.here()).await,
            Err(status) => Err(status.clone()),
        };
        if let (Ok(()), Ok(resolved), Protocol::Smtp | Protocol::Submission) = (&answer, &resolved, facts.protocol) {
            answer = self.fits_together(transaction, resolved).await;
        }
        if let (Ok(()), Some(stages)) = (&answer, &mut self.stages) {
            let start = start(facts, transaction.id, &transaction.envelope.reverse_path);
            answer = stages.recipient(&start, forward_path).await;
        }
        if let (Some(identity), Err(status)) = (&facts.identity, &resolved)
            && *status == UNKNOWN
        {
            self.intake.named_nobody(identity.account);
        }
        let story = self.story(facts, transaction.id);
        match answer {
            Ok(()) => {
                story.recipient_accepted(forward_path);
                Ok(())
            }
            Err(status) => {
                story.recipient_refused(forward_path, &status);
                tracing::info!(event = event::RECIPIENT_REFUSED, queue_id = %transaction.id, session = %facts.id, %status);
                Err(status)
            }
        }
    }

    fn spool(&self) -> Spool {
        Spool::new(Arc::clone(&self.intake.parts.spool))
    }

    async fn message(&mut self, facts: &SessionFacts, transaction: Transaction, content: Spooled) -> Vec<Status> {
        let (count, answers_each) = (transaction.envelope.forward_paths.len(), transaction.answers_each);
        let (content, _share) = match content.into_bytes(&self.intake.parts.budget, COPIES).await {
            Ok(content) => content,
            Err(SpoolError::Full) => {
                self.message_done().await;
                return vec![FULL; count];
            }
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %transaction.id, what = "spool", %error);
                self.message_done().await;
                return vec![UNAVAILABLE; count];
            }
        };
        let ip = facts.client.ip();
        let source = match (&facts.identity, facts.protocol) {
            (Some(identity), _) => Source::Submitter { account: identity.address.to_string(), ip: Some(ip) },
            (None, Protocol::Lmtp) => Source::Relay,
            (None, Protocol::Smtp | Protocol::Submission) => {
                Source::Client { ip, helo: facts.helo.clone(), tls: facts.tls.is_some() }
            }
        };
        let submitter =
            facts.identity.as_ref().map(|identity| Submitter { account: identity.account, ip: sending::place(ip) });
        let incoming = Incoming {
            id: transaction.id,
            session: Some(facts.id),
            way: Way::Session(facts),
            source,
            submitter,
            envelope: transaction.envelope,
            content,
            answers_each,
        };
        let statuses = self.intake.accept(incoming, self.stages.as_mut()).await;
        self.message_done().await;
        statuses
    }

    async fn abandoned(&mut self, facts: &SessionFacts, transaction: &Transaction, reason: &Status) {
        self.story(facts, transaction.id).abandoned(reason);
        self.message_done().await;
    }

    async fn closed(&mut self, _facts: &SessionFacts) {
        if let Some(stages) = self.stages.take() {
            stages.close().await;
        }
    }
}

/// Who signed in, as the one who sends.
fn sender_of(identity: &Identity) -> Party {
    sender(identity.account, &identity.address)
}

fn sender(account: AccountId, address: &Address) -> Party {
    Party { address: address.to_string(), account: Some(account), is_recipient: false, outcome: None }
}

/// Old servers, and `None` for here and the queue, where these get their mail.
fn places(resolved: &Resolved) -> BTreeSet<Option<&str>> {
    match resolved {
        Resolved::Here(recipients) => recipients.iter().map(|recipient| recipient.legacy.as_deref()).collect(),
        Resolved::Elsewhere(_) => BTreeSet::from([None]),
    }
}

fn start<'a>(facts: &SessionFacts, id: MessageId, reverse_path: &'a ReversePath) -> Start<'a> {
    let login = facts
        .identity
        .as_ref()
        .map(|identity| Login { account: identity.address.to_string(), mechanism: identity.mechanism.as_str() });
    Start { id: Some(id), login, reverse_path }
}

/// What milters are told of the client. A server that hands over by LMTP is not where the mail comes from.
fn peer(facts: &SessionFacts) -> Peer {
    let daemon = match facts.protocol {
        Protocol::Smtp => "smtp",
        Protocol::Submission => "submission",
        Protocol::Lmtp => "lmtp",
    };
    let client = (facts.protocol != Protocol::Lmtp).then_some(facts.client);
    Peer { client, name: facts.client_name.clone().filter(|_| client.is_some()), daemon }
}
