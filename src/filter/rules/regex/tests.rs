use super::*;

fn compile(pattern: &str, flags: &str) -> Result<Pattern, String> {
    let text = PatternText { pattern: pattern.to_owned(), flags: flags.to_owned() };
    Pattern::compile(&text).map(|(pattern, _)| pattern)
}

#[test]
fn perl_patterns_match_as_in_perl() {
    for (pattern, flags, hits, misses) in [
        (r"\bfoo\b", "i", &["a FOO b"][..], &["food"][..]),
        (r"^end$", "", &["end", "end\n"], &["end\n\n", "x\nend"]),
        (r"^end$", "m", &["x\nend\ny"], &["x\nends"]),
        (r"a.b", "", &["axb"], &["a\nb"]),
        (r"a.b", "s", &["a\nb"], &["ab"]),
        (r"\<b\>", "", &["<b>"], &["b"]),
        (r"x{,3}y", "", &["y"], &["z"]),
        (r"x{y}", "", &["x{y}"], &["xy"]),
        (r"a b # note", "x", &["ab"], &["a b"]),
        (r"[\w-]+@[^\]&&x]", "", &["a-b@c"], &["a-b@]", "a@&"]),
        (r"[]x]", "", &["]"], &["["]),
        (r"[a\-z]q", "", &["-q"], &["bq"]),
        (r"[+-]5", "", &["-5", "+5"], &[",5"]),
        (r"[a-c-e]5", "", &["-5", "b5", "e5"], &["d5"]),
        (r"\xe4\x{2014}|\344", "", &[], &["a"]),
        (r"(?i:A)b", "", &["ab"], &["aB"]),
        (r"(?:x(?i)y)Z", "", &["xYZ"], &["xyz"]),
        (r"\Qa.b\E", "", &["a.b"], &["axb"]),
        (r"cat(?!fish)", "", &["cats"], &["catfish"]),
        (r"(?<!not )good", "", &["very good"], &["not good"]),
        (r"(\w)\1", "", &["aab"], &["ab"]),
        (r"(?<q>['x]).\k<q>", "", &["'a'"], &["'ax"]),
        (r"(a)(b)\g{-1}", "", &["abb"], &["aba"]),
        (r"x++y", "", &["xxy"], &["y"]),
        (r"(?>x+)x", "", &[], &["xxx"]),
        (r"(?=.*b)a", "", &["ab"], &["ac"]),
        (r"(?^i:q)", "", &["Q"], &["x"]),
        (r"(a+)(?!\1)b", "", &["aab"], &["aac"]),
        (r"(?:(?:ab?){2,3}c)+d", "", &["abacaaacd"], &["acd"]),
        (r"(x?)*y", "", &["y", "xxy"], &["x"]),
        (r"(?:x??){3}y", "", &["xy"], &["xz"]),
        (r"<.*?>(?<=b>)", "", &["<a><b>"], &["<a><c>"]),
        (r"(?<!a|bc)d", "", &["xd", "d"], &["ad", "bcd"]),
        (r"(?:a|ab)(?>c|cd)e", "", &["abce", "ace"], &["abcde"]),
        (r"(a)|b\1", "", &["a"], &["b"]),
        (r"(?i:(n.))-\1", "", &["No-No"], &["No-nO"]),
        (r"(n.)-\1", "i", &["No-nO"], &["No-on"]),
        (r"\bcat\B", "", &["cats"], &["cat", "scat"]),
        (r"^b.*e$", "m", &["a\nbe\nc"], &["a\nb\ne"]),
        (r"\d{2,4}?5", "", &["1235"], &["15"]),
    ] {
        let compiled = compile(pattern, flags).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for hit in hits {
            assert!(compiled.is_match(hit.as_bytes()), "{pattern} must match {hit}");
            assert!(compiled.find(hit.as_bytes(), 0, &mut Memory::default()).is_some(), "{pattern} must find {hit}");
        }
        for miss in misses {
            assert!(!compiled.is_match(miss.as_bytes()), "{pattern} must not match {miss}");
        }
    }
}

#[test]
fn patterns_are_bytes() {
    let high = compile("\\xe4\u{f6}[\\xfc\u{df}]", "").unwrap();
    assert!(high.is_match(b"\xe4\xf6\xdf"));
    assert!(!high.is_match("\u{e4}\u{f6}\u{df}".as_bytes()));
    let fancy = compile("(?!\\xe4\\xe4)\\xe4.", "").unwrap();
    assert!(fancy.is_match(b"\xe4\xff") && !fancy.is_match(b"\xe4\xe4"));
    assert!(compile(r"\x{2014}", "").unwrap().is_match("\u{2014}".as_bytes()));
    let one_of = compile(r"<(?:\x{e9}|\x{2014}|\x{2015}|a|\x{1F600})(?!x)>", "").unwrap();
    for hit in ["<a>", "<\u{2014}>", "<\u{2015}>", "<\u{1F600}>"] {
        assert!(one_of.is_match(hit.as_bytes()), "{hit}");
    }
    assert!(one_of.is_match(b"<\xe9>") && !one_of.is_match("<\u{2016}>".as_bytes()));
}

#[test]
fn broken_patterns_say_why() {
    for (pattern, flags) in [
        ("(a", ""),
        ("a)", ""),
        ("[a", ""),
        ("a**", ""),
        ("\\", ""),
        ("(?{code})", ""),
        ("a", "q"),
        (r"\1", ""),
        (r"\p{Latin}", ""),
        (r"[\x{100}]", ""),
        (r"(?<=", ""),
        ("(?", ""),
    ] {
        let error = compile(pattern, flags).expect_err(pattern);
        assert!(!error.is_empty() && !error.contains('\n'), "{pattern}: {error}");
    }
    assert!(compile(&"(".repeat(100_000), "").is_err());
    let huge = PatternText::plain("((a{1000}){1000}){1000}");
    assert!(Pattern::compile(&huge).and_then(|(pattern, _)| pattern.verify()).is_err());
}

#[test]
fn both_engines_agree() {
    let text = |pattern: &str| PatternText { pattern: pattern.to_owned(), flags: "i".to_owned() };
    for (pattern, near, far) in [
        (r"\border\b.{0,20}\bcall\b", "Order now, call", "order, and then much later on somebody may call"),
        (r"[a-z]{20,}\d", "abcdefghijklmnopqrstuvwxyz1", "abc1"),
        (r"(?:a.{2,30}b){2}c", "a--ba--bc", "a--b ab c"),
        (r"(?:(?:one|two) ?){5}", "one two one two one", "one two one two three"),
    ] {
        let (pattern, _) = Pattern::compile(&text(pattern)).unwrap();
        let Linear { gate: Some(gate), whole } = pattern.made_linear().unwrap() else { panic!("no gate: {pattern:?}") };
        assert!(gate.is_match(near.as_bytes()) && pattern.is_match(near.as_bytes()), "{near}");
        assert!(!pattern.is_match(far.as_bytes()), "{far}");
        let expected = whole.find(near.as_bytes()).map(|found| found.range());
        assert_eq!(pattern.find(near.as_bytes(), 0, &mut Memory::default()), expected);
    }
    let (plain, _) = Pattern::compile(&text("colou?r")).unwrap();
    assert!(plain.made_linear().unwrap().gate.is_none());
}

#[test]
fn what_strains_the_machine_goes_to_an_automaton() {
    let strained = compile(r"(?:x+x+)+(y)", "").unwrap();
    let mut memory = Memory::default();
    let miss = "x".repeat(3000);
    let hit = format!("{miss}y");
    for _ in 0..8 {
        assert_eq!(strained.find(miss.as_bytes(), 0, &mut memory), None);
    }
    assert!(strained.engines().unwrap().is_strained());
    assert_eq!(strained.find(hit.as_bytes(), 0, &mut memory), Some(0..3001));
    assert_eq!(strained.first_group(hit.as_bytes()), Some(3000..3001));
}

#[test]
fn backtracking_ends() {
    let evil = compile(r"^(?:(a+)+)(?!x)\1b$", "").unwrap();
    assert!(!evil.is_match("a".repeat(5000).as_bytes()));
}

/// Random choices that are the same each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pattern(&mut self, depth: u32) -> String {
        let atom = |dice: &mut Self| match dice.throw(10) {
            0..4 => char::from(b'a' + dice.throw(4) as u8).to_string(),
            4 => ["[ab]", "[^a]", "[b-d]", ".", "\\w"][dice.throw(5) as usize].to_owned(),
            5 => ["^", "$", "\\b", "\\B", "\\A"][dice.throw(5) as usize].to_owned(),
            6 => ["abc", "bad", "cab "][dice.throw(3) as usize].to_owned(),
            _ if depth == 0 => "d".to_owned(),
            7 => format!("({})", dice.pattern(depth - 1)),
            8 => format!("(?:{})", dice.pattern(depth - 1)),
            _ => format!("(?:{}|{})", dice.pattern(depth - 1), dice.pattern(depth - 1)),
        };
        let mut out = String::new();
        for _ in 0..=self.throw(4) {
            let part = atom(self);
            // What can be empty is not repeated: engines differ in what its last time took.
            let hir = regex_syntax::parse(&part).unwrap();
            let is_solid = hir.properties().minimum_len().is_some_and(|length| length > 0);
            out.push_str(&part);
            if is_solid && part.len() > 1 && !part.ends_with([')', ']', '.', 'w']) {
                continue;
            }
            if is_solid {
                out.push_str(
                    ["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "??"][self.throw(11) as usize],
                );
            }
        }
        out
    }

    fn text(&mut self) -> Vec<u8> {
        (0..self.throw(24)).map(|_| b"abcdAB \n"[self.throw(8) as usize]).collect()
    }
}

/// Where a pattern needs nothing but what both can do, the machine finds what the automaton finds.
#[test]
fn the_machine_agrees_with_the_automaton() {
    let mut dice = Dice(0x5DEE_CE66_D9B4_71A3);
    let mut memory = Memory::default();
    let (mut matches, mut exhausted, mut onsets) = (0, 0, 0);
    for _ in 0..4000 {
        let flags = ["", "i", "m", "s"][dice.throw(4) as usize].to_owned();
        let text = PatternText { pattern: dice.pattern(2), flags };
        let (pattern, _) = Pattern::compile(&text).unwrap();
        let linear = pattern.made_linear().unwrap();
        let program = pattern.made().unwrap().program;
        let onset = Onset::of(&pattern.exact().unwrap(), inside);
        onsets += usize::from(onset.is_some());
        for _ in 0..6 {
            let subject = dice.text();
            let from = (dice.throw(3) as usize).min(subject.len());
            let Ok(found) = program.find(None, (&subject, from), &mut { 100_000 }, &mut memory) else {
                exhausted += 1;
                continue;
            };
            let sooner = program.find(onset.as_ref(), (&subject, from), &mut { 100_000 }, &mut memory).unwrap();
            let expected = linear.whole.captures_at(&subject, from);
            let range = |at: usize| expected.as_ref().and_then(|groups| groups.get(at)).map(|group| group.range());
            let said = format!("{text:?} on {:?} from {from}", String::from_utf8_lossy(&subject));
            assert_eq!(found.as_ref().map(|found| found.range.clone()), range(0), "{said}");
            assert_eq!(sooner, found, "{said}");
            assert_eq!(found.and_then(|found| found.first_group), range(1), "{said}");
            if let Some(gate) = &linear.gate {
                assert!(expected.is_none() || gate.is_match_at(&subject, from), "{said}");
            }
            matches += usize::from(expected.is_some());
        }
    }
    let said = format!("{matches} matches, {exhausted} exhausted, {onsets} onsets");
    assert!(matches > 4000 && exhausted < 50 && onsets > 500, "{said}");
}

/// A prefilter never leaves out a pattern that matches.
#[test]
fn prefilters_let_through_what_matches() {
    let mut dice = Dice(0x2545_F491_4F6C_DD1D);
    let mut scratch = crate::rules::prefilter::Scratch::default();
    let mut left_out = 0;
    for _ in 0..60 {
        let mut builder = crate::rules::prefilter::Builder::default();
        let patterns: Vec<Pattern> = (0..60)
            .map(|_| {
                let text = PatternText { pattern: dice.pattern(2), flags: "i".to_owned() };
                let (pattern, hir) = Pattern::compile(&text).unwrap();
                builder.add(&hir);
                pattern
            })
            .collect();
        let prefilter = builder.build();
        for _ in 0..40 {
            let text = dice.text();
            let candidates = prefilter.candidates(&text, &mut scratch);
            for (at, pattern) in patterns.iter().enumerate() {
                let is_candidate = candidates.contains(&at);
                assert!(is_candidate || !pattern.is_match(&text), "{pattern:?} on {text:?}");
                left_out += usize::from(!is_candidate);
            }
            scratch.reuse(candidates);
        }
    }
    assert!(left_out > 10_000, "{left_out}");
}
