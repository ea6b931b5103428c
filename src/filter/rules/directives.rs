//! Directives that are no rules: lists, networks, and settings that mean nothing here.

use super::parse::Source;
use super::problem::Location;
use super::regex::{Pattern, PatternText};

/// Lists of words for the functions in [`super::eval`], each name in its newer form.
const LISTS: &[&str] = &[
    "all_spam_to",
    "blocklist_from",
    "blocklist_to",
    "def_welcomelist_auth",
    "def_welcomelist_from_dkim",
    "def_welcomelist_from_spf",
    "freemail_domains",
    "freemail_welcomelist",
    "more_spam_to",
    "url_shortener",
    "welcomelist_allows_relays",
    "welcomelist_auth",
    "welcomelist_bounce_relays",
    "welcomelist_from",
    "welcomelist_from_dkim",
    "welcomelist_from_spf",
    "welcomelist_to",
];

/// The whole rest of the line is one entry.
const WHOLE_LINES: &[&str] =
    &["blocklist_subject", "def_welcomelist_from_rcvd", "welcomelist_from_rcvd", "welcomelist_subject"];

/// Settings of SpamAssassin that do nothing here: reports, headers, learning and lookups are set elsewhere.
const IDLE: &[&str] = &[
    "add_header",
    "adsp_override",
    "allow_user_rules",
    "always_trust_envelope_sender",
    "body_part_scan_size",
    "clear_dns_servers",
    "clear_headers",
    "clear_report_template",
    "clear_unsafe_report_template",
    "descriptions",
    "enable_compat",
    "envelope_sender_header",
    "fold_headers",
    "full_message",
    "ignore_received_spf_header",
    "inactive_languages",
    "loadplugin",
    "lock_method",
    "max_short_url_redirections",
    "max_short_urls",
    "mbox_format_from_regex",
    "normalize_charset",
    "ok_languages",
    "ok_locales",
    "parse_dkim_uris",
    "rawbody_part_scan_size",
    "remove_header",
    "report",
    "reuse",
    "rewrite_header",
    "run_reuse_tests_only",
    "subjprefix",
    "time_limit",
    "tryplugin",
    "unsafe_report",
    "use_newest_received_spf_header",
    "version_tag",
];

/// The same by their first letters.
const IDLE_STARTS: &[&str] = &[
    "asn_",
    "authres_",
    "auto_welcomelist_",
    "bayes_",
    "clear_asn",
    "country_db_",
    "dcc_",
    "dccifd_",
    "dkim_",
    "dmarc_",
    "dns_",
    "do_not_use_",
    "extracttext_",
    "fns_",
    "freemail_",
    "geodb_",
    "hashbl_",
    "olemacro_",
    "phishing_",
    "pyzor_",
    "razor_",
    "rbl_",
    "report_",
    "shortcircuit",
    "spamcop_",
    "spf_",
    "textcat_",
    "trigger_",
    "txrep_",
    "unsafe_report_",
    "uri_block_",
    "uri_country_",
    "uridnsbl_",
    "url_shortener_",
    "use_",
    "user_awl_",
    "user_scores_",
];

/// `whitelist_from` is `welcomelist_from` since version 4.
pub fn newer_name(directive: &str) -> String {
    match directive {
        "required_hits" => return "required_score".to_owned(),
        "url_shortener_get" => return "url_shortener".to_owned(),
        _ => {}
    }
    directive.replace("whitelist", "welcomelist").replace("blacklist", "blocklist")
}

pub fn is_idle(directive: &str) -> bool {
    IDLE.contains(&directive) || IDLE_STARTS.iter().any(|start| directive.starts_with(start))
}

impl Source {
    /// True if the directive, in its newer form, is one of these.
    pub(super) fn setting(&mut self, directive: &str, rest: &str, at: &Location) -> Result<bool, String> {
        match directive {
            "enlist_addrlist" | "enlist_uri_host" => {
                let (list, words) = after_brackets(rest).ok_or_else(|| format!("`{directive}` needs `(NAME)`"))?;
                self.extend(&format!("{directive}:{}", list.to_ascii_lowercase()), words);
            }
            "delist_addrlist" | "delist_uri_host" => {
                let (list, words) = after_brackets(rest).unwrap_or(("", rest));
                let key = format!("en{}:{}", &directive[2..], list.to_ascii_lowercase());
                let matching: Vec<String> = self.lists.keys().filter(|name| name.starts_with(&key)).cloned().collect();
                matching.iter().for_each(|name| self.remove(name, words));
            }
            "blocklist_uri_host" => self.extend("enlist_uri_host:block", rest),
            "welcomelist_uri_host" => self.extend("enlist_uri_host:welcome", rest),
            "clear_url_shortener" if rest.is_empty() => {
                self.lists.remove("url_shortener");
            }
            "clear_url_shortener" => self.remove("url_shortener", rest),
            "trusted_networks" | "internal_networks" | "msa_networks" => self.settings.networks.add(directive, rest)?,
            "clear_trusted_networks" | "clear_internal_networks" | "clear_msa_networks" => {
                self.settings.networks.clear(directive.trim_start_matches("clear_"));
            }
            "util_rb_tld" | "util_rb_2tld" | "util_rb_3tld" => {
                let boundaries = &mut self.settings.boundaries;
                let list = match directive {
                    "util_rb_tld" => &mut boundaries.top,
                    "util_rb_2tld" => &mut boundaries.second,
                    _ => &mut boundaries.third,
                };
                list.extend(rest.split_ascii_whitespace().map(str::to_ascii_lowercase));
            }
            "clear_util_rb" => self.settings.boundaries = Default::default(),
            "originating_ip_headers" => {
                self.settings.originating_ip_headers.extend(rest.split_ascii_whitespace().map(str::to_ascii_lowercase));
            }
            "clear_originating_ip_headers" => self.settings.originating_ip_headers.clear(),
            "redirector_pattern" => {
                let pattern: PatternText = super::parse::whole_pattern(rest)?;
                let (pattern, hir) = Pattern::compile(&pattern)?;
                self.settings.redirectors.add(pattern, &hir);
            }
            _ if self.settings.lists.set(directive, rest)? => {}
            _ if LISTS.contains(&directive) => self.extend(directive, rest),
            _ if WHOLE_LINES.contains(&directive) => {
                let entry = rest.split_ascii_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
                self.lists.entry(directive.to_owned()).or_default().push(entry);
            }
            _ => {
                let Some(list) = directive.strip_prefix("un").filter(|list| list.contains("list_")) else {
                    return Ok(false);
                };
                if LISTS.contains(&list) {
                    self.remove(list, rest);
                    self.remove(&format!("def_{list}"), rest);
                } else if WHOLE_LINES.contains(&list) {
                    let gone = rest.to_ascii_lowercase();
                    if let Some(entries) = self.lists.get_mut(list) {
                        entries.retain(|entry| {
                            !gone.split_ascii_whitespace().any(|word| entry.split(' ').next() == Some(word))
                        });
                    }
                } else {
                    return Ok(false);
                }
            }
        }
        let _ = at;
        Ok(true)
    }

    fn extend(&mut self, key: &str, words: &str) {
        let list = self.lists.entry(key.to_owned()).or_default();
        list.extend(words.split_ascii_whitespace().map(str::to_ascii_lowercase));
    }

    fn remove(&mut self, key: &str, words: &str) {
        let gone = words.to_ascii_lowercase();
        if let Some(list) = self.lists.get_mut(key) {
            list.retain(|entry| !gone.split_ascii_whitespace().any(|word| word == entry));
        }
    }
}

/// `(NAME) words`
fn after_brackets(text: &str) -> Option<(&str, &str)> {
    text.trim_start().strip_prefix('(')?.split_once(')')
}
