//! Hits of rules on messages, and what they cost: for measuring.
//!
//! `rules RULES LIST` prints `path<TAB>score<TAB>NAME=hits …` for each message of LIST, sub-rules included;
//! `rules RULES --names` the rules that run; `rules RULES LIST --time` the CPU time for each message in milliseconds;
//! `rules RULES LIST --check` the messages of which other things are told when no rule is left out.

use std::path::PathBuf;

use filter::rules::{Context, Keep, RuleSet, ScoreSet, Targets, parse::Source};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rules, list, ..] = arguments.as_slice() else { panic!("rules RULES LIST") };
    let timed = arguments.iter().any(|argument| argument == "--time");
    let mut source = Source::default();
    filter::rules::read_into(&mut source, &PathBuf::from(rules)).expect("rules can be read");
    source.finish();
    eprintln!("{} KiB before compiling", memory());
    let checked = arguments.iter().any(|argument| argument == "--check");
    let keep = if timed || checked { Keep::Needed } else { Keep::All };
    let (rules, problems) = RuleSet::compile_with(source, ScoreSet::Local, keep);
    eprintln!("{} rules, {} remarks, {} KiB", rules.len(), problems.len(), memory());
    match list.as_str() {
        "--names" => return rules.names().for_each(|(name, _)| println!("{name}")),
        "--problems" => return problems.iter().for_each(|problem| println!("{problem}")),
        _ => {}
    }
    let messages: Vec<(String, Vec<u8>)> = std::fs::read_to_string(list)
        .expect("a list of paths")
        .lines()
        .map(|path| (path.to_owned(), std::fs::read(path).expect("a message")))
        .collect();
    if timed {
        // The first round warms up what is built lazily.
        for round in 0..2 {
            let start = cpu();
            let hits: usize = messages.iter().map(|(_, message)| rules.judge(&targets(message, &rules)).len()).sum();
            let each = (cpu() - start) / messages.len() as f64;
            println!("round {round}: {each:.3} ms each, {hits} hits, {} KiB", memory());
        }
        return;
    }
    if checked {
        let differs = |message: &[u8]| {
            let targets = targets(message, &rules);
            rules.judge(&targets) != rules.judge_by_all(&targets)
        };
        let different = messages.iter().filter(|(_, message)| differs(message));
        return different.for_each(|(path, _)| println!("{path}"));
    }
    for (path, message) in &messages {
        let hits = rules.matches(&targets(message, &rules));
        let hits: Vec<String> = hits.iter().map(|(name, hits)| format!("{name}={hits}")).collect();
        println!("{path}\t0\t{}", hits.join(" "));
    }
}

fn targets<'a>(message: &'a [u8], rules: &'a RuleSet) -> Targets<'a> {
    Targets::of(message, Context { settings: Some(rules.settings()), ..Context::default() })
}

/// Resident memory in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of this process in milliseconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // Fields 14 and 15 of the line, in ticks of 10 ms.
    fields.iter().skip(10).take(2).sum::<f64>() * 10.0
}
