//! Sign-in, JMAP, hostile mail, the log.

use crate::harness::{Node, base64, http, letter};

const HOSTILE: &[u8] = b"From: evil@x.example\r\nTo: user1@example.test\r\nSubject: Hostile\r\nMessage-ID: <h@x.example>\r\n\
    Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\
    <p>Visible words in a paragraph that is long enough to look like ordinary mail to everybody.</p><script>alert(1)</script>\
    <img src=\"http://127.0.0.1:9/pixel\" onerror=\"alert(2)\"><svg onload=\"alert(3)\"></svg><a href=\"javascript:alert(4)\">x</a>\
    <form action=\"http://127.0.0.1:9/\"><input name=a></form><iframe src=\"http://127.0.0.1:9/\"></iframe>\r\n";

#[test]
fn a_user_signs_in_and_reads_hostile_mail_safely() {
    let node = Node::start();
    assert!(node.send("evil@x.example", &["user1@example.test"], HOSTILE).starts_with("250"));
    let port = node.port(80);
    let (status, head, page) = http(port, "GET /login", "", "");
    assert!(status == 200 && head.contains("content-security-policy") && page.contains("<form"), "{status} {head}");
    let (status, _, _) = http(port, "GET /api/v1/session", "", "");
    assert_eq!(status, 401);
    let auth = format!("Authorization: Basic {}\r\n", base64(b"user1@example.test:demo"));
    let bad = format!("Authorization: Basic {}\r\n", base64(b"user1@example.test:wrong"));
    assert_eq!(http(port, "GET /jmap/session", &bad, "").0, 401);
    let query = r##"{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[
        ["Email/query",{"accountId":"a1"},"0"],
        ["Email/get",{"accountId":"a1","#ids":{"resultOf":"0","name":"Email/query","path":"/ids"},"properties":["subject","from","preview"]},"1"]]}"##;
    let (status, _, answer) = http(port, "POST /jmap/", &format!("{auth}Content-Type: application/json\r\n"), query);
    assert!(status == 200 && answer.contains("\"Hostile\"") && answer.contains("Visible words"), "{status} {answer}");
    let id =
        answer.split('"').find(|word| word.starts_with('M') && word[1..].parse::<u64>().is_ok()).unwrap().to_owned();
    let (status, head, page) = http(port, &format!("GET /api/v1/message/{id}/body"), &auth, "");
    assert!(status == 200 && head.contains("sandbox") && head.contains("default-src 'none'"), "{head}");
    let lower = page.to_lowercase();
    assert!(lower.contains("visible words"));
    for evil in ["<script", "onerror", "<svg", "javascript:", "<form", "<iframe", "127.0.0.1:9"] {
        assert!(!lower.contains(evil), "{evil}: {page}");
    }
    let other = format!("Authorization: Basic {}\r\n", base64(b"user2@example.test:demo"));
    assert_eq!(http(port, &format!("GET /api/v1/message/{id}/body"), &other, "").0, 404);
}

#[test]
fn everybody_sees_their_own_log_only() {
    let node = Node::start();
    node.send("a@x.example", &["user1@example.test"], &letter("for one", "Only for you."));
    let log = |user: &str| {
        let auth = format!("Authorization: Basic {}\r\n", base64(format!("{user}@example.test:demo").as_bytes()));
        // Events are written in batches: a moment may pass.
        let mut answer = String::new();
        for _ in 0..50 {
            answer = http(node.port(80), "GET /api/v1/log/messages?limit=10", &auth, "").2;
            if answer.contains("for one") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        answer
    };
    assert!(log("user1").contains("for one") && log("admin").contains("for one"));
    assert!(!log("user2").contains("for one"));
}

#[test]
fn a_sender_hears_of_wrong_recipients_before_sending() {
    let node = Node::start();
    let auth =
        format!("Authorization: Basic {}\r\nContent-Type: application/json\r\n", base64(b"user1@example.test:demo"));
    let asked = r#"{"addresses":["user2@example.test","nobody@example.test","a@other.example","no address"]}"#;
    let (status, _, answer) = http(node.port(80), "POST /api/v1/recipients/check", &auth, asked);
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let states: Vec<_> =
        answer["recipients"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ok", "unknown", "foreign", "invalid"]);
    assert_eq!(
        http(node.port(80), "POST /api/v1/recipients/check", "Content-Type: application/json\r\n", asked).0,
        401
    );
}

#[test]
fn scripts_travel_packed_and_are_not_sent_twice() {
    let node = Node::start();
    let (status, head, _) = http(node.port(80), "GET /assets/app.js", "Accept-Encoding: br, gzip\r\n", "");
    assert!(
        status == 200 && head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"),
        "{head}"
    );
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let (status, head, body) =
        http(node.port(80), "GET /assets/app.js", &format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n"), "");
    assert!(status == 304 && body.is_empty() && !head.contains("content-encoding"), "{head}");
    let (status, head, body) = http(node.port(80), "GET /assets/app.js", "", "");
    assert!(status == 200 && !head.contains("content-encoding") && body.contains("import"), "{head}");
}
