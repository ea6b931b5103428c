//! `ortler trace ID|--from A|--to A`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use web::Words;

use super::report::{self, ReportLanguage, Seen};
use super::{Where, print};
use crate::roles::control::Request;

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["id", "from", "to", "query"])))]
pub struct Trace {
    /// A message's id: its whole story.
    #[arg(conflicts_with_all = ["from", "to", "query"])]
    id: Option<String>,
    /// Messages from this envelope sender: a whole address matches exactly, anything else as a part of one. Case is
    /// ignored.
    #[arg(long)]
    from: Option<String>,
    /// Messages to this recipient: a whole address matches exactly, anything else as a part of one. Case is ignored.
    #[arg(long)]
    to: Option<String>,
    /// Any query, such as `outcome:refused subject:invoice`.
    #[arg(long)]
    query: Option<String>,
    /// At most this many messages, newest first.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// With an id: what the filter saw of the message and why it judged so, instead of the whole story.
    #[arg(long, requires = "id")]
    report: bool,
    #[command(flatten)]
    language: ReportLanguage,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Trace {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let request = match self.id {
            Some(id) if self.report => return report(&self.node, id, &self.language.words(), self.json),
            Some(id) => Request::Story { id },
            None => {
                // A whole address is found by an index, a part of one by looking at all.
                let quoted = |field: &str, word: Option<String>| {
                    let word = word.unwrap_or_default().replace(['"', '<', '>'], "");
                    match word.split_once('@') {
                        _ if word.is_empty() => String::new(),
                        Some((local, domain)) if !local.is_empty() && domain.contains('.') => {
                            format!("{field}:\"<{word}>\"")
                        }
                        _ => format!("{field}:\"{word}\""),
                    }
                };
                let query =
                    [quoted("from", self.from), quoted("to", self.to), self.query.unwrap_or_default()].join(" ");
                Request::Messages { query, limit: self.limit.clamp(1, 10_000) }
            }
        };
        self.node.ask_and_print(request, self.json)
    }
}

/// The filter's report of a message, as the log kept it.
fn report(node: &Where, id: String, words: &Words, json: bool) -> anyhow::Result<ExitCode> {
    let story = node.ask(Request::Story { id: id.clone() })?;
    let events: Vec<&Value> = story.as_array().map(|events| events.iter().collect()).unwrap_or_default();
    let of_kind = |kind: &str| events.iter().filter(|event| event["kind"] == kind).copied().collect::<Vec<_>>();
    let judged = of_kind("judged").pop().with_context(|| format!("{id}: the filter did not look at this message"))?;
    let fields = &judged["fields"];
    let findings = fields["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let seen: Vec<Seen> = findings.iter().map(Seen::of_log).collect();
    let (verdict, score) =
        (fields["verdict"].as_str().unwrap_or_default(), fields["score"].as_f64().unwrap_or_default() / 1000.0);
    if json {
        let decided = of_kind("decided").into_iter().map(|event| {
            let fields = &event["fields"];
            json!({
                "recipient": event["party"], "disposition": fields["disposition"], "decided_by": fields["decided_by"],
                "score": fields["score"].as_f64().map(|score| score / 1000.0),
            })
        });
        let value = json!({
            "id": id,
            "score": score,
            "verdict": verdict,
            "reasons": report::reasons_value(&seen, words),
            "findings": seen.iter().map(|one| one.to_value(words)).collect::<Vec<_>>(),
            "decided": decided.collect::<Vec<_>>(),
        });
        print::value(&value, true);
        return Ok(ExitCode::SUCCESS);
    }
    report::print_report(&id, verdict, score, &seen, words);
    for event in of_kind("decided") {
        let fields = &event["fields"];
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let recipient = event["party"].as_str().unwrap_or_default();
        print::line(&format!("{recipient}: {}, {}", text("disposition"), text("decided_by")));
    }
    Ok(ExitCode::SUCCESS)
}
