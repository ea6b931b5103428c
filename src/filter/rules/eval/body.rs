//! What the text is like, and how its two forms differ.

use std::collections::{HashMap, HashSet};

use super::{Call, Function, between_floor, flag, number, size};
use crate::rules::mime::Node;
use crate::rules::target::Targets;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_blank_line_ratio", check_blank_line_ratio),
    ("check_body_8bits", |_| None),
    ("check_body_length", |call| {
        let length = call.targets.mime().body_bytes;
        (size(length) <= number(call, 0)?).then(|| format!("{length} bytes"))
    }),
    ("check_language", |_| None),
    ("check_stock_info", check_stock_info),
    ("multipart_alternative_difference", |call| {
        let percent = difference(call.targets).percent;
        let low = number(call, 0).unwrap_or(0.0);
        let holds = (low == 0.0 || percent > low) && number(call, 1).is_none_or(|high| percent <= high);
        holds.then(|| format!("{percent:.0} % differ"))
    }),
    ("multipart_alternative_difference_count", |call| {
        let found = difference(call.targets);
        let holds =
            size(found.shown) > number(call, 1)? && size(found.plain) / size(found.shown.max(1)) > number(call, 0)?;
        holds.then(|| format!("{} and {} words", found.plain, found.shown))
    }),
    ("plaintext_body_length", |call| flag(between_all(call, size(signature(call)?.0)))),
    ("plaintext_body_sig_ratio", |call| {
        let (body, signature) = signature(call)?;
        flag(between_all(call, if signature == 0 { 1e6 } else { size(body) / size(signature) }))
    }),
    ("plaintext_sig_length", |call| flag(between_all(call, size(signature(call)?.1)))),
    ("tvd_vertical_words", tvd_vertical_words),
];

/// Both ends included.
fn between_all(call: &Call<'_>, value: f64) -> bool {
    number(call, 0).is_none_or(|low| value >= low) && number(call, 1).is_none_or(|high| value <= high)
}

/// Bytes of the first plain part before and after its last `-- ` line.
fn signature(call: &Call<'_>) -> Option<(usize, usize)> {
    let leaves = call.targets.leaves();
    let part = leaves.iter().find(|node| node.kind == "text/plain")?;
    let text = part.content(usize::MAX);
    let (mut at, mut out) = (0, (text.len(), 0));
    for line in text.split_inclusive(|b| *b == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        let end = at + bare.len();
        if matches!(bare, b"--" | b"-- ") && text.len() - end > 4 {
            out = (at, text.len() - end);
        }
        at += line.len();
    }
    Some(out)
}

/// Percent of empty lines: `(low, high, lines at least)`.
fn check_blank_line_ratio(call: &Call<'_>) -> Option<String> {
    let (mut blank, mut lines) = (0, 0);
    for line in call.targets.raw_body().iter().flat_map(|chunk| chunk.split_inclusive(|b| *b == b'\n')) {
        lines += 1;
        blank += usize::from(line.trim_ascii().is_empty());
    }
    let enough = size(lines) >= number(call, 2).unwrap_or(1.0).max(1.0);
    let percent = 100.0 * size(blank) / size(lines.max(1));
    let low = number(call, 0)?;
    let holds = enough && (low == 0.0 || percent > low) && number(call, 1).is_none_or(|high| percent <= high);
    holds.then(|| format!("{percent:.0} %"))
}

/// Share of spaces in the line that has most, in percent of its other characters.
fn tvd_vertical_words(call: &Call<'_>) -> Option<String> {
    let mut most = -1.0;
    for line in call.targets.body().iter().filter(|line| line.len() > 5) {
        let spaces = memchr::memchr_iter(b' ', line).count();
        let others = line.len() - spaces;
        let percent =
            if spaces > others || others == 0 { 100.0 } else { (100.0 * size(spaces) / size(others)).floor() };
        most = f64::max(most, percent);
    }
    flag(between_floor(call, 0, most) || (number(call, 1)? >= 100.0 && most >= number(call, 0)?))
}

/// What a stock tip has lines for.
fn check_stock_info(call: &Call<'_>) -> Option<String> {
    let leaves = call.targets.leaves();
    let shown = call.targets.shown();
    let (_, shown) = leaves.iter().zip(shown).find(|(node, _)| node.kind == "text/plain")?;
    let mut seen = HashSet::new();
    for line in shown.text.as_deref()?.lines() {
        let Some((name, rest)) = line.trim_start().split_once(':') else { continue };
        if !(3..=40).contains(&name.trim_end().len()) || rest.trim().is_empty() {
            continue;
        }
        let letters: String = name.to_lowercase().chars().filter(char::is_ascii_lowercase).collect();
        const ENDS: &[&str] = &[
            "company",
            "companyname",
            "stock",
            "symbol",
            "sym",
            "target",
            "ticker",
            "openingprice",
            "openingp",
            "currentprice",
            "currentp",
            "projected",
            "position",
            "expectations",
            "weekhigh",
            "weekshigh",
            "marketperformance",
            "target",
            "estimate",
            "estimates",
            "sector",
            "recommendation",
            "rating",
        ];
        let starts = ["tradingdate", "tradedate"].iter().find(|word| letters == **word);
        if let Some(found) = starts.or_else(|| ENDS.iter().find(|word| letters.ends_with(**word))) {
            seen.insert(*found);
        }
    }
    (size(seen.len()) >= number(call, 0)?).then(|| format!("{} lines", seen.len()))
}

#[derive(Default)]
struct Difference {
    /// Different words of the HTML that the plain text does not have, in percent.
    percent: f64,
    /// Different words.
    shown: usize,
    plain: usize,
}

fn difference(targets: &Targets<'_>) -> Difference {
    let mut out = Difference::default();
    let nodes = targets.mime().nodes();
    let alternatives: Vec<&&Node> = nodes.iter().filter(|node| node.kind == "multipart/alternative").collect();
    if alternatives.is_empty() || is_invitation(&targets.mime().root) {
        return out;
    }
    let leaves = targets.leaves();
    let shown = targets.shown();
    for node in alternatives {
        let mut inside = Vec::new();
        leaves_of(node, &mut inside);
        let (mut html, mut plain): (HashMap<&str, i64>, HashMap<&str, i64>) = Default::default();
        for (leaf, shown) in leaves.iter().zip(shown) {
            if !inside.iter().any(|node| std::ptr::eq(*node, *leaf)) || !leaf.kind.starts_with("text") {
                continue;
            }
            let Some(text) = &shown.text else { continue };
            let words = text.split_whitespace().filter(|word| word.contains(|c: char| c.is_alphanumeric() || c == '_'));
            let into = if shown.html.is_some() { &mut html } else { &mut plain };
            words.for_each(|word| *into.entry(word).or_default() += 1);
            if html.is_empty() && shown.html.as_ref().is_some_and(|html| html.has("img")) {
                html.insert("\n", 1);
            }
        }
        if html.is_empty() {
            continue;
        }
        out.shown = html.len();
        out.plain = plain.len();
        let missing =
            html.iter().filter(|(word, count)| plain.get(**word).is_none_or(|other| **count - other >= 1)).count();
        out.percent = out.percent.max(100.0 * size(missing) / size(html.len()));
    }
    out
}

fn leaves_of<'n>(node: &'n Node, out: &mut Vec<&'n Node>) {
    if node.is_leaf {
        out.push(node);
    }
    node.children.iter().for_each(|child| leaves_of(child, out));
}

/// HTML beside a calendar entry: there is no plain text to compare with.
fn is_invitation(root: &Node) -> bool {
    let kinds: Vec<&str> = root.children.iter().map(|child| child.kind.as_str()).collect();
    root.kind == "multipart/alternative" && kinds == ["text/html", "text/calendar"]
}
