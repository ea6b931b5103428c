//! Name servers that say nothing do not hold up mail.

use std::net::UdpSocket;
use std::time::Duration;

use base::{Clock as _, SystemClock};

use crate::harness::{Served, http_at, letter};

#[test]
fn silent_name_servers_hold_up_no_second_message() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap();
    let node = Served::with_name_server("127.0.0.76".parse().unwrap(), 10_000, server);
    assert_eq!(node.notification(), "READY=1");
    node.add_account();
    let send = || {
        let start = SystemClock.now();
        let mut smtp = node.connect(10_025);
        smtp.expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        smtp.say("MAIL FROM:<a@x.example>").expect("250");
        smtp.say("RCPT TO:<anna@example.test>").expect("250");
        assert!(smtp.send_content(&letter("x", "See you at the meeting.")).starts_with("250"));
        SystemClock.now() - start
    };
    let first = send();
    assert!(first < Duration::from_secs(5), "{first:?}");
    let second = send();
    assert!(second < Duration::from_millis(700), "{second:?}: {}", node.log());
    assert_eq!(node.log().matches("dns.down").count(), 1, "{}", node.log());
    let metrics = || http_at(node.address(), 10_090, "GET /metrics", "", "").2;
    assert!(metrics().contains("ortler_dns_down 1"), "{}", metrics());

    // It speaks again: any answer will do.
    std::thread::spawn(move || {
        let mut packet = [0u8; 1500];
        while let Ok((length, peer)) = silent.recv_from(&mut packet) {
            packet[2] |= 0x80;
            packet[3] = 0x83;
            let _ = silent.send_to(&packet[..length], peer);
        }
    });
    let is_up = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        node.log().contains("dns.up")
    });
    assert!(is_up && metrics().contains("ortler_dns_down 0"), "{}", node.log());
}
