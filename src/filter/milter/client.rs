//! Asking an external milter about one message, as a mail server does.

use std::sync::Arc;
use std::time::Duration;

use mail::{Enhanced, HeaderFields, ReversePath, Status};
use policy::{ExternalWish, Finding, ReasonClass};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::proto::{
    Address, BODY_CHUNK_MAX, Command, Negotiation, PacketReader, ProtocolError, Response, VERSION, action, step,
};
use crate::address::ServiceAddress;
use crate::facts::{MessageFacts, Source};
use crate::proof::{finding, one_line};
use crate::verdict::{EXTERNAL_DEFER, EXTERNAL_REJECT, HeaderChange};

/// How an external milter is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MilterSettings {
    pub address: ServiceAddress,
    pub connect_timeout: Duration,
    /// For one answer.
    pub reply_timeout: Duration,
    /// For the whole message.
    pub total_timeout: Duration,
    pub when_away: WhenAway,
}

impl MilterSettings {
    pub fn new(address: ServiceAddress) -> Self {
        Self {
            address,
            connect_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
            when_away: WhenAway::Defer,
        }
    }
}

/// What happens to a message that the milter could not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenAway {
    Defer,
    /// Go on as if it were not configured.
    Pass,
}

/// What milters want.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct External {
    /// For the whole message.
    pub wish: Option<ExternalWish>,
    /// For single recipients, by their place in the envelope.
    pub recipients: Vec<(usize, ExternalWish)>,
    pub header_changes: Vec<HeaderChange>,
    pub findings: Vec<Finding>,
}

impl External {
    /// Adds what the next milter wants.
    pub fn join(&mut self, next: Self) {
        self.wish = self.wish.take().or(next.wish);
        self.recipients.extend(next.recipients);
        self.header_changes.extend(next.header_changes);
        self.findings.extend(next.findings);
    }

    fn note(&mut self, name: &str, description: &str, evidence: &str) {
        self.findings.push(Finding { class: ReasonClass::Milter, ..finding(name, 0, description, evidence) });
    }
}

/// Tells the milter all of the message and returns what it wants. Never fails, and ends within the total timeout.
/// Cancel safe: the milter sees a closed connection.
pub async fn ask(settings: &MilterSettings, facts: &MessageFacts, host_name: &str) -> External {
    let asked = timeout(settings.total_timeout, converse(settings, facts, host_name)).await;
    let reason = match asked {
        Ok(Ok(external)) => return external,
        Ok(Err(error)) => error.to_string(),
        Err(_late) => MilterError::Late.to_string(),
    };
    tracing::warn!(event = base::event::SCANNER_UNAVAILABLE, milter = %settings.address, %reason);
    metrics::counter!("ortler_filter_milter_unavailable_total").increment(1);
    let mut external = External::default();
    external.note("MILTER_AWAY", "An external milter could not be asked", &reason);
    if settings.when_away == WhenAway::Defer {
        external.wish = Some(ExternalWish::Defer(EXTERNAL_DEFER));
    }
    external
}

#[derive(Debug, thiserror::Error)]
enum MilterError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("no answer in time")]
    Late,
    #[error("connection closed")]
    Closed,
    #[error("speaks version {0}, at least 2 is needed")]
    Version(u32),
    #[error("asks for more than was offered")]
    Greedy,
}

trait Channel: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Channel for T {}

/// The actions that we carry out. Bodies are never changed and recipients never added: both would break what the
/// sender signed or meant.
const ACTIONS: u32 = action::ADD_HEADERS | action::CHANGE_HEADERS | action::DELETE_RECIPIENTS | action::QUARANTINE;

const STEPS: u32 = step::NO_CONNECT
    | step::NO_HELO
    | step::NO_MAIL
    | step::NO_RCPT
    | step::NO_BODY
    | step::NO_HEADERS
    | step::NO_END_OF_HEADERS
    | step::NO_UNKNOWN
    | step::NO_DATA
    | step::SKIP
    | step::NO_REPLY_HEADER
    | step::NO_REPLY_CONNECT
    | step::NO_REPLY_HELO
    | step::NO_REPLY_MAIL
    | step::NO_REPLY_RCPT
    | step::NO_REPLY_DATA
    | step::NO_REPLY_UNKNOWN
    | step::NO_REPLY_END_OF_HEADERS
    | step::NO_REPLY_BODY
    | step::HEADER_LEADING_SPACE;

struct Link {
    channel: Box<dyn Channel>,
    reader: PacketReader,
    reply_timeout: Duration,
    steps: u32,
}

/// What a milter's answer means for the steps that follow.
enum Step {
    GoOn,
    SkipBody,
    /// Nothing more to ask; with what it wants, if anything.
    Done(Option<ExternalWish>),
}

async fn converse(settings: &MilterSettings, facts: &MessageFacts, host_name: &str) -> Result<External, MilterError> {
    let mut link = Link::open(settings).await?;
    let mut external = External::default();
    if let Some(wish) = link.tell_all(facts, host_name, &mut external).await? {
        external.wish = Some(wish);
    }
    // Both ends are done with it: whether the farewell arrives does not matter.
    let _ = link.send(&Command::Quit).await;
    match external.wish.clone() {
        Some(ExternalWish::Reject(status)) => {
            external.note("MILTER_REJECT", "An external milter refuses it", status.text());
        }
        Some(ExternalWish::Defer(status)) => {
            external.note("MILTER_DEFER", "An external milter wants it later", status.text());
        }
        Some(ExternalWish::Quarantine { reason }) => {
            external.note("MILTER_QUARANTINE", "An external milter holds it back", &reason);
        }
        None => {}
    }
    Ok(external)
}

impl Link {
    async fn open(settings: &MilterSettings) -> Result<Self, MilterError> {
        let connect = async {
            Ok::<Box<dyn Channel>, std::io::Error>(match &settings.address {
                ServiceAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                ServiceAddress::Socket(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let channel = timeout(settings.connect_timeout, connect).await.map_err(|_| MilterError::Late)??;
        let mut link =
            Self { channel, reader: PacketReader::default(), reply_timeout: settings.reply_timeout, steps: 0 };
        let offer = Negotiation { version: VERSION, actions: ACTIONS, steps: STEPS };
        link.send(&Command::Negotiate(offer)).await?;
        match link.response().await? {
            Response::Negotiate(chosen) if chosen.version < 2 => Err(MilterError::Version(chosen.version)),
            // Milters name actions that they never take: only unknown steps would put us out of step.
            Response::Negotiate(chosen) if chosen.steps & !STEPS != 0 => Err(MilterError::Greedy),
            Response::Negotiate(chosen) => {
                link.steps = chosen.steps;
                Ok(link)
            }
            _ => Err(ProtocolError::OutOfOrder.into()),
        }
    }

    const fn leaves_out(&self, step: u32) -> bool {
        self.steps & step != 0
    }

    async fn send(&mut self, command: &Command) -> Result<(), MilterError> {
        let mut out = Vec::new();
        command.to_packet().write(&mut out);
        timeout(self.reply_timeout, self.channel.write_all(&out)).await.map_err(|_| MilterError::Late)??;
        Ok(())
    }

    async fn response(&mut self) -> Result<Response, MilterError> {
        loop {
            while let Some(packet) = self.reader.next_packet()? {
                let response = Response::parse(&packet)?;
                if response != Response::Progress {
                    return Ok(response);
                }
            }
            let mut buffer = [0u8; 8192];
            let read = timeout(self.reply_timeout, self.channel.read(&mut buffer));
            let length = read.await.map_err(|_| MilterError::Late)??;
            match buffer.get(..length) {
                Some(bytes) if !bytes.is_empty() => self.reader.feed(bytes),
                Some(_) | None => return Err(MilterError::Closed),
            }
        }
    }

    /// Sends a command and reads what it means, unless the milter left the step or the answer out.
    async fn step(&mut self, command: &Command, left_out: u32, unanswered: u32) -> Result<Step, MilterError> {
        if self.leaves_out(left_out) {
            return Ok(Step::GoOn);
        }
        self.send(command).await?;
        if self.leaves_out(unanswered) {
            return Ok(Step::GoOn);
        }
        match self.response().await? {
            Response::Continue => Ok(Step::GoOn),
            Response::Skip if matches!(command, Command::Body(_)) => Ok(Step::SkipBody),
            Response::Accept => Ok(Step::Done(None)),
            other => match wish_of(&other) {
                Some(wish) => Ok(Step::Done(Some(wish))),
                None => Err(ProtocolError::OutOfOrder.into()),
            },
        }
    }

    async fn macros(&mut self, command: u8, values: &[(&str, &str)]) -> Result<(), MilterError> {
        let pair = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        self.send(&Command::Macros { command, values: values.iter().map(pair).collect() }).await
    }

    /// The whole conversation, stage by stage.
    async fn tell_all(
        &mut self,
        facts: &MessageFacts,
        host_name: &str,
        external: &mut External,
    ) -> Result<Option<ExternalWish>, MilterError> {
        let (ip, helo) = match &facts.source {
            Source::Client { ip, helo, .. } => (Some(*ip), helo.as_str()),
            Source::Submitter { ip, .. } => (*ip, host_name),
            Source::Relay | Source::File => (None, host_name),
        };
        self.macros(b'C', &[("j", host_name), ("{daemon_name}", "ortler")]).await?;
        let connect = Command::Connect {
            host: ip.map_or_else(|| "localhost".to_owned(), |ip| format!("[{ip}]")).into_bytes(),
            address: ip.map_or(Address::Unknown, |ip| Address::of(ip, 0)),
        };
        let mut opening = vec![(connect, step::NO_CONNECT, step::NO_REPLY_CONNECT)];
        opening.push((Command::Helo(helo.as_bytes().to_vec()), step::NO_HELO, step::NO_REPLY_HELO));
        let sender = match &facts.envelope.reverse_path {
            ReversePath::Null => "<>".to_owned(),
            ReversePath::Address(address) => format!("<{address}>"),
        };
        opening.push((Command::Mail(vec![sender.clone().into_bytes()]), step::NO_MAIL, step::NO_REPLY_MAIL));
        for (command, left_out, unanswered) in opening {
            if let Command::Mail(_) = command {
                let address = sender.trim_matches(['<', '>']);
                match &facts.source {
                    Source::Submitter { account, .. } => {
                        self.macros(b'M', &[("{mail_addr}", address), ("{auth_authen}", account)]).await?;
                    }
                    Source::Client { .. } | Source::Relay | Source::File => {
                        self.macros(b'M', &[("{mail_addr}", address)]).await?;
                    }
                }
            }
            if let Step::Done(wish) = self.step(&command, left_out, unanswered).await? {
                return Ok(wish);
            }
        }
        for (at, path) in facts.envelope.forward_paths.iter().enumerate() {
            let path = path.to_string();
            self.macros(b'R', &[("{rcpt_addr}", &path)]).await?;
            let command = Command::Rcpt(vec![format!("<{path}>").into_bytes()]);
            match self.step(&command, step::NO_RCPT, step::NO_REPLY_RCPT).await? {
                Step::Done(Some(wish)) => {
                    external.note("MILTER_RECIPIENT", "An external milter refuses a recipient", &path);
                    external.recipients.push((at, wish));
                }
                // Accepted: the milter wants to know no more of this message.
                Step::Done(None) => return Ok(None),
                Step::GoOn | Step::SkipBody => {}
            }
        }
        if let Some(done) = self.tell_content(facts).await? {
            return Ok(done);
        }
        self.send(&Command::EndOfMessage).await?;
        self.read_wishes(facts, external).await
    }

    /// DATA, header and body. `Some` if the milter ended the conversation.
    async fn tell_content(&mut self, facts: &MessageFacts) -> Result<Option<Option<ExternalWish>>, MilterError> {
        if let Step::Done(wish) = self.step(&Command::Data, step::NO_DATA, step::NO_REPLY_DATA).await? {
            return Ok(Some(wish));
        }
        for field in HeaderFields::of(&facts.message).filter(|field| !field.name.is_empty()) {
            let value: Vec<u8> = field.value.iter().copied().filter(|byte| *byte != b'\r').collect();
            let value = value.strip_suffix(b"\n").unwrap_or(&value);
            let bare = value.strip_prefix(b" ").unwrap_or(value);
            let value = if self.leaves_out(step::HEADER_LEADING_SPACE) { value } else { bare };
            let command = Command::Header { name: field.name.to_vec(), value: value.to_vec() };
            if let Step::Done(wish) = self.step(&command, step::NO_HEADERS, step::NO_REPLY_HEADER).await? {
                return Ok(Some(wish));
            }
        }
        let end = self.step(&Command::EndOfHeaders, step::NO_END_OF_HEADERS, step::NO_REPLY_END_OF_HEADERS);
        if let Step::Done(wish) = end.await? {
            return Ok(Some(wish));
        }
        let body = facts.message.get(mail::header::body_offset(&facts.message)..).unwrap_or_default();
        for chunk in body.chunks(BODY_CHUNK_MAX) {
            match self.step(&Command::Body(chunk.to_vec()), step::NO_BODY, step::NO_REPLY_BODY).await? {
                Step::Done(wish) => return Ok(Some(wish)),
                Step::SkipBody => break,
                Step::GoOn => {}
            }
        }
        Ok(None)
    }

    /// Changes, then the last word.
    async fn read_wishes(
        &mut self,
        facts: &MessageFacts,
        external: &mut External,
    ) -> Result<Option<ExternalWish>, MilterError> {
        let mut held = None;
        for _ in 0..CHANGES_MAX {
            match self.response().await? {
                Response::Continue | Response::Accept => return Ok(held),
                Response::Quarantine(reason) => {
                    held = Some(ExternalWish::Quarantine { reason: one_line(&text(&reason)).into() });
                }
                Response::AddHeader { name, value } => {
                    let change = HeaderChange::Add { name: field_name(&name), value: field_value(&value) };
                    external.header_changes.push(change);
                }
                Response::InsertHeader { index, name, value } => {
                    let (name, value) = (field_name(&name), field_value(&value));
                    external.header_changes.push(HeaderChange::Insert { index, name, value });
                }
                Response::ChangeHeader { index, name, value } => {
                    let value = (!value.is_empty()).then(|| field_value(&value));
                    external.header_changes.push(HeaderChange::Replace { index, name: field_name(&name), value });
                }
                Response::DeleteRecipient(path) => {
                    let path = text(&path);
                    let address = path.trim_matches(['<', '>']);
                    let same = |to: &mail::ForwardPath| to.to_string().eq_ignore_ascii_case(address);
                    if let Some(at) = facts.envelope.forward_paths.iter().position(same) {
                        let reason: Arc<str> = "recipient removed by an external milter".into();
                        external.note("MILTER_RECIPIENT", "An external milter removes a recipient", address);
                        external.recipients.push((at, ExternalWish::Quarantine { reason }));
                    }
                }
                // Not offered in the negotiation; the milter is told by being ignored, as other servers do.
                Response::AddRecipient(_)
                | Response::AddRecipientWith(_)
                | Response::ReplaceBody(_)
                | Response::ChangeFrom(_) => {
                    external.note("MILTER_IGNORED", "An external milter wants a change that is not made", "");
                }
                other => return wish_of(&other).map(Some).ok_or_else(|| ProtocolError::OutOfOrder.into()),
            }
        }
        Err(MilterError::Greedy)
    }
}

/// A milter that adds more than this is out of its mind.
const CHANGES_MAX: usize = 1000;

/// The decisions among the responses.
fn wish_of(response: &Response) -> Option<ExternalWish> {
    match response {
        Response::Reject => Some(ExternalWish::Reject(EXTERNAL_REJECT)),
        Response::TempFail => Some(ExternalWish::Defer(EXTERNAL_DEFER)),
        Response::Discard => Some(ExternalWish::Quarantine { reason: "discarded by an external milter".into() }),
        Response::ReplyCode(line) => Some(of_reply(&text(line))),
        Response::Negotiate(_)
        | Response::Continue
        | Response::Accept
        | Response::Skip
        | Response::Progress
        | Response::Quarantine(_)
        | Response::AddHeader { .. }
        | Response::InsertHeader { .. }
        | Response::ChangeHeader { .. }
        | Response::AddRecipient(_)
        | Response::AddRecipientWith(_)
        | Response::DeleteRecipient(_)
        | Response::ReplaceBody(_)
        | Response::ChangeFrom(_)
        | Response::Shutdown
        | Response::ConnectionFailed => None,
    }
}

/// `550 5.7.1 text`, perhaps of several lines (the first counts), `%` doubled. What is no 4xx or 5xx is a defer:
/// the milter wanted something, and it was not to accept.
fn of_reply(line: &str) -> ExternalWish {
    let line = line.lines().next().unwrap_or_default().replace("%%", "%");
    let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
    let rest = line.get(4..).unwrap_or_default();
    let (class, fallback) = if (500..600).contains(&code) { (5, EXTERNAL_REJECT) } else { (4, EXTERNAL_DEFER) };
    let status = if (400..600).contains(&code) {
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (enhanced, message) = match enhanced_code(first) {
            Some(enhanced) if enhanced.0 == class => (enhanced, after),
            _ => (Enhanced(class, 7, 1), rest),
        };
        let message: String = message.chars().take(400).collect();
        Status::with_text(code, enhanced, &message)
    } else {
        fallback
    };
    if class == 5 { ExternalWish::Reject(status) } else { ExternalWish::Defer(status) }
}

fn enhanced_code(text: &str) -> Option<Enhanced> {
    let mut parts = text.split('.');
    let code = Enhanced(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(code)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Letters of a field name only: a milter cannot smuggle a second field in.
fn field_name(name: &[u8]) -> String {
    text(name).chars().filter(|c| c.is_ascii_graphic() && *c != ':').collect()
}

/// Folds become CRLF and white space; nothing else can end the line. The space after the colon is not part of it.
fn field_value(value: &[u8]) -> String {
    let value = text(value);
    let value = value.strip_prefix(' ').unwrap_or(&value);
    let lines: Vec<&str> =
        value.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.trim().is_empty()).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push_str(if line.starts_with([' ', '\t']) { "\r\n" } else { "\r\n\t" });
        }
        out.extend(line.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_statuses() {
        for (line, written) in [
            ("550 5.7.1 go %% away", "550 5.7.1 go % away"),
            ("451 4.7.1 later", "451 4.7.1 later"),
            ("554 no code", "554 5.7.1 no code"),
            ("550 4.7.1 mixed", "550 5.7.1 4.7.1 mixed"),
            ("550 5.7.1 first\r\n550 second", "550 5.7.1 first"),
            ("250 fine", "451 4.7.1 Message could not be checked now, try again later"),
            ("", "451 4.7.1 Message could not be checked now, try again later"),
        ] {
            let (ExternalWish::Reject(status) | ExternalWish::Defer(status)) = of_reply(line) else { panic!("{line}") };
            assert_eq!(status.to_string(), written);
        }
    }

    #[test]
    fn fields_cannot_break_out() {
        assert_eq!(field_name(b"X-A: b\r\nX-C"), "X-AbX-C");
        assert_eq!(field_value(b" a"), "a");
        assert_eq!(field_value(b"a\n b\nX-Evil: c\r\n\r\nbody"), "a\r\n b\r\n\tX-Evil: c\r\n\tbody");
    }
}
