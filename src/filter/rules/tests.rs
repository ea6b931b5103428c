//! Behaviour of whole rule sets, of the shipped rules and of the sample mail.

use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::parse::{Source, Target, Test};
use super::{Context, Problem, RuleSet, Severity, Targets};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn rules(text: &str) -> RuleSet {
    let (rules, problems) = RuleSet::parse("x.cf", text);
    assert_eq!(problems, []);
    rules
}

fn hits(rules: &RuleSet, message: &str) -> Vec<String> {
    rules.judge(&Targets::of(message.as_bytes(), Context::default())).iter().map(|hit| hit.rule.to_string()).collect()
}

#[test]
fn rules_of_every_kind_judge() {
    let rules = rules(
        "header H Subject =~ /offer/i\nheader NOT Subject !~ /offer/i\nheader UNSET X-Thing =~ /^none$/ [if-unset: none]\n\
         header HERE exists:X-Here\nbody B /two words/\nrawbody R /<b>/\nuri U /evil\\.example/\nfull F /^X-Here: 1/m\n\
         mimeheader M Content-Type =~ /html/\nbody __MANY /word/\ntflags __MANY multiple maxhits=3\nmeta META __MANY == 3 && !NOT\n\
         body E eval:check_body_length('9999')\nmeta OTHER SPF_FAIL && H\nbody OFF /two/\nscore OFF 0\n\
         body NOSUBJECT /Offer/\ntflags NOSUBJECT nosubject\n",
    );
    let message = "Subject: Offer word\nX-Here: 1\nContent-Type: text/html\n\n<b>two</b>\n words, word, word http://evil.example/";
    assert_eq!(hits(&rules, message), ["B", "E", "F", "H", "HERE", "M", "R", "U", "UNSET", "META"]);
    assert_eq!(hits(&rules, "Subject: x\nX-Thing: y\n\nz"), ["E", "NOT"]);
    let context = Context { findings: &["SPF_FAIL"], ..Context::default() };
    let judged = rules.judge(&Targets::of(b"Subject: offer\n\nx", context));
    assert!(judged.iter().any(|hit| &*hit.rule == "OTHER"));
}

#[test]
fn patterns_are_filled_in_with_what_others_caught() {
    let rules = rules(
        "header __TO To:addr =~ /(?<TO_ADDR>.+)/\nbody __HELLO /\\bHello, (?<WHO>\\w+)/\nscore __TO 0\n\
         uri LINK m|^https?://.{4,60}\\#%{TO_ADDR}|i\nheader SELF From =~ /\\b%{WHO}\\b/i\n\
         header OTHER From !~ /%{WHO}/i\nbody NEVER /%{NOBODY}/\nmeta BOTH LINK && SELF\n",
    );
    let message = |to: &str, from: &str, text: &str| format!("To: {to}\nFrom: {from}\nSubject: x\n\n{text}");
    let link = "see http://shop.example/p#A.B@x.example";
    assert_eq!(hits(&rules, &message("a.b@x.example", "Anna <c@y.example>", link)), ["LINK"]);
    // Letter for letter, not as a pattern.
    assert_eq!(hits(&rules, &message("a+b@x.example", "c@y.example", "http://shop.example/p#aab@x.example")), [""; 0]);
    let hello = format!("Hello, Anna {link}");
    assert_eq!(hits(&rules, &message("a.b@x.example", "anna <c@y.example>", &hello)), ["LINK", "SELF", "BOTH"]);
    assert_eq!(hits(&rules, &message("a@x.example", "Ben <c@y.example>", &hello)), ["OTHER"]);
    let (_, problems) = RuleSet::parse("x.cf", "body A /(%{NAME}/");
    assert_eq!(problems.len(), 1);
}

#[test]
fn mime_header_rules_look_at_the_parts_they_name() {
    let rules = rules(
        "mimeheader MAIN Content-Type =~ /^text/\ntflags MAIN range=1\nmimeheader PARTS Content-Type =~ /^text/\n\
         tflags PARTS range=2-\nmimeheader FIRST Content-Type =~ /html/\ntflags FIRST range=-2\n\
         mimeheader BOTH Content-Type =~ /plain.*\\n.*html/\ntflags BOTH concat\n\
         mimeheader APART Content-Type =~ /plain.*\\n.*html/\n",
    );
    let message = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\na\n\
                   --b\nContent-Type: text/html\n\n<p>a\n--b--\n";
    assert_eq!(hits(&rules, message), ["BOTH", "PARTS"]);
    assert_eq!(hits(&rules, "Content-Type: text/html\n\n<p>a"), ["FIRST", "MAIN"]);
}

#[test]
fn hits_carry_score_text_and_evidence() {
    let rules = rules(
        "body A /cheap \\w+/i\ndescribe A Something cheap\nscore A 1.25\nbody __B /pills/\nmeta C __B\nscore C -0.5",
    );
    let judged = rules.judge(&Targets::of(b"Subject: x\n\nVery CHEAP pills", Context::default()));
    let said: Vec<String> =
        judged.iter().map(|h| format!("{} {} {} {}", h.rule, h.score, h.description, h.evidence)).collect();
    assert_eq!(said, ["A 1.25 Something cheap CHEAP pills", "C -0.5 C pills"]);
}

#[test]
fn what_is_put_off_is_told_where_it_matters() {
    let rules = rules(
        "body __OPEN /\\b(?:[a-z]{4,} ){2}/\nbody __WIDE /[a-z]{3}[0-9]/\nbody __OTHER /other/\nheader __HERE exists:X-Here\n\
         meta BOTH __OPEN && __HERE\nmeta SUM __OPEN + __WIDE + __OTHER > 1\nmeta __SUB __WIDE\nmeta NOT !__SUB && __HERE",
    );
    for (message, expected) in [
        ("Subject: x\n\nsome words here", ""),
        ("Subject: x\nX-Here: 1\n\nsome words here", "BOTH=some words NOT="),
        ("Subject: x\nX-Here: 1\n\nabc1", ""),
        ("Subject: x\n\nother abc1", "SUM=abc1 \u{b7} other"),
        ("Subject: x\n\nother, some words here abc1", "SUM=some words \u{b7} abc1 \u{b7} other"),
    ] {
        let targets = Targets::of(message.as_bytes(), Context::default());
        let judged = rules.judge(&targets);
        let told: Vec<String> = judged.iter().map(|hit| format!("{}={}", hit.rule, hit.evidence)).collect();
        assert_eq!(told.join(" "), expected, "{message}");
        assert_eq!(judged, rules.judge_by_all(&targets), "{message}");
    }
}

#[test]
fn problems_of_the_whole_set() {
    for (text, expected) in [
        ("meta A B\nmeta B A", "x.cf:1: error: A: the rules need each other: A > B"),
        ("meta A A", "x.cf:1: error: A: the rules need each other: A"),
        ("body A /(/", "x.cf:1: error: A: a group is not closed"),
        ("body A eval:tell_fortune()", "x.cf:1: unsupported: A: the function `tell_fortune` is not there"),
        ("body A eval:html_test('moon')", "x.cf:1: unsupported: A: the function `html_test` cannot tell `moon`"),
        ("body A eval:html_text_match('title', '(')", "x.cf:1: error: A: a group is not closed"),
        ("meta A B && C D", "x.cf:1: error: A: unexpected `D`"),
        ("meta A NOWHERE", "x.cf:1: warning: A: `NOWHERE` is not defined"),
    ] {
        let (_, problems) = RuleSet::parse("x.cf", text);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.starts_with(expected)), "{text}: {said:?}");
    }
}

#[test]
fn files_are_read_in_order_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.cf"), "body A /second/\n").unwrap();
    std::fs::write(folder.path().join("a.cf"), "body A /first/\nbody B (\n").unwrap();
    std::fs::write(folder.path().join("c.txt"), "nonsense\n").unwrap();
    let (rules, problems) = RuleSet::load(&[folder.path().to_owned()]).unwrap();
    assert_eq!(hits(&rules, "Subject: second\n\n"), ["A"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].file.ends_with("a.cf") && problems[0].line == 2);
    let error = RuleSet::load(&[folder.path().join("none.cf")]).unwrap_err();
    assert!(error.to_string().ends_with("none.cf"), "{error}");
}

/// What rule sets of others use, beside the plain kinds of rules.
const THIRD_PARTY: &str = r#"
if (version >= 3.004000) && can(Mail::SpamAssassin::Conf::feature_bug6558_free)
  ifplugin Mail::SpamAssassin::Plugin::ReplaceTags
    replace_tag   AA  [a4@]
    replace_inter WW  [\s_-]?
    body          TP_FUZZY  /<inter WW>c<AA>sh/i
    replace_rules TP_FUZZY
    score         TP_FUZZY  2.5
  endif
else
  body TP_ELSE /./
endif
ifplugin Mail::SpamAssassin::Plugin::TextCat
  header TP_NOT_HERE eval:check_language()
endif
header   __TP_ADDR     From:addr =~ /\@sender\.example$/i
header   __TP_NAME     From:name =~ /^bank/i
header   __TP_DOMAIN   From:addr:domain =~ /^sender\.example$/
header   __TP_RAW      Subject:raw =~ /=\?utf-8\?/i
header   __TP_ALL      ALL =~ /^X-Odd:/m
header   __TP_UNSET    X-None =~ /^unset$/ [if-unset: unset]
header   __TP_RELAY    X-Spam-Relays-External =~ /^[^\]]+ rdns=\S+\.sender\.example /
uri      __TP_URI      m{^https?://[^/]+\.zip\.example/}i
uri_detail TP_DETAIL   type =~ /^a$/ text =~ /click/i domain !~ /^good\.example$/
mimeheader __TP_MIME   Content-Type =~ /name=.*\.html/i
rawbody  __TP_RAWBODY  /<a\s+href/i
full     __TP_FULL     /\nX-Odd: 1\n/
body     __TP_MANY     /\bcash\b/i
tflags   __TP_MANY     multiple maxhits=3 nosubject
meta     TP_META       (__TP_ADDR + __TP_NAME + __TP_DOMAIN + __TP_RAW + __TP_ALL + __TP_UNSET >= 6) && __TP_MANY == 2
meta     TP_GLOB       rules_matching(__TP_*) > 5
meta     TP_OTHER      __TP_URI && __TP_MIME && __TP_RAWBODY && __TP_FULL && __TP_RELAY && !TP_UNKNOWN
describe TP_META       Made up
score    TP_META       1.0 1.5 2.0 2.5
score    TP_META       (0.5)
score    TP_META       (0.25) (0) (0) (0)
priority TP_META       500
tflags   TP_META       nice
body     __TP_LATER    /never/
body     __TP_LATER    /Click/
meta     TP_LATER      __TP_LATER
header   TP_LIST       eval:check_rbl('tp-lastexternal', 'list.example.', '^127\.0\.0\.2$')
tflags   TP_LIST       net
urirhssub TP_URIBL     multi.example. A 2
body     TP_URIBL      eval:check_uridnsbl('TP_URIBL')
tflags   TP_URIBL      net
askdns   TP_ASK        _SENDERDOMAIN_.ask.example A /^127/
whitelist_from_rcvd    *@good.example good.example
blacklist_from         *@sender.example
unblacklist_from       *@other.example
header   TP_BLOCKED    eval:check_from_in_blacklist()
enlist_addrlist (TP) *@sender.example
header   TP_ENLISTED   eval:check_from_in_list('TP')
trusted_networks       192.0.2.1
internal_networks      192.0.2.1
required_score         5.0
add_header all Status "_YESNO_"
rewrite_header Subject [SPAM]
clear_report_template
report Text of a report
lang de describe TP_META Erfunden
test TP_META ok x
"#;

const THIRD_PARTY_MESSAGE: &str = "Received: from out.sender.example (out.sender.example [198.51.100.7]) by mx.here.example (8.1) with SMTP id 123\n\
    From: \"Bank\" <x@sender.example>\nSubject: =?utf-8?q?cash?=\nX-Odd: 1\nMIME-Version: 1.0\n\
    Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; name=\"a.html\"\n\n\
    <p>cash and cash, or C4SH</p><a href=\"http://a.zip.example/\">Click here</a>\n--b--\n";

#[test]
fn sets_of_others_load_and_judge() {
    let (rules, problems) = RuleSet::parse("other.cf", THIRD_PARTY);
    let wrong: Vec<String> =
        problems.iter().filter(|p| p.severity < Severity::Warning).map(ToString::to_string).collect();
    assert_eq!(
        wrong,
        ["other.cf:13: unsupported: skipped 1 lines under `ifplugin Mail::SpamAssassin::Plugin::TextCat`"]
    );
    let context = Context { settings: Some(rules.settings()), findings: &["TP_URIBL"], ..Context::default() };
    let judged = rules.judge(&Targets::of(THIRD_PARTY_MESSAGE.as_bytes(), context));
    let names: Vec<&str> = judged.iter().map(|hit| &*hit.rule).collect();
    let expected = [
        "TP_BLOCKED",
        "TP_DETAIL",
        "TP_ENLISTED",
        "TP_FUZZY",
        "TP_URIBL",
        "TP_GLOB",
        "TP_LATER",
        "TP_META",
        "TP_OTHER",
    ];
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let mut wanted = expected.to_vec();
    wanted.sort_unstable();
    assert_eq!(sorted, wanted);
    let meta = judged.iter().find(|hit| &*hit.rule == "TP_META").unwrap();
    assert_eq!((meta.score.0, &*meta.description), (1750, "Made up"));
    let asked: Vec<&str> = rules.questions().iter().map(|question| &*question.rule).collect();
    assert_eq!(asked, ["TP_ASK", "TP_LIST", "TP_URIBL"]);
    assert_eq!(rules.required_score().map(|score| score.0), Some(5000));
}

#[test]
fn learned_probabilities_choose_a_range() {
    let rules = rules("body B_LOW eval:check_bayes('0.00', '0.05')\nbody B_HIGH eval:check_bayes('0.95', '1.00')\n");
    for (bayes, expected) in [
        (None, &[][..]),
        (Some(0.0), &["B_LOW"]),
        (Some(0.05), &["B_LOW"]),
        (Some(0.95), &[]),
        (Some(1.0), &["B_HIGH"]),
    ] {
        let context = Context { bayes, ..Context::default() };
        let judged = rules.judge(&Targets::of(b"Subject: x\n\nx", context));
        let names: Vec<&str> = judged.iter().map(|hit| &*hit.rule).collect();
        assert_eq!(names, expected, "{bayes:?}");
    }
}

fn shipped() -> (Source, RuleSet) {
    let path = folder("rules");
    let mut source = Source::default();
    let mut names: Vec<PathBuf> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "cf"));
    names.sort();
    for name in names {
        source.read(&name.file_name().unwrap().to_string_lossy(), &std::fs::read(&name).unwrap());
    }
    source.finish();
    let (rules, problems) = RuleSet::load(&[path]).unwrap();
    assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    (source, rules)
}

/// A sample with an empty line is a whole message; else it is the header field that the rule asks for, or a body.
fn sample_message(source: &Source, rule: &str, text: &str) -> String {
    if text.contains("\n\n") {
        return text.to_owned();
    }
    match &source.definitions[rule].test {
        Test::Pattern { target: Target::Header(field), .. } | Test::Exists(field) => {
            let name = match field.name.as_str() {
                "MESSAGEID" => "message-id",
                "ToCc" => "to",
                "EnvelopeFrom" => "return-path",
                "ALL" => return format!("{text}\n\nx"),
                name => name,
            };
            format!("{name}: {text}\n\nx")
        }
        Test::Pattern { target: Target::RawBody, .. } => format!("Subject: x\nContent-Type: text/html\n\n{text}"),
        _ => format!("Subject: x\n\n{text}"),
    }
}

#[test]
fn every_shipped_rule_has_text_score_and_samples_that_hold() {
    let (source, rules) = shipped();
    let mut wrong = Vec::new();
    for name in source.definitions.keys().filter(|name| !name.starts_with("__")) {
        if !source.descriptions.contains_key(&**name) {
            wrong.push(format!("{name} has no describe"));
        }
        if !source.scores.contains_key(&**name) {
            wrong.push(format!("{name} has no score"));
        }
        for (hit, word) in [(true, "ok"), (false, "fail")] {
            if !source.samples.iter().any(|sample| *sample.rule == **name && sample.hit == hit) {
                wrong.push(format!("{name} has no `test {name} {word}`"));
            }
        }
    }
    for sample in &source.samples {
        // What a list answers, where the rule asks one.
        if let Some(net) = rules.questions().iter().find(|net| *net.rule == *sample.rule) {
            let answer =
                sample.text.parse().map_or_else(|_| Answer::Text(sample.text.as_str().into()), Answer::Address);
            if net.subtest.fits(&answer) != sample.hit {
                wrong.push(format!("{} {}: {} with {}", sample.at, sample.rule, sample.hit, sample.text));
            }
            continue;
        }
        let message = sample_message(&source, &sample.rule, &sample.text);
        let matched = rules.matches(&Targets::of(message.as_bytes(), Context::default()));
        if matched.contains_key(sample.rule.as_str()) != sample.hit {
            wrong.push(format!("{} {}: {} with {:?}", sample.at, sample.rule, sample.hit, sample.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sample_ham_stays_below_four_and_most_spam_does_not() {
    let (_, rules) = shipped();
    let corpus = folder("corpus");
    let labels = std::fs::read_to_string(corpus.join("labels.tsv")).unwrap();
    let (mut ham, mut spam, mut for_tests, mut caught, mut wrong) = (0, 0, 0, Vec::new(), Vec::new());
    for line in labels.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [path, label, _note, part @ ("train" | "test")] = columns.as_slice() else { panic!("labels.tsv: {line}") };
        for_tests += usize::from(*part == "test");
        let message = std::fs::read(corpus.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let targets = Targets::of(&message, Context::default());
        let judged = rules.judge(&targets);
        assert_eq!(judged, rules.judge_by_all(&targets), "{path}");
        let score: i32 = judged.iter().map(|hit| hit.score.0).sum();
        let names: Vec<&str> = judged.iter().map(|hit| &*hit.rule).collect();
        match *label {
            "ham" => {
                ham += 1;
                if score >= 4000 {
                    wrong.push(format!("{path} scores {score}: {names:?}"));
                }
            }
            "spam" => {
                spam += 1;
                if score >= 4000 {
                    caught.push(*path);
                } else {
                    println!("below 4: {path} scores {score}: {names:?}");
                }
            }
            other => panic!("labels.tsv: {other}"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("spam from 4 on: {caught:?}");
    assert!(ham >= 400 && spam >= 200 && for_tests * 4 >= ham + spam, "{ham} ham, {spam} spam, {for_tests} for tests");
    assert!(caught.len() * 100 >= spam * 85, "only {} of {spam} spam is caught", caught.len());
}

/// A small generator of numbers: the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut out = seed.to_vec();
        for _ in 0..=self.below(8) {
            let (from, to) = (self.below(out.len() + 1), self.below(out.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(5) {
                0 => drop(out.drain(from..to.min(from + 40))),
                1 if from < out.len() => out[from] = u8::try_from(self.below(256)).unwrap(),
                2 => {
                    let piece = out[from..to.min(from + 200)].to_vec();
                    out.splice(from..from, piece);
                }
                3 => {
                    let tokens: [&[u8]; 12] = [
                        b"(",
                        b"[",
                        b"\\",
                        b"{9999}",
                        b"<",
                        b"\"",
                        b"=?utf-8?b?",
                        b"\r\n\r\n",
                        b"\0",
                        b"\xff\xfe",
                        b"--",
                        b"if (",
                    ];
                    out.splice(from..from, tokens[self.below(tokens.len())].iter().copied());
                }
                _ => out.truncate(to.max(1)),
            }
        }
        out
    }
}

#[test]
fn mutated_rule_files_never_panic() {
    let mut random = Random(1);
    let seeds: Vec<Vec<u8>> = std::fs::read_dir(folder("rules"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cf"))
        .flat_map(|path| std::fs::read(path).unwrap().chunks(1500).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect();
    let conditions = b"if (version > 3) && !plugin(x)\nbody A /x/\nelse\nreplace_tag T <T>a\nreplace_rules A\nmeta B (A + 2 > 1)\nendif".to_vec();
    for _ in 0..300 {
        let seed = if random.below(4) == 0 { conditions.clone() } else { seeds[random.below(seeds.len())].clone() };
        let seed = &seed;
        let mutated = random.mutate(seed);
        let mut source = Source::default();
        source.read("x.cf", &mutated);
        source.finish();
        let (rules, problems) = RuleSet::compile(source, super::ScoreSet::Local);
        assert!(problems.iter().all(|problem: &Problem| problem.line > 0 && problem.severity >= Severity::Error));
        hits(&rules, "Subject: a\n\nb");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn mutated_messages_are_judged_in_bounded_time() {
    let (_, rules) = shipped();
    let mut random = Random(2);
    let corpus = folder("corpus");
    let labels = std::fs::read_to_string(corpus.join("labels.tsv")).unwrap();
    let paths = labels.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    let seeds: Vec<Vec<u8>> = paths.map(|path| std::fs::read(corpus.join(path)).unwrap()).collect();
    for _ in 0..400 {
        let seed = random.below(seeds.len());
        let message = random.mutate(&seeds[seed]);
        rules.judge(&Targets::of(&message, Context::default()));
    }
    for text in ["a", "<a href=x>", "free money http://", "=\r\n", " \t\u{200b}", "\r\n\r\n--b\r\n", "=?utf-8?q?=41?= "]
    {
        let start = std::time::Instant::now();
        let head = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n";
        let message = format!("{head}{}", text.repeat(1_000_000 / text.len()));
        rules.judge(&Targets::of(message.as_bytes(), Context::default()));
        let message = format!("From: {}\r\nSubject: {}\r\n{head}", text.repeat(20_000), text.repeat(20_000));
        rules.judge(&Targets::of(message.as_bytes(), Context::default()));
        assert!(start.elapsed().as_secs() < 20, "{text:?} took {:?}", start.elapsed());
    }
}
