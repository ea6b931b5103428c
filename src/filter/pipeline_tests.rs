use std::future::Future;
use std::pin::Pin;

use base::{SystemClock, UtcMillis};
use bytes::Bytes;
use mail::{BodyKind, Envelope, ForwardPath};
use mailauth::ResolverSettings;
use mailauth::stub::StubServer;
use policy::{ExternalWish, Presets};
use tokio::net::TcpListener;

use super::*;
use crate::milter::{self, WhenAway};
use crate::verdict::Verdict;

const RULES: &str = "body BUY_NOW /buy now/i\nscore BUY_NOW 5\nheader __FROM_X From =~ /x\\.test/\n\
                     meta X_FAILS __FROM_X && SPF_FAIL\nscore X_FAILS 1\n";

struct Says(Scanned);

impl Scanner for Says {
    fn scan<'a>(&'a self, _: &'a Bytes) -> Pin<Box<dyn Future<Output = Scanned> + Send + 'a>> {
        Box::pin(async { self.0.clone() })
    }
}

fn parts() -> FilterParts {
    let (rules, problems) = RuleSet::parse("test.cf", RULES);
    assert!(problems.is_empty(), "{problems:?}");
    FilterParts {
        host_name: "mx.here.test".into(),
        resolver: None,
        rules: Arc::new(rules),
        classifier: None,
        reputation: None,
        greylist_loopback: true,
        scanner: None,
        own_domains: Arc::default(),
        countries: None,
        trusted_sealers: Vec::new(),
        lists: crate::ListSettings::default(),
        milters: Vec::new(),
        policy: EffectivePolicy::resolve(&Presets::shipped(), &[]),
        clock: Arc::new(SystemClock),
    }
}

fn facts(source: Source, body: &str) -> MessageFacts {
    MessageFacts {
        source,
        envelope: Envelope {
            reverse_path: ReversePath::Address("a@x.test".parse().unwrap()),
            forward_paths: ["b@here.test", "c@here.test"]
                .map(|path| ForwardPath::Address(path.parse().unwrap()))
                .to_vec(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            wishes: mail::Wishes::default(),
        },
        message: Bytes::from(format!("From: a@x.test\r\nSubject:  two\r\n lines\r\n\r\n{body}\r\n")),
        received_at: UtcMillis(1_793_443_327_000),
    }
}

fn client() -> Source {
    Source::Client { ip: "192.0.2.66".parse().unwrap(), helo: "mail.x.test".into(), tls: false }
}

fn names(judgement: &Judgement) -> Vec<&str> {
    judgement.findings.iter().map(|finding| &*finding.name).collect()
}

#[tokio::test]
async fn every_check_has_its_say_and_rules_see_the_others() {
    let zone = StubServer::start("x.test TXT v=spf1 -all\n_dmarc.x.test TXT v=DMARC1; p=reject\n");
    let settings = ResolverSettings { name_servers: vec![zone.address()], ..ResolverSettings::default() };
    let resolver = Some(Resolver::new(&settings).unwrap());
    let scanner: Option<Arc<dyn Scanner>> = Some(Arc::new(Says(Scanned::Found("Eicar".into()))));
    let filter = Filter::new(FilterParts { resolver, scanner, ..parts() });
    let judgement = filter.judge(&facts(client(), "Please BUY  now")).await;
    assert_eq!(names(&judgement), ["RDNS_NONE", "SPF_FAIL", "DMARC_REJECT", "VIRUS_FOUND", "BUY_NOW", "X_FAILS"]);
    assert_eq!(judgement.verdict, Verdict::Virus);
    assert_eq!(judgement.score, judgement.findings.iter().map(|finding| finding.score).sum());
    assert!(judgement.facts().spf_failed);
    assert_eq!(judgement.facts().dmarc, policy::DmarcWish::Reject);
}

#[tokio::test]
async fn what_is_checked_depends_on_the_source() {
    let zone = StubServer::start("x.test TXT v=spf1 -all\n_dmarc.x.test TXT v=DMARC1; p=reject\n");
    let settings = ResolverSettings { name_servers: vec![zone.address()], ..ResolverSettings::default() };
    let filter = Filter::new(FilterParts { resolver: Some(Resolver::new(&settings).unwrap()), ..parts() });
    for source in [Source::Relay, Source::File] {
        let judgement = filter.judge(&facts(source, "buy now")).await;
        assert_eq!(names(&judgement), ["BUY_NOW"]);
        assert_eq!(judgement.facts().dmarc, policy::DmarcWish::Nothing);
    }
    let asked = zone.questions();
    let outbound = Source::Submitter { account: "anna".into(), ip: None };
    let judgement = filter.judge(&facts(outbound, "buy now")).await;
    assert_eq!((names(&judgement), &judgement.auth, judgement.verdict), (vec!["BUY_NOW"], &None, Verdict::Spam));
    assert_eq!(zone.questions(), asked);
}

#[tokio::test]
async fn rules_can_be_replaced_while_running() {
    let filter = Filter::new(parts());
    filter.replace_rules(Arc::new(RuleSet::parse("new.cf", "body HELLO /hello/\nscore HELLO 1\n").0));
    assert_eq!(names(&filter.judge(&facts(Source::File, "hello, buy now")).await), ["HELLO"]);
}

/// Serves one filter to any number of mail servers until dropped.
async fn serve_filter(filter: Filter) -> (MilterSettings, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let filter = Arc::new(filter);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut sessions = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let filter = filter.clone();
            sessions.spawn(async move { milter::serve(stream, filter, Arc::new(SystemClock), 1_000_000).await });
        }
    });
    (MilterSettings::new(address), tasks)
}

async fn ask_filter(other: FilterParts, facts: &MessageFacts) -> Judgement {
    let (settings, _tasks) = serve_filter(Filter::new(other)).await;
    let mut asking = parts();
    asking.rules = Arc::new(RuleSet::parse("none.cf", "").0);
    asking.milters = vec![settings];
    Filter::new(asking).judge(facts).await
}

#[tokio::test]
async fn one_filter_asks_another_as_a_milter() {
    let clean = ask_filter(parts(), &facts(client(), "hello")).await;
    assert_eq!((clean.external.as_ref(), clean.verdict), (None, Verdict::Ham));
    let edited = |judgement: &Judgement| String::from_utf8(judgement.edited.clone().unwrap().to_vec()).unwrap();
    let added = "\r\nX-Spam-Status: No, score=0.0 required=4.0\r\n\ttests=none\r\n";
    assert!(edited(&clean).contains(added), "{}", edited(&clean));
    assert!(!edited(&clean).contains("X-Spam-Flag"));

    let long = format!("{}buy now", "0123456789 abcdef\r\n".repeat(10_000));
    let spam = ask_filter(parts(), &facts(client(), &long)).await;
    assert!(edited(&spam).contains("\r\nX-Spam-Flag: YES\r\n") && edited(&spam).ends_with("buy now\r\n"));

    let mut strict = parts();
    strict.scanner = Some(Arc::new(Says(Scanned::Found("Eicar".into()))));
    let refused = ask_filter(strict, &facts(client(), "hello")).await;
    let Some(ExternalWish::Reject(status)) = &refused.external else { panic!("{refused:?}") };
    assert_eq!(status.to_string(), "554 5.7.1 Message refused: it carries a virus");
    assert_eq!(names(&refused), ["MILTER_REJECT"]);

    let mut away = parts();
    away.scanner = Some(Arc::new(Says(Scanned::Unavailable("down".into()))));
    let later = ask_filter(away, &facts(client(), "hello")).await;
    assert!(matches!(later.external, Some(ExternalWish::Defer(_))));
}

#[tokio::test]
async fn a_milter_that_is_away_defers_or_is_passed_over() {
    let nobody: MilterSettings = MilterSettings::new("127.0.0.1:1".parse().unwrap());
    for (when_away, deferred) in [(WhenAway::Defer, true), (WhenAway::Pass, false)] {
        let milters = vec![MilterSettings { when_away, ..nobody.clone() }];
        let judgement = Filter::new(FilterParts { milters, ..parts() }).judge(&facts(client(), "hello")).await;
        assert_eq!(names(&judgement), ["MILTER_AWAY"]);
        assert_eq!(judgement.external.is_some(), deferred);
    }
    // One that accepts connections and never speaks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = MilterSettings {
        address: listener.local_addr().unwrap().to_string().parse().unwrap(),
        reply_timeout: Duration::from_millis(100),
        ..nobody
    };
    let judgement =
        Filter::new(FilterParts { milters: vec![silent], ..parts() }).judge(&facts(client(), "hello")).await;
    assert!(matches!(judgement.external, Some(ExternalWish::Defer(_))));
}

#[tokio::test]
async fn attachments_are_findings_before_rules_and_facts_for_policy() {
    let (rules, problems) = RuleSet::parse("test.cf", "meta WITH_PROGRAM ATTACH_EXECUTABLE\nscore WITH_PROGRAM 1\n");
    assert!(problems.iter().all(|problem| problem.severity != crate::rules::Severity::Error), "{problems:?}");
    let scanner: Option<Arc<dyn Scanner>> = Some(Arc::new(Says(Scanned::Suspected("Heuristics.X".into()))));
    let filter = Filter::new(FilterParts { rules: Arc::new(rules), scanner, ..parts() });
    let mut message = facts(Source::Relay, "");
    message.message = Bytes::from_static(
        b"From: a@x.test\r\nContent-Type: application/octet-stream; name=run.exe\r\n\r\nnothing much\r\n",
    );
    let judgement = filter.judge(&message).await;
    assert_eq!(names(&judgement), ["ATTACH_EXECUTABLE", "VIRUS_SUSPECTED", "WITH_PROGRAM"]);
    let told = &judgement.findings[0];
    assert_eq!((told.class, &*told.evidence), (ReasonClass::Attachment, "run.exe"));
    assert_eq!(judgement.verdict, Verdict::Ham);
    let decision = policy::decide(&filter.policy(), &judgement.facts());
    assert_eq!(decision.cause.to_string(), "blocked attachment, executables: run.exe (default)");
}
