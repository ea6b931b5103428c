//! Domains whose mail goes on to their own servers: which addresses they have, what is held, what comes of it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::browser::{button, sign_in};
use super::milter_tools::{free_port, has};
use super::policies::{JUNK, MILD};
use super::postfix::Postfix;
use super::queue::{wait_until, waiting};
use crate::harness::{Browser, Conversation, Node, Reaction, Receiver, letter, skip, wants_all};

/// What the node says of each recipient.
fn asked(node: &Node, to: &[&str]) -> Vec<String> {
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<x@free.example>").expect("250");
    to.iter().map(|to| smtp.say(&format!("RCPT TO:<{to}>")).line()[..3].to_owned()).collect()
}

fn relay_to(node: &Node, port: u16, more: &[&str]) {
    let host = format!("none://127.0.0.1:{port}");
    let mut words = vec!["domain", "add", "customer.test", "--relay", host.as_str()];
    words.extend(more);
    node.command(&words);
}

fn held(node: &Node, search: &str) -> Vec<Value> {
    let (status, found) =
        node.api("admin", &format!("GET /api/v1/quarantine?domain=customer.test&search={search}"), "");
    assert_eq!(status, 200, "{found}");
    found["messages"].as_array().unwrap().clone()
}

/// A real server: what it has is asked, judged mail goes on, held mail waits here until it is let out.
#[test]
fn a_customers_own_server_gets_what_is_judged_good() {
    if !has("postfix") {
        return;
    }
    let mut node = Node::start_with_policy(MILD);
    let port = free_port();
    relay_to(&node, port, &[]);
    assert_eq!(node.json(&["domain", "show", "customer.test"])["relay"]["verify"], "ask");
    // Nobody is known yet, and who could say is away.
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<x@free.example>").expect("250");
    let told = smtp.say("RCPT TO:<anna@customer.test>").expect("451 4.4.1");
    assert!(!told.contains("127.0.0.1") && told.contains("try again"), "where it is, nobody learns: {told}");
    let boxes = "virtual_mailbox_maps = inline:{ {anna@customer.test=box/}, {bob@customer.test=box/} }\n\
                 smtpd_recipient_restrictions = permit_mynetworks, reject";
    let postfix = Postfix::start_at(port, "customer.test", boxes);
    let all = ["anna@customer.test", "nobody@customer.test", "Bob@Customer.test", "carl@elsewhere.test"];
    assert_eq!(asked(&node, &all), ["250", "550", "250", "554"], "{}", postfix.log());

    let reply = node.send("x@free.example", &["anna@customer.test"], &letter("Lunch", "at noon"));
    assert!(reply.starts_with("250"), "{reply}");
    let got = postfix.delivered();
    assert!(got.contains("at noon") && got.contains("X-Spam-Status: No") && got.contains("\nReceived: "), "{got}");
    assert!(got.contains("Return-Path: <x@free.example>"), "the sender stays: {got}");

    // Each address has a policy and held mail of its own.
    let strict =
        json!({ "edits": [{ "option": "tag-score", "value": "0.5" }, { "option": "quarantine-score", "value": "1" }] });
    let patch = "PATCH /api/v1/policy?account=anna@customer.test";
    let (status, answer) = node.api("admin", patch, &strict.to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(node.send("x@free.example", &["anna@customer.test", "bob@customer.test"], JUNK).starts_with("250"));
    let got = postfix.delivered();
    assert!(got.contains("Delivered-To: bob@customer.test") && got.contains("BUY NOW"), "{got}");
    let waits = held(&node, "");
    assert_eq!((waits.len(), &waits[0]["to"]), (1, &json!("anna@customer.test")), "{waits:?}");
    let id = waits[0]["id"].as_str().unwrap();
    let act = json!({ "action": "release", "ids": [id] }).to_string();
    let (_, done) = node.api("admin", "POST /api/v1/quarantine/actions", &act);
    assert_eq!((&done["done"][0]["released"], &done["done"][0]["mailbox"]), (&json!(true), &json!("customer.test")));
    let got = postfix.delivered();
    assert!(got.contains("Delivered-To: anna@customer.test") && got.contains("BUY NOW"), "{got}");
    assert_eq!(held(&node, "").len(), 0);

    // Who is known goes on getting mail while the server is away, and after a restart.
    drop(postfix);
    node.stop();
    node.serve();
    assert_eq!(asked(&node, &["anna@customer.test", "dora@customer.test"]), ["250", "451"]);
    assert!(
        node.send("x@free.example", &["bob@customer.test"], &letter("Later", "while you were out")).starts_with("250")
    );
    assert_eq!(waiting(&node)[0]["lane"], ":to:customer.test");
    let postfix = Postfix::start_at(port, "customer.test", boxes);
    node.command(&["queue", "retry", "--lane", "customer.test"]);
    assert!(postfix.delivered().contains("while you were out"), "{}", postfix.log());
    wait_until("an empty queue", || waiting(&node).is_empty());

    // Whose mail goes on opens no mailbox here; the queue's word is in their log.
    let story = node.json(&["trace", "--to", "bob@customer.test"]);
    assert!(story.as_array().unwrap().iter().any(|one| one["outcome"] == "delivered"), "{story}");
}

/// The server is asked once for each address, and not at all where it takes anything.
#[test]
fn a_server_is_asked_no_more_than_it_needs() {
    let (mail, rcpt) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (said, named) = (Arc::clone(&mail), Arc::clone(&rcpt));
    let picky = Receiver::start(&[], move |step| match step.verb.as_str() {
        "MAIL" => {
            said.fetch_add(1, Ordering::SeqCst);
            Reaction::Take
        }
        "RCPT" => {
            named.fetch_add(1, Ordering::SeqCst);
            match () {
                () if step.line.contains("late") => Reaction::Say("450 4.2.1 Come again"),
                () if step.line.contains("anna") => Reaction::Take,
                () => Reaction::Say("550 5.1.1 No such user"),
            }
        }
        _ => Reaction::Take,
    });
    let node = Node::start_with_policy(MILD);
    relay_to(&node, picky.port(), &[]);
    let mut again = Vec::new();
    for _ in 0..3 {
        again = asked(&node, &["anna@customer.test", "nobody@customer.test", "late@customer.test"]);
        assert_eq!(again, ["250", "550", "450"]);
    }
    // The first asks for one more that nobody can have; who is late is asked each time.
    assert_eq!((mail.load(Ordering::SeqCst), rcpt.load(Ordering::SeqCst)), (5, 6), "{again:?}");
    assert_eq!(picky.taken().len(), 0);

    let kind = Receiver::kind();
    let host = format!("none://127.0.0.1:{}", kind.port());
    node.command(&["domain", "add", "open.test", "--relay", &host]);
    node.command(&["domain", "add", "every.test", "--relay", &host, "--verify", "all"]);
    node.command(&["domain", "add", "listed.test", "--relay", &host, "--verify", "list"]);
    node.command(&["account", "add", "anna@listed.test", "--no-password"]);
    node.command(&["alias", "add", "info@listed.test", "anna@listed.test"]);
    let all = ["a@open.test", "b@open.test", "x@every.test", "anna@listed.test", "info@listed.test", "bob@listed.test"];
    assert_eq!(asked(&node, &all), ["250", "250", "250", "250", "250", "550"]);
    let to = ["a+shop@open.test", "x@every.test", "info@listed.test"];
    assert!(node.send("x@free.example", &to, &letter("Hello", "to all")).starts_with("250"));
    let got = kind.wait_for(3);
    let mut named: Vec<String> = got.iter().flat_map(|one| one.rcpt.clone()).collect();
    named.sort_unstable();
    assert_eq!(named, ["RCPT TO:<a+shop@open.test>", "RCPT TO:<anna@listed.test>", "RCPT TO:<x@every.test>"]);
}

/// Who forged a sender must not make us write to whom it forged.
#[test]
fn what_the_server_refuses_later_comes_back_to_nobody_who_did_not_send_it() {
    let server = Receiver::start(&[], |step| match step.verb.as_str() {
        "CONTENT" => Reaction::Say("554 5.7.1 We do not like it"),
        _ => Reaction::Take,
    });
    let node = Node::start_with_policy(MILD);
    relay_to(&node, server.port(), &["--verify", "all"]);
    let reply = node.send("user1@example.test", &["anna@customer.test"], &letter("Not mine", "forged"));
    assert!(reply.starts_with("250"), "{reply}");
    wait_until("an end of it", || {
        let found = node.json(&["trace", "--to", "anna@customer.test"]);
        found[0]["outcome"] == "refused" && waiting(&node).is_empty()
    });
    assert_eq!(node.messages("user1", "INBOX").len(), 0);
    // Who has signed in is told.
    super::queue::submit(&node, &["anna@customer.test"], &letter("Mine", "signed in"));
    wait_until("a notice", || node.messages("user1", "INBOX").len() == 1);
    let told = String::from_utf8(node.messages("user1", "INBOX").remove(0)).unwrap();
    assert!(told.contains("We do not like it"), "{told}");
}

#[test]
fn where_mail_goes_on_is_set_by_who_sells_the_domain() {
    let node = Node::start_with_policy(MILD);
    let kind = Receiver::kind();
    let put = |user: &str, body: Value| node.api(user, "PUT /api/v1/domains/example.test/relay", &body.to_string());
    let good = json!({ "hosts": [format!("none://127.0.0.1:{}", kind.port())], "verify": "list" });
    assert_eq!(put("user1", good.clone()).0, 404);
    for (body, words) in [
        (json!({ "hosts": ["no port://"] }), "no port://"),
        (json!({ "verify": "list" }), "which server"),
        (json!({ "hosts": ["h.test"], "verify": "maybe" }), "maybe"),
        (json!({ "hosts": ["h.test"], "certificates": "sha256:12" }), "12"),
        (json!({ "hosts": ["h.test"], "speed": 1 }), "speed"),
    ] {
        let (status, error) = put("admin", body);
        assert!(status == 400 && error["message"].as_str().unwrap().contains(words), "{error}");
    }
    assert_eq!(put("admin", good).0, 204);
    let (_, list) = node.api("admin", "GET /api/v1/domains?search=example.test", "");
    assert_eq!(list["domains"][0]["relay"]["verify"], "list");
    assert!(node.send("x@free.example", &["user1@example.test"], &letter("Onward", "there")).starts_with("250"));
    kind.wait_for(1);
    let mut imap = node.connect(143);
    imap.line();
    assert!(imap.outcome("LOGIN user1@example.test demo").starts_with("o NO"), "its mailbox is not here");
    let mut pop: Conversation = node.connect(110);
    pop.expect("+OK");
    pop.say("USER user1@example.test").expect("+OK");
    pop.say("PASS demo").expect("-ERR");
    assert_eq!(node.api("user1", "GET /api/v1/quarantine", "").0, 200, "but what is held is seen");
    assert_eq!(node.api("admin", "DELETE /api/v1/domains/example.test/relay", "").0, 204);
    assert!(node.send("x@free.example", &["user1@example.test"], &letter("Here", "again")).starts_with("250"));
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    node.command_fails(&["domain", "set", "example.test", "--verify", "all"], "which server");
}

/// From the administrator's page to the reader without a password, who sees what is held and lets it out.
#[test]
fn whoever_reads_the_mail_signs_in_by_a_link() {
    if !wants_all() {
        return skip("a browser runs with ORTLER_TESTS=all");
    }
    let server = Receiver::kind();
    let node =
        Node::start_with_policy(&MILD.replace("quarantine-score = 900", "quarantine-score = 1").replace("800", "0.5"));
    node.command(&["domain", "add", "customer.test"]);
    let (browser, base) = (Browser::start(), format!("http://127.0.0.1:{}", node.port(80)));
    sign_in(&browser, &node, "admin");
    browser.open(&format!("{base}/admin/domains/customer.test"));
    browser.write("[name=hosts]", &format!("none://127.0.0.1:{}", server.port()));
    browser.run("document.querySelector('[name=verify]').value = 'all'").unwrap();
    browser.picture("onward");
    browser.click("//form[@aria-label='Own mail server']//button[normalize-space(.)='Save']");
    browser.find(&button("Mailboxes here"));
    browser.reads(".facts", "none://127.0.0.1");
    assert!(node.send("x@free.example", &["anna@customer.test"], JUNK).starts_with("250"));

    browser.forget_cookies();
    browser.open(&format!("{base}/"));
    browser.click("a[href='/login/mail']");
    browser.picture("by-mail");
    browser.write("#name", "Anna@customer.test");
    browser.click(&button("Send me a link"));
    browser.reads("[role=status]", "a link is on its way");
    let got = server.wait_for(1);
    assert_eq!(got[0].rcpt, ["RCPT TO:<anna@customer.test>"]);
    // Lines of a quoted-printable text are cut anywhere.
    let whole = got[0].content.replace("=\r\n", "").replace("=3D", "=");
    let link = whole.split("/login/mail/").nth(1).unwrap();
    let token: String = link.chars().take_while(char::is_ascii_alphanumeric).collect();
    browser.open(&format!("{base}/login/mail/{token}"));
    browser.picture("link");
    browser.click(&button("Sign in"));
    browser.find("//*[contains(., 'Held back')]");
    browser.picture("held");
    let faces =
        "return [...document.querySelectorAll('header nav a')].map((one) => one.getAttribute('href')).join(' ')";
    assert_eq!(browser.run(faces), Ok(json!("/filter /log")), "nobody reads mail here");
    browser.open(&format!("{base}/mail"));
    browser.becomes("return location.pathname", &json!("/filter"));
    browser.click("a[href^='/filter/quarantine/']");
    browser.click(&button("Deliver"));
    let got = server.wait_for(2);
    assert!(got[1].content.contains("BUY NOW"), "{}", got[1].content);
    assert_eq!(browser.console(), Vec::<String>::new());
    // It counts once.
    browser.forget_cookies();
    browser.open(&format!("{base}/login/mail/{token}"));
    browser.click(&button("Sign in"));
    browser.reads("[role=alert]", "does not count any more");
    // Nobody learns which addresses there are, and who has a mailbox here uses a password.
    for name in ["nobody@customer.test", "user1@example.test"] {
        browser.open(&format!("{base}/login/mail"));
        browser.write("#name", name);
        browser.click(&button("Send me a link"));
        browser.reads("[role=status]", "a link is on its way");
    }
    assert_eq!((server.taken().len(), node.messages("user1", "INBOX").len()), (2, 0));
}
