//! What earlier mail changes, from message to message.

use base::{FakeClock, UtcMillis};
use mail::{BodyKind, Envelope, ForwardPath};
use mailauth::ResolverSettings;
use mailauth::stub::StubServer;
use policy::{Cause, Disposition, Presets};

use super::*;

const ZONE: &str = "x.test TXT v=spf1 ip4:192.0.2.66 -all\ny.test TXT v=spf1 ip4:192.0.2.66 -all\n\
                    66.2.0.192.in-addr.arpa PTR mail.x.test\nmail.x.test A 192.0.2.66\n";
const RULES: &str = "body BUY_NOW /buy now/i\nscore BUY_NOW 5\nbody BUY_MORE /buy more/i\nscore BUY_MORE 9\n";

/// A filter on a clock of its own, and what is sent to it.
struct Bench {
    filter: Filter,
    clock: Arc<FakeClock>,
    _zone: StubServer,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(policy: &str) -> Self {
        let clock = Arc::new(FakeClock::at(UtcMillis(1_800_000_000_000)));
        let (zone, dir) = (StubServer::start(ZONE), tempfile::tempdir().unwrap());
        let settings = ResolverSettings { name_servers: vec![zone.address()], ..ResolverSettings::default() };
        let layer = policy::Layer::parse(policy::Level::System, "p", policy).unwrap();
        let reputation = Reputation::open(&dir.path().join("reputation.sqlite"), clock.clone()).unwrap();
        let filter = Filter::new(FilterParts {
            host_name: "mx.here.test".into(),
            resolver: Some(Resolver::new(&settings).unwrap()),
            rules: Arc::new(RuleSet::parse("test.cf", RULES).0),
            classifier: None,
            reputation: Some(Arc::new(reputation)),
            greylist_loopback: false,
            scanner: None,
            own_domains: Arc::default(),
            countries: None,
            trusted_sealers: Vec::new(),
            lists: crate::ListSettings::default(),
            milters: Vec::new(),
            policy: EffectivePolicy::resolve(&Presets::shipped(), &[layer]),
            clock: clock.clone(),
        });
        Self { filter, clock, _zone: zone, _dir: dir }
    }

    /// What is decided for a message, and its findings of history with their scores.
    async fn send(&self, from: &str, ip: &str, body: &str) -> (Decision, Vec<String>) {
        let facts = MessageFacts {
            source: Source::Client { ip: ip.parse().unwrap(), helo: "mail.x.test".into(), tls: false },
            envelope: Envelope {
                reverse_path: ReversePath::Address(from.parse().unwrap()),
                forward_paths: vec![ForwardPath::Address("b@here.test".parse().unwrap())],
                body: BodyKind::SevenBit,
                smtputf8: false,
                wishes: mail::Wishes::default(),
            },
            message: bytes::Bytes::from(format!("From: {from}\r\nSubject: s\r\n\r\n{body}\r\n")),
            received_at: self.clock.utc(),
        };
        let judgement = self.filter.judge(&facts).await;
        let decision = policy::decide(&self.filter.policy(), &judgement.facts());
        self.filter.remember(&judgement, std::slice::from_ref(&decision));
        let told = judgement.findings.iter().filter(|finding| history::is_of_history(finding));
        (decision, told.map(|finding| format!("{} {}", finding.name, finding.score)).collect())
    }

    async fn disposition(&self, ip: &str, body: &str) -> &'static str {
        let (decision, _) = self.send("a@z.test", ip, body).await;
        assert_eq!(
            matches!(decision.cause, Cause::Greylisted { .. }),
            matches!(decision.disposition, Disposition::Defer(_))
        );
        decision.disposition.as_str()
    }
}

#[tokio::test]
async fn a_suspicious_message_has_to_come_again() {
    let bench = Bench::new("");
    let minutes = |count: u64| bench.clock.advance(Duration::from_secs(60 * count));
    assert_eq!(bench.disposition("198.51.100.7", "Hello").await, "deliver");
    assert_eq!(bench.disposition("198.51.100.7", "Buy now").await, "defer");
    minutes(1);
    assert_eq!(bench.disposition("198.51.100.7", "Buy now").await, "defer", "too soon");
    minutes(4);
    // Another machine of the network, then another network that tries the same content.
    assert_eq!(bench.disposition("198.51.100.99", "Buy now").await, "junk");
    assert_eq!(bench.disposition("198.51.100.7", "Buy now, or never").await, "junk", "its network comes again");
    assert_eq!(bench.disposition("203.0.113.5", "Buy now").await, "junk", "the same content came before");
    assert_eq!(bench.disposition("2001:db8::5", "Buy now, I say").await, "defer");
    minutes(60 * 24 * 61);
    assert_eq!(bench.disposition("198.51.100.7", "Buy now").await, "defer", "forgotten");
    assert_eq!(bench.disposition("127.0.0.1", "Buy now").await, "junk", "from here itself");
}

#[tokio::test]
async fn policy_says_whether_and_from_where_on_mail_is_put_off() {
    let off = Bench::new("greylist = \"off\"");
    assert_eq!(off.disposition("198.51.100.7", "Buy now").await, "junk");
    let high = Bench::new("greylist-score = 8");
    assert_eq!(high.disposition("198.51.100.7", "Buy now").await, "junk");
    assert_eq!(high.disposition("198.51.100.7", "Buy more").await, "defer");
}

#[tokio::test]
async fn a_proven_senders_past_counts_for_and_against_it() {
    let bench = Bench::new("greylist = \"off\"");
    for _ in 0..3 {
        assert_eq!(bench.send("anna@x.test", "192.0.2.66", "Hello").await.1, [""; 0]);
    }
    let (_, told) = bench.send("anna@x.test", "192.0.2.66", "Hello").await;
    assert_eq!(told, ["HISTORY_GOOD -0.9"]);
    // A stranger of the domain gets what the domain has; the domain of another gets nothing, whatever it says it is.
    assert_eq!(bench.send("bert@x.test", "192.0.2.66", "Hello").await.1, ["HISTORY_GOOD -1.0"]);
    assert_eq!(bench.send("anna@x.test", "203.0.113.5", "Hello").await.1, [""; 0]);
    for _ in 0..3 {
        bench.send("eve@y.test", "192.0.2.66", "Buy more").await;
    }
    let (decision, told) = bench.send("eve@y.test", "192.0.2.66", "Buy more").await;
    assert_eq!(told, ["HISTORY_BAD 1.3"]);
    assert_eq!(decision.score, Score(10_300));
}

#[tokio::test]
async fn a_networks_past_counts_without_proof() {
    let bench = Bench::new("greylist = \"off\"");
    for nth in 0..8 {
        let (_, told) = bench.send("eve@z.test", &format!("198.51.100.{nth}"), "Buy more").await;
        assert_eq!(told, [""; 0], "{nth}");
    }
    assert_eq!(bench.send("carl@w.test", "198.51.100.200", "Hello").await.1, ["NETWORK_BAD 1.7"]);
    assert_eq!(bench.send("carl@w.test", "198.51.101.200", "Hello").await.1, [""; 0]);
}
