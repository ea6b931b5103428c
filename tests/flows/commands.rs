//! The command line, on a running and on a stopped node.

use crate::harness::{Node, letter, ortler, ortler_fails};

fn stdout(arguments: &[&str]) -> String {
    let output = ortler(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_directory_is_kept_by_commands_running_or_not() {
    let mut node = Node::start();
    for running in [true, false] {
        if !running {
            node.stop();
        }
        let dir = node.dir().to_str().unwrap().to_owned();
        let at = ["--dir", dir.as_str()];
        let run = |words: &[&str]| stdout(&[words, &at].concat());
        run(&["tenant", "add", "Acme"]);
        run(&["domain", "add", "two.test", "--tenant", "Acme"]);
        assert!(run(&["domain", "show", "two.test", "--json"]).contains("\"tenant\": \"Acme\""));
        run(&[
            "account",
            "add",
            "anna@two.test",
            "--name",
            "Anna",
            "--password-hash",
            "{PLAIN}secret",
            "--quota",
            "1 GB",
        ]);
        assert!(run(&["account", "list", "--domain", "two.test"]).contains("anna@two.test"));
        run(&["account", "set", "anna@two.test", "--access", "admin", "--quota", "none"]);
        assert!(run(&["account", "show", "anna@two.test"]).contains("admin"));
        run(&["alias", "add", "@two.test", "anna@two.test", "user1@example.test"]);
        run(&["alias", "set", "@two.test", "anna@two.test"]);
        assert!(run(&["alias", "list"]).contains("anna@two.test"));
        ortler_fails(
            &[&["alias", "add", "x@two.test", "a@elsewhere.example"], &at[..]].concat(),
            1,
            "not in a domain of this system",
        );
        ortler_fails(&[&["domain", "delete", "two.test"], &at[..]].concat(), 1, "still has 1 accounts");
        ortler_fails(
            &[&["account", "add", "anna@two.test", "--password-hash", "{PLAIN}x"], &at[..]].concat(),
            1,
            "exists already",
        );
        ortler_fails(&[&["account", "add", "b@two.test"], &at[..]].concat(), 2, "--password-stdin");
        if running {
            assert!(node.send("a@x.example", &["whoever@two.test"], &letter("x", "Hello.")).starts_with("250"));
        }
        run(&["account", "delete", "anna@two.test"]);
        run(&["domain", "delete", "two.test"]);
        run(&["tenant", "delete", "Acme"]);
        assert!(run(&["audit", "--deep"]).contains("clean      true"));
        run(&["gc"]);
    }
}

#[test]
fn a_message_is_traced() {
    let mut node = Node::start();
    let reply = node.send("anna@sender.example", &["user1@example.test"], &letter("Traced", "Where does it go?"));
    let id = reply.rsplit(' ').next().unwrap().to_owned();
    node.stop();
    let dir = node.dir().to_str().unwrap();
    assert!(stdout(&["trace", "--from", "anna@sender", "--dir", dir]).contains(&id));
    assert!(stdout(&["trace", "--to", "user1", "--json", "--dir", dir]).contains("\"outcome\": \"delivered\""));
    let story = stdout(&["trace", &id, "--json", "--dir", dir]);
    for kind in ["connected", "started", "recipient-accepted", "judged", "decided", "delivered"] {
        assert!(story.contains(&format!("\"kind\": \"{kind}\"")), "{kind}: {story}");
    }
    // The filter's report as it was then, in the language of who asks now.
    let report = stdout(&["trace", &id, "--report", "--lang", "it", "--dir", dir]);
    assert!(report.contains(&format!("{id}: ham")) && report.contains("user1@example.test: deliver"), "{report}");
    assert!(report.contains("Parole, link o forma sono tipici"), "{report}");
    let told: serde_json::Value =
        serde_json::from_str(&stdout(&["trace", &id, "--report", "--json", "--lang", "de", "--dir", dir])).unwrap();
    assert_eq!(told["reasons"][0]["text"], "W\u{f6}rter, Links oder Form sind typisch f\u{fc}r Junk", "{told}");
    assert_eq!(told["decided"][0]["decided_by"], "nothing against it");
}

#[test]
fn messages_are_scanned_without_a_node() {
    let sample = |kind: &str| {
        let folder = format!("{}/corpus/{kind}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path().to_str().unwrap().to_owned()).collect();
        files.sort();
        files
    };
    let (ham, spam) = (sample("ham"), sample("spam"));
    let list = tempfile::NamedTempFile::new().unwrap();
    let all: Vec<&String> = ham.iter().chain(&spam).collect();
    std::fs::write(list.path(), all.iter().map(|path| format!("{path}\n")).collect::<String>()).unwrap();
    let told = stdout(&["scan", "--tsv", list.path().to_str().unwrap()]);
    let rows: Vec<Vec<&str>> = told.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), all, "order is kept");
    for row in &rows {
        row[1].parse::<f64>().unwrap();
    }
    assert_eq!(rows[..ham.len()].iter().find(|row| row[2] != "ham"), None);
    let caught = rows[ham.len()..].iter().filter(|row| row[2] == "spam").count();
    assert!(caught * 10 >= spam.len() * 8, "only {caught} of {} spam is called so", spam.len());
    assert!(stdout(&["scan", "--json", &spam[0]]).contains("\"findings\""));
    let german = stdout(&["scan", "--lang", "de", &spam[0]]);
    assert!(german.contains("W\u{f6}rter, Links oder Form sind typisch f\u{fc}r Junk"), "{german}");
    ortler_fails(&["scan", "/no/such/file"], 1, "/no/such/file");
}
