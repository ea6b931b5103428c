//! Results as a table for people or as JSON for machines.

use std::io::Write as _;

use serde_json::Value;

/// Wrong usage that the argument parser could not see: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// One line: what failed, on what, and the cause.
pub fn error(error: &anyhow::Error) {
    let text = format!("{error:#}");
    line_to_stderr(&format!("ortler: {}", text.trim_end()));
}

pub fn line_to_stderr(line: &str) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line to stdout. A reader that went away (`| head`) ends the program quietly.
pub fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// An array of objects as a table with one column for each key, an object as lines `key: value`.
pub fn value(value: &Value, json: bool) {
    if json {
        return line(&serde_json::to_string_pretty(value).unwrap_or_default());
    }
    match value {
        Value::Array(rows) => table(rows),
        Value::Object(fields) => {
            let width = fields.keys().map(|key| key.chars().count()).max().unwrap_or(0);
            for (key, field) in fields {
                line(&format!("{key:width$}  {}", cell(field)));
            }
        }
        Value::Null => {}
        other => line(&cell(other)),
    }
}

fn table(rows: &[Value]) {
    let Some(Value::Object(first)) = rows.first() else {
        return rows.iter().for_each(|row| line(&cell(row)));
    };
    let columns: Vec<&String> = first.keys().collect();
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(&row[column.as_str()])).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let longest = cells.iter().filter_map(|row| row.get(at)).map(|text| text.chars().count()).max();
            longest.unwrap_or(0).max(column.len())
        })
        .collect();
    let write = |texts: Vec<&str>| {
        let padded = texts.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    write(columns.iter().map(|column| column.as_str()).collect());
    for row in &cells {
        write(row.iter().map(String::as_str).collect());
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
