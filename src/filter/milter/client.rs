//! One external milter over one connection: asked at each stage, as a mail server asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::MessageId;
use bytes::Bytes;
use mail::{ForwardPath, HeaderField, HeaderFields, ReversePath};
use policy::{ExternalWish, Stage};
use tokio::time::timeout;

use super::edit::{Edit, HeaderChange};
use super::link::{Link, MilterError};
use super::proto::{Address, Command, DATA_MAX, ProtocolError, Response, step};
use super::settings::{MilterSettings, WhenAway};
use super::wish::{field_name, field_value, text, wish_of};
use crate::proof::one_line;
use crate::verdict::EXTERNAL_DEFER;

/// Who is at the other end of the connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// `None` where the connection says nothing of the sender: LMTP from a server we trust, our own webmail, a file.
    pub client: Option<SocketAddr>,
    /// The client's name, if it is known.
    pub name: Option<String>,
    /// `{daemon_name}`: the door it came through, such as `smtp`.
    pub daemon: &'static str,
}

/// HELO, EHLO or LHLO.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Greeting {
    /// As given.
    pub helo: String,
    /// Version and cipher of TLS; empty without.
    pub tls: Option<(String, String)>,
}

/// MAIL.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    pub id: Option<MessageId>,
    pub login: Option<Login>,
    pub reverse_path: &'a ReversePath,
}

/// Who signed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub account: String,
    /// The SASL mechanism.
    pub mechanism: &'static str,
}

/// What every milter of a connection is told first.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub host_name: Arc<str>,
    pub peer: Peer,
    pub greeting: Option<Greeting>,
}

/// A milter and how far its part goes.
pub(super) struct Client {
    pub settings: MilterSettings,
    link: Option<Link>,
    part: Part,
    /// It was told of a MAIL and has not heard its end.
    in_message: bool,
}

enum Part {
    Asked,
    /// Wants to know no more of this message.
    PassesMessage,
    /// Wants to know no more of this connection.
    PassesConnection,
    Away {
        since: Instant,
    },
}

/// A milter's answer to one step.
pub(super) enum Answer {
    GoOn,
    Accept,
    Wish(ExternalWish),
}

/// A milter's last word on a message.
#[derive(Default)]
pub(super) struct Word {
    pub wish: Option<ExternalWish>,
    pub edit: Edit,
    pub added: Vec<String>,
    pub deleted: Vec<String>,
    /// It wanted what was not offered.
    pub ignored: bool,
}

/// What became of one step.
pub(super) enum Step<T> {
    Done(T),
    /// Not asked, and nothing wanted.
    Left,
    /// It cannot be asked; with the wish that follows from its settings, and why if that is new.
    Away {
        wish: Option<ExternalWish>,
        reason: Option<String>,
    },
}

/// Before a milter that did not answer is asked again on the same connection.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// A milter that wants more changes to header and recipients is out of its mind. A body comes in any number of pieces.
const CHANGES_MAX: usize = 1000;

impl Client {
    pub fn new(settings: MilterSettings) -> Self {
        Self { settings, link: None, part: Part::Asked, in_message: false }
    }

    pub async fn connected(&mut self, opening: &Opening, now: Instant) -> Step<Answer> {
        self.hang_up().await;
        (self.part, self.in_message) = (Part::Asked, false);
        let told = self.open(opening).await;
        self.settle(Stage::Connect, told, now)
    }

    pub async fn helo(&mut self, opening: &Opening, now: Instant) -> Step<Answer> {
        if self.link.is_none() || !matches!(self.part, Part::Asked | Part::PassesMessage) {
            return Step::Left;
        }
        let told = self.tell_helo(opening).await;
        self.settle(Stage::Helo, told, now)
    }

    pub async fn mail(&mut self, opening: &Opening, start: &Start<'_>, now: Instant) -> Step<Answer> {
        match self.part {
            Part::PassesConnection => return Step::Left,
            Part::Away { since } if now.saturating_duration_since(since) < RETRY_PAUSE => return self.still_away(),
            Part::Asked | Part::PassesMessage | Part::Away { .. } => self.part = Part::Asked,
        }
        if self.link.is_none() {
            let told = self.open(opening).await;
            if !matches!(told, Ok(Answer::GoOn)) {
                let step = self.settle(Stage::Connect, told, now);
                // It refuses the client, not this message: it has to say so at every MAIL.
                self.hang_up().await;
                return step;
            }
        }
        let told = self.tell_mail(start).await;
        self.settle(Stage::Mail, told, now)
    }

    pub async fn rcpt(&mut self, start: &Start<'_>, path: &ForwardPath, now: Instant) -> Step<Answer> {
        match self.part {
            Part::PassesConnection | Part::PassesMessage => return Step::Left,
            Part::Away { .. } => return self.still_away(),
            Part::Asked => {}
        }
        let (id, path) = (of_id(start.id), path.to_string());
        let macros = vec![("i", id.as_str()), ("{rcpt_addr}", &path), ("{rcpt_mailer}", "local")];
        let command = Command::Rcpt(vec![format!("<{path}>").into_bytes()]);
        let told = self.ask((b'R', macros), &command, step::NO_RCPT, step::NO_REPLY_RCPT).await;
        self.settle(Stage::Rcpt, told, now)
    }

    /// DATA to the last word, whose changes hold `octets_max` at most.
    pub async fn content(
        &mut self,
        id: Option<MessageId>,
        message: &Bytes,
        octets_max: usize,
        now: Instant,
    ) -> Step<Word> {
        match self.part {
            Part::PassesConnection | Part::PassesMessage => return Step::Left,
            Part::Away { .. } => return self.still_away(),
            Part::Asked => {}
        }
        let limit = self.settings.content_timeout;
        let told = timeout(limit, self.tell_content(id, message, octets_max)).await;
        let told = told.unwrap_or(Err(MilterError::Late));
        match told {
            Ok(word) => Step::Done(word),
            Err(error) => self.lost(&error, now),
        }
    }

    /// The message is over for this milter, however it ended.
    pub async fn message_done(&mut self) {
        if matches!(self.part, Part::PassesMessage) {
            self.part = Part::Asked;
        }
        if std::mem::take(&mut self.in_message)
            && let Some(link) = &mut self.link
        {
            link.put(&Command::Abort);
            if link.flush().await.is_err() {
                self.link = None;
            }
        }
    }

    pub async fn close(mut self) {
        self.hang_up().await;
    }

    /// Both ends are done with it: whether the farewell arrives does not matter.
    async fn hang_up(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.put(&Command::Quit);
            let _ = link.flush().await;
        }
    }

    /// Turns a step's outcome into what is done next.
    fn settle(&mut self, stage: Stage, told: Result<Answer, MilterError>, now: Instant) -> Step<Answer> {
        match told {
            Ok(Answer::Accept) if stage <= Stage::Helo => {
                (self.part, self.link) = (Part::PassesConnection, None);
                Step::Left
            }
            Ok(Answer::Accept) => {
                self.part = Part::PassesMessage;
                Step::Left
            }
            Ok(Answer::Wish(ExternalWish::Quarantine { .. })) if stage <= Stage::Helo => {
                self.lost(&ProtocolError::OutOfOrder.into(), now)
            }
            Ok(answer) => {
                // A milter that has held a message back, or refused it, has done its part.
                let ends = match &answer {
                    Answer::Wish(ExternalWish::Quarantine { .. }) => true,
                    Answer::Wish(_) => stage == Stage::Mail,
                    Answer::GoOn | Answer::Accept => false,
                };
                if ends {
                    self.part = Part::PassesMessage;
                }
                Step::Done(answer)
            }
            Err(error) => self.lost(&error, now),
        }
    }

    fn lost<T>(&mut self, error: &MilterError, now: Instant) -> Step<T> {
        let reason = error.to_string();
        tracing::warn!(event = base::event::SCANNER_UNAVAILABLE, milter = %self.settings.address, %reason);
        metrics::counter!("ortler_filter_milter_unavailable_total").increment(1);
        (self.link, self.in_message) = (None, false);
        self.part = Part::Away { since: now };
        Step::Away { wish: self.wish_when_away(), reason: Some(reason) }
    }

    fn still_away<T>(&self) -> Step<T> {
        Step::Away { wish: self.wish_when_away(), reason: None }
    }

    fn wish_when_away(&self) -> Option<ExternalWish> {
        (self.settings.when_away == WhenAway::Defer).then_some(ExternalWish::Defer(EXTERNAL_DEFER))
    }

    /// Connects and tells all that is known of the connection.
    async fn open(&mut self, opening: &Opening) -> Result<Answer, MilterError> {
        self.link = Some(Link::open(&self.settings).await?);
        let peer = &opening.peer;
        let literal = |client: SocketAddr| format!("[{}]", client.ip());
        let name = peer.name.clone().or(peer.client.map(literal)).unwrap_or_else(|| "localhost".to_owned());
        let (address, port) = peer.client.map(|client| (client.ip().to_string(), client.port().to_string())).unzip();
        let mut macros =
            vec![("j", &*opening.host_name), ("{daemon_name}", peer.daemon), ("v", "Ortler"), ("_", &name)];
        if let (Some(address), Some(port)) = (&address, &port) {
            macros.extend([("{client_addr}", address.as_str()), ("{client_port}", port), ("{client_name}", &name)]);
            macros.push(("{client_ptr}", peer.name.as_deref().unwrap_or("unknown")));
        }
        let command = Command::Connect {
            host: name.clone().into_bytes(),
            address: peer.client.map_or(Address::Unknown, |client| Address::of(client.ip(), client.port())),
        };
        let answer = self.ask((b'C', macros), &command, step::NO_CONNECT, step::NO_REPLY_CONNECT).await?;
        if matches!(answer, Answer::GoOn) && opening.greeting.is_some() {
            return self.tell_helo(opening).await;
        }
        Ok(answer)
    }

    async fn tell_helo(&mut self, opening: &Opening) -> Result<Answer, MilterError> {
        let Some(greeting) = &opening.greeting else { return Ok(Answer::GoOn) };
        let mut macros = Vec::new();
        if let Some((version, cipher)) = &greeting.tls {
            macros.extend([("{tls_version}", version.as_str()), ("{cipher}", cipher)]);
        }
        let command = Command::Helo(greeting.helo.clone().into_bytes());
        self.ask((b'H', macros), &command, step::NO_HELO, step::NO_REPLY_HELO).await
    }

    async fn tell_mail(&mut self, start: &Start<'_>) -> Result<Answer, MilterError> {
        let (id, sender) = (of_id(start.id), start.reverse_path.to_string());
        let host = start.reverse_path.address().map(|address| address.domain.to_string());
        let mut macros = vec![("i", id.as_str()), ("{mail_addr}", &sender)];
        macros.push(("{mail_host}", host.as_deref().unwrap_or_default()));
        if let Some(Login { account, mechanism }) = &start.login {
            macros.extend([
                ("{auth_authen}", account.as_str()),
                ("{auth_author}", account),
                ("{auth_type}", mechanism),
            ]);
        }
        self.in_message = true;
        let command = Command::Mail(vec![format!("<{sender}>").into_bytes()]);
        self.ask((b'M', macros), &command, step::NO_MAIL, step::NO_REPLY_MAIL).await
    }

    /// Sends a command and its macros and reads the answer, unless the milter left the step or the answer out.
    async fn ask(
        &mut self,
        (code, macros): (u8, Vec<(&str, &str)>),
        command: &Command,
        left_out: u32,
        unanswered: u32,
    ) -> Result<Answer, MilterError> {
        let link = self.link.as_mut().ok_or(MilterError::Closed)?;
        if link.leaves_out(left_out) {
            return Ok(Answer::GoOn);
        }
        if !macros.is_empty() {
            let pair = |(name, value): (&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
            link.put(&Command::Macros { command: code, values: macros.into_iter().map(pair).collect() });
        }
        link.put(command);
        if link.leaves_out(unanswered) {
            if link.is_full() {
                link.flush().await?;
            }
            return Ok(Answer::GoOn);
        }
        of_response(&link.response().await?)
    }

    async fn tell_content(
        &mut self,
        id: Option<MessageId>,
        message: &Bytes,
        octets_max: usize,
    ) -> Result<Word, MilterError> {
        let id = of_id(id);
        let macros = || vec![("i", id.as_str())];
        let mut answer = self.ask((b'T', macros()), &Command::Data, step::NO_DATA, step::NO_REPLY_DATA).await?;
        let keeps_space = self.link.as_ref().is_some_and(|link| link.leaves_out(step::HEADER_LEADING_SPACE));
        let mut fields = HeaderFields::of(message).filter(|field| !field.name.is_empty());
        while let (Answer::GoOn, Some(field)) = (&answer, fields.next()) {
            let command = told_field(&field, keeps_space);
            answer = self.ask((b'L', Vec::new()), &command, step::NO_HEADERS, step::NO_REPLY_HEADER).await?;
        }
        if let Answer::GoOn = answer {
            let (left_out, unanswered) = (step::NO_END_OF_HEADERS, step::NO_REPLY_END_OF_HEADERS);
            answer = self.ask((b'N', macros()), &Command::EndOfHeaders, left_out, unanswered).await?;
        }
        if let Answer::GoOn = answer {
            answer = self.tell_body(message).await?;
        }
        let word = match answer {
            Answer::GoOn => {
                let link = self.link.as_mut().ok_or(MilterError::Closed)?;
                let values = vec![(b"i".to_vec(), id.clone().into_bytes())];
                link.put(&Command::Macros { command: b'E', values });
                link.put(&Command::EndOfMessage);
                let word = read_word(link, octets_max).await?;
                self.in_message = false;
                word
            }
            Answer::Accept => Word::default(),
            Answer::Wish(wish) => Word { wish: Some(wish), ..Word::default() },
        };
        self.part = Part::PassesMessage;
        Ok(word)
    }

    async fn tell_body(&mut self, message: &Bytes) -> Result<Answer, MilterError> {
        let link = self.link.as_mut().ok_or(MilterError::Closed)?;
        if link.leaves_out(step::NO_BODY) {
            return Ok(Answer::GoOn);
        }
        let body = message.get(mail::header::body_offset(message)..).unwrap_or_default();
        for chunk in body.chunks(DATA_MAX) {
            link.put(&Command::Body(chunk.to_vec()));
            if link.leaves_out(step::NO_REPLY_BODY) {
                link.flush().await?;
                continue;
            }
            match link.response().await? {
                Response::Skip => break,
                other => match of_response(&other)? {
                    Answer::GoOn => {}
                    done => return Ok(done),
                },
            }
        }
        Ok(Answer::GoOn)
    }
}

/// The field, cut to what every milter takes in one packet: both texts end with NUL.
fn told_field(field: &HeaderField<'_>, keeps_space: bool) -> Command {
    let name = field.name.get(..DATA_MAX - 2).unwrap_or(field.name);
    let value: Vec<u8> = field.value.iter().copied().filter(|byte| *byte != b'\r').collect();
    let value = value.strip_suffix(b"\n").unwrap_or(&value);
    let bare = value.strip_prefix(b" ").unwrap_or(value);
    let value = if keeps_space { value } else { bare };
    let value = value.get(..DATA_MAX - 2 - name.len()).unwrap_or(value);
    Command::Header { name: name.to_vec(), value: value.to_vec() }
}

fn of_id(id: Option<MessageId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn of_response(response: &Response) -> Result<Answer, MilterError> {
    match response {
        Response::Continue => Ok(Answer::GoOn),
        Response::Accept => Ok(Answer::Accept),
        other => wish_of(other).map(Answer::Wish).ok_or_else(|| ProtocolError::OutOfOrder.into()),
    }
}

/// Changes, then the last word.
async fn read_word(link: &mut Link, octets_max: usize) -> Result<Word, MilterError> {
    let mut word = Word::default();
    let (mut changes, before) = (0, link.received());
    loop {
        let response = link.response().await?;
        changes += usize::from(!matches!(response, Response::ReplaceBody(_)));
        if changes > CHANGES_MAX || link.received() - before > octets_max {
            return Err(MilterError::Greedy);
        }
        match response {
            Response::Continue | Response::Accept => return Ok(word),
            Response::Quarantine(reason) => {
                word.wish = Some(ExternalWish::Quarantine { reason: one_line(&text(&reason)).into() });
            }
            Response::AddHeader { name, value } => {
                word.edit.header.push(HeaderChange::Add { name: field_name(&name), value: field_value(&value) });
            }
            Response::InsertHeader { index, name, value } => {
                let (name, value) = (field_name(&name), field_value(&value));
                word.edit.header.push(HeaderChange::Insert { index, name, value });
            }
            Response::ChangeHeader { index, name, value } => {
                let value = (!value.is_empty()).then(|| field_value(&value));
                word.edit.header.push(HeaderChange::Replace { index, name: field_name(&name), value });
            }
            Response::ReplaceBody(chunk) => {
                word.edit.body.get_or_insert_default().extend_from_slice(&chunk);
            }
            Response::AddRecipient(path) => word.added.push(address_in(&path)),
            Response::AddRecipientWith(words) => word.added.extend(words.first().map(|path| address_in(path))),
            Response::DeleteRecipient(path) => word.deleted.push(address_in(&path)),
            // Not offered in the negotiation; the milter is told by being ignored, as other servers do.
            Response::ChangeFrom(_) => word.ignored = true,
            other => {
                let wish = wish_of(&other).ok_or(ProtocolError::OutOfOrder)?;
                return Ok(Word { wish: Some(wish), ..word });
            }
        }
    }
}

fn address_in(path: &[u8]) -> String {
    text(path).trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}
