//! What holds for every input of every parser of outside bytes. The fuzzer and the ordinary tests run the same functions.

use std::net::SocketAddr;
use std::path::Path;

use base::{ByteSize, MessageId, UtcMillis};
use bytes::BytesMut;

/// A target with its name, which is also the folder of its seeds.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: &[Target] = &[
    ("smtp_session", smtp_session),
    ("smtp_content", smtp_content),
    ("smtp_replies", smtp_replies),
    ("routes", routes),
    ("proxy_header", proxy_header),
    ("imap_commands", imap_commands),
    ("pop3", pop3),
    ("managesieve", managesieve),
    ("rule_files", rule_files),
    ("configuration", configuration),
    ("mime", mime),
    ("names", names),
    ("milter_packets", milter_packets),
    ("mbox", mbox),
    ("message_html", message_html),
    ("rendering", rendering),
    ("archive_zip", archive_zip),
    ("archive_rar", archive_rar),
    ("archive_7z", archive_7z),
    ("archive_tar", archive_tar),
    ("archive_other", archive_other),
    ("documents", documents),
    ("attachments", attachments),
    ("sealed_results", sealed_results),
    ("list_answers", list_answers),
    ("reports", reports),
    ("sts_policies", sts_policies),
];

/// A server's lines: what is told of them is one line, of a class that fits.
pub fn smtp_replies(data: &[u8]) {
    use mail::reply::{Offers, Reply, reply_line};
    let (mut lines, mut code) = (Vec::new(), 0);
    for line in data.split(|octet| *octet == b'\n').take(300) {
        let Some((said, _is_last, text)) = reply_line(line) else { continue };
        assert!((200..600).contains(&said));
        code = said;
        lines.push(text);
    }
    let reply = Reply { code, lines };
    let status = reply.status();
    assert_eq!(status.code() / 100, u16::from(status.enhanced().0));
    assert!(status.text().chars().count() <= 300 && !status.text().chars().any(char::is_control));
    assert!(code / 100 != 5 || status.is_permanent());
    let offers = Offers::new(&reply);
    let _ = (offers.has("DSN"), offers.of("SIZE"), reply.describe());
}

/// A report, in a message or bare: what is read can be written down and read again, and its texts are bounded.
pub fn reports(data: &[u8]) {
    let (mut found, problems) = peers::read(data);
    assert!(problems.iter().all(|problem| problem.to_string().len() < 4000));
    found.extend(peers::dmarc::read(data).map(peers::Report::Dmarc));
    found.extend(peers::tls::read(data).map(peers::Report::Tls));
    for report in found {
        for received in report.into_received(UtcMillis(0)) {
            let again: peers::Report = serde_json::from_str(&received.report).expect("what was written can be read");
            assert_eq!(serde_json::to_string(&again).expect("it can be written"), received.report);
            assert!(received.submitter.chars().count() <= 300 && received.domain.chars().count() <= 900);
        }
    }
}

/// A policy is taken or refused with a reason; one that is taken holds no name that it does not name.
pub fn sts_policies(data: &[u8]) {
    let Ok(policy) = relay::sts::Policy::parse(&String::from_utf8_lossy(data)) else { return };
    assert!(policy.max_age.as_secs() <= 31_557_600 && policy.hosts.len() <= 100);
    for host in ["mx.example.test", "a.b.example.test", ""] {
        let is_named = policy.hosts.iter().any(|known| known.trim_start_matches("*.").len() <= host.len());
        assert!(!policy.holds(host) || is_named);
    }
}

/// A routing file is taken or refused with a reason; one that is taken knows a lane for everybody.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match relay::Routes::parse(text, None) {
        Ok(routes) => {
            for (sender, recipient) in [("", "a@b.test"), ("x@y.test", "A@B.TEST"), ("x", "y"), ("@", "@")] {
                let lane = routes.lane(sender, recipient);
                assert!(!matches!(routes.way(&lane), relay::routes::Way::Unknown(_)), "{lane}");
            }
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A client's lines: the session answers each, keeps to its limits, and reads its own commands the same way twice.
pub fn smtp_session(data: &[u8]) {
    use smtp::server::{Limits, Offers, Output, Protocol, Session};
    let hold_until = Some(UtcMillis(1_900_000_000_000));
    let offers = Offers { starttls: true, auth: true, xclient: true, requiretls: true, hold_until };
    for protocol in [Protocol::Smtp, Protocol::Submission, Protocol::Lmtp] {
        let limits = Limits { recipients_max: 5, errors_max: 20, idle_commands_max: 30, ..Limits::default() };
        let mut session = Session::new(protocol, "mx.example", limits, offers);
        let mut rest = data;
        loop {
            let output = match smtp::proto::next_line(rest, 2048) {
                smtp::proto::Line::Whole { length } => {
                    let (line, later) = rest.split_at(length);
                    rest = later;
                    session.on_line(line.strip_suffix(b"\r\n").expect("a whole line ends so"))
                }
                smtp::proto::Line::BareLineEnd { length } => {
                    rest = &rest[length..];
                    session.on_bad_line(false)
                }
                smtp::proto::Line::TooLong | smtp::proto::Line::Partial => break,
            };
            let output = match output {
                Output::Authenticate(_) => session.on_authenticated(Ok(())),
                Output::CheckGreeting { extended, .. } => {
                    session.on_message_done();
                    session.on_greeting(extended, Ok(()))
                }
                Output::CheckSender(path, parameters) => {
                    session.on_sender(MessageId::from_u128(7), path, &parameters, Ok(()))
                }
                Output::CheckRecipient(path, wish) => session.on_recipient(path, wish, Ok(())),
                Output::ReceiveData(reply) => {
                    session.on_message_done();
                    Output::Reply(reply)
                }
                Output::ReceiveChunk { size, .. } => {
                    rest = rest.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default();
                    Output::Reply(session.on_chunk(size))
                }
                other => other,
            };
            assert!(session.transaction().is_none_or(|transaction| {
                let envelope = &transaction.envelope;
                envelope.forward_paths.len() <= 5 && envelope.wishes.recipients.len() == envelope.forward_paths.len()
            }));
            if let Output::Close(_) = output {
                break;
            }
            if let Output::Reply(reply) | Output::DropChunk { reply, .. } | Output::Abandon(reply) = output {
                let mut wire = Vec::new();
                reply.write(&mut wire);
                // One reply never looks like two, whatever the client said.
                let lines: Vec<&[u8]> = wire.split_inclusive(|byte| *byte == b'\n').collect();
                assert!(
                    lines
                        .iter()
                        .all(|line| line.ends_with(b"\r\n") && line.iter().filter(|b| **b == b'\r').count() == 1)
                );
                assert!(lines.iter().rev().skip(1).all(|line| line[3] == b'-') && lines[lines.len() - 1][3] == b' ');
            }
        }
    }
}

/// Content of DATA and BDAT: the same however it is split, and a line with a single dot is never let through.
pub fn smtp_content(data: &[u8]) {
    use smtp::proto::{ChunkChecker, DotDecoder};
    let mut whole = Vec::new();
    let mut decoder = DotDecoder::default();
    let end = decoder.decode(data, &mut whole);
    let (mut pieces, mut in_pieces, mut at) = (DotDecoder::default(), Vec::new(), 0);
    let mut end_in_pieces = None;
    for piece in data.chunks(3) {
        if let Some(end) = pieces.decode(piece, &mut in_pieces) {
            end_in_pieces = Some(at + end);
            break;
        }
        at += piece.len();
    }
    assert_eq!((&whole, end, decoder.saw_bare_line_end()), (&in_pieces, end_in_pieces, pieces.saw_bare_line_end()));
    if let Some(end) = end {
        assert!(data[..end].ends_with(b".\r\n") && (end == 3 || data[..end].ends_with(b"\r\n.\r\n")));
        // What a client stuffs comes out as it went in.
        let mut stuffed = Vec::new();
        let mut stuffer = ::pop3::Stuffer::default();
        stuffer.push(&mut stuffed, &whole);
        stuffer.finish(&mut stuffed);
        if !decoder.saw_bare_line_end() {
            let (mut again, mut decoder) = (Vec::new(), DotDecoder::default());
            assert_eq!(decoder.decode(&stuffed, &mut again), Some(stuffed.len()));
            assert_eq!(again.strip_prefix(&whole[..]).map(|rest| rest.is_empty() || rest == b"\r\n"), Some(true));
        }
    }
    let (mut one, mut many) = (ChunkChecker::default(), ChunkChecker::default());
    one.check(data);
    data.chunks(2).for_each(|chunk| many.check(chunk));
    assert_eq!(one.saw_bare_line_end(), many.saw_bare_line_end());
}

/// A header is found at one length only, and what is found lies within what came.
pub fn proxy_header(data: &[u8]) {
    use net::proxy::{Header, parse};
    if let Header::Found { length, client, local } = parse(data) {
        assert!(length <= data.len());
        assert_eq!(parse(&data[..length]), Header::Found { length, client, local });
        for end in 0..length {
            let early = parse(&data[..end]);
            assert!(matches!(early, Header::Partial | Header::None) && (end == 0 || early == Header::Partial));
        }
        let same_family = |a: SocketAddr, b: SocketAddr| a.is_ipv4() == b.is_ipv4();
        assert!(client.zip(local).is_none_or(|(client, local)| same_family(client, local)));
    }
}

/// Framing gives the same events however the bytes are split, and no command beyond its size.
pub fn imap_commands(data: &[u8]) {
    use imap::proto::{Event, Framer};
    let events = |piece: usize| {
        let mut framer = Framer::new(300, 1000);
        let (mut input, mut out, mut content) = (BytesMut::new(), Vec::new(), Vec::new());
        for bytes in data.chunks(piece) {
            input.extend_from_slice(bytes);
            while let Some(event) = framer.next(&mut input) {
                match event {
                    // Pieces of a message come as they come; together they are the same.
                    Event::Chunk(bytes) => content.extend_from_slice(&bytes),
                    Event::Refused { tag, why: imap::proto::frame::Refusal::Hopeless } => {
                        return (out, content, Some(tag));
                    }
                    event => out.push(event),
                }
            }
        }
        (out, content, None)
    };
    let whole = events(data.len().max(1));
    for event in &whole.0 {
        if let Event::Command(command) = event {
            assert!(command.len() <= 300);
            let _ = imap::proto::parse(command);
        }
    }
    assert_eq!(whole, events(1));
    let _ = imap::proto::parse(data);
}

/// Commands, and a message on its way out: the only line with a single dot is the last.
pub fn pop3(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let _ = ::pop3::parse(line.strip_suffix(b"\r").unwrap_or(line));
    }
    let mut whole = Vec::new();
    let mut stuffer = ::pop3::Stuffer::default();
    stuffer.push(&mut whole, data);
    stuffer.finish(&mut whole);
    let (mut pieces, mut stuffer) = (Vec::new(), ::pop3::Stuffer::default());
    data.chunks(2).for_each(|piece| stuffer.push(&mut pieces, piece));
    stuffer.finish(&mut pieces);
    assert_eq!(whole, pieces);
    assert_eq!(find(&whole, b"\r\n.\r\n").map(|at| at + 5).or((whole == b".\r\n").then_some(3)), Some(whole.len()));
}

/// A client's octets: commands end at the same places however they come, answers are whole lines, and it ends.
pub fn managesieve(data: &[u8]) {
    use ::managesieve::proto::{Frame, next};
    use ::managesieve::{Output, Session, Transport};
    let answers = |pieces: usize| {
        let mut session = Session::new(Transport::Plain { starttls: true, login: true });
        let (mut input, mut said) = (BytesMut::new(), Vec::new());
        for piece in data.chunks(pieces) {
            input.extend_from_slice(piece);
            loop {
                let output = match next(&mut input) {
                    Frame::Command(frame) => session.on_frame(&frame),
                    Frame::TooLong => return said,
                    Frame::Partial => break,
                };
                let output = if let Output::CheckPassword { .. } = output { session.on_refused() } else { output };
                match &output {
                    Output::Say(text) => assert!(text.ends_with("\r\n")),
                    Output::StartTls(_) => {}
                    Output::Bye(_) | Output::CheckPassword { .. } => {
                        said.push(output);
                        return said;
                    }
                }
                said.push(output);
            }
        }
        said
    };
    let whole = answers(data.len().max(1));
    assert_eq!(whole, answers(1));
}

/// Rules load or are reported by line, and those that load judge a message.
pub fn rule_files(data: &[u8]) {
    use filter::rules::{Context, RuleSet, ScoreSet, Targets, parse::Source};
    let mut source = Source::default();
    source.read("fuzz.cf", data);
    source.finish();
    let (rules, problems) = RuleSet::compile(source, ScoreSet::Local);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(problems.iter().all(|problem| (1..=lines).contains(&(problem.line as usize))));
    rules.judge(&Targets::of(
        b"Subject: a b\r\nFrom: c@d.example\r\n\r\nfree money http://x.example/\r\n",
        Context::default(),
    ));
}

/// A configuration is taken or refused with lines that exist.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = config::Config::parse(text, Path::new("/etc/ortler/ortler.toml")) {
        assert!(!error.complaints.is_empty());
        assert!(error.complaints.iter().all(|(line, what)| *line <= text.split('\n').count() && !what.is_empty()));
    }
}

/// A summary survives being written, its offsets lie within the message, and every text can be read.
pub fn mime(data: &[u8]) {
    use mail::mime::{Part, PartBody, Summary};
    fn look(part: &Part, message: &[u8]) {
        assert!(part.header.start <= part.header.end && part.content.start <= part.content.end);
        assert!(usize::try_from(part.content.end.max(part.header.end)).unwrap_or(usize::MAX) <= message.len());
        match &part.body {
            PartBody::Multipart { children } => children.iter().for_each(|child| look(child, message)),
            PartBody::Message { root, .. } => look(root, message),
            PartBody::Leaf { .. } => drop(mail::mime::decode::part_text(part, message)),
        }
    }
    let summary = Summary::of(data);
    look(&summary.root, data);
    assert_eq!(Summary::decode(&summary.encode()).as_ref(), Ok(&summary));
    let _ = Summary::decode(data);
    let (header, body) = mail::search::search_text(b"", data, &summary, 1 << 20);
    let found = mail::search::Needle::new("a").is_in(&header) || mail::search::Needle::new("a").is_in(&body);
    assert!(!found || header.contains('A') || body.contains('A'));
    // Every octet of the header belongs to one field.
    let fields: usize = mail::HeaderFields::of(data).map(|field| field.raw.len()).sum();
    let gap = mail::header::body_offset(data) - fields;
    assert!(gap <= 2);
}

/// Names and addresses that are taken are taken again as they are shown.
pub fn names(data: &[u8]) {
    let _ = mail::utf7::decode(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_eq!(mail::utf7::decode(mail::utf7::encode(text).as_bytes()).as_deref(), Some(text));
    if let Ok(name) = text.parse::<store::MailboxName>() {
        assert_eq!(name.as_str().parse::<store::MailboxName>().as_ref(), Ok(&name));
    }
    if let Ok(address) = text.parse::<mail::Address>() {
        assert_eq!(address.to_string().parse::<mail::Address>().as_ref().ok(), Some(&address));
    }
    let _ = mail::mime::decode::decode_header_text(data);
    let _ = mail::date::parse_rfc5322(text);
}

/// Packets are cut the same however they come, and commands survive being written.
pub fn milter_packets(data: &[u8]) {
    use filter::milter::proto::{Command, PacketReader, Response};
    let read = |piece: usize| {
        let (mut reader, mut out) = (PacketReader::default(), Vec::new());
        for bytes in data.chunks(piece) {
            reader.feed(bytes);
            loop {
                match reader.next_packet() {
                    Ok(Some(packet)) => out.push(packet),
                    Ok(None) => break,
                    Err(_) => return (out, true),
                }
            }
        }
        (out, false)
    };
    let whole = read(data.len().max(1));
    assert_eq!(whole, read(1));
    for packet in &whole.0 {
        let _ = Response::parse(packet);
        if let Ok(command) = Command::parse(packet) {
            assert_eq!(Command::parse(&command.to_packet()).ok(), Some(command));
        }
    }
}

/// Messages come out whole or are reported; none is larger than allowed.
pub fn mbox(data: &[u8]) {
    let limit = ByteSize(4096);
    let reader = migrate::mbox::Reader::new(std::io::Cursor::new(data), Path::new("fuzz.mbox"), limit, UtcMillis(0));
    for message in reader.flatten() {
        assert!(message.content.len() as u64 <= limit.0);
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// A message's HTML: what is shown of it does nothing and asks nobody; with remote pictures it asks for those alone.
pub fn message_html(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    let own = |cid: &str| (cid == "known@x").then(|| "/api/v1/message/M1/inline/e1-2-3-2".to_owned());
    for remote in [web::Remote::Blocked, web::Remote::Shown] {
        let page = web::html_page(&source, remote, Some("mail.test"), own);
        if let Err(why) = harmless(&page, remote == web::Remote::Shown) {
            panic!("{why}: {page}");
        }
    }
}

/// A charset's name, a line end, then content: as HTML and as plain text, in each transfer encoding. What rules see of it is
/// bounded by the content, its pieces lie in order, and looking twice gives the same.
pub fn rendering(data: &[u8]) {
    use filter::rules::html::Html;
    use filter::rules::{Context, Targets};
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (charset, content) = (String::from_utf8_lossy(&data[..end]).replace(['"', '\r'], ""), &data[end..]);
    let source = String::from_utf8_lossy(content);
    let html = Html::read(&source);
    assert!(html.text.len() <= 4 * source.len() + 16, "{} of {}", html.text.len(), source.len());
    assert!(html.visible + html.hidden <= html.text.chars().count(), "{html:?}");
    assert!((0.0..=1.0).contains(&html.hidden_share()) && html.length == source.chars().count());
    assert_eq!(format!("{:?}", Html::read(&source).text), format!("{:?}", html.text));
    for kind in ["text/html", "text/plain"] {
        for encoding in ["8bit", "quoted-printable", "base64"] {
            let head = format!(
                "Subject: =?{charset}?q?a=FC=E9?=\r\nContent-Type: {kind}; charset=\"{charset}\"\r\n\
                 Content-Transfer-Encoding: {encoding}\r\n\r\n"
            );
            let message = [head.as_bytes(), content].concat();
            let targets = Targets::of(&message, Context::default());
            for pieces in [targets.body(), targets.raw_body(), targets.full()] {
                let mut at = 0;
                for cut in &pieces.cuts {
                    assert!(at <= cut.start && cut.start <= cut.end && cut.end <= pieces.text.len());
                    at = cut.end;
                }
                assert!(pieces.text.len() <= 8 * message.len() + 64, "{} of {}", pieces.text.len(), message.len());
            }
            targets.links();
            let again = Targets::of(&message, Context::default());
            assert_eq!(again.body().text, targets.body().text);
        }
    }
}

/// Reads a page as strictly as it was written: every `<` begins a known tag, every attribute is known and quoted, and no
/// value leads to script, to a foreign address that loads by itself, or to a path of ours but the message's pictures.
pub fn harmless(page: &str, with_remote: bool) -> Result<(), String> {
    let (head, body) = page.split_once("<body").ok_or("no body")?;
    let frame = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light";
    if !head.starts_with(frame) || head.matches('<').count() != 8 {
        return Err(format!("the head is not ours: {head}"));
    }
    let body = body.split_once('>').map(|(_, body)| body).and_then(|body| body.strip_suffix("</body></html>"));
    let mut rest = body.ok_or("the page does not end as it should")?;
    while let Some((_, from)) = rest.split_once('<') {
        let name_end = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '/')).ok_or("a tag without an end")?;
        let (name, mut inside) = from.split_at(name_end);
        const FORBIDDEN: &[&str] = &[
            "", "script", "style", "link", "meta", "base", "form", "input", "button", "textarea", "select", "iframe",
            "frame", "object", "embed", "applet", "svg", "math", "audio", "video", "source", "track", "template",
            "noscript", "title", "html", "head", "body", "portal", "dialog", "picture", "canvas", "map", "area",
        ];
        if FORBIDDEN.contains(&name.trim_start_matches('/')) {
            return Err(format!("an element <{name}"));
        }
        loop {
            if let Some(after) = inside.strip_prefix('>') {
                rest = after;
                break;
            }
            let pair = inside.strip_prefix(' ').and_then(|pair| pair.split_once("=\""));
            let (attribute, value) = pair.ok_or_else(|| format!("an odd tag <{name}{inside:.40}"))?;
            let (value, after) = value.split_once('"').ok_or("a value without an end")?;
            inside = after;
            attribute_is_harmless(name, attribute, value, with_remote)?;
        }
    }
    Ok(())
}

fn attribute_is_harmless(element: &str, attribute: &str, value: &str, with_remote: bool) -> Result<(), String> {
    let wrong = || Err(format!("{attribute}={value:?} of <{element}>"));
    // As a browser reads a URL: without what it drops, after entities.
    let plain = value
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&nbsp;", "\u{a0}");
    let url: String = plain.trim_start_matches(|c: char| c <= ' ').chars().filter(|c| !"\t\r\n".contains(*c)).collect();
    let url = url.to_ascii_lowercase();
    let begins = |schemes: &[&str]| schemes.iter().any(|scheme| url.starts_with(scheme));
    match attribute {
        // Of our own page for plain text.
        "class" if element == "div" && value == "text" => Ok(()),
        "href" if element == "a" && begins(&["http://", "https://", "mailto:", "tel:"]) => Ok(()),
        "src"
            if element == "img"
                && begins(&[
                    "data:image/png",
                    "data:image/jpeg",
                    "data:image/gif",
                    "data:image/webp",
                    "data:image/bmp",
                ]) =>
        {
            Ok(())
        }
        "src"
            if element == "img"
                && begins(&["/api/v1/message/m"])
                && url.contains("/inline/e")
                && !url.contains("..") =>
        {
            Ok(())
        }
        "src"
            if element == "img"
                && with_remote
                && begins(&["http://", "https://"])
                && !begins(&["http://mail.test/", "http://mail.test:", "https://mail.test/", "https://mail.test:"]) =>
        {
            Ok(())
        }
        "href" | "src" | "srcset" | "srcdoc" | "action" | "formaction" | "background" | "poster" | "data" | "ping"
        | "xlink:href" | "id" | "name" | "class" => wrong(),
        "style" => {
            let active = [
                "url(",
                "src(",
                "expression",
                "image(",
                "image-set",
                "\\",
                "@",
                "javascript",
                "var(",
                "position:",
                "behavior:",
                "-moz-binding:",
            ];
            if active.iter().any(|word| url.contains(word)) { wrong() } else { Ok(()) }
        }
        name if name.starts_with("on") || name.contains(|c: char| !(c.is_ascii_lowercase() || c == '-')) => wrong(),
        _ => Ok(()),
    }
}

/// Entries of an archive are bounded, and reading it twice gives the same.
fn archive(data: &[u8], list: for<'a> fn(&'a [u8], usize) -> attachment::archive::Listing<'a>) {
    const MAX: usize = 50;
    let listing = list(data, MAX);
    assert!(listing.entries.len() <= MAX && (!listing.is_cut || listing.entries.len() == MAX));
    assert_eq!(list(data, MAX), listing);
    for entry in &listing.entries {
        attachment::Name::read(&entry.name);
        let Some(packed) = entry.content else { continue };
        assert!(packed.data.len() <= data.len());
        let (content, _) = attachment::unpack::unpack(packed.method, packed.data, 2000);
        assert!(content.len() <= 2000);
    }
}

pub fn archive_zip(data: &[u8]) {
    archive(data, attachment::archive::zip::list);
}

pub fn archive_rar(data: &[u8]) {
    archive(data, attachment::archive::rar::list);
}

pub fn archive_7z(data: &[u8]) {
    archive(data, attachment::archive::seven::list);
}

pub fn archive_tar(data: &[u8]) {
    archive(data, attachment::archive::tar::list);
}

/// Cabinets, disk images and `winmail.dat`, each reader over every input.
pub fn archive_other(data: &[u8]) {
    archive(data, attachment::archive::cab::list);
    archive(data, attachment::archive::iso::list);
    archive(data, attachment::archive::tnef::list);
}

/// Every reader of documents over every input.
pub fn documents(data: &[u8]) {
    use attachment::document::{Look, ole, onenote, package, pdf, rtf, web};
    let looks: [Look<'_>; 6] = [
        ole::look(data),
        onenote::look(data),
        pdf::look(data),
        rtf::look(data),
        web::look_html(data),
        web::look_svg(data),
    ];
    assert!(looks.iter().all(|look| look.children.len() <= 100));
    let _ = package::mark_of_text(data);
    let written: usize = attachment::uu::files(data).iter().map(|(_, content)| content.len()).sum();
    assert!(written <= data.len());
}

/// Whatever comes, the budget of a message holds, alone or as a part.
pub fn attachments(data: &[u8]) {
    let limits = attachment::Limits { depth: 3, items: 100, bytes: 1 << 20, item_bytes: 1 << 18 };
    let name = String::from_utf8_lossy(data.get(..20).unwrap_or(data));
    let kind = attachment::Kind::of(data);
    for report in [attachment::inspect(data, &limits), attachment::inspect_part(&name, "image/png", data, &limits)] {
        assert!(report.items <= limits.items);
        // What is begun within the budget is ended: one item more, at its highest cost.
        assert!(report.bytes <= limits.bytes + 4 * limits.item_bytes + 8 * data.len(), "{} {kind:?}", report.bytes);
        for seen in &report.seen {
            assert!(seen.paths.len() <= seen.count && seen.paths.iter().all(|path| path.len() <= 400));
        }
    }
}

/// What a forwarder says it saw, of one set and of two: nobody vouches whom nobody trusts, and not for nobody.
pub fn sealed_results(data: &[u8]) {
    let results = String::from_utf8_lossy(data).into_owned();
    let set = mailauth::SealedSet { sealer: "list.example".to_owned(), results };
    for chain in [vec![set.clone()], vec![set.clone(), set]] {
        mailauth::chain::vouches(&chain, "author.example", |_| true);
        assert!(!mailauth::chain::vouches(&chain, "", |_| true));
        assert!(!mailauth::chain::vouches(&chain, "author.example", |_| false));
    }
}

/// A rule file about lists (up to an empty line), and what a list answers: read or refused, and the same twice.
pub fn list_answers(data: &[u8]) {
    use filter::rules::answer::Answer;
    use filter::rules::{RuleSet, ScoreSet, parse::Source};
    let at = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (file, text) = data.split_at(at);
    let mut source = Source::default();
    source.read("fuzz.cf", file);
    source.finish();
    let (rules, _) = RuleSet::compile(source, ScoreSet::Network);
    let text = String::from_utf8_lossy(text);
    let answer = text.trim().parse().map_or_else(|_| Answer::Text(text.as_ref().into()), Answer::Address);
    for rule in rules.questions() {
        assert_eq!(rule.subtest.fits(&answer), rule.subtest.fits(&answer));
    }
}
