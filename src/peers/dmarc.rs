//! Aggregate reports of DMARC (RFC 9990): read, and written.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::report::{DmarcReport, DmarcRow, Unreadable, tame};
use crate::seen::{DmarcSeen, Signature};

/// Rows beyond are not read.
const ROWS_MAX: usize = 20_000;
const SIGNATURES_MAX: usize = 20;
const DEPTH_MAX: usize = 16;
/// Of one element; longer ones are cut.
const VALUE_MAX: usize = 4096;

/// Reads a report. Names count, not where they come from: older reports have no namespace, and some have wrong ones.
pub fn read(xml: &[u8]) -> Result<DmarcReport, Unreadable> {
    let wrong = |what: &str| Unreadable(format!("DMARC report: {what}"));
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().allow_dangling_amp = true;
    let (mut path, mut value): (Vec<String>, String) = (Vec::new(), String::new());
    let (mut report, mut row) = (DmarcReport::default(), DmarcRow::default());
    let mut has_feedback = false;
    loop {
        match reader.read_event().map_err(|error| wrong(&error.to_string()))? {
            Event::Start(element) => {
                let name = String::from_utf8_lossy(element.local_name().as_ref()).into_owned();
                has_feedback |= path.is_empty() && name == "feedback";
                if path.len() >= DEPTH_MAX {
                    return Err(wrong("its elements lie too deep"));
                }
                path.push(name);
                value.clear();
                match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["feedback", "record"] => row = DmarcRow::default(),
                    ["feedback", "record", "auth_results", "dkim"] if row.signatures.len() < SIGNATURES_MAX => {
                        row.signatures.push(Signature {
                            domain: String::new(),
                            selector: String::new(),
                            result: String::new(),
                        });
                    }
                    _ => {}
                }
            }
            Event::Text(text) => add(&mut value, &text.decode().map_err(|error| wrong(&error.to_string()))?),
            Event::CData(text) => add(&mut value, &text.decode().map_err(|error| wrong(&error.to_string()))?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| wrong(&error.to_string()))?;
                match reference.resolve_char_ref() {
                    Ok(Some(character)) => value.push(character),
                    _ => value.push_str(match &*name {
                        "amp" => "&",
                        "lt" => "<",
                        "gt" => ">",
                        "quot" => "\"",
                        "apos" => "'",
                        _ => "",
                    }),
                }
            }
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                take(&names, &tame(&value), &mut report, &mut row);
                if names == ["feedback", "record"] {
                    if report.rows.len() < ROWS_MAX {
                        report.rows.push(std::mem::take(&mut row));
                    } else {
                        report.is_cut = true;
                    }
                }
                path.pop();
                value.clear();
            }
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if !has_feedback {
        return Err(wrong("there is no `feedback` element"));
    }
    if report.domain.is_empty() {
        return Err(wrong("it names no domain"));
    }
    Ok(report)
}

fn add(value: &mut String, text: &str) {
    let room = VALUE_MAX.saturating_sub(value.len());
    value.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
}

/// An element that ends, with its text.
fn take(path: &[&str], value: &str, report: &mut DmarcReport, row: &mut DmarcRow) {
    let text = || value.to_owned();
    let number = || value.parse::<i64>().unwrap_or(0);
    let last = row.signatures.last_mut();
    match path {
        ["feedback", "report_metadata", "org_name"] => report.submitter = text(),
        ["feedback", "report_metadata", "report_id"] => report.id = text(),
        ["feedback", "report_metadata", "date_range", "begin"] => report.begin = number(),
        ["feedback", "report_metadata", "date_range", "end"] => report.end = number(),
        ["feedback", "policy_published", "domain"] => report.domain = value.trim_end_matches('.').to_lowercase(),
        ["feedback", "policy_published", "p"] => report.policy = text(),
        ["feedback", "record", rest @ ..] => match rest {
            ["row", "source_ip"] => row.ip = value.parse().ok(),
            ["row", "count"] => row.count = u64::try_from(number()).unwrap_or(0),
            ["row", "policy_evaluated", "disposition"] => row.disposition = text(),
            ["row", "policy_evaluated", "dkim"] => row.dkim = value == "pass",
            ["row", "policy_evaluated", "spf"] => row.spf = value == "pass",
            ["row", "policy_evaluated", "reason", "type"] if row.overridden.len() < SIGNATURES_MAX => {
                row.overridden.push(text());
            }
            ["identifiers", "header_from"] => row.header_from = value.to_lowercase(),
            ["identifiers", "envelope_from"] => row.envelope_from = value.to_lowercase(),
            ["auth_results", "dkim", "domain"] => last.into_iter().for_each(|one| one.domain = text()),
            ["auth_results", "dkim", "selector"] => last.into_iter().for_each(|one| one.selector = text()),
            ["auth_results", "dkim", "result"] => last.into_iter().for_each(|one| one.result = text()),
            ["auth_results", "spf", "domain"] => row.spf_domain = text(),
            ["auth_results", "spf", "result"] => row.spf_result = text(),
            _ => {}
        },
        _ => {}
    }
}

/// What a report of ours says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heading {
    /// Who reports, and how it is reached.
    pub submitter: String,
    pub contact: String,
    pub id: String,
    /// Seconds since 1970; the end is the last second that counts.
    pub begin: i64,
    pub end: i64,
    /// Where the record was found.
    pub domain: String,
    /// Tags of the record, as published: `p`, `sp`, `np`, `adkim`, `aspf`, `fo`, `t`.
    pub tags: Vec<(String, String)>,
}

/// A report of ours (RFC 9990 §3.1). Authors' domains with what was seen of them.
pub fn write(heading: &Heading, seen: &[(String, Vec<(DmarcSeen, u64)>)]) -> String {
    let tag = |name: &str| heading.tags.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str(
        "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n <version>1.0</version>\n <report_metadata>\n",
    );
    element(&mut out, 2, "org_name", &heading.submitter);
    element(&mut out, 2, "email", &heading.contact);
    element(&mut out, 2, "report_id", &heading.id);
    let _ = writeln!(
        out,
        "  <date_range><begin>{}</begin><end>{}</end></date_range>\n </report_metadata>\n <policy_published>",
        heading.begin, heading.end
    );
    element(&mut out, 2, "domain", &heading.domain);
    element(&mut out, 2, "p", tag("p").unwrap_or("none"));
    for name in ["sp", "np", "adkim", "aspf", "fo"] {
        if let Some(value) = tag(name) {
            element(&mut out, 2, name, value);
        }
    }
    element(&mut out, 2, "testing", tag("t").unwrap_or("n"));
    element(&mut out, 2, "discovery_method", "treewalk");
    out.push_str(" </policy_published>\n");
    for (author, facts) in seen {
        facts.iter().for_each(|(facts, count)| record(&mut out, author, facts, *count));
    }
    out.push_str("</feedback>\n");
    out
}

fn record(out: &mut String, author: &str, seen: &DmarcSeen, count: u64) {
    let word = |passed: bool| if passed { "pass" } else { "fail" };
    let _ = writeln!(out, " <record>\n  <row>\n   <source_ip>{}</source_ip>\n   <count>{count}</count>", seen.ip);
    out.push_str("   <policy_evaluated>\n");
    element(out, 4, "disposition", &seen.disposition);
    element(out, 4, "dkim", word(seen.dkim));
    element(out, 4, "spf", word(seen.spf));
    if !seen.overridden.is_empty() {
        let _ = writeln!(out, "    <reason><type>{}</type></reason>", escaped(&seen.overridden));
    }
    out.push_str("   </policy_evaluated>\n  </row>\n  <identifiers>\n");
    element(out, 3, "header_from", author);
    element(out, 3, "envelope_from", &seen.envelope_from);
    out.push_str("  </identifiers>\n  <auth_results>\n");
    for Signature { domain, selector, result } in &seen.signatures {
        out.push_str("   <dkim>\n");
        element(out, 4, "domain", domain);
        element(out, 4, "selector", selector);
        element(out, 4, "result", result);
        out.push_str("   </dkim>\n");
    }
    out.push_str("   <spf>\n");
    element(out, 4, "domain", &seen.spf_domain);
    element(out, 4, "scope", if seen.spf_helo { "helo" } else { "mfrom" });
    element(out, 4, "result", &seen.spf_result);
    out.push_str("   </spf>\n  </auth_results>\n </record>\n");
}

fn element(out: &mut String, indent: usize, name: &str, value: &str) {
    let _ = writeln!(out, "{:indent$}<{name}>{}</{name}>", "", escaped(value));
}

/// What XML allows (XML 1.0 §2.2), with what means something to it written otherwise.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ if character.is_control() => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}
