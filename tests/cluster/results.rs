//! What was measured, kept from run to run and shown as tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::faults::Fault;
use super::modes::ASKED;
use super::{WATCHED, since};
use crate::harness::{Found, Load};

const PROTOCOLS: [&str; 5] = ["smtp", "imap read", "imap write", "pop3", "jmap"];

/// One fault.
#[derive(Debug)]
pub struct Row {
    fault: Fault,
    /// Longest time without an answer, by place and protocol.
    gaps: BTreeMap<(String, &'static str), Duration>,
    after_promotion: Option<Duration>,
    /// Connections that ended without a word, or whose clients gave up.
    pub left: Vec<String>,
}

impl Row {
    pub fn new(fault: Fault, began: Instant, promoted: Option<Instant>, load: &Load) -> Self {
        let gaps = load.gaps_since(began);
        let is_general = |protocol: &str| PROTOCOLS.contains(&protocol);
        let last = |promoted| {
            // Those that span it: what went wrong before and was well by then is not about it.
            let spanning = gaps.iter().filter(|((protocol, _), gap)| is_general(protocol) && gap.began < promoted);
            spanning.map(|(_, gap)| since(promoted, gap.ended)).max().unwrap_or_default()
        };
        let after_promotion = promoted.map(last);
        let name = |place: usize| load.places()[place].name.clone();
        let gaps = gaps.iter().map(|((protocol, place), gap)| ((name(*place), *protocol), gap.length())).collect();
        Self { fault, gaps, after_promotion, left: Vec::new() }
    }

    /// Of a protocol at any place, or of a watched user.
    pub fn longest(&self, protocol: &str) -> Duration {
        self.gaps.iter().filter(|((_, of), _)| *of == protocol).map(|(_, gap)| *gap).max().unwrap_or_default()
    }

    pub fn after_promotion(&self) -> Option<Duration> {
        self.after_promotion
    }

    /// The user of the node that was killed, and the others.
    fn users(&self) -> Option<[Duration; 2]> {
        let Fault::NodeKilled(node) = self.fault else { return None };
        let others = (0..WATCHED.len()).filter(|nth| *nth != node).map(|nth| self.longest(WATCHED[nth]));
        Some([self.longest(WATCHED[node]), others.max().unwrap_or_default()])
    }

    fn to_json(&self) -> Value {
        let gaps: Vec<Value> =
            self.gaps.iter().map(|((place, of), gap)| json!([place, of, gap.as_secs_f64()])).collect();
        let users = self.users().map(|users| users.map(|gap| gap.as_secs_f64()));
        json!({
            "fault": self.fault.to_string(), "gaps": gaps, "users": users,
            "after_promotion": self.after_promotion.map(|gap| gap.as_secs_f64()),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.fault)?;
        for ((place, protocol), gap) in &self.gaps {
            write!(out, "; {protocol} at {place} {gap:.1?}")?;
        }
        if let Some(after) = self.after_promotion {
            write!(out, "; {after:.1?} after the promotion")?;
        }
        Ok(())
    }
}

/// What became of the messages of a run.
pub struct Sum {
    faults: usize,
    mail: Found,
    appended: Found,
    flags: usize,
}

impl Sum {
    pub fn of(faults: usize, mail: Found, appended: Found, flags: usize) -> Self {
        Self { faults, mail, appended, flags }
    }

    fn to_json(&self) -> Value {
        let of = |found: &Found| json!([found.acknowledged, found.refused, found.unanswered, found.doubled]);
        json!({ "faults": self.faults, "mail": of(&self.mail), "appended": of(&self.appended), "flags": self.flags })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} faults", self.faults)?;
        for (what, found) in [("mail", &self.mail), ("appended", &self.appended)] {
            let Found { acknowledged, refused, unanswered, doubled } = found;
            write!(
                out,
                "; {what}: {acknowledged} acknowledged, none lost, {refused} refused for now after their content, \
                 {unanswered} not answered, {doubled} copies too many"
            )?;
        }
        write!(out, "; {} flags acknowledged, none lost", self.flags)
    }
}

/// What a client was answered while something was away.
#[derive(Debug)]
pub struct Heard {
    pub mode: &'static str,
    pub asked: &'static str,
    pub answer: String,
    pub after: Duration,
    /// As it is defined.
    pub is_right: bool,
}

pub fn write_heard(seed: u64, heard: &[Heard]) {
    let line = |one: &Heard| json!({ "mode": one.mode, "asked": one.asked, "answer": one.answer, "after": one.after.as_secs_f64() });
    add(seed, heard.iter().map(line));
}

/// Adds to what earlier runs of the seed measured, and shows all of it.
pub fn write(seed: u64, rows: &[Row], sum: &Sum) {
    add(seed, rows.iter().map(Row::to_json).chain([sum.to_json()]));
}

fn add(seed: u64, lines: impl Iterator<Item = Value>) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{seed}.jsonl"));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut out = std::fs::File::options().create(true).append(true).open(&file).unwrap();
    // In one piece: another run may write as well.
    std::io::Write::write_all(&mut out, lines.as_bytes()).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/RESULTS.md");
    std::fs::write(page, show(seed, &lines)).unwrap();
}

fn show(seed: u64, lines: &[Value]) -> String {
    let (heard, lines): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["mode"].is_string());
    let (rows, sums): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["fault"].is_string());
    let total = |of: &str, nth: usize| sums.iter().filter_map(|sum| sum[of][nth].as_u64()).sum::<u64>();
    let flags: u64 = sums.iter().filter_map(|sum| sum["flags"].as_u64()).sum();
    let mut out = format!(
        "# Faults of a cluster under load\n\nWritten by `tests/cluster/run`; {} faults of seed {seed}, in {} runs.\n\n\
         Three PostgreSQL under Patroni, three nodes, HAProxy with the shipped file, etcd, an object store in part of the runs, and clients: \
         each on a host of its own (network namespaces), all on two cores that were also used by other work, so times are long rather than \
         short. After each fault all is mended, everything acknowledged so far is looked for, and the store is audited.\n\n\
         | | acknowledged | lost | refused for now after content | not answered | copies too many |\n|---|---|---|---|---|---|\n",
        rows.len(),
        sums.len()
    );
    for (what, of) in [("mail by SMTP", "mail"), ("appended by IMAP", "appended")] {
        let [taken, refused, unanswered, doubled] = [0, 1, 2, 3].map(|nth| total(of, nth));
        out.push_str(&format!("| {what} | {taken} | 0 | {refused} | {unanswered} | {doubled} |\n"));
    }
    out.push_str(&format!("| flags set by IMAP | {flags} | 0 | | | |\n\n"));
    out.push_str(
        "A copy too many has a try that got no answer, after which its sender tried again, as SMTP and IMAP clients do. A run in which \
         something acknowledged is missing, changed or there once too often fails and is not counted here.\n\n\
         ## Longest time without an answer, in seconds\n\nThe worst of all times that it happened: by the balancer / by names with the addresses \
         of all nodes, of which clients try the next. Clients give up on a silent connection after 10 s; clients pause up to 0.2 s between \
         two things that they do.\n\n| fault | times | SMTP | IMAP, reading | IMAP, writing | POP3 | HTTPS (JMAP) | after promotion |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let kinds: BTreeSet<&str> = rows.iter().filter_map(|row| row["fault"].as_str()).collect();
    for kind in kinds {
        let of_kind: Vec<&&Value> = rows.iter().filter(|row| row["fault"] == kind).collect();
        out.push_str(&format!("| {kind} | {} |", of_kind.len()));
        for protocol in PROTOCOLS {
            let [balancer, names] = ["balancer", "names"].map(|place| worst(&of_kind, place, protocol));
            out.push_str(&format!(" {balancer:.1} / {names:.1} |"));
        }
        let after = of_kind.iter().filter_map(|row| row["after_promotion"].as_f64()).reduce(f64::max);
        out.push_str(&format!(" {} |\n", after.map_or(String::new(), |after| format!("{after:.1}"))));
    }
    let users: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row["users"][0].as_f64()?, row["users"][1].as_f64()?))).collect();
    let most = |of: fn(&(f64, f64)) -> f64| users.iter().map(of).reduce(f64::max).unwrap_or(0.0);
    out.push_str(&format!(
        "\n## A node killed, seen by its users\n\n{} times. A user of the killed node, connected to it, worked again on another one after at \
         most {:.1} s; users of the other nodes waited at most {:.1} s between two answers (with a pause of 0.1 s in it).\n",
        users.len(),
        most(|user| user.0),
        most(|user| user.1)
    ));
    out.push_str(&show_heard(&heard));
    out
}

/// The last answer to each thing asked in each mode.
fn show_heard(heard: &[&Value]) -> String {
    let mut out = String::from(
        "\n## When something is away\n\nWhat patient clients of a node were answered, and after how many seconds, while it lacked that:\n\n| |",
    );
    let mut modes: Vec<&str> = Vec::new();
    for mode in heard.iter().filter_map(|one| one["mode"].as_str()) {
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    ASKED.iter().for_each(|asked| out.push_str(&format!(" {asked} |")));
    out.push_str(&format!("\n|---|{}\n", "---|".repeat(ASKED.len())));
    for mode in modes {
        out.push_str(&format!("| {mode} |"));
        for asked in ASKED {
            let last = heard.iter().rfind(|one| one["mode"] == mode && one["asked"] == asked);
            let Some((answer, after)) = last.and_then(|one| Some((one["answer"].as_str()?, one["after"].as_f64()?)))
            else {
                continue;
            };
            // The code and what stands in brackets say it.
            let end = answer.find(']').map_or_else(|| answer.find(' ').unwrap_or(answer.len()), |at| at + 1);
            out.push_str(&format!(" {} {after:.1} |", &answer[..end]));
        }
        out.push('\n');
    }
    out
}

fn worst(rows: &[&&Value], place: &str, protocol: &str) -> f64 {
    let all = rows.iter().filter_map(|row| row["gaps"].as_array()).flatten();
    let gaps = all.filter(|gap| gap[0] == place && gap[1] == protocol).filter_map(|gap| gap[2].as_f64());
    gaps.fold(0.0, f64::max)
}
