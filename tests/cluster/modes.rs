//! What a node's clients see while something that it needs is away: defined here, and measured.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::{Clock as _, SystemClock};

use super::faults::set_clock;
use super::lane::{DATABASES, Lane, NODES};
use super::net::{fill, free, stutter};
use super::on_a_thread;
use super::results::{self, Heard};
use crate::harness::{PASSWORD, Place, Wire, base64, letter, report, skip};

/// As patient as mail programs are.
const PATIENCE: Duration = Duration::from_secs(60);
const LARGE: usize = 250_000;

/// What is asked for, in this order.
pub const ASKED: [&str; 8] = [
    "SMTP, a small message",
    "SMTP, a message of 250 kB",
    "IMAP session, headers",
    "IMAP session, a small message",
    "IMAP session, a message of 250 kB",
    "IMAP, signing in",
    "POP3, signing in",
    "JMAP, a query",
];

/// Something is away: how, what then is answered (`|` between alternatives), and how long that takes at most.
struct Mode {
    name: &'static str,
    harm: fn(&mut Lane),
    mend: fn(&mut Lane),
    answers: [&'static str; 8],
    within: Duration,
}

const ALL_WELL: [&str; 8] = ["250", "250", "OK", "OK", "OK", "OK", "+OK", "200"];

const MODES: [Mode; 9] = [
    Mode { name: "nothing", harm: |_| {}, mend: |_| {}, answers: ALL_WELL, within: Duration::from_secs(5) },
    Mode {
        name: "PostgreSQL (its answers get lost)",
        harm: |lane| NODES.iter().for_each(|(name, _)| lane.network.deafen(name, &DATABASES.map(|(_, at)| at))),
        mend: |lane| NODES.iter().for_each(|(name, _)| lane.network.hear(name)),
        answers: [
            "451|421",
            "451|421",
            "OK|NO [UNAVAILABLE]",
            "OK|NO [UNAVAILABLE]",
            "OK|NO [UNAVAILABLE]",
            "NO [UNAVAILABLE]",
            "-ERR [SYS/TEMP]",
            "503|[serverUnavailable]",
        ],
        within: Duration::from_secs(50),
    },
    Mode {
        name: "the object store (cut off)",
        harm: |lane| lane.network.plug("s3", false),
        mend: |lane| lane.network.plug("s3", true),
        answers: ["250", "451", "OK", "OK", "NO [UNAVAILABLE]", "OK", "+OK", "200"],
        within: Duration::from_secs(50),
    },
    Mode {
        name: "the other nodes",
        harm: |lane| lane.network.deafen(NODES[0].0, &NODES.map(|(_, at)| at)[1..]),
        mend: |lane| lane.network.hear(NODES[0].0),
        answers: ALL_WELL,
        within: Duration::from_secs(10),
    },
    Mode {
        name: "DNS",
        harm: |lane| lane.network.drop_names(NODES[0].0),
        mend: |lane| lane.network.hear(NODES[0].0),
        answers: ALL_WELL,
        within: Duration::from_secs(30),
    },
    Mode {
        name: "room on the node's disk",
        harm: |lane| fill(&lane.nodes[0].disk),
        mend: |lane| free(&lane.nodes[0].disk),
        answers: ["250|45", "250|45", "OK", "OK", "OK", "OK", "+OK", "200"],
        within: Duration::from_secs(10),
    },
    Mode {
        name: "a fast disk of the node",
        harm: |lane| stutter_for_a_while(lane.nodes[0].disk.clone()),
        mend: |_| std::thread::sleep(SLOW),
        answers: ALL_WELL,
        within: Duration::from_secs(10),
    },
    Mode {
        name: "a fast disk of the primary",
        harm: |lane| stutter_for_a_while(lane.patroni.folder(lane.patroni.primary().unwrap())),
        mend: |_| std::thread::sleep(SLOW),
        answers: ALL_WELL,
        within: Duration::from_secs(10),
    },
    Mode {
        name: "the right time (10 min ahead)",
        harm: |lane| set_clock(lane, 0, Some("+10m")),
        mend: |lane| set_clock(lane, 0, None),
        answers: ALL_WELL,
        within: Duration::from_secs(10),
    },
];

const SLOW: Duration = Duration::from_secs(8);

/// Most of the time nothing is written there.
fn stutter_for_a_while(disk: std::path::PathBuf) {
    std::thread::spawn(move || stutter(&disk, SLOW));
}

/// `ORTLER_CLUSTER=modes`, and a seed of whose results it becomes a part.
#[test]
fn clients_are_told_what_is_away_and_the_rest_goes_on() {
    let wish = std::env::var_os("ORTLER_CLUSTER").and_then(|wish| wish.into_string().ok()).unwrap_or_default();
    let Some(seed) = wish.strip_prefix("modes ") else {
        return skip("what is answered while something is away shows tests/cluster/run");
    };
    let seed = seed.parse().unwrap();
    on_a_thread(move || {
        let Some(mut lane) = Lane::start(true) else { panic!("this needs network namespaces") };
        let user = lane.add_accounts().swap_remove(0);
        let place = lane.patient(NODES[0].1, PATIENCE);
        for (nth, size) in [(1, 100), (2, LARGE)] {
            assert!(send(&place, &user, nth, size).starts_with("250"));
        }
        let mut heard = Vec::new();
        for (nth, mode) in MODES.iter().enumerate() {
            heard.extend(suffer(&mut lane, &place, &user, nth, mode));
        }
        lane.audit(&["--deep", "--json"]);
        results::write_heard(seed, &heard);
        let wrong: Vec<&Heard> = heard.iter().filter(|heard| !heard.is_right).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

fn suffer(lane: &mut Lane, place: &Place, user: &str, nth: usize, mode: &Mode) -> Vec<Heard> {
    // A clock is changed by a new start, which ends sessions.
    let is_new_start = mode.name.contains("time");
    if is_new_start {
        (mode.harm)(lane);
    }
    let mut session = place.sign_in(user).unwrap().unwrap();
    assert!(session.asks_imap("FETCH 2 (UID BODY.PEEK[])").unwrap().status.starts_with("OK"));
    if !is_new_start {
        (mode.harm)(lane);
    }
    std::thread::sleep(Duration::from_secs(1));
    let heard = ask_all(place, user, nth, &mut session);
    (mode.mend)(lane);
    lane.wait_until_whole();
    lane.soon("all is well again", || send(place, user, 1000 + nth, LARGE).starts_with("250"));
    let heard = heard.into_iter().zip(ASKED).zip(mode.answers);
    let heard = heard.map(|(((answer, after), asked), wanted)| {
        let is_right = wanted.split('|').any(|start| answer.contains(start)) && after <= mode.within;
        report(&format!("cluster, without {}: {asked}: {answer} after {after:.1?}", mode.name));
        Heard { mode: mode.name, asked, answer, after, is_right }
    });
    heard.collect()
}

/// Everything at once, as it befalls clients; but one session is asked one thing after the other.
fn ask_all(place: &Place, user: &str, nth: usize, session: &mut Wire) -> Vec<(String, Duration)> {
    let timed = |ask: &mut dyn FnMut() -> String| {
        let began = SystemClock.now();
        let answer = ask();
        (answer, SystemClock.now() - began)
    };
    std::thread::scope(|scope| {
        let small = scope.spawn(|| timed(&mut || send(place, user, 10 * nth + 10, 100)));
        let large = scope.spawn(|| timed(&mut || send(place, user, 10 * nth + 11, LARGE)));
        let in_session = scope.spawn(|| {
            ["FETCH 1:3 (ENVELOPE)", "FETCH 2 (UID BODY.PEEK[])", "FETCH 3 (UID BODY.PEEK[])"].map(|command| {
                timed(&mut || session.asks_imap(command).map_or_else(|ended| format!("{ended:?}"), |said| said.status))
            })
        });
        let sign_in = scope.spawn(|| timed(&mut || sign_in(place, user)));
        let pop3 = scope.spawn(|| timed(&mut || pop3(place, user)));
        let jmap = scope.spawn(|| timed(&mut || jmap(place, user)));
        let [headers, body, long] = in_session.join().unwrap();
        let [small, large] = [small, large].map(|asked| asked.join().unwrap());
        let [sign_in, pop3, jmap] = [sign_in.join().unwrap(), pop3.join().unwrap(), jmap.join().unwrap()];
        vec![small, large, headers, body, long, sign_in, pop3, jmap]
    })
}

/// The last reply.
fn send(place: &Place, user: &str, number: usize, size: usize) -> String {
    let text = "words that fill the message up\r\n".repeat(1 + size / 32);
    let content = String::from_utf8(letter(&format!("mode {number}"), &text)).unwrap();
    let exchange = || {
        let mut wire = place.open("smtp")?;
        let recipient = format!("RCPT TO:<{user}@example.test>\r\n");
        let content = format!("{content}.\r\n");
        let mut answer = String::new();
        for words in
            ["", "EHLO client.example.org\r\n", "MAIL FROM:<a@x.example>\r\n", &recipient, "DATA\r\n", &content]
        {
            answer = wire.asks_smtp(words)?;
            if !answer.starts_with(['2', '3']) {
                break;
            }
        }
        Ok(answer)
    };
    exchange().unwrap_or_else(|ended: crate::harness::Ended| format!("{ended:?}"))
}

fn sign_in(place: &Place, user: &str) -> String {
    match place.sign_in(user) {
        Ok(Ok(_)) => "OK".to_owned(),
        Ok(Err(status)) => status,
        Err(ended) => format!("{ended:?}"),
    }
}

fn pop3(place: &Place, user: &str) -> String {
    let exchange = || {
        let mut wire = place.open("pop3")?;
        let mut answer = wire.line()?;
        for command in [format!("USER {user}@example.test"), format!("PASS {PASSWORD}"), "STAT".to_owned()] {
            if !answer.starts_with("+OK") {
                break;
            }
            wire.say(&format!("{command}\r\n"));
            answer = wire.line()?;
        }
        Ok(answer)
    };
    exchange().unwrap_or_else(|ended: crate::harness::Ended| format!("{ended:?}"))
}

fn jmap(place: &Place, user: &str) -> String {
    let login = base64(format!("{user}@example.test:{PASSWORD}").as_bytes());
    let headers = format!("Authorization: Basic {login}\r\nContent-Type: application/json\r\n");
    let asks = |request: &str, body: &str| place.open("http")?.asks_http(request, &headers, body);
    let exchange = || {
        let (status, session) = asks("GET /jmap/session", "")?;
        let account = session.split("\"accounts\":{\"").nth(1).and_then(|rest| rest.split('"').next());
        let Some(account) = account.filter(|_| status == 200) else { return Ok((status, session)) };
        let query = format!(
            r#"{{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[["Email/query",{{"accountId":"{account}","limit":1}},"0"]]}}"#
        );
        asks("POST /jmap/", &query)
    };
    match exchange() {
        Ok((status, body)) if body.contains("erverUnavailable") => format!("{status} [serverUnavailable]"),
        Ok((status, body)) if body.contains("queryState") => status.to_string(),
        Ok((status, body)) => format!("{status} {body}"),
        Err(ended) => format!("{ended:?}"),
    }
}

/// Where clients of one node find it.
impl Lane {
    fn patient(&self, node: Ipv4Addr, patience: Duration) -> Place {
        Place::with_tls("mx1", &[node], &self.network.folder().join("certificate.pem"), patience)
    }
}
