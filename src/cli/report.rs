//! Why a message was judged as it was, in the reader's language: after a scan, or later from the log.

use clap::Args;
use policy::Finding;
use serde_json::{Value, json};
use web::{Language, Words};

use super::print;

#[derive(Args, Debug, Clone)]
pub struct ReportLanguage {
    /// Language of the reasons: `de`, `it` or `en`.
    #[arg(long, default_value = "en", value_parser = Language::CODES)]
    lang: String,
}

impl ReportLanguage {
    pub fn words(&self) -> Words {
        Words::of(Language::from_code(&self.lang).unwrap_or(Language::English))
    }
}

/// What one check saw, as a scan or the log has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    pub name: String,
    pub points: f64,
    pub class: String,
    pub description: String,
    pub evidence: String,
}

impl From<&Finding> for Seen {
    fn from(finding: &Finding) -> Self {
        Self {
            name: finding.name.to_string(),
            points: finding.score.as_f64(),
            class: finding.class.as_str().to_owned(),
            description: finding.description.to_string(),
            evidence: finding.evidence.clone(),
        }
    }
}

impl Seen {
    /// A finding as the log keeps it: points are whole thousandths.
    pub fn of_log(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            points: value["score"].as_f64().unwrap_or_default() / 1000.0,
            class: text("class"),
            description: text("description"),
            evidence: text("evidence"),
        }
    }

    pub fn to_value(&self, words: &Words) -> Value {
        json!({
            "name": self.name,
            "score": self.points,
            "class": self.class,
            "reason": words.reason(&self.class),
            "description": words.finding(&self.name, &self.description),
            "evidence": self.evidence,
        })
    }
}

/// The points of each class that has any against the message, the heaviest first.
fn reasons(seen: &[Seen]) -> Vec<(&str, f64)> {
    let mut out: Vec<(&str, f64)> = Vec::new();
    for one in seen.iter().filter(|one| one.points > 0.0) {
        match out.iter_mut().find(|(class, _)| *class == one.class) {
            Some((_, points)) => *points += one.points,
            None => out.push((&one.class, one.points)),
        }
    }
    out.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    out
}

/// The reasons, then all that was seen.
pub fn print_report(title: &str, verdict: &str, score: f64, seen: &[Seen], words: &Words) {
    print::line(&format!("{title}: {verdict} ({score:.1})"));
    for (class, points) in reasons(seen) {
        print::line(&format!("  {points:>+7.1}  {}", words.reason(class)));
    }
    for one in seen {
        let text = words.finding(&one.name, &one.description);
        let evidence = if one.evidence.is_empty() { String::new() } else { format!(" [{}]", one.evidence) };
        print::line(&format!("  {:>7.1}  {:<28} {text}{evidence}", one.points, one.name));
    }
}

pub fn reasons_value(seen: &[Seen], words: &Words) -> Value {
    let told = |(class, points): (&str, f64)| json!({ "class": class, "text": words.reason(class), "score": points });
    reasons(seen).into_iter().map(told).collect()
}
