//! `eval:` functions: what rules ask that no pattern can. Names, arguments and meaning are SpamAssassin's where it has
//! them; those that only Ortler has are in [`own`].

mod body;
pub(super) mod form;
mod headers;
mod html;
mod images;
mod links;
mod lists;
mod own;
mod relays;

use std::collections::HashMap;

pub(super) use lists::glob;
pub(crate) use lists::senders;

use super::regex::Pattern;
use super::target::Targets;

/// One call from a rule.
#[derive(Clone, Copy)]
pub struct Call<'c> {
    pub targets: &'c Targets<'c>,
    pub arguments: &'c [String],
    /// The argument that [`pattern_argument`] names, compiled.
    pub pattern: Option<&'c Pattern>,
    pub lists: &'c Lists,
}

/// What list directives said.
#[derive(Debug, Default)]
pub struct Lists {
    /// By directive.
    pub words: HashMap<String, Vec<String>>,
    pub freemail: lists::FreeDomains,
}

impl Lists {
    pub fn of(mut words: HashMap<String, Vec<String>>) -> Self {
        let freemail = words.remove("freemail_domains").unwrap_or_default();
        Self { freemail: lists::FreeDomains::of(&freemail), words }
    }
}

/// Gives what it saw where it holds (may be empty), else nothing.
pub type Function = fn(&Call<'_>) -> Option<String>;

/// The function called `name`, which may be the older of two names.
pub fn find(name: &str) -> Option<Function> {
    let name = super::directives::newer_name(name);
    let tables = [
        SENDER_CHECKS,
        body::FUNCTIONS,
        form::FUNCTIONS,
        headers::FUNCTIONS,
        html::FUNCTIONS,
        images::FUNCTIONS,
        links::FUNCTIONS,
        lists::FUNCTIONS,
        own::FUNCTIONS,
        relays::FUNCTIONS,
    ];
    tables.iter().copied().flatten().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// What a function with a choice as first argument cannot tell: that choice, if it is none of those it knows.
pub fn unknown_choice<'a>(function: &str, arguments: &'a [String]) -> Option<&'a str> {
    let choices: &[&str] = match function {
        "check_attachment_name" => own::ATTACHMENT_KINDS,
        "check_for_mime" => form::MIME_CHOICES,
        "check_msg_parse_flags" => form::PARSE_CHOICES,
        "html_eval" | "html_range" => html::VALUES,
        "html_test" => html::TESTS,
        "html_text_match" | "html_text_not_match" => &["anchor", "comment", "title"],
        _ => return None,
    };
    let choice = arguments.first().map_or("", String::as_str);
    (!choices.contains(&choice)).then_some(choice)
}

/// The position of the argument that is a pattern, for functions that have one.
pub fn pattern_argument(function: &str) -> Option<usize> {
    match function {
        "html_text_match" | "html_text_not_match" | "check_freemail_header" | "image_name_regex" => Some(1),
        "check_freemail_from" | "check_freemail_body" => Some(0),
        _ => None,
    }
}

/// What other checks found about the sender, and what was learned.
const SENDER_CHECKS: &[(&str, Function)] = &[
    ("check_arc_signed", |call| flag(call.targets.has_field("arc-seal"))),
    ("check_arc_valid", |call| finding(call, "ARC_VALID")),
    ("check_bayes", check_bayes),
    ("check_dkim_adsp", |_| None),
    ("check_dkim_dependable", |call| finding(call, "DKIM_VALID")),
    ("check_dkim_signall", |_| None),
    ("check_dkim_signed", |call| flag(call.targets.has_field("dkim-signature"))),
    ("check_dkim_signsome", |_| None),
    ("check_dkim_testing", |_| None),
    ("check_dkim_valid", check_dkim_valid),
    ("check_dkim_valid_author_sig", |call| finding(call, "DKIM_VALID_AU")),
    ("check_dkim_valid_envelopefrom", |call| finding(call, "DKIM_VALID_EF")),
    ("check_dmarc_missing", |call| finding(call, "DMARC_MISSING")),
    ("check_dmarc_none", |call| finding(call, "DMARC_NONE")),
    ("check_dmarc_pass", |call| finding(call, "DMARC_PASS")),
    ("check_dmarc_quarantine", |call| finding(call, "DMARC_QUAR")),
    ("check_dmarc_reject", |call| finding(call, "DMARC_REJECT")),
    ("check_for_dkim_valid", |call| finding(call, "DKIM_VALID")),
    ("check_for_spf_fail", |call| finding(call, "SPF_FAIL")),
    ("check_for_spf_helo_fail", |call| finding(call, "SPF_HELO_FAIL")),
    ("check_for_spf_helo_neutral", |call| finding(call, "SPF_HELO_NEUTRAL")),
    ("check_for_spf_helo_none", |call| finding(call, "SPF_HELO_NONE")),
    ("check_for_spf_helo_pass", |call| finding(call, "SPF_HELO_PASS")),
    ("check_for_spf_helo_permerror", |call| finding(call, "SPF_HELO_PERMERROR")),
    ("check_for_spf_helo_softfail", |call| finding(call, "SPF_HELO_SOFTFAIL")),
    ("check_for_spf_helo_temperror", |call| finding(call, "SPF_HELO_TEMPERROR")),
    ("check_for_spf_neutral", |call| finding(call, "SPF_NEUTRAL")),
    ("check_for_spf_none", |call| finding(call, "SPF_NONE")),
    ("check_for_spf_pass", |call| finding(call, "SPF_PASS")),
    ("check_for_spf_permerror", |call| finding(call, "SPF_PERMERROR")),
    ("check_for_spf_softfail", |call| finding(call, "SPF_SOFTFAIL")),
    ("check_for_spf_temperror", |call| finding(call, "SPF_TEMPERROR")),
];

/// `(low, high)`: above the low end, up to the high one; the lowest range begins at 0 itself.
fn check_bayes(call: &Call<'_>) -> Option<String> {
    let probability = call.targets.context().bayes?;
    let (low, high) = (number(call, 0)?, number(call, 1)?);
    let above = low == 0.0 || probability > low;
    (above && probability <= high).then(|| format!("{probability:.4}"))
}

/// Any valid signature, or one of the domains given.
fn check_dkim_valid(call: &Call<'_>) -> Option<String> {
    finding(call, "DKIM_VALID")?;
    let of = |domain: &String| {
        call.targets.values("dkim-signature").any(|value| {
            value
                .split(';')
                .filter_map(|tag| tag.split_once('='))
                .any(|(tag, value)| tag.trim() == "d" && value.trim().eq_ignore_ascii_case(domain))
        })
    };
    flag(call.arguments.is_empty() || call.arguments.iter().any(of))
}

fn flag(holds: bool) -> Option<String> {
    holds.then(String::new)
}

fn argument<'c>(call: &Call<'c>, at: usize) -> &'c str {
    call.arguments.get(at).map_or("", String::as_str)
}

fn number(call: &Call<'_>, at: usize) -> Option<f64> {
    argument(call, at).parse().ok()
}

/// True where `low <= value < high`; a missing or `undef` end is open.
fn between_floor(call: &Call<'_>, at: usize, value: f64) -> bool {
    number(call, at).is_none_or(|low| value >= low) && number(call, at + 1).is_none_or(|high| value < high)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of one message are far below 2^52")]
fn size(value: usize) -> f64 {
    value as f64
}

fn finding(call: &Call<'_>, name: &str) -> Option<String> {
    flag(call.targets.context().findings.contains(&name))
}

fn domain_of(address: &str) -> Option<String> {
    address.rsplit_once('@').map(|(_, domain)| domain.trim().trim_end_matches('.').to_ascii_lowercase())
}

/// The first address of a field as written; empty without one.
fn address_of(call: &Call<'_>, field: &str) -> String {
    call.targets.addresses(field).into_iter().next().unwrap_or_default()
}
