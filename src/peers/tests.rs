//! What both engines must do, and what reports look like.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, FakeClock, UtcMillis};
use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};

use crate::peers::{begin_of, day_of};
use crate::tables::{COMPONENT, POSTGRES, SQLITE};
use crate::{DmarcSeen, Kind, Peers, Received, Report, Signature, StoredPolicy, TlsFailure, TlsSeen, dmarc, read, tls};

const NOON: UtcMillis = UtcMillis(1_795_780_800_000);
const DAY: Duration = Duration::from_secs(86_400);

async fn open_pool(server: &Server) -> Arc<Pool> {
    Arc::new(Pool::new(PgSettings::parse(&server.url(), 4).unwrap()))
}

/// Both engines, each twice open where that is possible: two nodes.
async fn each(work: impl AsyncFn(&FakeClock, &Peers, Option<&Peers>)) {
    let clock = Arc::new(FakeClock::at(NOON));
    let dir = tempfile::tempdir().unwrap();
    let one = Peers::open(&dir.path().join("peers.sqlite"), clock.clone()).unwrap();
    work(&clock, &one, None).await;
    let Some(server) = Server::start() else { return };
    let one = Peers::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    let other = Peers::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    work(&clock, &one, Some(&other)).await;
}

fn went_well() -> TlsSeen {
    TlsSeen { policy: "no-policy-found".to_owned(), strings: Vec::new(), hosts: Vec::new(), failure: None }
}

fn failed(reason: &str) -> TlsSeen {
    let failure = TlsFailure {
        result: "certificate-expired".to_owned(),
        host: "mx.a.test".to_owned(),
        ip: "192.0.2.1".parse().ok(),
        from: None,
        reason: reason.to_owned(),
    };
    let strings = vec!["version: STSv1".to_owned(), "mode: enforce".to_owned()];
    TlsSeen { policy: "sts".to_owned(), strings, hosts: vec!["mx.a.test".to_owned()], failure: Some(failure) }
}

fn message(ip: &str, passed: bool) -> DmarcSeen {
    DmarcSeen {
        ip: ip.parse().unwrap(),
        disposition: if passed { "pass" } else { "reject" }.to_owned(),
        overridden: String::new(),
        dkim: passed,
        spf: false,
        envelope_from: "bounce.a.test".to_owned(),
        signatures: vec![Signature { domain: "a.test".into(), selector: "s1".into(), result: "pass".into() }],
        spf_domain: "bounce.a.test".to_owned(),
        spf_helo: false,
        spf_result: "softfail".to_owned(),
    }
}

#[tokio::test]
async fn counts_of_all_nodes_add_up() {
    each(async |clock, one, other| {
        for _ in 0..3 {
            one.saw_tls("A.test", &went_well());
        }
        one.saw_tls("a.test", &failed("late"));
        one.saw_tls("b.test", &went_well());
        one.saw_dmarc("a.test", &message("192.0.2.7", true));
        one.flush().await.unwrap();
        let second = other.unwrap_or(one);
        second.saw_tls("a.test", &went_well());
        second.flush().await.unwrap();
        one.flush().await.unwrap();
        let day = day_of(clock.utc());
        let seen = one.seen_tls(day).await.unwrap();
        let told = seen.iter().map(|(domain, facts)| {
            let well: u64 = facts.iter().filter(|(seen, _)| seen.failure.is_none()).map(|(_, count)| count).sum();
            let badly: u64 = facts.iter().filter(|(seen, _)| seen.failure.is_some()).map(|(_, count)| count).sum();
            format!("{domain} {well} {badly}")
        });
        assert_eq!(told.collect::<Vec<_>>(), ["a.test 4 1", "b.test 1 0"]);
        assert_eq!(
            second.seen_dmarc(day).await.unwrap(),
            [("a.test".to_owned(), vec![(message("192.0.2.7", true), 1)])]
        );
        assert_eq!(one.seen_tls(day - 1).await.unwrap(), []);
        assert!(!one.is_sent(day, Kind::Tls, "a.test").await.unwrap());
        second.mark_sent(day, Kind::Tls, "a.test").await.unwrap();
        one.mark_sent(day, Kind::Tls, "a.test").await.unwrap();
        assert!(one.is_sent(day, Kind::Tls, "a.test").await.unwrap());
        assert!(!one.is_sent(day, Kind::Dmarc, "a.test").await.unwrap());
        // More facts than are read at once.
        (0..1200).for_each(|nth| one.saw_tls("many.test", &failed(&nth.to_string())));
        one.flush().await.unwrap();
        let seen = one.seen_tls(day).await.unwrap();
        assert_eq!(seen.iter().find(|(domain, _)| domain == "many.test").unwrap().1.len(), 1200);
        clock.advance(DAY * 5);
        one.tidy().await.unwrap();
        assert_eq!(one.seen_tls(day).await.unwrap(), []);
        assert!(!one.is_sent(day, Kind::Tls, "a.test").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn policies_outlive_a_restart() {
    each(async |clock, one, other| {
        assert_eq!(one.policy("a.test").await.unwrap(), None);
        let mut policy = StoredPolicy {
            domain: "a.test".to_owned(),
            id: "1".to_owned(),
            text: "version: STSv1\r\nmode: enforce\r\n".to_owned(),
            fetched_at: clock.utc(),
            expires_at: clock.utc().plus(DAY),
        };
        one.keep_policy(&policy).await.unwrap();
        policy.id = "2".to_owned();
        one.keep_policy(&policy).await.unwrap();
        assert_eq!(other.unwrap_or(one).policy("a.test").await.unwrap(), Some(policy));
        clock.advance(DAY * 2);
        one.tidy().await.unwrap();
        assert_eq!(one.policy("a.test").await.unwrap(), None);
    })
    .await;
}

fn report(domain: &str, begin: i64) -> Received {
    Received {
        domain: domain.to_owned(),
        kind: Kind::Dmarc,
        begin_at: UtcMillis(begin),
        end_at: UtcMillis(begin + 1000),
        received_at: NOON,
        submitter: "Receiver".to_owned(),
        report: format!("{{\"begin\":{begin}}}"),
    }
}

#[tokio::test]
async fn reports_are_kept_once_and_found_by_domain() {
    each(async |_, one, _| {
        let reports: Vec<Received> =
            [("b.test", 5000), ("a.test", 7000), ("a.test", 6000), ("a.test", 6000)].map(|(d, b)| report(d, b)).into();
        one.keep(&reports).await.unwrap();
        one.keep(&reports[..1]).await.unwrap();
        let found = async |domain: Option<&str>, kind, since: i64, limit| {
            let found = one.received(domain, kind, UtcMillis(since), limit).await.unwrap();
            found.iter().map(|one| format!("{} {}", one.domain, one.begin_at.0)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found(None, Kind::Dmarc, 0, 10).await, "a.test 6000, a.test 7000, b.test 5000");
        assert_eq!(found(Some("a.test"), Kind::Dmarc, 0, 10).await, "a.test 6000, a.test 7000");
        assert_eq!(found(Some("a.test"), Kind::Dmarc, 7500, 10).await, "a.test 7000");
        assert_eq!(found(None, Kind::Dmarc, 0, 1).await, "a.test 6000");
        assert_eq!(found(Some("a.test"), Kind::Tls, 0, 10).await, "");
        assert_eq!(found(Some("c.test"), Kind::Dmarc, 0, 10).await, "");
    })
    .await;
}

#[tokio::test]
async fn everything_moves_between_engines() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(FakeClock::at(NOON));
    let dir = tempfile::tempdir().unwrap();
    let file = Peers::open(&dir.path().join("peers.sqlite"), clock.clone()).unwrap();
    let shared = Peers::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    (0..700).for_each(|nth| file.saw_tls("a.test", &failed(&nth.to_string())));
    file.keep(&[report("a.test", 5000)]).await.unwrap();
    shared.mark_sent(3, Kind::Tls, "gone.test").await.unwrap();
    file.flush().await.unwrap();
    assert!(file.copy_to(&shared).await.unwrap());
    assert!(!file.copy_to(&shared).await.unwrap() && file.compare_with(&shared).await.unwrap().is_empty());
    assert!(!shared.is_sent(3, Kind::Tls, "gone.test").await.unwrap());
    let back = Peers::open(&dir.path().join("back.sqlite"), clock).unwrap();
    assert!(shared.copy_to(&back).await.unwrap() && file.compare_with(&back).await.unwrap().is_empty());
}

/// What the fixtures hold.
async fn holds_everything(peers: &Peers) {
    assert_eq!(peers.policy("a.test").await.unwrap().unwrap().id, "20261127");
    let seen = peers.seen_tls(20_784).await.unwrap();
    assert_eq!(seen, [("a.test".to_owned(), vec![(failed("late"), 7)])]);
    assert!(peers.is_sent(20_784, Kind::Tls, "a.test").await.unwrap());
    let found = peers.received(None, Kind::Dmarc, UtcMillis(0), 10).await.unwrap();
    let read: Report = serde_json::from_str(&found[0].report).unwrap();
    let Report::Dmarc(read) = read else { panic!("{read:?}") };
    assert_eq!((read.domain.as_str(), read.rows[0].count, read.rows[0].dkim), ("a.test", 12, true));
}

#[tokio::test]
async fn every_version_that_was_shipped_is_read() {
    let clock = Arc::new(FakeClock::at(NOON));
    let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), SQLITE.iter().copied());
    for version in fixture.versions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers.sqlite");
        fixture.make_sqlite(&file, version).unwrap();
        holds_everything(&Peers::open(&file, clock.clone()).unwrap()).await;
    }
    let fixture = Fixture::new(include_str!("fixtures/postgres.sql"), POSTGRES.iter().map(|step| step.text));
    for version in fixture.versions() {
        let Some(server) = Server::start() else { return };
        let pool = open_pool(&server).await;
        fixture.make_postgres(&pool, COMPONENT, version).await;
        holds_everything(&Peers::open_postgres(pool, clock.clone()).await.unwrap()).await;
    }
}

#[test]
fn days_begin_at_midnight() {
    assert_eq!(begin_of(day_of(NOON)), UtcMillis(NOON.0 - 43_200_000));
    assert_eq!(day_of(UtcMillis(-1)), -1);
}

fn heading() -> dmarc::Heading {
    dmarc::Heading {
        submitter: "Us & Co".to_owned(),
        contact: "reports@us.test".to_owned(),
        id: "1.a.test".to_owned(),
        begin: 1000,
        end: 87_399,
        domain: "a.test".to_owned(),
        tags: vec![("p".to_owned(), "reject".to_owned()), ("adkim".to_owned(), "s".to_owned())],
    }
}

#[test]
fn our_dmarc_reports_can_be_read() {
    let seen = vec![
        ("a.test".to_owned(), vec![(message("192.0.2.7", true), 12), (message("2001:db8::1", false), 1)]),
        ("sub.a.test".to_owned(), vec![(message("192.0.2.8", true), 3)]),
    ];
    let xml = dmarc::write(&heading(), &seen);
    let read = dmarc::read(xml.as_bytes()).unwrap();
    assert_eq!((read.submitter.as_str(), read.domain.as_str(), read.policy.as_str()), ("Us & Co", "a.test", "reject"));
    assert_eq!((read.begin, read.end), (1000, 87_399));
    let told = read
        .rows
        .iter()
        .map(|row| format!("{} {} {} {} {}", row.header_from, row.ip.unwrap(), row.count, row.disposition, row.dkim));
    let expected =
        ["a.test 192.0.2.7 12 pass true", "a.test 2001:db8::1 1 reject false", "sub.a.test 192.0.2.8 3 pass true"];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(read.rows[0].signatures[0].selector, "s1");
    assert_eq!(read.rows[0].spf_result, "softfail");
}

#[test]
fn reports_of_others_are_read_as_they_come() {
    // Without a namespace and with one, empty elements, comments, references, unknown elements.
    let old = "<?xml version=\"1.0\"?><!-- x --><feedback><report_metadata><org_name>A &amp; B &#x41;</org_name>\
        <report_id>7</report_id><date_range><begin>5</begin><end>9</end></date_range></report_metadata>\
        <policy_published><domain>A.test.</domain><adkim/><p>none</p></policy_published><record><row>\
        <source_ip>192.0.2.9</source_ip><count>4</count><policy_evaluated><disposition>none</disposition><dkim>fail</dkim>\
        <spf>pass</spf><reason><type>forwarded</type><comment>x</comment></reason></policy_evaluated></row>\
        <identifiers><header_from>a.test</header_from></identifiers><auth_results><spf><domain>a.test</domain>\
        <result>pass</result></spf></auth_results><new><thing>1</thing></new></record></feedback>";
    let read = dmarc::read(old.as_bytes()).unwrap();
    assert_eq!((read.submitter.as_str(), read.domain.as_str()), ("A & B A", "a.test"));
    assert_eq!((read.rows[0].count, read.rows[0].spf, read.rows[0].overridden[0].as_str()), (4, true, "forwarded"));
    let named = old.replace("<feedback>", "<r:feedback xmlns:r=\"urn:x\">").replace("</feedback>", "</r:feedback>");
    assert_eq!(dmarc::read(named.as_bytes()).unwrap(), read);
    for (text, expected) in [
        ("", "no `feedback`"),
        ("<html></html>", "no `feedback`"),
        ("<feedback></feedback>", "names no domain"),
        ("<feedback><a>", "names no domain"),
        ("<feedback></b>", "DMARC report"),
        (&"<a>".repeat(100), "too deep"),
    ] {
        let error = dmarc::read(text.as_bytes()).unwrap_err();
        assert!(error.0.contains(expected), "{text}: {error}");
    }
}

#[test]
fn our_tls_reports_can_be_read() {
    let heading = tls::Heading {
        submitter: "Us".to_owned(),
        contact: "reports@us.test".to_owned(),
        id: "1".to_owned(),
        begin: UtcMillis(1_795_737_600_000),
        end: UtcMillis(1_795_823_999_000),
        domain: "a.test".to_owned(),
    };
    let mut good = failed("");
    good.failure = None;
    let json = tls::write(&heading, &[(went_well(), 9), (failed("late"), 2), (failed("bad"), 1), (good, 5)]);
    let read = tls::read(json.as_bytes()).unwrap();
    assert_eq!((read.begin, read.end), (1_795_737_600, 1_795_823_999));
    let told = read.policies.iter().map(|p| format!("{} {} {} {}", p.domain, p.kind, p.successes, p.failures));
    assert_eq!(told.collect::<Vec<_>>(), ["a.test no-policy-found 9 0", "a.test sts 5 3"]);
    assert_eq!(read.policies[1].details.len(), 2);
    assert!(json.contains("\"receiving-ip\": \"192.0.2.1\"") && !json.contains("null"), "{json}");
    assert!(tls::read(b"{}").is_err() && tls::read(b"[1").is_err());
}

/// A message with one part of this type and name.
fn mail_with(content_type: &str, name: &str, content: &[u8]) -> Vec<u8> {
    let hex: Vec<String> = content.iter().map(|byte| format!("={byte:02X}=\r\n")).collect();
    let mut out = format!(
        "From: reports@receiver.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n\
         --b\r\nContent-Type: {content_type}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    .into_bytes();
    out.extend_from_slice(hex.concat().as_bytes());
    out.extend_from_slice(b"\r\n--b--\r\n");
    out
}

#[test]
fn reports_are_found_in_their_messages() {
    let xml = dmarc::write(&heading(), &[("a.test".to_owned(), vec![(message("192.0.2.7", true), 1)])]);
    let is_dmarc = |bytes: &[u8]| matches!(read(bytes), (found, bad) if bad.is_empty() && matches!(&found[..], [Report::Dmarc(_)]));
    assert!(is_dmarc(&mail_with("application/xml", "a!b!1!2.xml", xml.as_bytes())));
    assert!(is_dmarc(&mail_with("application/octet-stream", "a!b!1!2.xml", xml.as_bytes())));
    assert!(!is_dmarc(&mail_with("application/pdf", "a.pdf", xml.as_bytes())));
    // A gzip member that stores: the form needs no compressor here.
    let stored = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap();
        let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(content);
        out.extend(crc(content).to_le_bytes());
        out.extend(u32::from(length).to_le_bytes());
        out
    };
    assert!(is_dmarc(&mail_with("application/gzip", "a!b!1!2.xml.gz", &stored(xml.as_bytes()))));
    let (found, bad) = read(&mail_with("application/gzip", "a!b!1!2.xml.gz", &stored(xml.as_bytes())[..40]));
    assert!(found.is_empty() && bad.len() == 1, "{bad:?}");
    let (found, bad) = read(&mail_with("application/xml", "x.xml", b"<feedback>"));
    assert!(found.is_empty() && bad[0].0.contains("names no domain"), "{bad:?}");
    let (found, bad) = read(&mail_with("application/tlsrpt+json", "x.json", b"{}"));
    assert!(found.is_empty() && bad[0].0.contains("TLS report"), "{bad:?}");
    assert_eq!(read(b"Subject: hello\r\n\r\nworld\r\n"), (Vec::new(), Vec::new()));
}

fn crc(content: &[u8]) -> u32 {
    !content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn complaints_are_read() {
    let message = "From: <abuse@receiver.test>\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
        This is an abuse report.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: Abuse\r\n\
        User-Agent: X/1\r\nVersion: 1\r\nOriginal-Mail-From: <anna@us.test>\r\nOriginal-Rcpt-To: <bob@receiver.test>\r\n\
        Arrival-Date: Fri, 27 Nov 2026 10:00:00 +0000\r\nSource-IP: 192.0.2.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
        From: Anna <anna@us.test>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@us.test>\r\n\r\nhi\r\n--b--\r\n";
    let (found, bad) = read(message.as_bytes());
    assert!(bad.is_empty());
    let [Report::Abuse(abuse)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((abuse.feedback.as_str(), abuse.domain.as_str()), ("abuse", "us.test"));
    assert_eq!((abuse.original_from.as_str(), abuse.original_to[0].as_str()), ("anna@us.test", "bob@receiver.test"));
    assert_eq!((abuse.message_id.as_str(), abuse.subject.as_str()), ("<1@us.test>", "Gr\u{fc}\u{df}e"));
    assert_eq!(abuse.at, 1_795_773_600);
    let headers =
        message.replace("message/rfc822", "text/rfc822-headers").replace("Original-Mail-From: <anna@us.test>\r\n", "");
    let (found, _) = read(headers.as_bytes());
    let [Report::Abuse(abuse)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((abuse.author.as_str(), abuse.domain.as_str()), ("Anna <anna@us.test>", "us.test"));
}
