//! Lists as they are asked, by a name server on loopback.

use base::{FakeClock, SystemClock, UtcMillis};
use mailauth::ResolverSettings;
use mailauth::stub::StubServer;

use super::*;
use crate::rules::Context;

const RULES: &str = "header LISTED eval:check_rbl('l-lastexternal', 'ip.test', '^127\\.0\\.0\\.2$')\n\
                     header GOOD eval:check_rbl_txt('w-firsttrusted', 'white.test', '(?i:trusted)')\n\
                     urirhssub LINK uri.test A 4\naskdns SIGNED _DKIMDOMAIN_.signers.test A /^127\\.0\\.0\\.5$/\n\
                     uridnsbl HOSTED hosts.test A\n";
const MESSAGE: &str =
    "From: a@b.test\r\nDKIM-Signature: d=s.test\r\n\r\nhttp://www.bad.test/ http://www.good.test/\r\n";
const TESTS: &str = "2.0.0.127.ip.test A 127.0.0.2\n2.0.0.127.white.test A 127.0.0.2\ntest.uri.test A 127.0.0.4\n\
                     test.signers.test A 127.0.0.5\n2.0.0.127.hosts.test A 127.0.0.2\n";

struct Setup {
    server: StubServer,
    rules: Arc<RuleSet>,
    lists: Arc<Lists>,
}

async fn setup_with(zone: &str, rules: &str, settings: ListSettings, clock: Arc<dyn Clock>) -> Setup {
    let server = StubServer::start(&format!("{TESTS}{zone}"));
    let resolver = ResolverSettings {
        name_servers: vec![server.address()],
        query_timeout: Duration::from_millis(300),
        ..ResolverSettings::default()
    };
    let (rules, problems) = RuleSet::parse("x.cf", rules);
    assert!(problems.is_empty(), "{problems:?}");
    let lists = Arc::new(Lists::new(settings, Resolver::new(&resolver).unwrap(), clock, &rules));
    let all_looked_at = async {
        while lists.states().iter().any(|state| !state.is_asked && state.trouble.is_none()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = lists.watch() => {}
        () = all_looked_at => {}
    }
    Setup { server, rules: Arc::new(rules), lists }
}

async fn setup(zone: &str) -> Setup {
    setup_with(zone, RULES, ListSettings::default(), Arc::new(SystemClock)).await
}

impl Setup {
    async fn said(&self, ip: &str) -> Said {
        let context =
            Context { client_ip: ip.parse().ok(), settings: Some(self.rules.settings()), ..Context::default() };
        let targets = Targets::of(MESSAGE.as_bytes(), context);
        let questions = self.lists.questions_of(&self.rules, &targets, true);
        self.lists.ask(&self.rules, questions).await
    }

    async fn hits(&self, ip: &str) -> Vec<String> {
        let said = self.said(ip).await;
        let mut hits: Vec<String> =
            said.listed.iter().map(|(listed, _)| format!("{} {}", listed.rule, listed.evidence)).collect();
        hits.sort();
        hits
    }

    fn troubles(&self) -> Vec<String> {
        let states = self.lists.states().into_iter();
        states.filter_map(|state| Some(format!("{}: {}", state.zone, state.trouble?))).collect()
    }
}

#[tokio::test]
async fn answers_make_rules_hit_with_evidence() {
    let setup = setup(
        "2.2.2.2.ip.test A 127.0.0.2\n3.2.2.2.ip.test A 127.0.0.3\n2.2.2.2.white.test TXT Trusted sender\n\
         bad.test.uri.test A 127.0.0.6\ns.test.signers.test A 127.0.0.5\n\
         bad.test NS ns.bad.test\nns.bad.test A 6.6.6.6\n6.6.6.6.hosts.test A 127.0.0.2\n",
    )
    .await;
    assert_eq!(
        setup.hits("2.2.2.2").await,
        [
            "GOOD 2.2.2.2.white.test Trusted sender",
            "HOSTED 6.6.6.6.hosts.test 127.0.0.2",
            "LINK bad.test.uri.test 127.0.0.6",
            "LISTED 2.2.2.2.ip.test 127.0.0.2",
            "SIGNED s.test.signers.test 127.0.0.5",
        ]
    );
    let signers: Vec<Option<String>> =
        setup.said("2.2.2.2").await.listed.into_iter().map(|(_, signer)| signer).collect();
    assert_eq!(signers.iter().flatten().collect::<Vec<_>>(), ["s.test"]);
    assert!(!setup.hits("2.2.2.3").await.iter().any(|hit| hit.starts_with("LISTED")));
    // What is remembered is not asked again.
    let asked = setup.server.questions();
    setup.hits("2.2.2.2").await;
    assert_eq!(setup.server.questions(), asked);
    assert!(setup.troubles().is_empty());
}

#[tokio::test]
async fn a_list_that_refuses_is_set_aside_and_says_nothing() {
    for (answer, reason) in [
        ("127.255.255.254", "ip.test: it refuses to answer (127.255.255.254)"),
        ("198.51.100.7", "ip.test: it answers with 198.51.100.7, which is no answer of a list"),
    ] {
        let setup = setup(&format!("2.2.2.2.ip.test A {answer}\n3.2.2.2.ip.test A 127.0.0.2\n")).await;
        assert!(setup.hits("2.2.2.2").await.is_empty());
        assert_eq!(setup.troubles(), [reason]);
        // Nobody asks it now, though it would answer.
        assert!(setup.hits("2.2.2.3").await.is_empty());
        assert!(!setup.server.asked().iter().any(|name| name == "3.2.2.2.ip.test"));
    }
    let uri = setup("bad.test.uri.test A 127.0.0.1\n").await;
    assert!(uri.hits("2.2.2.2").await.is_empty());
    assert_eq!(uri.troubles(), ["uri.test: it refuses to answer (127.0.0.1)"]);
}

#[tokio::test]
async fn rules_may_tell_a_refusal() {
    let rules =
        "header BLOCKED eval:check_rbl('w', 'white.test', '^127\\.0\\.0\\.255$')\ndns_block_rule BLOCKED white.test\n";
    let zone = "2.2.2.2.white.test A 127.0.0.255\n";
    let setup = setup_with(zone, rules, ListSettings::default(), Arc::new(SystemClock)).await;
    assert_eq!(setup.hits("2.2.2.2").await, ["BLOCKED 2.2.2.2.white.test 127.0.0.255"]);
    assert_eq!(setup.troubles(), ["white.test: it refuses to answer (127.0.0.255)"]);
}

#[tokio::test]
async fn lists_that_are_not_well_are_never_asked() {
    let rules = "header ALL eval:check_rbl('a', 'all.test')\nheader NONE eval:check_rbl('n', 'none.test')\n\
                 header OWN eval:check_rbl('o', 'own.test')\ndns_list_test own.test -\n";
    let zone = "*.all.test A 127.0.0.2\n2.2.2.2.none.test A 127.0.0.2\n2.2.2.2.own.test A 127.0.0.2\n";
    let setup = setup_with(zone, rules, ListSettings::default(), Arc::new(SystemClock)).await;
    assert_eq!(setup.hits("2.2.2.2").await, ["OWN 2.2.2.2.own.test 127.0.0.2"]);
    assert_eq!(setup.troubles(), ["all.test: it lists everything", "none.test: it does not list its own test entry"]);
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_leaves_a_trace() {
    let zone =
        "2.2.2.2.ip.test TIMEOUT\nbad.test.uri.test A 127.0.0.4\n3.2.2.2.ip.test TIMEOUT\n4.2.2.2.ip.test TIMEOUT\n";
    let settings = ListSettings { wait: Duration::from_millis(400), ..ListSettings::default() };
    let setup = setup_with(zone, RULES, settings, Arc::new(SystemClock)).await;
    let start = SystemClock.now();
    let said = setup.said("2.2.2.2").await;
    let took = SystemClock.now() - start;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(said.listed.len(), 1, "what was answered counts: {said:?}");
    assert_eq!(said.late.iter().map(|zone| &**zone).collect::<Vec<_>>(), ["ip.test"]);
    setup.said("2.2.2.3").await;
    setup.said("2.2.2.4").await;
    assert_eq!(setup.troubles(), ["ip.test: it does not answer"]);
}

#[tokio::test]
async fn limits_end_the_questions_of_a_day() {
    let clock = Arc::new(FakeClock::at(UtcMillis::from_secs(86_400 * 20_000)));
    let limits = Limits { per_second: 0, per_day: 2 };
    let zone = "2.2.2.2.ip.test A 127.0.0.2\n3.2.2.2.ip.test A 127.0.0.2\n4.2.2.2.ip.test A 127.0.0.2\n";
    let rules = RULES.lines().next().unwrap();
    let setup = setup_with(zone, rules, ListSettings { limits, ..ListSettings::default() }, clock.clone()).await;
    let mut hits = Vec::new();
    for ip in ["2.2.2.2", "2.2.2.2", "2.2.2.3", "2.2.2.4"] {
        hits.push(setup.hits(ip).await.len());
    }
    // What is remembered does not count.
    assert_eq!(hits, [1, 1, 1, 0]);
    assert_eq!(setup.lists.states()[0].asked_today, 2);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(setup.hits("2.2.2.4").await.len(), 1);
}

#[tokio::test]
async fn shipped_zones_wait_to_be_named_and_keys_stay_unseen() {
    let mut source = crate::rules::parse::Source::default();
    source.read("shipped.cf", b"header S eval:check_rbl('s', 'ip.test')\nheader N eval:check_rbl('n', 'white.test')\n");
    source.end_of_shipped();
    source.read("own.cf", b"header O eval:check_rbl('o', 'hosts.test')\n");
    source.finish();
    let (rules, _) = RuleSet::compile(source, crate::rules::ScoreSet::default());
    let server = StubServer::start("2.2.2.2.key.ip.test A 127.0.0.2\n");
    let resolver = ResolverSettings { name_servers: vec![server.address()], ..ResolverSettings::default() };
    let settings = ListSettings {
        zones: vec!["IP.test.".into()],
        keys: vec![("ip.test".into(), Secret::new("key.ip.test".into()))],
        ..ListSettings::default()
    };
    let resolver = Resolver::new(&resolver).unwrap();
    let lists = Lists::new(settings, resolver.clone(), Arc::new(SystemClock), &rules);
    let zones: Vec<String> = lists.states().into_iter().map(|state| state.zone).collect();
    assert_eq!(zones, ["hosts.test", "ip.test"]);
    assert_eq!(unknown_zones(&rules, ["ip.test", "other.test"].into_iter()), ["other.test"]);
    let ask = Ask { zone: "ip.test".into(), subject: Subject::Name("2.2.2.2".into()), record: Record::Address };
    lists.with_zone(&ask.zone, |known, now| known.zone.checked(now, Ok(())));
    assert!(matches!(lists.one(&ask, "2.2.2.2").await, Outcome::Answers(_)));
    // Rules of the product alone ask nothing.
    assert!(!lists.are_asked(&RuleSet::default()));
}
