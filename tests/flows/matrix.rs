//! Every operation of the API, tried by every role: what the table of roles lets each do to one customer's things.

use super::queue::wait_until;
use crate::harness::{Node, basic, http, letter};

/// Who tries, in the order of the columns: each role where it is held, the administrator of another customer, and nobody
/// special.
const VIEWERS: [(&str, &str, &[&str]); 10] = [
    ("admin", "", &[]),
    ("viewer1", "isp-operator", &[]),
    ("viewer2", "service-centre", &[]),
    ("viewer3", "service-centre-senior", &[]),
    ("viewer4", "auditor", &[]),
    ("viewer5", "reseller", &["--tenant", "Seller"]),
    ("viewer6", "customer-admin", &["--tenant", "Shop"]),
    ("viewer7", "domain-admin", &["--domain", "shop.test"]),
    ("viewer8", "customer-admin", &["--tenant", "Other"]),
    ("viewer9", "", &[]),
];

/// A call, what it sends, and for whom it is done (`y`), refused (`n`), or about nothing
/// that there is (`-`): another customer's things look so. What is done may still be wrong of itself (400). The things are the customer's `shop.test`; HELD and
/// LOGGED stand for a message that is held there, NEW for a name that is made for this call alone.
const TABLE: &str = r#"
get /accounts | | yyyyyyyyyn
get /accounts?domain=shop.test | | yyyyyyyyyn
get /accounts/clerk@shop.test | | yyyyyyyy--
post /accounts | {"address":"NEW@shop.test","password":"a long secret"} | yynynyyy-n
post /accounts/import | address | yynynyyyyn
patch /accounts/clerk@shop.test | {"name":"Clerk"} | yynynyyy--
delete /accounts/NEW@shop.test | | yynynyyy--
delete /accounts/clerk@shop.test/second-factor | | ----n-----
get /aliases | | yyyyyyyyyn
put /aliases/NEW@shop.test | {"targets":["clerk@shop.test"]} | yynynyyy--
delete /aliases/made-NEW@shop.test | | yynynyyy--
get /app-passwords?account=clerk@shop.test | | yyyyyyyy--
post /app-passwords | {"name":"Phone","protocols":["imap"]} | yyyyyyyyyy
delete /app-passwords/1?account=clerk@shop.test | | ----n-----
get /audit | | yyyyyyyyyy
get /domains | | yyyyyyyyyn
post /domains | {"name":"NEW.test","tenant":"Shop"} | yynynyn--n
patch /domains/shop.test | {"quota":0} | yynynynn--
delete /domains/made-NEW.test | | yynynyn---
get /domains/shop.test/aliases | | yyyyyyyy--
put /domains/shop.test/aliases/NEW.test | | yynynynn--
delete /domains/shop.test/aliases/made-NEW.test | | yynynynn--
put /domains/shop.test/relay | {} | yynynynn--
delete /domains/shop.test/relay | | yynynynn--
get /forwards?account=clerk@shop.test | | yyyyyyyy--
put /forwards?account=clerk@shop.test | {"targets":[]} | yynynyyy--
get /keys | | yyyyynnnnn
get /keys?domain=shop.test | | yyyyyyyy--
post /keys | {"domain":"shop.test","selector":"sNEW"} | yynynyyy-n
get /keys/shop.test/check | | yyyyyyyy--
patch /keys/shop.test/none | {"state":"active"} | --n-n-----
delete /keys/shop.test/none | | --n-n-----
get /log/histogram?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&step=3600&of=shop.test | | yynyyyyy--
get /log/messages?of=shop.test | | yyyyyyyy--
get /log/messages/LOGGED?of=shop.test | | yyyyyyyy--
get /log/messages/LOGGED/events?of=shop.test | | yyyyyyyy--
get /me | | yyyyyyyyyy
post /me/password | {"password":"wrong","new":"another secret"} | nnnnnnnnnn
post /me/second-factor | {"password":"wrong"} | nnnnnnnnnn
put /me/second-factor | {"code":"000000"} | ----------
delete /me/second-factor | {"password":"wrong"} | nnnnnnnnnn
get /me/sessions | | yyyyyyyyyy
delete /me/sessions/others | | yyyyyyyyyy
get /message/e999/body | | ----------
get /message/e999/inline/b | | ----------
get /message/e999/about | | ----------
get /node | | yyyyyyyyyy
get /nodes | | yynyynnnnn
patch /nodes/mx.example.test | {} | yynnnnnnnn
delete /nodes/mx.example.test | | yynnnnnnnn
get /openapi.json | | yyyyyyyyyy
get /policy?domain=shop.test | | yyyyyyyy--
get /policy?system=true | | yyyyynnnnn
patch /policy?domain=shop.test | {"edits":[{"option":"digest","value":"weekly"}]} | ynnynyyy--
patch /policy?system=true | {"edits":[{"option":"digest","value":"daily"}]} | ynnnnnnnnn
get /policy/history?domain=shop.test | | yyyyyyyy--
post /policy/history/1/undo?domain=other.test | | -nn-n-----
get /policy/options | | yyyyyyyyyy
get /policy/plans?domain=shop.test | | yyyyyyyy--
post /policy/plans?domain=shop.test | {"edits":[{"option":"digest","value":"off"}],"at":"2036-01-01"} | ynnynyyy--
delete /policy/plans/999?domain=shop.test | | -nn-n-----
post /policy/replay?domain=shop.test | {"edits":[{"option":"tag-score","value":"3"}]} | yynyyyyy--
get /quarantine?domain=shop.test | | yyyyyyyy--
get /quarantine/counts?domain=shop.test | | yyyyyyyy--
get /quarantine/messages/HELD | | yyyyyyyy--
get /quarantine/messages/HELD/body | | nnnnnnyy--
get /quarantine/messages/HELD/source | | nnnnnnyy--
post /quarantine/actions | {"action":"ask","ids":["HELD"]} | nnnnnnnn--
get /queue | | yyyyynnnnn
get /queue/counts | | yyyyynnnnn
get /queue/lanes | | yyyyynnnnn
get /queue/messages/LOGGED | | -----nnnnn
post /queue/actions | {"action":"retry","ids":[]} | yyyynnnnnn
patch /queue/lanes/far.test | {} | yynnnnnnnn
post /recipients/check | {"addresses":["clerk@shop.test"]} | yyyyyyyyyy
get /removed?account=clerk@shop.test | | yyyyyyyy--
post /removed/restore | {"account":"clerk@shop.test","ids":[]} | yynynyyy--
post /removed/purge | {"account":"clerk@shop.test","ids":[]} | yynynyyy--
get /reports | | yyyyynnnnn
get /reports/dmarc/shop.test | | yyyyyyyy--
get /roles | | yyyyyyyyyn
get /roles?account=clerk@shop.test | | yyyyyyyy--
post /roles | {"account":"NEW@shop.test","role":"domain-admin","domain":"shop.test"} | yynnnyyn-n
delete /roles?account=clerk@shop.test&role=domain-admin&domain=shop.test | | --nnn--n--
get /senders?domain=shop.test | | yyyyyyyy--
post /senders?domain=shop.test | {"word":"block","who":"x@NEW.example"} | ynnynyyy--
delete /senders/999?domain=shop.test | | -nn-n-----
get /session | | yyyyyyyyyy
get /tenants | | yyyyyyynyn
post /tenants | {"name":"NEW","kind":"customer","parent":"Seller"} | ynnnnynnnn
patch /tenants/Shop | {"quota":0} | ynnnny----
delete /tenants/made-NEW | | ynnnny----
get /tokens | | yyyyyyyyyy
post /tokens | {"name":"Program","scopes":["*:read"]} | yyyyyyyyyy
delete /tokens/999 | | ----------
"#;

#[test]
fn every_operation_is_for_whom_it_is_meant() {
    let node = Node::start_with_policy(
        "greylist = \"off\"\ntag-score = 0.5\nquarantine-score = 1\nreject-score = 999\ndigest = \"off\"\n",
    );
    for words in [
        &["tenant", "add", "Seller", "--reseller"][..],
        &["tenant", "add", "Shop", "--parent", "Seller"],
        &["tenant", "add", "Other"],
        &["domain", "add", "shop.test", "--tenant", "Shop"],
        &["domain", "add", "other.test", "--tenant", "Other"],
        &["account", "add", "clerk@shop.test", "--password-hash", "{PLAIN}demo"],
    ] {
        node.command(words);
    }
    for (user, role, at) in &VIEWERS[1..] {
        let address = format!("{user}@example.test");
        node.command(&["account", "add", &address, "--password-hash", "{PLAIN}demo"]);
        if !role.is_empty() {
            node.command(&[&["role", "add", &address, role], *at].concat());
        }
    }
    let junk = String::from_utf8(letter("Held", "BUY NOW")).unwrap().replace("text/plain", "text/html");
    let junk =
        junk.replace("BUY NOW", "<font color=red size=6>BUY NOW</font> viagra <a href='http://1.2.3.4/'>bank</a>");
    assert!(node.send("x@free.example", &["clerk@shop.test"], junk.as_bytes()).starts_with("250"));
    let held = node.json(&["quarantine", "list", "--domain", "shop.test"]);
    let held = held["messages"].as_array().or(held.as_array()).unwrap()[0].clone();
    let logged = held["message"].as_str().unwrap().to_owned();
    wait_until("the log", || node.json(&["trace", "--to", "clerk@shop.test"])[0]["outcome"] == "quarantined");
    let (mut wrong, mut tried, mut count) = (Vec::new(), Vec::new(), 0);
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(3, '|').map(str::trim);
        let (call, body, expected) = match (parts.next(), parts.next(), parts.next()) {
            (Some(call), Some(body), Some(expected)) => (call, body, expected),
            _ => panic!("{line}"),
        };
        let (method, path) = call.split_once(' ').unwrap();
        tried.push((method, path.split('?').next().unwrap()));
        let mut found = String::new();
        let mut statuses = Vec::new();
        for (user, _, _) in VIEWERS {
            count += 1;
            let name = format!("n{count}");
            let fill = |text: &str| {
                let text = text.replace("NEW", &name).replace("HELD", held["id"].as_str().unwrap());
                text.replace("LOGGED", &logged)
            };
            // What is deleted, or given a role, is there.
            match (method, path) {
                ("delete", "/accounts/NEW@shop.test") | ("post", "/roles") => {
                    node.command(&["account", "add", &format!("{name}@shop.test"), "--password-hash", "{PLAIN}demo"]);
                }
                ("delete", "/aliases/made-NEW@shop.test") => {
                    node.command(&["alias", "add", &fill("made-NEW@shop.test"), "clerk@shop.test"]);
                }
                ("delete", "/domains/made-NEW.test") => {
                    node.command(&["domain", "add", &fill("made-NEW.test"), "--tenant", "Shop"]);
                }
                ("delete", "/domains/shop.test/aliases/made-NEW.test") => {
                    node.command(&["domain-alias", "add", &fill("made-NEW.test"), "shop.test"]);
                }
                ("delete", "/tenants/made-NEW") => {
                    node.command(&["tenant", "add", &fill("made-NEW"), "--parent", "Seller"]);
                }
                _ => {}
            }
            let kind = if path.ends_with("/import") { "text/csv" } else { "application/json" };
            let headers = format!("{}Content-Type: {kind}\r\n", basic(user));
            let request = format!("{} /api/v1{}", method.to_uppercase(), fill(path));
            let (status, _, answer) = http(node.port(80), &request, &headers, &fill(body));
            assert!(status < 500, "{request}: {status} {answer}");
            found.push(match status {
                404 => '-',
                401 | 403 => 'n',
                _ => 'y',
            });
            statuses.push(status.to_string());
        }
        if found != expected {
            wrong.push(format!("{line}\n   found {found}: {}", statuses.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    // Nothing that is offered goes untried, but for the stream of events, which does not end.
    let (_, document) = node.api("admin", "GET /api/v1/openapi.json", "");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let pieces: Vec<&str> = path.trim_start_matches("/api/v1").split('/').collect();
        let is_it = |other: &str| {
            let other: Vec<&str> = other.split('/').collect();
            other.len() == pieces.len()
                && pieces.iter().zip(other).all(|(one, other)| one.starts_with('{') || *one == other)
        };
        for method in operations.as_object().unwrap().keys().filter(|_| path != "/api/v1/log/stream") {
            assert!(tried.iter().any(|(by, path)| by == method && is_it(path)), "{method} {path} is tried by nobody");
        }
    }
}
