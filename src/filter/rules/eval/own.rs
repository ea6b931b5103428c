//! Functions that only Ortler has: for its own rules.

use super::lists::is_freemail;
use super::{Call, Function, address_of, argument, domain_of, flag, number, size};
use crate::rules::html::is_zero_width;
use crate::rules::mime::Node;
use crate::rules::text;
use crate::url::{host, registered_domain};

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_entity_share", check_entity_share),
    ("check_mime_version_missing", |call| {
        flag(call.targets.has_field("content-type") && !call.targets.has_field("mime-version"))
    }),
    ("check_freemail_reply_elsewhere", check_freemail_reply_elsewhere),
    ("check_attachment_name", check_attachment_name),
    ("check_attachment_type_mismatch", check_attachment_type_mismatch),
    ("check_from_is_to", check_from_is_to),
    ("check_from_name_has_other_address", check_from_name_has_other_address),
    ("check_microsoft_executable", check_microsoft_executable),
    ("check_mixed_script_names", check_mixed_script_names),
    ("check_sender_domain_in_link_text", link_text_names_other_host),
    ("check_zero_width", check_zero_width),
];

/// Choices of `check_attachment_name`.
pub const ATTACHMENT_KINDS: &[&str] = &["archive", "double", "executable", "html", "macro"];

/// Share of the raw text that is written as references to characters.
fn check_entity_share(call: &Call<'_>) -> Option<String> {
    let text = &call.targets.raw_body().text;
    let coded =
        memchr::memmem::find_iter(text, b"&#").count() * 6 + memchr::memmem::find_iter(text, b"\\u").count() * 6;
    let ratio = size(coded) / size(text.len().max(1));
    (ratio > number(call, 0)?).then(|| format!("{ratio:.2}"))
}

/// The answer goes to a freemail address that is not the sender's.
fn check_freemail_reply_elsewhere(call: &Call<'_>) -> Option<String> {
    let reply = address_of(call, "reply-to").to_lowercase();
    let from = address_of(call, "from").to_lowercase();
    (is_freemail(call, &reply) && !from.is_empty() && from != reply).then_some(reply)
}

/// The first bytes, for telling a file's type.
fn magic(node: &Node) -> Vec<u8> {
    node.content(90).into_owned()
}

/// With encoded words read, which have no place there but are common.
fn file_name(node: &Node) -> Option<String> {
    let name = node.name.as_ref()?;
    Some(String::from_utf8_lossy(&text::decoded_header(name.as_bytes(), "")).into_owned())
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
    let from = address_of(call, "from");
    Some(address_of(call, "to")).filter(|to| !to.is_empty() && to.eq_ignore_ascii_case(&from))
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

const EXECUTABLE: &[&str] = &[
    "bat", "chm", "cmd", "com", "cpl", "exe", "hta", "iso", "img", "jar", "js", "jse", "lnk", "msi", "pif", "ps1",
    "reg", "scr", "vb", "vbe", "vbs", "vhd", "wsf", "wsh", "xll",
];

fn ending(name: &str) -> Option<String> {
    name.trim().trim_end_matches('.').rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase())
}

fn check_microsoft_executable(call: &Call<'_>) -> Option<String> {
    let leaves = call.targets.leaves();
    let found = leaves.iter().find(|node| !node.kind.starts_with("text/") && magic(node).starts_with(b"MZ"));
    found.map(|node| node.name.clone().unwrap_or_default())
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
    call.targets.leaves().into_iter().filter_map(file_name).find(|name| is(name))
}

/// A declared type that the first bytes contradict.
fn check_attachment_type_mismatch(call: &Call<'_>) -> Option<String> {
    for node in call.targets.leaves() {
        let name = file_name(node);
        let last = name.as_deref().and_then(ending).unwrap_or_default();
        let says_document = node.kind.starts_with("image/")
            || node.kind == "application/pdf"
            || matches!(last.as_str(), "pdf" | "jpg" | "jpeg" | "png" | "gif");
        if !says_document || node.kind == "image/svg+xml" {
            continue;
        }
        let magic = magic(node);
        let is_other = magic.starts_with(b"MZ")
            || magic.starts_with(b"PK\x03\x04")
            || magic.starts_with(b"Rar!")
            || magic.to_ascii_lowercase().windows(5).any(|w| w == b"<html");
        if is_other {
            return Some(name.unwrap_or_else(|| node.kind.clone()));
        }
    }
    None
}

/// A link whose text is a host name, and whose target is on another registered domain.
fn link_text_names_other_host(call: &Call<'_>) -> Option<String> {
    let own = domain_of(&address_of(call, "from")).unwrap_or_default();
    for anchor in call.targets.html().flat_map(|html| &html.links) {
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
