//! Many accounts at once, and calls of the API that are made once.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Node, basic, http, letter};

const TABLE: &str = "\u{feff}Address;Name;password;password_hash;quota;messages;aliases\r\n\
    anna@shop.test;\"Gruber; Anna\";first secret;;2 GB;1000;info@shop.test office@shop.test\r\n\
    bert@shop.test;Bert;;{PLAIN}old secret;;;\r\n\
    no address;Nobody;secret one;;;;\r\n\
    carl@elsewhere.test;Carl;secret one;;;;\r\n\
    dora@shop.test;Dora;;;;;\r\n\
    BERT@shop.test;Twice;secret one;;;;\r\n\
    emil@shop.test;Emil;secret one;;much;;\r\n\
    fred@shop.test;Fred;secret one\r\n\
    gert@shop.test;Gert;secret one;;;;anna@shop.test\r\n\
    user1@example.test;Known;secret one;;;;\r\n";

fn import(node: &Node, table: &[u8], more: &[&str]) -> (Option<i32>, Value, String) {
    let config = node.config();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
    command.args(["account", "import", "-", "--json", "--config"]).arg(config).args(more);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(table).unwrap();
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8(done.stderr).unwrap();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap_or_default(), errors)
}

#[test]
fn a_table_of_accounts_tells_of_each_line_that_failed() {
    let node = Node::start();
    node.command(&["domain", "add", "shop.test"]);
    let lines = |done: &Value| {
        let errors = done["errors"].as_array().unwrap().iter();
        errors.map(|one| (one["line"].as_u64().unwrap(), one["error"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let (code, done, _) = import(&node, TABLE.as_bytes(), &["--dry-run"]);
    assert_eq!((code, &done["added"], &done["failed"]), (Some(1), &json!(3), &json!(7)), "{done}");
    assert_eq!(node.json(&["account", "list", "--domain", "shop.test"]), json!([]));
    let (code, done, _) = import(&node, TABLE.as_bytes(), &[]);
    let expected = [
        (4, "the address has no @"),
        (5, "the domain elsewhere.test does not exist"),
        (6, "neither a password nor a hash"),
        (7, "in the table twice"),
        (8, "quota `much`"),
        (9, "3 fields where the first line names 7"),
        (10, "the account is added, the alias anna@shop.test is not"),
        (11, "exists already"),
    ];
    let found = lines(&done);
    assert_eq!((code, &done["added"], found.len()), (Some(1), &json!(3), expected.len()), "{done}");
    for ((line, why), (wanted, words)) in found.iter().zip(expected) {
        assert!(*line == wanted && why.contains(words), "{line}: {why}");
    }
    let anna = node.json(&["account", "show", "anna@shop.test"]);
    assert_eq!((&anna["name"], &anna["quota_messages"]), (&json!("Gruber; Anna"), &json!(1000)));
    assert!(node.send("x@far.example", &["office@shop.test"], &letter("Hello", "to an alias")).starts_with("250"));
    for (user, password) in [("anna", "first secret"), ("bert", "old secret")] {
        let mut imap = node.connect(143);
        imap.line();
        let answer = imap.outcome(&format!("LOGIN {user}@shop.test \"{password}\""));
        assert!(answer.starts_with("o OK"), "{answer}");
    }
    for (table, words) in [
        ("", "no column `address`"),
        ("name,password\n", "no column `address`"),
        ("address,colour\n", "`colour` is no column"),
        ("address,name,name\n", "twice"),
    ] {
        let (code, _, errors) = import(&node, table.as_bytes(), &[]);
        assert!(code == Some(1) && errors.contains(words), "{table:?}: {errors}");
    }
    let (code, done, _) =
        import(&node, b"address,password\n\xff\xfe@shop.test,secret one\nhans@shop.test,secret one\n", &[]);
    assert!(code == Some(1) && done["added"] == 1 && lines(&done)[0].1.contains("UTF-8"), "{done}");
}

/// Who administers one customer's domains adds accounts there, and learns nothing of others.
#[test]
fn a_customer_imports_into_its_own_domains() {
    let node = Node::start();
    for words in [
        &["tenant", "add", "Shop"][..],
        &["domain", "add", "shop.test", "--tenant", "Shop"],
        &["role", "add", "user1@example.test", "customer-admin", "--tenant", "Shop"],
    ] {
        node.command(words);
    }
    let table = "address,password\nnew@shop.test,secret one\nnew@example.test,secret one\nnew@no.test,secret one\n";
    assert_eq!(node.api("user2", "POST /api/v1/accounts/import", table).0, 403);
    let (status, done) = node.api("user1", "POST /api/v1/accounts/import?dry=true", table);
    assert_eq!((status, &done["added"], &done["dry"]), (200, &json!(1), &json!(true)), "{done}");
    let (status, done) = node.api("user1", "POST /api/v1/accounts/import", table);
    assert_eq!((status, &done["added"], &done["failed"]), (200, &json!(1), &json!(2)), "{done}");
    let why = |at: usize| done["errors"][at]["error"].as_str().unwrap().replace("example.test", "no.test");
    assert_eq!(why(0), why(1), "a domain of another's looks like none");
    let (_, audit) = node.api("user1", "GET /api/v1/audit", "");
    assert!(audit.to_string().contains("import-accounts"), "{audit}");
}

#[test]
fn a_call_with_a_key_is_made_once() {
    let node = Node::start();
    let make = |user: &str, key: &str, path: &str, body: &Value| {
        let headers = format!("{}Idempotency-Key: {key}\r\nContent-Type: application/json\r\n", basic(user));
        http(node.port(80), &format!("POST /api/v1/{path}"), &headers, &body.to_string())
    };
    let domain = json!({ "name": "once.test" });
    let (status, head, first) = make("admin", "k1", "domains", &domain);
    assert!(status == 201 && !head.contains("idempotency-replayed"), "{head}{first}");
    let (status, head, again) = make("admin", "k1", "domains", &domain);
    assert!(status == 201 && head.contains("idempotency-replayed: true") && again == first, "{head}{again}");
    assert_eq!(make("admin", "k2", "domains", &domain).0, 409, "another key is another call");
    // A refusal is an answer, too.
    let (status, head, _) = make("admin", "k2", "domains", &domain);
    assert!(status == 409 && head.contains("idempotency-replayed"), "{head}");
    let (status, _, error) = make("admin", "k1", "domains", &json!({ "name": "other.test" }));
    assert!(status == 409 && error.contains("another call"), "{error}");
    assert_eq!(make("user1", "k1", "domains", &domain).0, 403, "another's key, and no right");
    for bad in ["with blank", "", &"x".repeat(201)] {
        assert_eq!(make("admin", bad, "domains", &domain).0, 400, "{bad:?}");
    }
    let anybody = "Idempotency-Key: k1\r\nContent-Type: application/json\r\n";
    assert_eq!(http(node.port(80), "POST /api/v1/domains", anybody, "{}").0, 401);
    // A secret is told once.
    let token = json!({ "name": "Billing", "scopes": ["*:read"] });
    let (status, _, told) = make("user1", "t", "tokens", &token);
    assert!(status == 201 && told.contains("token"), "{told}");
    let (status, _, told) = make("user1", "t", "tokens", &token);
    assert_eq!((status, told.as_str()), (201, ""));
    assert_eq!(node.json(&["token", "list", "user1@example.test"]).as_array().unwrap().len(), 1);
    // Two at once: one of them makes it.
    let both: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..2).map(|_| scope.spawn(|| make("admin", "k3", "domains", &json!({ "name": "two.test" })).0)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(both.contains(&201) && both.iter().all(|status| [201, 409].contains(status)), "{both:?}");
}
