//! All external milters of one connection, asked in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use base::MessageId;
use bytes::Bytes;
use mail::{Address, Envelope, ForwardPath};
use policy::{ExternalWish, Finding, ReasonClass, Stage};

use super::client::{Answer, Client, Greeting, Login, Opening, Peer, Start, Step, Word};
use super::settings::MilterSettings;
use crate::facts::{MessageFacts, Source};
use crate::headers::{Keeps, without_own_fields};
use crate::proof::finding;

/// What milters want for one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct External {
    /// For the whole message.
    pub wish: Option<ExternalWish>,
    /// For single recipients, by their place in the envelope.
    pub recipients: Vec<(usize, ExternalWish)>,
    /// More recipients.
    pub added: Vec<Address>,
    /// Recipients that get nothing, by their place in the envelope.
    pub removed: Vec<usize>,
    /// The message without the fields that only we may write, as the milters changed it; `None` without changes.
    pub edited: Option<Bytes>,
    pub findings: Vec<Finding>,
}

/// The milters of one connection. Dropped, they see a closed connection.
pub struct Milters {
    opening: Opening,
    clients: Vec<Client>,
    /// What waits for the end of the message: a word on all of it, words on recipients, and what was noticed.
    held: Option<ExternalWish>,
    held_recipients: Vec<(usize, ExternalWish)>,
    of_connection: Vec<Finding>,
    of_message: Vec<Finding>,
}

impl Milters {
    pub fn new(settings: &[MilterSettings], host_name: &str) -> Self {
        Self {
            opening: Opening { host_name: Arc::from(host_name), peer: Peer::default(), greeting: None },
            clients: settings.iter().cloned().map(Client::new).collect(),
            held: None,
            held_recipients: Vec::new(),
            of_connection: Vec::new(),
            of_message: Vec::new(),
        }
    }

    /// A client connected, or is known better than before. A milter that cannot be asked has its say at MAIL.
    pub async fn connected(&mut self, peer: Peer, now: Instant) -> Option<ExternalWish> {
        (self.opening.peer, self.opening.greeting) = (peer, None);
        self.of_connection.clear();
        for at in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(at) else { break };
            let step = client.connected(&self.opening, now).await;
            if let Some(wish) = self.heard(Stage::Connect, "", step, false) {
                return Some(wish);
            }
        }
        None
    }

    /// As [`Milters::connected`].
    pub async fn helo(&mut self, greeting: Greeting, now: Instant) -> Option<ExternalWish> {
        self.opening.greeting = Some(greeting);
        self.of_connection.retain(|finding| finding.stage != Stage::Helo);
        for at in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(at) else { break };
            let step = client.helo(&self.opening, now).await;
            if let Some(wish) = self.heard(Stage::Helo, "", step, false) {
                return Some(wish);
            }
        }
        None
    }

    pub async fn mail(&mut self, start: &Start<'_>, now: Instant) -> Option<ExternalWish> {
        for at in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(at) else { break };
            let step = client.mail(&self.opening, start, now).await;
            if let Some(wish) = self.heard(Stage::Mail, "", step, true) {
                return Some(wish);
            }
        }
        None
    }

    pub async fn rcpt(&mut self, start: &Start<'_>, path: &ForwardPath, now: Instant) -> Option<ExternalWish> {
        for at in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(at) else { break };
            let step = client.rcpt(start, path, now).await;
            if let Some(wish) = self.heard(Stage::Rcpt, &path.to_string(), step, true) {
                return Some(wish);
            }
        }
        None
    }

    /// DATA, header, body and end of message, once it is whole. Each milter sees what those before it made of the
    /// message. With what was wanted before and nobody was told.
    pub async fn content(
        &mut self,
        id: Option<MessageId>,
        envelope: &Envelope,
        message: &Bytes,
        now: Instant,
    ) -> External {
        let recipients = std::mem::take(&mut self.held_recipients);
        let mut external = External { wish: self.held.take(), recipients, ..External::default() };
        // Milters see what is kept: their places in the header are those of the message that they change.
        let original = match self.clients.is_empty() {
            true => message.clone(),
            false => without_own_fields(message, &self.opening.host_name, Keeps::Nothing),
        };
        let octets_max = message.len().saturating_mul(2).saturating_add(OCTETS_FREE);
        for at in 0..self.clients.len() {
            if matches!(external.wish, Some(ExternalWish::Reject(_) | ExternalWish::Defer(_))) {
                break;
            }
            let Some(client) = self.clients.get_mut(at) else { break };
            let seen = external.edited.as_ref().unwrap_or(&original);
            let word = match client.content(id, seen, octets_max, now).await {
                Step::Done(word) => word,
                Step::Left => continue,
                Step::Away { wish, reason } => {
                    self.note_away(Stage::EndOfMessage, reason);
                    external.wish = wish.or(external.wish);
                    continue;
                }
            };
            external.edited = word.edit.apply(seen).or(external.edited);
            self.take_word(word, envelope, &mut external);
        }
        external.findings = self.of_connection.clone();
        external.findings.append(&mut self.of_message);
        external
    }

    /// The message is over, judged or not.
    pub async fn message_done(&mut self) {
        self.held = None;
        self.held_recipients.clear();
        self.of_message.clear();
        for client in &mut self.clients {
            client.message_done().await;
        }
    }

    pub async fn close(self) {
        for client in self.clients {
            client.close().await;
        }
    }

    /// Everything before the content, for a message that did not come by a session of ours: what is wanted waits for
    /// the end.
    pub(crate) async fn replay(&mut self, facts: &MessageFacts, now: Instant) {
        let (client, helo, tls) = match &facts.source {
            Source::Client { ip, helo, tls } => (Some(*ip), helo.clone(), *tls),
            Source::Submitter { ip, .. } => (*ip, self.opening.host_name.to_string(), false),
            Source::Relay | Source::File => (None, self.opening.host_name.to_string(), false),
        };
        let login = match &facts.source {
            // Not by a dialogue that we saw (RFC 4422, appendix A).
            Source::Submitter { account, .. } => Some(Login { account: account.clone(), mechanism: "EXTERNAL" }),
            Source::Client { .. } | Source::Relay | Source::File => None,
        };
        let start = Start { id: None, login, reverse_path: &facts.envelope.reverse_path };
        let peer = Peer { client: client.map(|ip| SocketAddr::new(ip, 0)), name: None, daemon: "ortler" };
        let greeting = Greeting { helo, tls: tls.then(|| ("TLS".to_owned(), String::new())) };
        let mut wish = self.connected(peer, now).await;
        if wish.is_none() {
            wish = self.helo(greeting, now).await;
        }
        if wish.is_none() {
            wish = self.mail(&start, now).await;
        }
        if wish.is_some() {
            self.held = wish;
            return;
        }
        for (at, path) in facts.envelope.forward_paths.iter().enumerate() {
            let wish = self.rcpt(&start, path, now).await;
            self.held_recipients.extend(wish.map(|wish| (at, wish)));
        }
    }

    /// What a stage's answer means now: a refusal is said, a message that is to be held is remembered.
    fn heard(&mut self, stage: Stage, of: &str, step: Step<Answer>, defers: bool) -> Option<ExternalWish> {
        let wish = match step {
            Step::Left | Step::Done(Answer::GoOn | Answer::Accept) => return None,
            Step::Away { wish, reason } => {
                self.note_away(stage, reason);
                return wish.filter(|_| defers);
            }
            Step::Done(Answer::Wish(wish)) => wish,
        };
        match wish {
            ExternalWish::Quarantine { .. } => {
                self.note_wish(stage, &wish);
                self.held.get_or_insert(wish);
                return None;
            }
            ExternalWish::Reject(_) | ExternalWish::Defer(_) if stage == Stage::Rcpt => {
                self.note(stage, "MILTER_RECIPIENT", "An external milter refuses a recipient", of);
            }
            ExternalWish::Reject(_) | ExternalWish::Defer(_) => self.note_wish(stage, &wish),
        }
        Some(wish)
    }

    fn take_word(&mut self, word: Word, envelope: &Envelope, external: &mut External) {
        if let Some(wish) = word.wish {
            self.note_wish(Stage::EndOfMessage, &wish);
            // A refusal outweighs a message held back before.
            external.wish = match (wish, external.wish.take()) {
                (ExternalWish::Quarantine { .. }, Some(known)) => Some(known),
                (wish, _) => Some(wish),
            };
        }
        let stage = Stage::EndOfMessage;
        for address in word.added {
            match address.parse() {
                Ok(parsed) => {
                    self.note(stage, "MILTER_ADDED", "An external milter adds a recipient", &address);
                    external.added.push(parsed);
                }
                Err(_) => self.note(stage, "MILTER_IGNORED", "An external milter adds what is no address", &address),
            }
        }
        for address in word.deleted {
            let same = |to: &ForwardPath| to.to_string().eq_ignore_ascii_case(&address);
            let places = envelope.forward_paths.iter().enumerate().filter(|(_, to)| same(to)).map(|(at, _)| at);
            external.removed.extend(places);
            external.added.retain(|added| !added.to_string().eq_ignore_ascii_case(&address));
            self.note(stage, "MILTER_REMOVED", "An external milter removes a recipient", &address);
        }
        if word.ignored {
            self.note(stage, "MILTER_IGNORED", "An external milter wants a change that is not made", "");
        }
    }

    fn note_wish(&mut self, stage: Stage, wish: &ExternalWish) {
        match wish {
            ExternalWish::Reject(status) => {
                self.note(stage, "MILTER_REJECT", "An external milter refuses it", status.text());
            }
            ExternalWish::Defer(status) => {
                self.note(stage, "MILTER_DEFER", "An external milter wants it later", status.text());
            }
            ExternalWish::Quarantine { reason } => {
                self.note(stage, "MILTER_QUARANTINE", "An external milter holds it back", reason);
            }
        }
    }

    fn note_away(&mut self, stage: Stage, reason: Option<String>) {
        if let Some(reason) = reason {
            self.note(stage, "MILTER_AWAY", "An external milter could not be asked", &reason);
        }
    }

    fn note(&mut self, stage: Stage, name: &str, description: &str, evidence: &str) {
        let noted = Finding { stage, class: ReasonClass::Milter, ..finding(name, 0, description, evidence) };
        match stage {
            Stage::Connect | Stage::Helo => self.of_connection.push(noted),
            _ => self.of_message.push(noted),
        }
    }
}

/// What milters may add to a message beyond twice its length.
const OCTETS_FREE: usize = 1024 * 1024;
