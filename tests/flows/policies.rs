//! Policies of single recipients, and what they hold: by the API, over real SMTP and IMAP.

use serde_json::{Value, json};

use crate::harness::{Node, http, letter};

pub(super) const MILD: &str =
    "greylist = \"off\"\ntag-score = 800\nquarantine-score = 900\nreject-score = 999\ndigest = \"off\"\n";

pub(super) const JUNK: &[u8] =
    b"From: Prize Office <x99123@free.example>\r\nTo: user1@example.test\r\nSubject: Held back\r\n\
    Message-ID: <q@x.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nX-Priority: 1\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/html; charset=utf-8\r\n\r\n\
    <font color=red size=6>BUY NOW</font> viagra <a href=\"http://1.2.3.4/\">http://bank.example</a>\r\n";

fn to_both(node: &Node, from: &str, message: &[u8]) -> String {
    node.send(from, &["user1@example.test", "user2@example.test"], message)
}

/// How many messages of each user are in the inbox and held.
fn counts(node: &Node) -> [(usize, usize); 2] {
    ["user1", "user2"].map(|user| (node.messages(user, "INBOX").len(), node.held_ids(user).len()))
}

fn patch(node: &Node, user: &str, whose: &str, edits: &Value) -> (u16, Value) {
    node.api(user, &format!("PATCH /api/v1/policy{whose}"), &json!({ "edits": edits }).to_string())
}

fn option<'a>(policy: &'a Value, name: &str) -> &'a Value {
    policy["options"].as_array().unwrap().iter().find(|option| option["option"] == name).unwrap()
}

#[test]
fn each_recipient_is_judged_by_a_policy_of_its_own() {
    let node = Node::start_with_policy(MILD);
    let edits = json!([{ "option": "tag-score", "value": "0.5" }, { "option": "quarantine-score", "value": "1" }]);
    let (status, policy) = patch(&node, "user1", "", &edits);
    assert_eq!(status, 200, "{policy}");
    assert_eq!(option(&policy, "quarantine-score")["value"], "1.0");
    assert!(option(&policy, "quarantine-score")["origin"]["own"].as_bool().unwrap());
    assert!(to_both(&node, "x@free.example", JUNK).starts_with("250"));
    assert_eq!(counts(&node), [(0, 1), (1, 0)], "one of the two wants it held");

    let (_, history) = node.api("user1", "GET /api/v1/policy/history", "");
    let change = &history["changes"][0];
    assert_eq!(change["by"], "user1@example.test");
    let undo = format!("POST /api/v1/policy/history/{}/undo", change["id"]);
    assert_eq!(node.api("user1", &undo, "").0, 200);
    assert!(to_both(&node, "x@free.example", JUNK).starts_with("250"));
    assert_eq!(counts(&node), [(1, 1), (2, 0)]);

    // The domain decides for all below it, and locks.
    let locked = json!([{ "option": "quarantine-score", "value": "1", "locked": true }, { "option": "tag-score", "value": "0.5" }]);
    assert_eq!(patch(&node, "user1", "?domain=example.test", &locked).0, 404, "not by a user");
    assert_eq!(patch(&node, "admin", "?domain=example.test", &locked).0, 200);
    let refused = patch(&node, "user2", "", &json!([{ "option": "quarantine-score", "value": "50" }]));
    assert_eq!((refused.0, &refused.1["field"]), (400, &json!("quarantine-score")), "{}", refused.1);
    assert!(to_both(&node, "x@free.example", JUNK).starts_with("250"));
    assert_eq!(counts(&node), [(1, 2), (2, 1)]);
}

#[test]
fn a_policy_that_was_changed_meanwhile_is_not_overwritten() {
    let node = Node::start_with_policy(MILD);
    let tag = |node: &Node| {
        let (_, head, _) = http(node.port(80), "GET /api/v1/policy", &crate::harness::basic("user1"), "");
        head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned()
    };
    let first = tag(&node);
    let edits = json!({ "edits": [{ "option": "digest", "value": "weekly" }] }).to_string();
    let with = |tag: &str| format!("{}If-Match: {tag}\r\n", crate::harness::basic("user1"));
    assert_eq!(node.api_with(&with(&first), "PATCH /api/v1/policy", &edits).0, 200);
    let (status, error) = node.api_with(&with(&first), "PATCH /api/v1/policy", &edits);
    assert_eq!((status, &error["error"]), (412, &json!("changed")));
    assert_eq!(node.api_with(&with(&tag(&node)), "PATCH /api/v1/policy", &edits).0, 200);
    for (edits, field) in [
        (json!([{ "option": "quarantine-score", "value": "high" }]), "quarantine-score"),
        (json!([{ "option": "no-such", "value": "1" }]), ""),
        (json!([]), "edits"),
    ] {
        let (status, error) = patch(&node, "user1", "", &edits);
        assert_eq!(status, 400, "{error}");
        assert!(error["message"].as_str().is_some_and(|why| !why.is_empty()));
        assert_eq!(error["field"].as_str().unwrap_or_default(), field, "{error}");
    }
}

#[test]
fn senders_are_let_through_and_kept_out() {
    let node = Node::start_with_policy(MILD);
    let add = |user: &str, entry: Value| node.api(user, "POST /api/v1/senders", &entry.to_string());
    let (status, entry) = add("user1", json!({ "word": "block", "who": "a@x.example", "note": "sells" }));
    assert_eq!(status, 201, "{entry}");
    to_both(&node, "a@x.example", &letter("an offer", "Shall we meet?"));
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
    assert!(node.messages("user1", "INBOX").is_empty());
    let (_, list) = node.api("user1", "GET /api/v1/senders?word=block&search=x.ex", "");
    assert_eq!((&list["senders"][0]["who"], &list["senders"][0]["note"]), (&json!("a@x.example"), &json!("sells")));
    assert_eq!(node.api("user2", "GET /api/v1/senders", "").1["senders"], json!([]));
    assert_eq!(node.api("user2", &format!("DELETE /api/v1/senders/{}", entry["id"]), "").0, 404, "another's");
    assert_eq!(node.api("user1", &format!("DELETE /api/v1/senders/{}", entry["id"]), "").0, 204);
    to_both(&node, "a@x.example", &letter("once more", "Shall we meet?"));
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    assert_eq!(add("user1", json!({ "word": "maybe", "who": "a@x.example" })).1["field"], "word");

    let strict = json!([{ "option": "tag-score", "value": "0.5" }, { "option": "quarantine-score", "value": "1" }]);
    assert_eq!(patch(&node, "admin", "?system=true", &strict).0, 200);
    let allow = json!({ "word": "allow", "who": "@free.example", "unproven": true });
    assert_eq!(add("user2", allow).0, 201);
    to_both(&node, "x@free.example", JUNK);
    let held = ["user1", "user2"].map(|user| node.held_ids(user).len());
    assert_eq!(held, [2, 0], "with what the list kept out");
}

#[test]
fn who_may_lets_held_mail_out() {
    let node =
        Node::start_with_policy(&MILD.replace("quarantine-score = 900", "quarantine-score = 1").replace("800", "0.5"));
    assert!(to_both(&node, "x@free.example", JUNK).starts_with("250"));
    let page = |user: &str, which: &str| node.api(user, &format!("GET /api/v1/quarantine{which}"), "").1;
    let act = |user: &str, body: Value| node.api(user, "POST /api/v1/quarantine/actions", &body.to_string());
    let one = page("user1", "")["messages"][0].clone();
    assert_eq!(
        (&one["reason"], &one["subject"], &one["mayRelease"]),
        (&json!("spam"), &json!("Held back"), &json!(true))
    );
    let id = one["id"].as_str().unwrap();
    assert_eq!(page("user1", "/counts")["reasons"]["spam"], 1);
    let body = format!("GET /api/v1/quarantine/messages/{id}/body");
    let (status, head, text) = http(node.port(80), &body, &crate::harness::basic("user1"), "");
    assert!(status == 200 && text.contains("BUY NOW") && head.contains("sandbox"), "{head}{text}");
    for request in [format!("GET /api/v1/quarantine/messages/{id}"), body] {
        assert_eq!(node.api("user2", &request, "").0, 404, "another user's");
    }
    assert_eq!(act("user2", json!({ "action": "release", "ids": [id] })).0, 404);
    let (_, done) = act("user1", json!({ "action": "release", "ids": [id], "allow": "mailbox" }));
    assert_eq!(
        (&done["done"][0]["released"], &done["done"][0]["allowed"]),
        (&json!(true), &json!("x99123@free.example"))
    );
    assert_eq!(counts(&node), [(1, 0), (0, 1)]);
    assert_eq!(act("user1", json!({ "action": "release", "ids": [id] })).0, 404, "it is there no more");
    assert_eq!(act("user1", json!({ "action": "eat", "ids": [id] })).0, 404);
    let other = node.held_ids("user2").remove(0);
    assert_eq!(act("user2", json!({ "action": "delete", "ids": [other], "block": "mailbox" })).0, 200);
    assert_eq!(counts(&node), [(1, 0), (0, 0)]);
    assert_eq!(node.api("user2", "GET /api/v1/senders?word=block", "").1["senders"][0]["who"], "x99123@free.example");
}

#[test]
fn files_are_let_out_by_who_administers_and_everybody_sees_who_it_was() {
    let node = Node::start();
    let message = b"From: a@x.example\r\nTo: user1@example.test\r\nSubject: the tool\r\nMessage-ID: <t@x.example>\r\n\
        Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n\
        Content-Type: application/octet-stream; name=run.js\r\nContent-Disposition: attachment; filename=run.js\r\n\r\nx=1\r\n";
    node.send("a@x.example", &["user1@example.test"], message);
    let id = node.held_ids("user1").remove(0);
    let act = |user: &str, action: &str| {
        let body = json!({ "action": action, "ids": [id] }).to_string();
        node.api(user, "POST /api/v1/quarantine/actions", &body)
    };
    assert_eq!(act("user1", "release").0, 403);
    let source = format!("GET /api/v1/quarantine/messages/{id}/source");
    assert_eq!(node.api("user1", &source, "").0, 403, "nor as a file");
    assert_eq!(act("user1", "ask").1["asked"], 1);
    node.command(&["role", "add", "user2@example.test", "domain-admin", "--domain", "example.test"]);
    let (_, asked) = node.api("user2", "GET /api/v1/quarantine?all=true&asked=true", "");
    assert_eq!(
        (&asked["messages"][0]["id"], &asked["messages"][0]["mayRelease"]),
        (&json!(id), &json!(true)),
        "{asked}"
    );
    let (status, done) = act("user2", "release");
    assert_eq!((status, &done["done"][0]["mailbox"]), (200, &json!("INBOX")), "{done}");
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    let (_, audit) = node.api("user1", "GET /api/v1/audit", "");
    let first = &audit["entries"][0];
    assert_eq!((&first["action"], &first["by"]), (&json!("release-held"), &json!("user2@example.test")), "{audit}");
    assert_eq!(node.api("user3", "GET /api/v1/audit", "").1["entries"], json!([]));
}

#[test]
fn a_mail_tells_what_is_held_and_its_links_work_once_confirmed() {
    let policy = MILD.replace("quarantine-score = 900", "quarantine-score = 1").replace("800", "0.5");
    let node =
        Node::start_with_policy(&policy.replace("digest = \"off\"", "digest = \"daily\"\nmail-language = \"en\""));
    node.send("x@free.example", &["user1@example.test"], JUNK);
    assert_eq!(node.json(&["quarantine", "tell"])["mails"], 1);
    assert_eq!(node.json(&["quarantine", "tell"])["mails"], 0, "each is told once");
    let letter = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        node.messages("user1", "INBOX").pop()
    });
    let letter = String::from_utf8_lossy(&letter.unwrap()).replace("=\r\n", "");
    assert!(letter.contains("Subject: 1 messages in quarantine") && letter.contains("Held back"), "{letter}");
    let link = letter.split_once("release: https://").unwrap().1.split_whitespace().next().unwrap();
    let path = &link[link.find('/').unwrap()..];
    let (status, _, page) = http(node.port(80), &format!("GET {path}"), "", "");
    assert!(status == 200 && page.contains("Prize Office") && page.contains("<form method=\"post\""), "{page}");
    assert_eq!(node.held_ids("user1").len(), 1, "looking at it does nothing");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(http(node.port(80), &format!("POST {path}"), form, "").0, 200);
    assert_eq!(http(node.port(80), &format!("POST {path}"), form, "").0, 404);
    assert_eq!((node.messages("user1", "INBOX").len(), node.held_ids("user1").len()), (2, 0));
    let forged = path.replace("/held/", "/held/A");
    assert_eq!(http(node.port(80), &format!("POST {forged}"), form, "").0, 404);
}

#[test]
fn the_mail_of_the_last_days_tells_what_a_change_would_do() {
    let node = Node::start_with_policy(MILD);
    node.send("x@free.example", &["user1@example.test"], JUNK);
    node.send("a@x.example", &["user1@example.test"], &letter("Lunch", "Shall we have lunch on Friday?"));
    let edits = json!([{ "option": "tag-score", "value": "0.5" }, { "option": "quarantine-score", "value": "1" }]);
    let body = json!({ "edits": edits, "days": 1 }).to_string();
    let found = (0..50).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let (status, found) = node.api("user1", "POST /api/v1/policy/replay", &body);
        assert_eq!(status, 200, "{found}");
        (found["changes"].as_array()?.len() == 1).then_some(found)
    });
    let found = found.unwrap();
    assert_eq!(found["changes"][0]["subject"], "Held back", "{found}");
    assert!(found["changes"][0]["would"].as_str().unwrap().contains("quarantine"), "{found}");
    assert_eq!(node.api("user2", "POST /api/v1/policy/replay", &body).1["changes"], json!([]));
    assert_eq!(node.api("user2", "POST /api/v1/policy/replay?account=user1@example.test", &body).0, 404);
}

/// Who asks to be told for each recipient (PRDR) hears that one refuses; others hear of what is best for all.
#[test]
fn a_sender_that_asks_hears_each_recipients_word() {
    let node = Node::start_with_policy(MILD);
    let edits = json!([
        { "option": "tag-score", "value": "0.5" }, { "option": "quarantine-score", "value": "1" },
        { "option": "reject-score", "value": "2" },
    ]);
    assert_eq!(patch(&node, "user1", "", &edits).0, 200);
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<x@free.example> PRDR").expect("250");
    for user in ["user1", "user2"] {
        smtp.say(&format!("RCPT TO:<{user}@example.test>")).expect("250");
    }
    assert!(smtp.send_content(JUNK).starts_with("353"));
    smtp.expect("554 5.7.1");
    smtp.expect("250 2.0.0");
    smtp.expect("250 2.0.0");
    assert_eq!(counts(&node), [(0, 0), (1, 0)], "what was refused is not kept");
    // The session goes on.
    smtp.say("NOOP").expect("250");
    to_both(&node, "x@free.example", JUNK);
    assert_eq!(counts(&node), [(0, 1), (2, 0)], "nobody was told: it waits");
}
