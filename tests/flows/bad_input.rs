//! What an administrator gets wrong is told in one line that names it.

use crate::harness::{Node, letter, ortler, ortler_fails};

#[test]
fn configurations_are_checked_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ortler.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("[node]\nnmae = \"x\"\n", ":2: unknown option `node.nmae`; did you mean `node.name`?"),
        ("[smtp]\nrecipients_max = \"many\"\n", ":2: `smtp.recipients_max` must be a whole number"),
        ("[node\n", ":1: "),
    ] {
        std::fs::write(&file, text).unwrap();
        ortler_fails(&["config", "check", "--config", path], 1, &format!("{path}{words}"));
        ortler_fails(&["serve", "--config", path], 1, &format!("{path}{words}"));
    }
    ortler_fails(&["config", "check", "--config", "/no/such.toml"], 1, "/no/such.toml");
    let reference = String::from_utf8(ortler(&["config", "reference"]).stdout).unwrap();
    assert!(reference.contains("message_size_max = \"50 MB\"") && reference.contains("[trail]"));
}

#[test]
fn broken_rules_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.cf");
    std::fs::write(&file, "body GOOD /fine/\nbody BAD /un(closed/\n").unwrap();
    let output = ortler(&["rules", "check", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("own.cf:2: ") && text.contains("BAD"), "{text}");
    assert!(ortler(&["rules", "check"]).status.success());
}

#[test]
fn a_port_in_use_and_a_second_node_are_refused() {
    let node = Node::start();
    let (dir, base) = (node.dir().to_str().unwrap(), node.port(0).to_string());
    let other = tempfile::tempdir().unwrap();
    ortler_fails(
        &["demo", "--dir", other.path().to_str().unwrap(), "--base-port", &base],
        1,
        &format!("127.0.0.1:{}", node.port(25)),
    );
    ortler_fails(&["demo", "--dir", dir, "--base-port", "64000"], 1, "in use by a running node");
    ortler_fails(&["account", "list", "--dir", "/no/such/node"], 1, "no node here");
}

#[test]
fn a_damaged_store_is_named() {
    let mut node = Node::start();
    node.send("a@x.example", &["user1@example.test"], &letter("x", "It is all here."));
    node.stop();
    let file = node.dir().join("mail.sqlite");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![b'x'; whole.len()]).unwrap();
    ortler_fails(&["audit", "--dir", node.dir().to_str().unwrap()], 1, "mail.sqlite");
    std::fs::write(&file, whole).unwrap();
    node.resume();
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
}

#[test]
fn a_configuration_is_checked_as_a_node_would_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ortler.toml");
    let start = "[node]\nname = \"x.example\"\n[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n";
    let check = |rest: &str| {
        std::fs::write(&file, format!("{start}{rest}")).unwrap();
        let output = ortler(&["config", "check", "--config", file.to_str().unwrap()]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let good = check("[filter]\nmilters = [\"127.0.0.1:8891, down=pass, reply=5\"]\nclamd = [\"127.0.0.1:3310\"]\n");
    assert_eq!(good, (true, String::new()));
    let server = "[storage]\nengine = \"postgresql\"\npostgresql = \"host=a user=b\"\n";
    for (rest, named) in [
        ("[filter]\nmilters = [\"unix:/run/m.sock, down=maybe\"]\n", "down=maybe"),
        ("[filter]\nclamd = [\"nowhere\"]\n", "filter.clamd"),
        (&*format!("{server}postgresql_password_file = \"none\"\n"), "storage.postgresql_password_file"),
        (&*format!("{server}[trail]\npostgresql = \"host=a nonsense\"\n"), "trail.postgresql"),
        (
            &*format!(
                "{server}object_store = [\"https://s3.example\"]\nobject_store_bucket = \"b\"\n\
                 object_store_access_key = \"k\"\nobject_store_secret_file = \"none\"\n"
            ),
            "storage.object_store_secret_file",
        ),
    ] {
        let (is_good, said) = check(rest);
        assert!(!is_good && said.contains(named), "{rest}: {said}");
    }
}
