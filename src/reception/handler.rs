//! The flow as SMTP, submission and LMTP sessions see it.

use std::sync::Arc;

use async_trait::async_trait;
use base::{MessageId, event};
use directory::{Login, LoginError};
use filter::Source;
use mail::{Enhanced, ForwardPath, ReversePath, Status};
use net::{Spool, SpoolError, Spooled};
use smtp::{Credentials, Handler, Identity, MailParameters, Protocol, SessionFacts, Transaction};
use trail::{Event, Kind, Party};

use crate::intake::{FULL, Incoming, Intake, UNAVAILABLE};
use crate::received::Way;
use crate::story::Story;

/// Answers sessions out of an [`Intake`].
pub struct Reception {
    intake: Arc<Intake>,
}

/// Of a message in memory while it is judged and stored: as it came, and as it is kept.
const COPIES: u64 = 2;
const LOGIN_REFUSED: Status = Status::fixed(535, Enhanced(5, 7, 8), "Authentication failed");
const LOGIN_TOO_MANY: Status = Status::fixed(454, Enhanced(4, 7, 0), "Too many failed attempts, try again later");
const LOGIN_UNAVAILABLE: Status = Status::fixed(454, Enhanced(4, 7, 0), "Temporary authentication failure");
const NOT_YOURS: Status = Status::fixed(553, Enhanced(5, 7, 1), "The sender address is not yours");

impl Reception {
    pub fn new(intake: Arc<Intake>) -> Self {
        Self { intake }
    }

    fn story(&self, facts: &SessionFacts, message: MessageId) -> Story<'_> {
        let parts = &self.intake.parts;
        Story { trail: &parts.trail, session: Some(facts.id), message, at: parts.clock.utc() }
    }

    fn record(&self, facts: &SessionFacts, kind: Kind, fields: &[(&str, String)]) {
        let parts = &self.intake.parts;
        let mut event = Event::new(parts.clock.utc(), kind).session(facts.id);
        for (name, value) in fields {
            event = event.field(name, value.as_str());
        }
        parts.trail.record(event);
    }
}

#[async_trait]
impl Handler for Reception {
    async fn connected(&self, facts: &SessionFacts) -> Result<(), Status> {
        let tls = facts.tls.as_ref().map(|tls| tls.version.clone()).unwrap_or_default();
        let client = facts.client.ip().to_string();
        self.record(
            facts,
            Kind::Connected,
            &[("client", client), ("port", facts.client.port().to_string()), ("tls", tls)],
        );
        Ok(())
    }

    async fn authenticate(&self, facts: &SessionFacts, credentials: Credentials) -> Result<Identity, Status> {
        let login = Login {
            name: &credentials.login,
            password: &credentials.password,
            protocol: directory::Protocol::Submission,
            peer: facts.client.ip(),
        };
        let told = [
            ("login", credentials.login.chars().take(320).collect()),
            ("protocol", directory::Protocol::Submission.as_str().to_owned()),
            ("client", facts.client.ip().to_string()),
        ];
        match self.intake.parts.directory.authenticate(login).await {
            Ok(account) => {
                tracing::info!(event = event::LOGIN_ACCEPTED, session = %facts.id, account = account.id.0);
                self.record(facts, Kind::LoginAccepted, &told);
                Ok(Identity { account: account.id, address: account.address })
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
                    LoginError::Unavailable(_) => LOGIN_UNAVAILABLE,
                })
            }
        }
    }

    async fn sender(
        &self,
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
        if let Some(identity) = &facts.identity {
            if let Some(address) = reverse_path.address() {
                let own = parts.directory.sender_addresses(identity.account).await.map_err(|_| UNAVAILABLE)?;
                if !own.iter().any(|own| own.to_folded() == address.to_folded()) {
                    return Err(NOT_YOURS);
                }
            }
            sender = Some(Party {
                address: identity.address.to_string(),
                account: Some(identity.account),
                is_recipient: false,
                outcome: None,
            });
        }
        self.story(facts, id).started(reverse_path, &facts.client.ip().to_string(), &facts.helo, sender);
        Ok(())
    }

    async fn recipient(
        &self,
        facts: &SessionFacts,
        transaction: &Transaction,
        forward_path: &ForwardPath,
    ) -> Result<(), Status> {
        let story = self.story(facts, transaction.id);
        let resolved = match self.intake.resolve(forward_path, facts.identity.is_some()).await {
            Ok(recipients) => self.intake.room_for(&recipients).await,
            Err(status) => Err(status),
        };
        match resolved {
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

    async fn message(&self, facts: &SessionFacts, transaction: Transaction, content: Spooled) -> Vec<Status> {
        let count = transaction.envelope.forward_paths.len();
        let (content, _share) = match content.into_bytes(&self.intake.parts.budget, COPIES).await {
            Ok(content) => content,
            Err(SpoolError::Full) => return vec![FULL; count],
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %transaction.id, what = "spool", %error);
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
        let incoming = Incoming {
            id: transaction.id,
            session: Some(facts.id),
            way: Way::Session(facts),
            source,
            envelope: transaction.envelope,
            content,
            answers_each: facts.protocol == Protocol::Lmtp,
        };
        self.intake.accept(incoming).await
    }

    async fn abandoned(&self, facts: &SessionFacts, transaction: &Transaction, reason: &Status) {
        self.story(facts, transaction.id).abandoned(reason);
    }

    async fn closed(&self, _facts: &SessionFacts) {}
}
