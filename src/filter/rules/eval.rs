//! `eval:` functions: what rules ask that no pattern can. Names and arguments are SpamAssassin's where it has them.

use std::collections::{HashMap, HashSet};

use base::UtcMillis;

use super::html::is_zero_width;
use super::regex::Pattern;
use super::target::{Part, Targets};
use crate::url::{host, registered_domain};

/// One call from a rule.
#[derive(Clone, Copy)]
pub struct Call<'c> {
    pub targets: &'c Targets<'c>,
    pub arguments: &'c [String],
    /// The argument that [`pattern_argument`] names, compiled.
    pub pattern: Option<&'c Pattern>,
    /// Words of list directives, by directive.
    pub lists: &'c HashMap<String, Vec<String>>,
}

/// Gives what it saw where it holds (may be empty), else nothing.
pub type Function = fn(&Call<'_>) -> Option<String>;

/// The function called `name`.
pub fn find(name: &str) -> Option<Function> {
    FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// What a function with a choice as first argument cannot tell: that choice, if it is none of those below.
pub fn unknown_choice<'a>(function: &str, arguments: &'a [String]) -> Option<&'a str> {
    let choices: &[&str] = match function {
        "check_attachment_name" => &["archive", "double", "executable", "html", "macro"],
        "check_for_mime" => &[
            "mime_base64_count",
            "mime_base64_encoded_text",
            "mime_html_no_charset",
            "mime_missing_boundary",
            "mime_qp_count",
        ],
        "check_msg_parse_flags" => &["mime_epilogue_exists", "missing_head_body_separator", "missing_mime_headers"],
        "html_eval" => &["hidden", "title"],
        "html_range" => &["backhair_count", "length", "ratio", "unknown_elements"],
        "html_test" => {
            &["embeds", "font_low_contrast", "form_action_mailto", "has_form", "javascript", "unknown_elements"]
        }
        "html_text_match" => &["anchor", "comment", "title"],
        _ => return None,
    };
    let choice = arguments.first().map_or("", String::as_str);
    (!choices.contains(&choice)).then_some(choice)
}

/// The position of the argument that is a pattern, for functions that have one.
pub fn pattern_argument(function: &str) -> Option<usize> {
    (function == "html_text_match").then_some(1)
}

const FUNCTIONS: &[(&str, Function)] = &[
    ("check_abundant_unicode_ratio", check_abundant_unicode_ratio),
    ("check_all_trusted", check_all_trusted),
    ("check_attachment_name", check_attachment_name),
    ("check_attachment_type_mismatch", check_attachment_type_mismatch),
    ("check_base64_length", check_base64_length),
    ("check_body_length", check_body_length),
    ("check_for_dkim_valid", |call| finding(call, "DKIM_VALID")),
    ("check_dkim_valid", |call| finding(call, "DKIM_VALID")),
    ("check_dkim_valid_author_sig", |call| finding(call, "DKIM_VALID_AU")),
    ("check_dkim_valid_envelopefrom", |call| finding(call, "DKIM_VALID_EF")),
    ("check_dkim_signed", |call| flag(call.targets.has_field("dkim-signature"))),
    ("check_for_matching_env_and_hdr_from", check_for_matching_env_and_hdr_from),
    ("check_for_mime", check_for_mime),
    ("check_for_mime_html", |call| flag(has_html(call))),
    ("check_for_mime_html_only", check_for_mime_html_only),
    ("check_for_missing_to_header", |call| flag(!call.targets.has_field("ToCc") && !call.targets.has_field("bcc"))),
    ("check_for_shifted_date", check_for_shifted_date),
    ("check_for_spf_fail", |call| finding(call, "SPF_FAIL")),
    ("check_for_spf_helo_pass", |call| finding(call, "SPF_HELO_PASS")),
    ("check_for_spf_neutral", |call| finding(call, "SPF_NEUTRAL")),
    ("check_for_spf_none", |call| finding(call, "SPF_NONE")),
    ("check_for_spf_pass", |call| finding(call, "SPF_PASS")),
    ("check_for_spf_permerror", |call| finding(call, "SPF_PERMERROR")),
    ("check_for_spf_softfail", |call| finding(call, "SPF_SOFTFAIL")),
    ("check_for_spf_temperror", |call| finding(call, "SPF_TEMPERROR")),
    ("check_for_to_in_subject", check_for_to_in_subject),
    ("check_for_uppercase", check_for_uppercase),
    ("check_freemail_from", |call| freemail(call, &["from"])),
    ("check_freemail_header", check_freemail_header),
    ("check_freemail_replyto", check_freemail_replyto),
    ("check_from_in_blocklist", |call| listed(call, "blocklist_from", "from")),
    ("check_from_in_blacklist", |call| listed(call, "blocklist_from", "from")),
    ("check_from_in_list", |call| address_list(call, "from")),
    ("check_from_in_welcomelist", |call| listed(call, "welcomelist_from", "from")),
    ("check_from_in_whitelist", |call| listed(call, "welcomelist_from", "from")),
    ("check_from_name_has_other_address", check_from_name_has_other_address),
    ("check_from_is_to", check_from_is_to),
    ("check_header_count_range", check_header_count_range),
    ("check_https_http_mismatch", |call| link_mismatch(call, false)),
    ("check_https_ip_mismatch", |call| link_mismatch(call, true)),
    ("check_illegal_chars", check_illegal_chars),
    ("check_ma_non_text", check_ma_non_text),
    ("check_mailfrom_matches_rcvd", check_mailfrom_matches_rcvd),
    ("check_microsoft_executable", check_microsoft_executable),
    ("check_mime_multipart_ratio", check_mime_multipart_ratio),
    ("check_mixed_script_names", check_mixed_script_names),
    ("check_msg_parse_flags", check_msg_parse_flags),
    ("check_no_relays", |call| {
        let relays = call.targets.relays();
        flag(relays.trusted.is_empty() && relays.external.is_empty())
    }),
    ("check_relays_unparseable", |call| flag(call.targets.relays().unparseable > 0)),
    ("check_replyto_in_list", |call| address_list(call, "reply-to")),
    ("check_sender_domain_in_link_text", link_text_names_other_host),
    ("check_to_in_blocklist", |call| listed(call, "blocklist_to", "to")),
    ("check_to_in_blacklist", |call| listed(call, "blocklist_to", "to")),
    ("check_to_in_welcomelist", |call| listed(call, "welcomelist_to", "to")),
    ("check_to_in_whitelist", |call| listed(call, "welcomelist_to", "to")),
    ("check_uri_host_listed", check_uri_host_listed),
    ("check_zero_width", check_zero_width),
    ("html_eval", html_eval),
    ("html_hidden_share", html_hidden_share),
    ("html_image_only", html_image_only),
    ("html_image_ratio", html_image_ratio),
    ("html_range", html_range),
    ("html_tag_balance", html_tag_balance),
    ("html_tag_exists", |call| flag(call.targets.html().count(&argument(call, 0).to_ascii_lowercase()) > 0)),
    ("html_test", html_test),
    ("html_text_match", html_text_match),
    ("multipart_alternative_difference", multipart_alternative_difference),
    ("short_url", short_url),
    ("subject_is_all_caps", subject_is_all_caps),
];

fn flag(holds: bool) -> Option<String> {
    holds.then(String::new)
}

fn argument<'c>(call: &Call<'c>, at: usize) -> &'c str {
    call.arguments.get(at).map_or("", String::as_str)
}

fn number(call: &Call<'_>, at: usize) -> Option<f64> {
    argument(call, at).parse().ok()
}

/// True where `low < value <= high`; a missing or `undef` end is open.
fn between(call: &Call<'_>, at: usize, value: f64) -> bool {
    number(call, at).is_none_or(|low| value > low) && number(call, at + 1).is_none_or(|high| value <= high)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of one message are far below 2^52")]
fn size(value: usize) -> f64 {
    value as f64
}

fn finding(call: &Call<'_>, name: &str) -> Option<String> {
    flag(call.targets.context().findings.contains(&name))
}

fn has_html(call: &Call<'_>) -> bool {
    call.targets.parts().iter().any(Part::is_html)
}

fn domain_of(address: &str) -> Option<String> {
    address.rsplit_once('@').map(|(_, domain)| domain.trim().trim_end_matches('.').to_ascii_lowercase())
}

fn first_address(call: &Call<'_>, field: &str) -> Option<String> {
    call.targets.mailboxes(field).into_iter().map(|(_, address)| address).find(|address| address.contains('@'))
}

/// `*` and `?` in list words.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

fn matches_list(words: Option<&Vec<String>>, address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    words.is_some_and(|words| words.iter().any(|word| glob(word.as_bytes(), address.as_bytes())))
}

fn listed(call: &Call<'_>, list: &str, field: &str) -> Option<String> {
    let words = call.lists.get(list)?;
    call.targets.mailboxes(field).into_iter().map(|(_, address)| address).find(|a| matches_list(Some(words), a))
}

fn address_list(call: &Call<'_>, field: &str) -> Option<String> {
    let words = call.lists.get(&format!("enlist_addrlist:{}", argument(call, 0).to_ascii_lowercase()))?;
    first_address(call, field).filter(|address| matches_list(Some(words), address))
}

fn is_freemail(call: &Call<'_>, address: &str) -> bool {
    let Some(domain) = domain_of(address) else { return false };
    let words = call.lists.get("freemail_domains");
    let excepted = ["freemail_whitelist", "freemail_welcomelist"]
        .iter()
        .any(|list| call.lists.get(*list).is_some_and(|words| words.iter().any(|w| *w == address || *w == domain)));
    !excepted && words.is_some_and(|words| words.iter().any(|word| glob(word.as_bytes(), domain.as_bytes())))
}

fn freemail(call: &Call<'_>, fields: &[&str]) -> Option<String> {
    fields.iter().flat_map(|field| call.targets.mailboxes(field)).map(|(_, a)| a).find(|a| is_freemail(call, a))
}

fn check_freemail_header(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).to_ascii_lowercase();
    let name = name.split(':').next().unwrap_or_default();
    if name == "envelopefrom" {
        return call.targets.envelope_from().filter(|address| is_freemail(call, address));
    }
    freemail(call, &[name])
}

/// Mail from one freemail address that wants the answer at another.
fn check_freemail_replyto(call: &Call<'_>) -> Option<String> {
    let reply = first_address(call, "reply-to").filter(|address| is_freemail(call, address))?;
    let from = first_address(call, "from")?;
    let other = !from.eq_ignore_ascii_case(&reply);
    let holds = match argument(call, 0) {
        "reply" => other,
        _ => other && is_freemail(call, &from),
    };
    holds.then_some(reply)
}

fn check_for_matching_env_and_hdr_from(call: &Call<'_>) -> Option<String> {
    let envelope = call.targets.envelope_from()?;
    let from = first_address(call, "from")?;
    from.eq_ignore_ascii_case(&envelope).then_some(envelope)
}

/// The sender's domain is that of the server which brought the message.
fn check_mailfrom_matches_rcvd(call: &Call<'_>) -> Option<String> {
    let domain = domain_of(&call.targets.envelope_from()?)?;
    let domain = registered_domain(&domain)?.to_owned();
    let relay = call.targets.relays().external.first()?;
    let name = relay.reverse_name.to_ascii_lowercase();
    (registered_domain(&name) == Some(domain.as_str())).then_some(name)
}

fn check_all_trusted(call: &Call<'_>) -> Option<String> {
    let relays = call.targets.relays();
    flag(!relays.trusted.is_empty() && relays.external.is_empty() && relays.unparseable == 0)
}

/// A display name that shows an address other than the sender's own.
fn check_from_name_has_other_address(call: &Call<'_>) -> Option<String> {
    for (name, address) in call.targets.mailboxes("from") {
        let own = domain_of(&address)?;
        let own = registered_domain(&own).unwrap_or(&own).to_owned();
        for word in name.split([' ', '<', '>', '"', '(', ')', '\'', ',', ';']) {
            let Some((local, domain)) = word.split_once('@') else { continue };
            let domain = domain.trim_end_matches('.').to_ascii_lowercase();
            let Some(shown) = registered_domain(&domain) else { continue };
            if !local.is_empty() && shown != own {
                return Some(format!("{name} <{address}>"));
            }
        }
    }
    None
}

fn check_from_is_to(call: &Call<'_>) -> Option<String> {
    let from = first_address(call, "from")?;
    first_address(call, "to").filter(|to| to.eq_ignore_ascii_case(&from))
}

fn check_header_count_range(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).to_ascii_lowercase();
    let values: HashSet<String> = call.targets.values(&name).collect();
    let count = size(values.len());
    let holds = number(call, 1).is_none_or(|low| count >= low) && number(call, 2).is_none_or(|high| count <= high);
    holds.then(|| format!("{name}: {count}"))
}

/// Share of characters above ASCII in a raw field: `('Subject', ratio, count)`.
fn check_illegal_chars(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).to_ascii_lowercase();
    let text: String = call.targets.raw_values(&name).collect();
    let high = text.chars().filter(|c| !c.is_ascii()).count();
    let ratio = size(high) / size(text.chars().count().max(1));
    // Clean UTF-8 is legal since RFC 6532.
    let broken = text.contains('\u{fffd}');
    flag(broken && ratio >= number(call, 1)? && size(high) >= number(call, 2).unwrap_or(0.0))
}

/// Hours between the `Date` field and when the message came.
fn hours_off(targets: &Targets<'_>) -> Option<f64> {
    let date = targets.values("date").next().and_then(|text| mail::date::parse_rfc5322(&text))?;
    let newest = || {
        let value = targets.values("received").next()?;
        mail::date::parse_rfc5322(value.rsplit_once(';')?.1)
    };
    let came: UtcMillis = targets.context().received_at.or_else(newest)?;
    #[expect(clippy::cast_precision_loss, reason = "hours need no exactness")]
    Some((date.0 - came.0) as f64 / 3_600_000.0)
}

fn check_for_shifted_date(call: &Call<'_>) -> Option<String> {
    let hours = hours_off(call.targets)?;
    let holds = number(call, 0).is_none_or(|low| hours >= low) && number(call, 1).is_none_or(|high| hours < high);
    holds.then(|| format!("{hours:.0} hours"))
}

/// The recipient's name in the subject: `('user')` its local part, `('address')` the whole.
fn check_for_to_in_subject(call: &Call<'_>) -> Option<String> {
    let subject = call.targets.subject().to_ascii_lowercase();
    let address = first_address(call, "to")?.to_ascii_lowercase();
    let wanted = if argument(call, 0) == "address" { address.as_str() } else { address.split('@').next()? };
    let word = subject.split(|c: char| c.is_whitespace() || ",;:!?<>()".contains(c)).any(|word| word == wanted);
    (wanted.len() > 2 && word).then(|| wanted.to_owned())
}

fn subject_is_all_caps(call: &Call<'_>) -> Option<String> {
    let subject = call.targets.subject();
    let letters: Vec<char> = subject.chars().filter(|c| c.is_alphabetic()).collect();
    let words = subject.split_whitespace().filter(|word| word.len() > 1).count();
    (letters.len() >= 10 && words >= 2 && letters.iter().all(|c| !c.is_lowercase() && c.is_uppercase()))
        .then_some(subject)
}

fn check_for_uppercase(call: &Call<'_>) -> Option<String> {
    let (mut upper, mut letters) = (0, 0);
    for byte in call.targets.body().iter().skip(1).flatten() {
        letters += usize::from(byte.is_ascii_alphabetic());
        upper += usize::from(byte.is_ascii_uppercase());
    }
    let percent = 100.0 * size(upper) / size(letters.max(1));
    (letters >= 200 && between(call, 0, percent)).then(|| format!("{percent:.0} %"))
}

/// Bytes of the rendered text, without the subject.
fn check_body_length(call: &Call<'_>) -> Option<String> {
    let length: usize = call.targets.body().iter().skip(1).map(|piece| piece.trim_ascii().len()).sum();
    (size(length) < number(call, 0)?).then(|| format!("{length} bytes"))
}

fn check_abundant_unicode_ratio(call: &Call<'_>) -> Option<String> {
    let text = String::from_utf8_lossy(&call.targets.raw_body().text);
    let coded = text.matches("&#").count() * 6 + text.matches("\\u").count() * 6;
    let ratio = size(coded) / size(text.len().max(1));
    (ratio > number(call, 0)?).then(|| format!("{ratio:.2}"))
}

/// Invisible characters inside words.
fn check_zero_width(call: &Call<'_>) -> Option<String> {
    let body = String::from_utf8_lossy(&call.targets.body().text);
    let mut count = 0_usize;
    let mut before = ' ';
    let mut characters = body.chars().peekable();
    while let Some(character) = characters.next() {
        let inside = before.is_ascii_alphabetic() && characters.peek().is_some_and(char::is_ascii_alphabetic);
        count += usize::from(is_zero_width(character) && inside);
        before = character;
    }
    (size(count) >= number(call, 0).unwrap_or(1.0)).then(|| format!("{count} invisible characters"))
}

/// Letters of two scripts in one word of the sender's name or the subject, as look-alikes need.
fn check_mixed_script_names(call: &Call<'_>) -> Option<String> {
    let names = call.targets.mailboxes("from").into_iter().map(|(name, _)| name);
    let texts: Vec<String> = names.chain(std::iter::once(call.targets.subject())).collect();
    let mixed = |word: &str| {
        let latin = word.chars().any(|c| c.is_ascii_alphabetic());
        latin
            && word
                .chars()
                .any(|c| matches!(c, '\u{370}'..='\u{3ff}' | '\u{400}'..='\u{52f}' | '\u{13a0}'..='\u{13ff}'))
    };
    texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).find(|w| mixed(w)).map(str::to_owned)
}

fn check_for_mime(call: &Call<'_>) -> Option<String> {
    let parts = call.targets.parts();
    let texts = || parts.iter().filter(|part| part.media_type.starts_with("text/"));
    let encoding = |part: &&Part, name: &str| part.encoding == name;
    match argument(call, 0) {
        "mime_base64_count" => flag(parts.iter().filter(|part| encoding(part, "base64")).count() > 0),
        "mime_base64_encoded_text" => {
            // UTF-8 and other wide text has a reason to be base64.
            flag(texts().any(|part| {
                !part.is_attachment
                    && encoding(&part, "base64")
                    && matches!(part.charset.as_deref(), None | Some("us-ascii"))
            }))
        }
        "mime_qp_count" => flag(parts.iter().any(|part| part.encoding == "quoted-printable")),
        "mime_html_no_charset" => flag(texts().any(|part| part.is_html() && part.charset.is_none())),
        "mime_missing_boundary" => flag(parts.iter().any(|part| {
            part.media_type.starts_with("multipart/") && part.defects.iter().any(|d| d.contains("boundary"))
        })),
        _ => None,
    }
}

fn check_for_mime_html_only(call: &Call<'_>) -> Option<String> {
    let plain = call.targets.parts().iter().any(|part| part.media_type == "text/plain" && !part.is_attachment);
    flag(has_html(call) && !plain)
}

/// `multipart/alternative` that holds more than ways to say the same.
fn check_ma_non_text(call: &Call<'_>) -> Option<String> {
    let parts = call.targets.parts();
    let alternative = parts.first().is_some_and(|part| part.media_type == "multipart/alternative");
    let other = parts.iter().find(|p| p.media_type.starts_with("application/") && !p.media_type.ends_with("ics"));
    other.filter(|_| alternative).map(|part| part.media_type.clone())
}

fn check_mime_multipart_ratio(call: &Call<'_>) -> Option<String> {
    let length = |kind: &str| {
        let texts = call.targets.parts().iter().filter(|p| p.media_type == kind);
        texts.filter_map(|p| p.text.as_deref()).map(|text| text.trim().len()).sum::<usize>()
    };
    let html = length("text/html");
    let ratio = size(length("text/plain")) / size(html.max(1));
    flag(html > 0 && between(call, 0, ratio))
}

/// Percent of the words of the plain part that the HTML part does not show.
fn multipart_alternative_difference(call: &Call<'_>) -> Option<String> {
    let parts = call.targets.parts();
    if !parts.iter().any(|part| part.media_type == "multipart/alternative") {
        return None;
    }
    let plain: String = parts.iter().filter(|p| p.media_type == "text/plain").filter_map(|p| p.text.clone()).collect();
    let shown: HashSet<&str> = call.targets.html().text.split_whitespace().collect();
    let words: HashSet<&str> =
        plain.split_whitespace().filter(|word| word.len() > 2 && !word.contains("://")).collect();
    if words.len() < 5 || shown.is_empty() {
        return None;
    }
    let missing = words.iter().filter(|word| !shown.contains(**word)).count();
    let percent = 100.0 * size(missing) / size(words.len());
    between(call, 0, percent).then(|| format!("{percent:.0} % differ"))
}

/// What is wrong with the message's form: `truncated_headers`, `missing_head_body_separator`, …
fn check_msg_parse_flags(call: &Call<'_>) -> Option<String> {
    let wanted = argument(call, 0);
    let holds = match wanted {
        "missing_head_body_separator" => {
            let message = call.targets.message();
            mail::header::body_offset(message) == message.len()
                && !message.ends_with(b"\n\n")
                && !message.ends_with(b"\n\r\n")
        }
        "missing_mime_headers" => call.targets.has_field("content-type") && !call.targets.has_field("mime-version"),
        "mime_epilogue_exists" => call.targets.parts().iter().any(|p| p.defects.iter().any(|d| d.contains("epilogue"))),
        _ => return None,
    };
    flag(holds)
}

fn check_base64_length(call: &Call<'_>) -> Option<String> {
    for part in call.targets.parts().iter().filter(|part| part.encoding == "base64") {
        let longest = longest_line(call.targets.message(), part.size);
        if between(call, 0, size(longest)) && longest > 0 {
            return Some(format!("{longest} bytes"));
        }
    }
    None
}

/// The longest line made of base64 alone.
fn longest_line(message: &[u8], size_min: usize) -> usize {
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let lines = message.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    lines.filter(|line| line.len() <= size_min && line.iter().all(is_base64)).map(<[u8]>::len).max().unwrap_or(0)
}

const EXECUTABLE: &[&str] = &[
    "bat", "chm", "cmd", "com", "cpl", "exe", "hta", "iso", "img", "jar", "js", "jse", "lnk", "msi", "pif", "ps1",
    "reg", "scr", "vb", "vbe", "vbs", "vhd", "wsf", "wsh", "xll",
];

fn ending(name: &str) -> Option<String> {
    name.trim().trim_end_matches('.').rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase())
}

fn check_microsoft_executable(call: &Call<'_>) -> Option<String> {
    let mut parts = call.targets.parts().iter();
    let found = parts.find(|part| part.magic.starts_with(b"MZ") && !part.media_type.starts_with("text/"));
    found.map(|part| part.file_name.clone().unwrap_or_default())
}

/// File names: `('executable')`, `('double')` for `invoice.pdf.exe`, `('html')`, `('archive')`, `('macro')`.
fn check_attachment_name(call: &Call<'_>) -> Option<String> {
    let is = |name: &str| -> bool {
        let Some(last) = ending(name) else { return false };
        match argument(call, 0) {
            "executable" => EXECUTABLE.contains(&last.as_str()),
            "double" => {
                let before = name.rsplit_once('.').and_then(|(stem, _)| ending(stem));
                let document = ["pdf", "doc", "docx", "xls", "xlsx", "jpg", "jpeg", "png", "txt", "html", "rtf", "mp3"];
                EXECUTABLE.contains(&last.as_str()) && before.is_some_and(|b| document.contains(&b.trim()))
            }
            "html" => matches!(last.as_str(), "htm" | "html" | "shtml" | "xhtml" | "svg"),
            "archive" => {
                matches!(last.as_str(), "zip" | "rar" | "7z" | "gz" | "ace" | "arj" | "cab" | "z" | "r00" | "xz")
            }
            "macro" => {
                matches!(last.as_str(), "docm" | "xlsm" | "xlsb" | "pptm" | "dotm" | "xltm" | "ppam" | "slk" | "one")
            }
            _ => false,
        }
    };
    call.targets.parts().iter().filter_map(|part| part.file_name.as_deref()).find(|name| is(name)).map(str::to_owned)
}

/// A declared type that the first bytes contradict.
fn check_attachment_type_mismatch(call: &Call<'_>) -> Option<String> {
    for part in call.targets.parts() {
        let last = part.file_name.as_deref().and_then(ending).unwrap_or_default();
        let says_document = part.media_type.starts_with("image/")
            || part.media_type == "application/pdf"
            || matches!(last.as_str(), "pdf" | "jpg" | "jpeg" | "png" | "gif");
        let is_other = part.magic.starts_with(b"MZ")
            || part.magic.starts_with(b"PK\x03\x04")
            || part.magic.starts_with(b"Rar!")
            || part.magic.to_ascii_lowercase().windows(5).any(|w| w == b"<html");
        if says_document && is_other && part.media_type != "image/svg+xml" {
            return Some(part.file_name.clone().unwrap_or_else(|| part.media_type.clone()));
        }
    }
    None
}

fn check_uri_host_listed(call: &Call<'_>) -> Option<String> {
    let words = call.lists.get(&format!("enlist_uri_host:{}", argument(call, 0).to_ascii_lowercase()))?;
    for name in hosts(call) {
        let mut rest = name.as_str();
        loop {
            if words.iter().any(|word| word == rest) {
                return Some(name);
            }
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => break,
            }
        }
    }
    None
}

fn hosts(call: &Call<'_>) -> Vec<String> {
    call.targets.links().as_slice().iter().filter_map(|link| host(&link.url)).collect()
}

fn short_url(call: &Call<'_>) -> Option<String> {
    let words = call.lists.get("url_shortener")?;
    let known = |name: &String| {
        let name = name.trim_start_matches("www.");
        words.iter().any(|word| word.trim_start_matches('.') == name)
    };
    hosts(call).into_iter().find(known)
}

/// A link that shows one `https` host and leads to another, or to a bare address.
fn link_mismatch(call: &Call<'_>, to_ip: bool) -> Option<String> {
    for anchor in &call.targets.html().links {
        let text = anchor.text.trim().to_ascii_lowercase();
        let (Some(shown), Some(real)) = (host(&text), host(&anchor.href)) else { continue };
        let is_ip = real.parse::<std::net::IpAddr>().is_ok();
        let differs = registered_domain(&shown) != registered_domain(&real);
        if text.starts_with("https://") && differs && is_ip == to_ip && anchor.href.starts_with("http") {
            return Some(format!("shows {shown}, leads to {real}"));
        }
    }
    None
}

/// A link whose text is a host name, and whose target is on another registered domain.
fn link_text_names_other_host(call: &Call<'_>) -> Option<String> {
    let own = first_address(call, "from").and_then(|address| domain_of(&address)).unwrap_or_default();
    for anchor in &call.targets.html().links {
        let text = anchor.text.trim().to_ascii_lowercase();
        let text = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
        let name = text.split(['/', '?', ' ']).next().unwrap_or_default().trim_start_matches("www.");
        let plausible =
            name.contains('.') && !name.contains('@') && psl::suffix(name.as_bytes()).is_some_and(|s| s.is_known());
        let (Some(shown), Some(real)) = (registered_domain(name), host(&anchor.href)) else { continue };
        let real_domain = registered_domain(&real).unwrap_or(&real);
        // A sender's own click counter is everyday business.
        if plausible && real_domain != shown && registered_domain(&own) != Some(real_domain) {
            return Some(format!("shows {shown}, leads to {real}"));
        }
    }
    None
}

fn html_test(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    flag(match argument(call, 0) {
        "form_action_mailto" => {
            html.form_action.as_deref().is_some_and(|action| action.to_ascii_lowercase().starts_with("mailto:"))
        }
        "has_form" => html.form_action.is_some(),
        "javascript" => html.count("script") > 0 || html.has_script_handler,
        "font_low_contrast" => html.hidden > 0,
        "embeds" => html.count("embed") + html.count("object") + html.count("applet") > 0,
        "unknown_elements" => html.unknown_elements > 5,
        _ => return None,
    })
}

fn html_eval(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    let value = match argument(call, 0) {
        "title" => size(html.titles.len()),
        "hidden" => size(html.hidden),
        _ => return None,
    };
    let rule = argument(call, 1);
    let number = |text: &str| text.trim().parse::<f64>().ok();
    flag(match rule.get(..1)? {
        ">" => value > number(&rule[1..])?,
        "<" => value < number(&rule[1..])?,
        _ => false,
    })
}

fn html_range(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    if html.bytes == 0 {
        return None;
    }
    let value = match argument(call, 0) {
        "ratio" => size(html.tag_bytes) / size(html.bytes),
        "length" => size(html.bytes),
        "backhair_count" | "unknown_elements" => f64::from(html.unknown_elements),
        _ => return None,
    };
    between(call, 1, value).then(|| format!("{value:.2}"))
}

fn html_hidden_share(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    let share = html.hidden_share();
    (html.hidden >= 40 && share >= number(call, 0)?).then(|| format!("{:.0} % hidden", share * 100.0))
}

/// Few letters beside images: `(low, high)` in bytes.
fn html_image_only(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    (html.images > 0 && between(call, 0, size(html.visible))).then(|| format!("{} letters", html.visible))
}

fn html_image_ratio(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    if html.image_area == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no exactness")]
    let ratio = size(html.visible) / html.image_area as f64;
    flag(between(call, 0, ratio))
}

/// `('tag', '> 1')`: opened less closed.
fn html_tag_balance(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    let name = argument(call, 0).to_ascii_lowercase();
    let opened = html.count(&name);
    let closed = html.closed.get(&name).copied().unwrap_or(0);
    if opened + closed == 0 {
        return None;
    }
    let balance = f64::from(opened) - f64::from(closed);
    let rule = argument(call, 1).trim();
    let end = rule.find(|c: char| c.is_ascii_digit() || c == '-')?;
    let limit: f64 = rule[end..].trim().parse().ok()?;
    flag(match rule[..end].trim() {
        ">" => balance > limit,
        "<" => balance < limit,
        ">=" => balance >= limit,
        "<=" => balance <= limit,
        "!=" => balance != limit,
        "==" => balance == limit,
        _ => false,
    })
}

/// A pattern on titles, comments or link texts.
fn html_text_match(call: &Call<'_>) -> Option<String> {
    let html = call.targets.html();
    let texts: Vec<&str> = match argument(call, 0) {
        "title" => html.titles.iter().map(String::as_str).collect(),
        "comment" => html.comments.iter().map(String::as_str).collect(),
        "anchor" => html.links.iter().map(|link| link.text.as_str()).collect(),
        _ => return None,
    };
    let pattern = call.pattern?;
    texts.into_iter().find(|text| pattern.is_match(text.as_bytes())).map(str::to_owned)
}
