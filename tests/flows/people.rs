//! Roles, second factors, passwords of programs, tokens, forwards: by the API, over real protocols.

use base::{Clock as _, SystemClock};
use mailauth::stub::StubServer;
use serde_json::{Value, json};

use super::queue::node_with;
use crate::harness::{Node, Reaction, Receiver, base64, http, letter};

/// The status of a call by each of some users.
fn statuses(node: &Node, users: &[&str], request: &str, body: &str) -> Vec<u16> {
    users.iter().map(|user| node.api(user, request, body).0).collect()
}

#[test]
fn roles_decide_what_the_api_does() {
    let node = Node::start();
    for arguments in [
        &["tenant", "add", "Seller", "--reseller"][..],
        &["tenant", "add", "Shop", "--parent", "Seller"],
        &["domain", "add", "shop.test", "--tenant", "Shop"],
        &["account", "add", "boss@shop.test", "--password-hash", "{PLAIN}demo"],
        &["account", "add", "clerk@shop.test", "--password-hash", "{PLAIN}demo"],
        &["role", "add", "user1@example.test", "service-centre"],
        &["role", "add", "user2@example.test", "auditor"],
        &["role", "add", "user3@example.test", "reseller", "--tenant", "Seller"],
        &["role", "add", "user4@example.test", "customer-admin", "--tenant", "Shop"],
    ] {
        node.command(arguments);
    }
    let users = ["admin", "user1", "user2", "user3", "user4", "user5"];
    for (request, body, expected) in [
        ("GET /api/v1/nodes", "", [200, 403, 200, 403, 403, 403]),
        ("GET /api/v1/tenants", "", [200, 200, 200, 200, 200, 403]),
        ("GET /api/v1/accounts/clerk@shop.test", "", [200, 200, 200, 200, 200, 404]),
        ("GET /api/v1/accounts/user5@example.test", "", [200, 200, 200, 404, 404, 403]),
        ("PATCH /api/v1/accounts/clerk@shop.test", r#"{"name":"Clerk"}"#, [200, 403, 403, 200, 200, 404]),
        ("PATCH /api/v1/accounts/clerk@shop.test", r#"{"password":"new secret"}"#, [200, 200, 403, 200, 200, 404]),
        ("PATCH /api/v1/accounts/admin@example.test", r#"{"password":"new secret"}"#, [200, 403, 403, 404, 404, 404]),
        ("PATCH /api/v1/accounts/clerk@shop.test", r#"{"access":"admin"}"#, [200, 403, 403, 403, 403, 404]),
        ("GET /api/v1/policy?domain=shop.test", "", [200, 200, 200, 200, 200, 404]),
        ("GET /api/v1/policy?system=true", "", [200, 200, 200, 403, 403, 403]),
        ("GET /api/v1/quarantine?domain=shop.test", "", [200, 200, 200, 200, 200, 404]),
        ("GET /api/v1/log/messages?of=shop.test", "", [200, 400, 200, 200, 200, 404]),
        ("GET /api/v1/log/messages?of=shop.test&q=to:%3Cclerk@shop.test%3E", "", [200, 200, 200, 200, 200, 404]),
        ("POST /api/v1/domains", r#"{"name":"new.test","tenant":"Shop"}"#, [201, 403, 403, 409, 403, 403]),
        ("GET /api/v1/removed?account=clerk@shop.test", "", [200, 200, 200, 200, 200, 404]),
    ] {
        // The administrator's own password is changed by one of them.
        let found = statuses(&node, &users, request, body);
        assert_eq!(found, expected, "{request} {body}");
        if request.contains("/admin@") {
            node.command(&["account", "set", "admin@example.test", "--password-hash", "{PLAIN}demo"]);
        }
        if body.contains("\"access\"") {
            let back = r#"{"access":"user"}"#;
            assert_eq!(node.api("admin", "PATCH /api/v1/accounts/clerk@shop.test", back).0, 200);
        }
    }
    let listed = |user: &str| {
        let (_, found) = node.api(user, "GET /api/v1/accounts", "");
        found["accounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["address"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("user4"), ["boss@shop.test", "clerk@shop.test"]);
    assert!(listed("user1").len() > 5);

    // Roles are given downwards.
    let give = |user: &str, role: Value| node.api(user, "POST /api/v1/roles", &role.to_string()).0;
    let to_boss = json!({ "account": "boss@shop.test", "role": "domain-admin", "domain": "shop.test" });
    assert_eq!(give("user1", to_boss.clone()), 403);
    assert_eq!(give("user4", to_boss.clone()), 201);
    assert_eq!(give("user4", json!({ "account": "boss@shop.test", "role": "isp-admin" })), 403);
    assert_eq!(give("user3", json!({ "account": "boss@shop.test", "role": "reseller", "tenant": "Seller" })), 403);
    let (_, seen) = node.api("user4", "GET /api/v1/roles", "");
    assert!(seen.to_string().contains("boss@shop.test") && !seen.to_string().contains("user1@"), "{seen}");
    // What staff looked at is there for whom it concerns.
    let boss = format!("Authorization: Basic {}\r\n", base64(b"boss@shop.test:demo"));
    let (_, audit) = node.api_with(&boss, "GET /api/v1/audit", "");
    let by_staff = |entry: &&Value| entry["by"] == "user1@example.test" && entry["action"] == "view-account";
    assert!(audit["entries"].as_array().unwrap().iter().any(|entry| by_staff(&entry)), "{audit}");
    let path = "DELETE /api/v1/roles?account=boss@shop.test&role=domain-admin&domain=shop.test";
    assert_eq!(node.api("user4", path, "").0, 204);
    assert_eq!(node.api_with(&boss, "GET /api/v1/accounts", "").0, 403);
}

/// The code that a program shows for a secret now (RFC 6238).
fn code(secret: &str, steps_later: u64) -> String {
    let mut octets = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for letter in secret.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|one| *one == letter).unwrap();
        bits = bits << 5 | u32::try_from(value).unwrap();
        count += 5;
        if count >= 8 {
            count -= 8;
            octets.push(u8::try_from(bits >> count & 255).unwrap());
        }
    }
    let secret = totp_rs::Secret::new_stack(<[u8; 20]>::try_from(octets).unwrap());
    let now = u64::try_from(SystemClock.utc().as_secs()).unwrap() + 30 * steps_later;
    totp_rs::Builder::new().with_secret(secret).build().unwrap().generate(now).to_string()
}

fn login(node: &Node, password: &str) -> bool {
    let mut imap = node.connect(143);
    imap.expect("* OK");
    imap.outcome(&format!("LOGIN user1@example.test \"{password}\"")).contains("OK")
}

#[test]
fn a_second_factor_leaves_programs_their_own_passwords() {
    let node = Node::start();
    let me = |request: &str, body: Value| node.api("user1", request, &body.to_string());
    assert_eq!(me("POST /api/v1/me/second-factor", json!({ "password": "wrong" })).0, 401);
    let (status, begun) = me("POST /api/v1/me/second-factor", json!({ "password": "demo" }));
    assert_eq!(status, 200, "{begun}");
    let secret = begun["secret"].as_str().unwrap();
    assert!(begun["uri"].as_str().unwrap().starts_with("otpauth://totp/"));
    assert!(login(&node, "demo"), "not before it is confirmed");
    assert_eq!(me("PUT /api/v1/me/second-factor", json!({ "code": "000000" })).0, 400);
    let (_, made) = me("POST /api/v1/app-passwords", json!({ "name": "phone", "protocols": ["imap"] }));
    let phone = made["password"].as_str().unwrap().to_owned();
    let (status, codes) = me("PUT /api/v1/me/second-factor", json!({ "code": code(secret, 0) }));
    assert_eq!(status, 200, "{codes}");
    assert!(!login(&node, "demo") && login(&node, &phone));
    assert_eq!(node.api("user1", "GET /api/v1/me", "").1["error"], "second-factor");

    // The browser asks for a code, once.
    let form = |code: &str| {
        let body = format!("name=user1%40example.test&password=demo&code={code}");
        let head = "Content-Type: application/x-www-form-urlencoded\r\n";
        http(node.port(80), "POST /login", head, &body)
    };
    let (status, _, page) = form("");
    assert!(status == 401 && page.contains("one-time-code"), "{page}");
    assert_eq!(form("123456").0, 401);
    let next = code(secret, 1);
    let (status, head, _) = form(&next);
    assert_eq!(status, 303, "{head}");
    assert_eq!(form(&next).0, 401, "a code works once");
    let recovery = codes["recovery"][0].as_str().unwrap().to_owned();
    assert_eq!((form(&recovery).0, form(&recovery).0), (303, 401));

    let id = node.json(&["app-password", "list", "user1@example.test"])[0]["id"].to_string();
    node.command(&["app-password", "delete", "user1@example.test", &id]);
    assert!(!login(&node, &phone));
    node.command(&["second-factor", "delete", "user1@example.test"]);
    assert!(login(&node, "demo"));
}

#[test]
fn staff_without_a_second_factor_are_users_where_it_is_required() {
    let node =
        Node::start_configured(|_| {}, &[("staff_second_factor = \"optional\"", "staff_second_factor = \"required\"")]);
    let (_, session) = node.api("admin", "GET /api/v1/session", "");
    assert_eq!((&session["lacksSecondFactor"], &session["roles"]), (&json!(true), &json!([])), "{session}");
    assert_eq!(node.api("admin", "GET /api/v1/accounts", "").0, 403);
    assert_eq!(node.api("admin", "POST /api/v1/tokens", r#"{"name":"x","scopes":["*:read"]}"#).0, 403);
    let (_, begun) = node.api("admin", "POST /api/v1/me/second-factor", r#"{"password":"demo"}"#);
    let body = json!({ "code": code(begun["secret"].as_str().unwrap(), 0) }).to_string();
    assert_eq!(node.api("admin", "PUT /api/v1/me/second-factor", &body).0, 200);
    let form = format!("name=admin%40example.test&password=demo&code={}", code(begun["secret"].as_str().unwrap(), 1));
    let head = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, head, _) = http(node.port(80), "POST /login", head, &form);
    assert_eq!(status, 303, "{head}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    // The header is given in small letters: the cookie is read as it was sent.
    assert!(cookie.starts_with("ortler="), "{cookie}");
}

#[test]
fn tokens_do_what_they_are_for_and_no_more() {
    let node = Node::start();
    let make = |scopes: Value| {
        let body = json!({ "name": "billing", "scopes": scopes }).to_string();
        node.api("admin", "POST /api/v1/tokens", &body)
    };
    let (status, made) = make(json!(["accounts:read", "domains:write"]));
    assert_eq!(status, 201, "{made}");
    let with = format!("Authorization: Bearer {}\r\n", made["token"].as_str().unwrap());
    for (request, body, expected) in [
        ("GET /api/v1/accounts", "", 200),
        ("POST /api/v1/accounts", r#"{"address":"new@example.test","password":"secret word"}"#, 403),
        ("POST /api/v1/domains", r#"{"name":"new.test"}"#, 201),
        ("GET /api/v1/domains", "", 200),
        ("GET /api/v1/quarantine", "", 403),
        ("GET /api/v1/tokens", "", 403),
        ("POST /api/v1/tokens", r#"{"name":"more","scopes":["*:write"]}"#, 403),
    ] {
        assert_eq!(node.api_with(&with, request, body).0, expected, "{request}");
    }
    assert_eq!(make(json!(["everything"])).0, 400);
    let used = node.api("admin", "GET /api/v1/tokens", "").1["tokens"][0].clone();
    assert!(used["used"].is_string() && used.get("token").is_none(), "{used}");
    assert_eq!(node.api("admin", &format!("DELETE /api/v1/tokens/{}", used["id"]), "").0, 204);
    assert_eq!(node.api_with(&with, "GET /api/v1/accounts", "").0, 401);
    assert_eq!(node.api_with("Authorization: Bearer ort_guess\r\n", "GET /api/v1/accounts", "").0, 401);
}

#[test]
fn sessions_are_seen_and_ended_and_a_password_is_changed() {
    let node = Node::start();
    let open = || {
        let head = "Content-Type: application/x-www-form-urlencoded\r\n";
        let answer = http(node.port(80), "POST /login", head, "name=user1%40example.test&password=demo");
        assert_eq!(answer.0, 303);
    };
    open();
    open();
    let (_, found) = node.api("user1", "GET /api/v1/me/sessions", "");
    assert_eq!(found["sessions"].as_array().unwrap().len(), 2, "{found}");
    let id = found["sessions"][0]["id"].as_str().unwrap();
    assert_eq!(node.api("user2", &format!("DELETE /api/v1/me/sessions/{id}"), "").0, 404);
    assert_eq!(node.api("user1", &format!("DELETE /api/v1/me/sessions/{id}"), "").0, 200);
    assert_eq!(node.api("user1", "DELETE /api/v1/me/sessions/others", "").1["closed"], 1);
    let change = |old: &str, new: &str| {
        let body = json!({ "password": old, "new": new }).to_string();
        node.api("user1", "POST /api/v1/me/password", &body).0
    };
    assert_eq!((change("wrong", "another secret"), change("demo", "short")), (401, 400));
    assert_eq!(change("demo", "another secret"), 204);
    assert!(!login(&node, "demo") && login(&node, "another secret"));
}

/// Waits until the inboxes of two users hold so many messages.
#[track_caller]
fn arrive(node: &Node, wanted: [usize; 2]) {
    let mut found = [0, 0];
    for _ in 0..200 {
        found = ["user1", "user2"].map(|user| node.messages(user, "INBOX").len());
        if found == wanted {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(found, wanted);
}

#[test]
fn forwards_go_where_the_reader_agreed_and_bounces_come_back_through_us() {
    let zone = StubServer::start("b.test MX 10 mx.b.test\nmx.b.test A 127.0.0.1\n");
    let receiver = Receiver::start(&["PIPELINING"], |_| Reaction::Take);
    let node = node_with(&zone, receiver.port(), "");
    let set = |body: Value| node.api("user1", "PUT /api/v1/forwards", &body.to_string());
    let (status, found) = set(json!({ "targets": ["user2@example.test", "anna@b.test"], "keeps": true }));
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["targets"][0]["confirmed"], Value::Null);
    let asking = receiver.wait_for(1).remove(0);
    let text = asking.content.replace("=\r\n", "");
    let link = text.split_once("/forward/").unwrap().1.split_whitespace().next().unwrap();
    node.send("a@x.example", &["user1@example.test"], &letter("before", "Nobody agreed yet."));
    arrive(&node, [1, 1]);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(http(node.port(80), &format!("GET /forward/{link}"), "", "").0, 200);
    assert_eq!(http(node.port(80), &format!("POST /forward/{link}"), form, "").0, 200);
    assert_eq!(http(node.port(80), &format!("POST /forward/{link}"), form, "").0, 404, "it was used");
    node.send("a@x.example", &["user1@example.test"], &letter("after", "Somebody agreed."));
    let sent = receiver.wait_for(2).remove(1);
    assert!(sent.rcpt[0].contains("<anna@b.test>"), "{sent:?}");
    let sender = sent.mail.split_once('<').unwrap().1.split('>').next().unwrap();
    assert!(sender.starts_with("SRS0=") && sender.ends_with("@example.test"), "{sender}");
    // A bounce to that address goes to the first sender, and nothing else made up does.
    assert!(node.send("", &[sender], &letter("bounce", "It did not arrive.")).starts_with("250"));
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO x").expect("250");
    smtp.say("MAIL FROM:<>").expect("250");
    let forged = sender.replace("=a@", "=b@");
    assert!(forged != sender && smtp.say(&format!("RCPT TO:<{forged}>")).line().starts_with('5'), "{forged}");
    assert_eq!(set(json!({ "targets": ["user2@example.test"], "keeps": false })).0, 200);
    node.send("a@x.example", &["user1@example.test"], &letter("no copy", "It goes on."));
    arrive(&node, [2, 3]);
    assert_eq!(set(json!({ "targets": ["user1@example.test"] })).0, 400, "to itself");
    let edits = r#"{"edits":[{"option":"forwarding","value":"nowhere"}]}"#;
    assert_eq!(node.api("admin", "PATCH /api/v1/policy?domain=example.test", edits).0, 200);
    assert_eq!(set(json!({ "targets": ["anna@b.test"] })).0, 400);
}

#[test]
fn a_domain_has_further_names() {
    let node = Node::start();
    node.command(&["domain-alias", "add", "other.test", "example.test"]);
    assert!(
        node.send("a@x.example", &["user1+x@other.test"], &letter("hello", "By the other name.")).starts_with("250")
    );
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    node.command_fails(&["domain", "add", "other.test"], "other.test");
    assert_eq!(node.api("admin", "GET /api/v1/domains/example.test/aliases", "").1["aliases"], json!(["other.test"]));
    assert_eq!(node.api("user1", "GET /api/v1/domains/example.test/aliases", "").0, 404);
    assert_eq!(node.api("admin", "DELETE /api/v1/domains/example.test/aliases/other.test", "").0, 204);
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO x").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    assert!(smtp.say("RCPT TO:<user1@other.test>").line().starts_with('5'));
}
