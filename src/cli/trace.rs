//! `ortler trace ID|--from A|--to A`.

use std::process::ExitCode;

use clap::Args;

use super::Where;
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
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Trace {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let request = match self.id {
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
