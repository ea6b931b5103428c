//! Mail from outside that says it comes from us.

use crate::harness::Node;

fn head(message: &[u8]) -> String {
    String::from_utf8_lossy(message).split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn our_own_names_from_outside_are_found_out() {
    let node = Node::start_configured(
        |dir| std::fs::write(dir.join("policy.toml"), "greylist = \"off\"").unwrap(),
        &[
            ("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"),
            ("[filter]", "[filter]\npolicy = \"policy.toml\""),
        ],
    );
    let send = |from: &str, sender: &str| {
        let mut smtp = node.connect(25);
        smtp.send(b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 25\r\n").expect("220");
        smtp.say("EHLO mail.elsewhere.example").expect("250");
        smtp.say(&format!("MAIL FROM:<{sender}>")).expect("250");
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        let text = format!(
            "From: {from}\r\nTo: user1@example.test\r\nSubject: The meeting\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
             Message-ID: <1@elsewhere.example>\r\n\r\nSee you at the meeting.\r\n"
        );
        assert!(smtp.send_content(text.as_bytes()).starts_with("250"));
        let found = node.everywhere("user1").iter().map(|(_, message)| head(message)).collect::<String>();
        node.empty("user1");
        found
    };
    let spoofed = send("User 2 <user2@example.test>", "bounce@elsewhere.example");
    assert!(spoofed.contains("OWN_DOMAIN_SPOOFED=2.5"), "{spoofed}");
    let shown = send("\"user2@example.test\" <x@elsewhere.example>", "x@elsewhere.example");
    assert!(shown.contains("OWN_ADDRESS_SHOWN=1.5") && !shown.contains("OWN_DOMAIN_SPOOFED"), "{shown}");
    let honest = send("Anna <anna@elsewhere.example>", "anna@elsewhere.example");
    assert!(honest.contains("X-Spam-Status: No") && !honest.contains("OWN_"), "{honest}");
}
