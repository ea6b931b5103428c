use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Clock, FakeClock, MessageId, SystemClock, UtcMillis};
use bytes::Bytes;
use mail::{BodyKind, Envelope, ReversePath};
use mailauth::stub::StubServer;
use mailauth::{Resolver, ResolverSettings};
use policy::{EffectivePolicy, Presets, Stage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::facts::Source;
use crate::milter::proto::{Command, Negotiation, PacketReader, Response, step};
use crate::milter::{Login, MilterSettings, WhenAway};
use crate::pipeline::FilterParts;
use crate::rules::RuleSet;

type Answer = fn(&Command) -> Vec<Response>;

/// A milter that answers by a function and writes down what it hears.
struct Milter {
    settings: MilterSettings,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Milter {
    /// `steps`: what it leaves out.
    async fn start(steps: u32, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = MilterSettings::new(listener.local_addr().unwrap().to_string().parse().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (mut tasks, log) = (JoinSet::new(), heard.clone());
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut reader, mut buffer) = (PacketReader::default(), vec![0; 4096]);
                'connection: loop {
                    while let Some(packet) = reader.next_packet().unwrap() {
                        let command = Command::parse(&packet).unwrap();
                        let out = match &command {
                            Command::Negotiate(offer) => {
                                let agreed = Negotiation { version: 6, actions: offer.actions, steps };
                                vec![Response::Negotiate(agreed)]
                            }
                            other => answer(other),
                        };
                        log.lock().unwrap().push(told(&command));
                        let mut wire = Vec::new();
                        out.iter().for_each(|response| response.to_packet().write(&mut wire));
                        stream.write_all(&wire).await.unwrap();
                        if command == Command::Quit {
                            break 'connection;
                        }
                    }
                    match stream.read(&mut buffer).await {
                        Ok(length) if length > 0 => reader.feed(&buffer[..length]),
                        _ => break,
                    }
                }
            }
        });
        Self { settings, heard, _tasks: tasks }
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    async fn heard_in_the_end(&self, last: &str) -> Vec<String> {
        for _ in 0..200 {
            if self.heard.lock().unwrap().last().is_some_and(|heard| heard == last) {
                return self.heard();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.heard());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn told(command: &Command) -> String {
    match command {
        Command::Negotiate(_) => "negotiate".into(),
        Command::Macros { command, values } => {
            let values = values.iter().map(|(name, value)| format!(" {}={}", text(name), text(value)));
            format!("macros {}:{}", char::from(*command), values.collect::<String>())
        }
        Command::Connect { host, address } => format!("connect {} {:?}", text(host), address.ip()),
        Command::Helo(name) => format!("helo {}", text(name)),
        Command::Mail(words) => format!("mail {}", text(&words[0])),
        Command::Rcpt(words) => format!("rcpt {}", text(&words[0])),
        Command::Data => "data".into(),
        Command::Header { name, value } => format!("header {}:{}", text(name), text(value)),
        Command::EndOfHeaders => "eoh".into(),
        Command::Body(body) => format!("body {}", body.len()),
        Command::EndOfMessage => "eom".into(),
        Command::Abort => "abort".into(),
        Command::Quit => "quit".into(),
        Command::QuitForNext | Command::Unknown(_) => "other".into(),
    }
}

/// Says "go on" where an answer is waited for.
fn go_on(command: &Command) -> Vec<Response> {
    match command {
        Command::Macros { .. } | Command::Abort | Command::Quit => Vec::new(),
        _ => vec![Response::Continue],
    }
}

fn filter(milters: &[&MilterSettings], resolver: Option<Resolver>) -> Arc<Filter> {
    filter_at(milters, resolver, Arc::new(SystemClock))
}

fn filter_at(milters: &[&MilterSettings], resolver: Option<Resolver>, clock: Arc<dyn Clock>) -> Arc<Filter> {
    Arc::new(Filter::new(FilterParts {
        host_name: "mx.here.test".into(),
        resolver,
        rules: Arc::new(RuleSet::parse("none.cf", "").0),
        classifier: None,
        reputation: None,
        greylist_loopback: true,
        scanner: None,
        own_domains: Arc::default(),
        countries: None,
        trusted_sealers: Vec::new(),
        lists: crate::ListSettings::default(),
        milters: milters.iter().map(|settings| (*settings).clone()).collect(),
        policy: EffectivePolicy::resolve(&Presets::shipped(), &[]),
        clock,
    }))
}

const ID: MessageId = MessageId::from_u128(7);

/// One session as reception drives it.
struct Driven {
    stages: Stages,
    from: ReversePath,
    to: Vec<ForwardPath>,
}

impl Driven {
    async fn connect(filter: &Arc<Filter>) -> (Self, Result<(), Status>) {
        let mut stages = Stages::new(filter.clone());
        let client: SocketAddr = "192.0.2.66:4711".parse().unwrap();
        let peer = Peer { client: Some(client), name: Some("mail.x.test".into()), daemon: "smtp" };
        let answer = stages.connected(peer).await;
        (Self { stages, from: ReversePath::Null, to: Vec::new() }, answer)
    }

    async fn greet(&mut self, helo: &str) -> Result<(), Status> {
        self.stages.helo(Greeting { helo: helo.into(), tls: Some(("TLSv1.3".into(), "X".into())) }).await
    }

    async fn mail(&mut self, from: &str) -> Result<(), Status> {
        self.from = ReversePath::Address(from.parse().unwrap());
        self.to.clear();
        let login = Some(Login { account: "anna".into(), mechanism: "LOGIN" });
        let start = Start { id: Some(ID), login, reverse_path: &self.from };
        self.stages.sender(&start, Some("192.0.2.66".parse().unwrap())).await
    }

    async fn rcpt(&mut self, to: &str) -> Result<(), Status> {
        let path = ForwardPath::Address(to.parse().unwrap());
        let start = Start { id: Some(ID), login: None, reverse_path: &self.from };
        let answer = self.stages.recipient(&start, &path).await;
        if answer.is_ok() {
            self.to.push(path);
        }
        answer
    }

    async fn data(&mut self, message: &str) -> Judgement {
        let facts = MessageFacts {
            source: Source::Client { ip: "192.0.2.66".parse().unwrap(), helo: "mail.x.test".into(), tls: true },
            envelope: Envelope {
                reverse_path: self.from.clone(),
                forward_paths: self.to.clone(),
                body: BodyKind::SevenBit,
                smtputf8: false,
                wishes: mail::Wishes::default(),
            },
            message: Bytes::from(message.to_owned()),
            received_at: UtcMillis(1_793_443_327_000),
        };
        let judgement = self.stages.judge(ID, &facts).await;
        self.stages.message_done().await;
        judgement
    }
}

const MESSAGE: &str = "From: a@x.test\r\nX-Spam-Flag: YES\r\nSubject: one\r\n\ttwo\r\n\r\nHello\r\n";

async fn up_to_mail(filter: &Arc<Filter>) -> Driven {
    let (mut session, answer) = Driven::connect(filter).await;
    assert_eq!((answer, session.greet("mail.x.test").await), (Ok(()), Ok(())));
    assert_eq!(session.mail("a@x.test").await, Ok(()));
    session
}

fn written(answer: Result<(), Status>) -> String {
    answer.map_or_else(|status| status.to_string(), |()| "ok".into())
}

#[tokio::test]
async fn a_milter_hears_each_stage_with_its_macros() {
    let milter = Milter::start(0, go_on).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    assert_eq!(
        milter.heard(),
        [
            "negotiate",
            "macros C: j=mx.here.test {daemon_name}=smtp v=Ortler _=mail.x.test {client_addr}=192.0.2.66 \
             {client_port}=4711 {client_name}=mail.x.test {client_ptr}=mail.x.test",
            "connect mail.x.test Some(192.0.2.66)",
            "macros H: {tls_version}=TLSv1.3 {cipher}=X",
            "helo mail.x.test",
            &format!(
                "macros M: i={ID} {{mail_addr}}=a@x.test {{mail_host}}=x.test {{auth_authen}}=anna {{auth_author}}=anna {{auth_type}}=LOGIN"
            ),
            "mail <a@x.test>",
        ]
    );
    assert_eq!(session.rcpt("b@here.test").await, Ok(()));
    assert_eq!(
        milter.heard(),
        [format!("macros R: i={ID} {{rcpt_addr}}=b@here.test {{rcpt_mailer}}=local").as_str(), "rcpt <b@here.test>"]
    );
    let judgement = session.data(MESSAGE).await;
    assert_eq!((judgement.external, judgement.edited), (None, None));
    // The forged field is not there for it: what it counts is what is kept.
    let heard: Vec<String> = milter.heard().into_iter().filter(|line| !line.starts_with("macros")).collect();
    assert_eq!(heard, ["data", "header From:a@x.test", "header Subject:one\n\ttwo", "eoh", "body 7", "eom"]);
    // A transaction that is given up is aborted; the next one goes over the same connection.
    session.mail("c@x.test").await.unwrap();
    session.stages.message_done().await;
    session.mail("d@x.test").await.unwrap();
    session.stages.close().await;
    let heard = milter.heard_in_the_end("quit").await;
    let heard: Vec<&str> = heard.iter().map(String::as_str).filter(|line| !line.starts_with("macros")).collect();
    assert_eq!(heard, ["mail <c@x.test>", "abort", "mail <d@x.test>", "quit"]);
}

#[tokio::test]
async fn refusals_are_told_at_their_stage_and_in_the_milters_words() {
    fn answer(command: &Command) -> Vec<Response> {
        match command {
            Command::Helo(name) if name == b"liar" => vec![Response::Reject],
            Command::Mail(words) if words[0] == b"<bad@x.test>" => {
                vec![Response::ReplyCode(b"553 5.1.8 not you".to_vec())]
            }
            Command::Rcpt(words) if words[0] == b"<no@here.test>" => {
                vec![Response::ReplyCode(b"450 4.7.1 wait".to_vec())]
            }
            Command::Rcpt(words) if words[0] == b"<never@here.test>" => vec![Response::Reject],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, answer).await;
    let filter = filter(&[&milter.settings], None);
    let (mut session, _) = Driven::connect(&filter).await;
    assert_eq!(written(session.greet("liar").await), "550 5.7.1 Message refused by a content check");
    assert_eq!(session.greet("mail.x.test").await, Ok(()));
    assert_eq!(written(session.mail("bad@x.test").await), "553 5.1.8 not you");
    assert_eq!(session.mail("a@x.test").await, Ok(()));
    assert_eq!(written(session.rcpt("no@here.test").await), "450 4.7.1 wait");
    assert_eq!(session.rcpt("b@here.test").await, Ok(()));
    assert_eq!(written(session.rcpt("never@here.test").await), "550 5.7.1 Message refused by a content check");
    let judgement = session.data(MESSAGE).await;
    assert_eq!((judgement.external.clone(), judgement.facts_for(0, &[]).external), (None, None));
    let refused: Vec<_> = judgement.findings.iter().map(|finding| (&*finding.name, finding.stage)).collect();
    assert_eq!(refused, [("MILTER_RECIPIENT", Stage::Rcpt)]);
}

#[tokio::test]
async fn a_client_is_turned_away_at_connect() {
    fn answer(command: &Command) -> Vec<Response> {
        match command {
            Command::Connect { .. } => vec![Response::Reject],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, answer).await;
    let (_, answer) = Driven::connect(&filter(&[&milter.settings], None)).await;
    assert_eq!(written(answer), "554 5.7.1 Message refused by a content check");
}

#[tokio::test]
async fn accepting_ends_its_part_and_what_was_left_out_is_not_asked() {
    fn accepts(command: &Command) -> Vec<Response> {
        match command {
            Command::Mail(_) => vec![Response::Accept],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, accepts).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    milter.heard();
    session.rcpt("b@here.test").await.unwrap();
    session.data(MESSAGE).await;
    session.mail("next@x.test").await.unwrap();
    let heard: Vec<String> = milter.heard().into_iter().filter(|line| !line.starts_with("macros")).collect();
    assert_eq!(heard, ["abort", "mail <next@x.test>"]);

    // Answers nothing but the end, and wants neither HELO nor recipients.
    fn silent(command: &Command) -> Vec<Response> {
        if *command == Command::EndOfMessage { vec![Response::Continue] } else { Vec::new() }
    }
    let quiet = step::NO_HELO | step::NO_RCPT | step::NO_REPLY_CONNECT | step::NO_REPLY_MAIL | step::NO_REPLY_DATA;
    let quiet = quiet | step::NO_REPLY_HEADER | step::NO_REPLY_END_OF_HEADERS | step::NO_REPLY_BODY;
    let milter = Milter::start(quiet | step::HEADER_LEADING_SPACE, silent).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    session.rcpt("b@here.test").await.unwrap();
    assert!(session.data(MESSAGE).await.findings.is_empty());
    let heard: Vec<String> = milter.heard().into_iter().filter(|line| !line.starts_with("macros")).collect();
    let expected = ["negotiate", "connect mail.x.test Some(192.0.2.66)", "mail <a@x.test>", "data"];
    assert_eq!(heard[..4], expected);
    assert_eq!(heard[4..], ["header From: a@x.test", "header Subject: one\n\ttwo", "eoh", "body 7", "eom"]);
}

#[tokio::test]
async fn changes_are_made_and_the_next_milter_sees_them() {
    fn first(command: &Command) -> Vec<Response> {
        if *command != Command::EndOfMessage {
            return go_on(command);
        }
        let bytes = |text: &str| text.as_bytes().to_vec();
        vec![
            Response::AddHeader { name: bytes("X-Last"), value: bytes("1") },
            Response::InsertHeader { index: 0, name: bytes("X-First"), value: bytes("2") },
            Response::ChangeHeader { index: 1, name: bytes("Subject"), value: bytes("new") },
            Response::ReplaceBody(bytes("Other\n")),
            Response::ReplaceBody(bytes("body\n")),
            Response::AddRecipient(bytes("<more@here.test>")),
            Response::DeleteRecipient(bytes("<b@here.test>")),
            Response::Quarantine(bytes("odd")),
            Response::Accept,
        ]
    }
    let (one, two) = (Milter::start(0, first).await, Milter::start(0, go_on).await);
    let mut session = up_to_mail(&filter(&[&one.settings, &two.settings], None)).await;
    session.rcpt("b@here.test").await.unwrap();
    session.rcpt("c@here.test").await.unwrap();
    two.heard();
    let judgement = session.data(MESSAGE).await;
    let edited = "X-First: 2\r\nFrom: a@x.test\r\nSubject: new\r\nX-Last: 1\r\n\r\nOther\r\nbody\r\n";
    assert_eq!(text(judgement.edited.as_ref().unwrap()), edited);
    assert_eq!(judgement.added.iter().map(ToString::to_string).collect::<Vec<_>>(), ["more@here.test"]);
    assert_eq!(judgement.removed, [0]);
    assert_eq!(judgement.external, Some(ExternalWish::Quarantine { reason: "odd".into() }));
    let heard = two.heard();
    assert!(heard.contains(&"header X-First:2".to_owned()) && heard.contains(&"body 13".to_owned()), "{heard:?}");
}

#[tokio::test]
async fn each_milter_is_away_in_its_own_way() {
    let nobody: MilterSettings = MilterSettings::new("127.0.0.1:1".parse().unwrap());
    let passed = MilterSettings { when_away: WhenAway::Pass, ..nobody.clone() };
    let mut session = up_to_mail(&filter(&[&passed], None)).await;
    session.rcpt("b@here.test").await.unwrap();
    let judgement = session.data(MESSAGE).await;
    assert_eq!(judgement.external, None);
    let noted: Vec<_> = judgement.findings.iter().map(|finding| (&*finding.name, finding.stage)).collect();
    assert_eq!(noted, [("MILTER_AWAY", Stage::Connect)]);
    // One that must be asked defers at MAIL: a client that only looks is not turned away.
    let (mut session, answer) = Driven::connect(&filter(&[&passed, &nobody], None)).await;
    assert_eq!((answer, session.greet("mail.x.test").await), (Ok(()), Ok(())));
    assert!(written(session.mail("a@x.test").await).starts_with("451 4.7.1"));

    // One that dies within a message.
    fn dies(command: &Command) -> Vec<Response> {
        if matches!(command, Command::Rcpt(_)) { vec![Response::Shutdown] } else { go_on(command) }
    }
    let milter = Milter::start(0, dies).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    for _ in 0..2 {
        assert!(written(session.rcpt("b@here.test").await).starts_with("451 4.7.1"));
    }
}

#[tokio::test]
async fn what_a_milter_says_of_the_client_stands_after_it_was_away() {
    static REFUSES: AtomicBool = AtomicBool::new(false);
    fn answer(command: &Command) -> Vec<Response> {
        match command {
            Command::Connect { .. } if REFUSES.load(Ordering::SeqCst) => vec![Response::Reject],
            Command::Rcpt(_) => vec![Response::Shutdown],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, answer).await;
    let clock = Arc::new(FakeClock::at(UtcMillis(0)));
    let mut session = up_to_mail(&filter_at(&[&milter.settings], None, clock.clone())).await;
    assert!(written(session.rcpt("b@here.test").await).starts_with("451 4.7.1"));
    clock.advance(Duration::from_secs(60));
    REFUSES.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(written(session.mail("a@x.test").await).starts_with("550 5.7.1"));
    }

    // One that wants to know nothing of this client is left alone for good.
    static ACCEPTS: AtomicBool = AtomicBool::new(false);
    fn accepts(command: &Command) -> Vec<Response> {
        match command {
            Command::Connect { .. } if ACCEPTS.load(Ordering::SeqCst) => vec![Response::Accept],
            Command::Rcpt(_) => vec![Response::Shutdown],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, accepts).await;
    let mut session = up_to_mail(&filter_at(&[&milter.settings], None, clock.clone())).await;
    assert!(written(session.rcpt("b@here.test").await).starts_with("451 4.7.1"));
    clock.advance(Duration::from_secs(60));
    ACCEPTS.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(session.mail("a@x.test").await, Ok(()));
        assert_eq!(session.rcpt("b@here.test").await, Ok(()));
    }
}

#[tokio::test]
async fn a_field_is_cut_to_what_every_milter_takes() {
    let milter = Milter::start(0, go_on).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    session.rcpt("b@here.test").await.unwrap();
    milter.heard();
    let (value, name) = ("x".repeat(100_000), "N".repeat(70_000));
    let judgement = session.data(&format!("X-Long: {value}\r\n{name}: 1\r\nA: 2\r\n\r\nHello\r\n")).await;
    assert!(judgement.findings.is_empty(), "{:?}", judgement.findings);
    let heard = milter.heard();
    let fields: Vec<&str> = heard.iter().filter_map(|line| line.strip_prefix("header ")).collect();
    // Name, value and a NUL after each in 65,535 octets.
    let lengths: Vec<usize> = fields.iter().map(|field| field.len() + 1).collect();
    assert_eq!(lengths, [65_535, 65_535, 4]);
    assert!(fields[0].starts_with("X-Long:xxx") && fields[1].starts_with("NNN"));
}

#[tokio::test]
async fn what_a_milter_may_change_is_bounded() {
    fn many(command: &Command) -> Vec<Response> {
        let more = |at: u32| Response::AddRecipient(format!("<r{at}@here.test>").into_bytes());
        if *command == Command::EndOfMessage { (0..2000).map(more).collect() } else { go_on(command) }
    }
    fn long(command: &Command) -> Vec<Response> {
        let field = || Response::AddHeader { name: b"X".to_vec(), value: vec![b'x'; 500_000] };
        match command {
            Command::EndOfMessage => (0..10).map(|_| field()).chain([Response::Continue]).collect(),
            other => go_on(other),
        }
    }
    fn body(command: &Command) -> Vec<Response> {
        let chunk = || Response::ReplaceBody(vec![b'x'; 65_535]);
        match command {
            Command::EndOfMessage => (0..100).map(|_| chunk()).chain([Response::Continue]).collect(),
            other => go_on(other),
        }
    }
    for (answer, is_greedy) in [(many as Answer, true), (long, true), (body, true), (go_on, false)] {
        let milter = Milter::start(0, answer).await;
        let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
        session.rcpt("b@here.test").await.unwrap();
        let judgement = session.data(MESSAGE).await;
        let noted: Vec<_> = judgement.findings.iter().map(|finding| &*finding.evidence).collect();
        assert_eq!(noted, if is_greedy { vec!["asks for more than was offered"] } else { Vec::new() });
        assert_eq!(matches!(judgement.external, Some(ExternalWish::Defer(_))), is_greedy);
    }
    // What grows with the message is no greed.
    let milter = Milter::start(0, body).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    session.rcpt("b@here.test").await.unwrap();
    let judgement = session.data(&format!("A: 1\r\n\r\n{}", "0123456789abcd\r\n".repeat(250_000))).await;
    assert!(judgement.edited.is_some() && judgement.findings.is_empty());
}

#[tokio::test]
async fn a_discard_at_rcpt_is_noted_as_what_it_is() {
    fn answer(command: &Command) -> Vec<Response> {
        if matches!(command, Command::Rcpt(_)) { vec![Response::Discard] } else { go_on(command) }
    }
    let milter = Milter::start(0, answer).await;
    let mut session = up_to_mail(&filter(&[&milter.settings], None)).await;
    assert_eq!(session.rcpt("b@here.test").await, Ok(()));
    let judgement = session.data(MESSAGE).await;
    let noted: Vec<_> = judgement.findings.iter().map(|finding| (&*finding.name, finding.stage)).collect();
    assert_eq!(noted, [("MILTER_QUARANTINE", Stage::Rcpt)]);
    assert!(matches!(judgement.external, Some(ExternalWish::Quarantine { .. })));
}

#[tokio::test]
async fn sender_checks_begin_with_the_first_recipient_that_is_accepted() {
    fn answer(command: &Command) -> Vec<Response> {
        match command {
            Command::Rcpt(words) if words[0] == b"<no@here.test>" => vec![Response::Reject],
            other => go_on(other),
        }
    }
    let milter = Milter::start(0, answer).await;
    let zone = StubServer::start("x.test TXT v=spf1 -all\n");
    let settings = ResolverSettings { name_servers: vec![zone.address()], ..ResolverSettings::default() };
    let resolver = Some(Resolver::new(&settings).unwrap());
    let mut session = up_to_mail(&filter(&[&milter.settings], resolver)).await;
    assert!(session.rcpt("no@here.test").await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(zone.questions(), 0, "nobody was accepted");
    session.rcpt("b@here.test").await.unwrap();
    // Answered while the client still names recipients: SPF and the reverse name.
    for _ in 0..200 {
        if zone.questions() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(zone.questions() >= 2);
    session.rcpt("c@here.test").await.unwrap();
    let judgement = session.data(MESSAGE).await;
    let stages: Vec<_> = judgement.findings.iter().map(|finding| (&*finding.name, finding.stage)).collect();
    assert_eq!(stages[..2], [("RDNS_NONE", Stage::Connect), ("SPF_FAIL", Stage::Mail)]);
}
