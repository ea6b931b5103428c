use super::*;
use crate::rules::Context;

fn asked(rules: &str, context: Context<'_>, message: &str) -> Vec<String> {
    let (rules, problems) = RuleSet::parse("x.cf", rules);
    assert!(problems.is_empty(), "{problems:?}");
    let targets = Targets::of(message.as_bytes(), Context { settings: Some(rules.settings()), ..context });
    let questions = Questions::of(&rules, &targets, true, |_| true);
    let shown = |(ask, readers): (Ask, Vec<Reader>)| {
        let subject = match ask.subject {
            Subject::Name(name) => name,
            Subject::AddressesOf(host) => format!("A:{host}"),
            Subject::AddressesOfServers(domain) => format!("NS-A:{domain}"),
            Subject::ServersOf(domain, server) => format!("NS:{domain}:{server:?}"),
        };
        let readers: Vec<&str> = readers.iter().map(|reader| &*reader.rule).collect();
        format!("{subject} {} {}", ask.zone, readers.join(","))
    };
    questions.asks.into_iter().map(shown).collect()
}

fn from(ip: &str) -> Context<'_> {
    Context {
        client_ip: ip.parse().ok(),
        helo: Some("h.test"),
        envelope_from: Some("a@env.test"),
        ..Context::default()
    }
}

const HOPS: &str = "Received: from b.test (b.test [3.3.3.3]) by c.test with SMTP id 1\r\n\
                    Received: from a.test (a.test [4.4.4.4]) by b.test with SMTP id 2\r\n\
                    Received: from pc (pc [10.1.1.1]) by a.test with SMTP id 3\r\n\r\nx\r\n";

#[test]
fn servers_are_chosen_by_the_name_of_the_set() {
    let rule = |set: &str| format!("header R eval:check_rbl('{set}', 'l.test.')");
    for (set, expected) in [
        ("x-lastexternal", &["2.2.2.2"][..]),
        ("x-firsttrusted", &["2.2.2.2"]),
        ("x-untrusted", &["3.3.3.3", "4.4.4.4"]),
        ("x-notfirsthop", &["2.2.2.2", "3.3.3.3"]),
        ("x", &["4.4.4.4", "3.3.3.3", "2.2.2.2"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|ip| format!("{ip} l.test R")).collect();
        assert_eq!(asked(&rule(set), from("2.2.2.2"), HOPS), expected, "{set}");
    }
    let trusting = format!("trusted_networks 2.2.2.0/24\n{}", rule("x-lastexternal"));
    assert_eq!(asked(&trusting, from("2.2.2.2"), HOPS), ["3.3.3.3 l.test R"]);
    let six = asked(&rule("x-lastexternal"), from("2a00::1"), "\r\nx");
    assert_eq!(six, ["1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.2 l.test R"]);
    for private in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "100.64.0.1", "fe80::1", "2001:db8::1", "240.0.0.1"] {
        assert!(asked(&rule("x-lastexternal"), from(private), "\r\nx").is_empty(), "{private}");
    }
}

#[test]
fn one_question_serves_all_that_read_its_answer() {
    let rules = "header __Z eval:check_rbl('z', 'l.test')\nheader A eval:check_rbl_sub('z', '127.0.0.2')\n\
                 header B eval:check_rbl('z', 'l.test', '127.0.0.3')\nheader T eval:check_rbl_txt('t', 'l.test')\n";
    assert_eq!(asked(rules, from("2.2.2.2"), "\r\nx"), ["2.2.2.2 l.test B,__Z,A", "2.2.2.2 l.test T"]);
    // Without a reader nobody asks.
    assert!(asked("header __Z eval:check_rbl('z', 'l.test')", from("2.2.2.2"), "\r\nx").is_empty());
}

#[test]
fn domains_of_senders_and_links() {
    let message = "From: x@Mail.Author.test\r\nDKIM-Signature: v=1; d=signer.test; s=x\r\nContent-Type: text/html\r\n\r\n\
                   <img src=\"http://img.pic.test/x\"><a href=\"http://www.shop.test/\">now</a> http://5.5.5.5/ http://10.0.0.5/\r\n";
    for (rules, expected) in [
        ("header R eval:check_rbl_from_host('s', 'l.test')", &["mail.author.test l.test R", "env.test l.test R"][..]),
        ("header R eval:check_rbl_from_domain('s', 'l.test')", &["author.test l.test R", "env.test l.test R"]),
        ("header R eval:check_rbl_envfrom('s', 'l.test')", &["env.test l.test R"]),
        ("header R eval:check_rbl_ns_from('s', 'l.test')", &["NS:env.test:WholeName l.test R"]),
        (
            "urirhsbl R l.test. A",
            &["shop.test l.test R", "pic.test l.test R", "signer.test l.test R", "5.5.5.5 l.test R"],
        ),
        (
            "urirhsbl R l.test. A\ntflags R domains_only notrim\nuridnsbl_max_domains 2",
            &["www.shop.test l.test R", "img.pic.test l.test R"],
        ),
        ("urirhsbl R l.test. A\ntflags R ips_only", &["5.5.5.5 l.test R"]),
        ("uridnsbl R l.test. A\nuridnsbl_skip_domain pic.test signer.test", &["NS-A:shop.test l.test R"]),
        ("uridnsbl R l.test. A\ntflags R a\nuridnsbl_max_domains 1", &["A:www.shop.test l.test R"]),
        ("urinsrhsbl R l.test. A\nuridnsbl_max_domains 1", &["NS:shop.test:Registered l.test R"]),
        ("askdns R _AUTHORDOMAIN_.l.test A", &["mail.author.test l.test R"]),
        ("askdns R _DKIMDOMAIN_.l.test A", &["signer.test l.test R"]),
        ("askdns R _LASTEXTERNALREVIP_.l.test A", &["2.2.2.2 l.test R"]),
        ("askdns R _SENDERDOMAIN_ TXT", &["env.test  R"]),
        ("urirhsbl R l.test. A\nskip_uribl_checks 1", &[]),
        ("header R eval:check_rbl('x', 'l.test')\nskip_rbl_checks 1", &[]),
    ] {
        assert_eq!(asked(rules, from("2.2.2.2"), message), expected, "{rules}");
    }
}

#[test]
fn hostile_messages_ask_a_bounded_number() {
    let links: String = (0..5000).map(|n| format!("http://h{n}.d{n}.test/ ")).collect();
    let rules = "urirhsbl A a.test. A\nurirhsbl B b.test. A\nuridnsbl_max_domains 1000000\n";
    let count = asked(rules, from("2.2.2.2"), &format!("\r\n{links}")).len();
    assert_eq!(count, NAMES_MAX);
}

#[test]
fn users_of_ours_are_not_asked_for() {
    let (rules, _) = RuleSet::parse("x.cf", "header R eval:check_rbl('x', 'l.test')\nurirhsbl U l.test. A\n");
    let message = format!("{}\r\nhttp://www.shop.test/\r\n", HOPS.trim_end_matches("x\r\n"));
    let targets = Targets::of(message.as_bytes(), from("2.2.2.2"));
    let questions = Questions::of(&rules, &targets, false, |_| true);
    assert_eq!(questions.asks.len(), 1);
}
