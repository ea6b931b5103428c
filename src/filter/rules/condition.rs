//! `if` lines: whether the lines up to `else` or `endif` count.

/// The version of SpamAssassin whose rule language this engine speaks.
const VERSION: f64 = 4.000_001;

/// What counts as there beyond what always does: plugins by their last name.
pub type Extra = [&'static str];

/// Evaluates what follows `if`: `version >= 3.4`, `plugin(..)`, `can(..)`, `has(..)`, `!`, `&&`, `||`, brackets.
pub fn holds(text: &str, extra: &Extra) -> Result<bool, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, extra, at: 0, depth: 0 };
    let value = parser.either()?;
    if parser.at < tokens.len() {
        return Err(format!("unexpected `{}` in the condition", tokens[parser.at]));
    }
    Ok(value != 0.0)
}

/// True for the SpamAssassin plugins whose rules and functions are built in here, at least in part.
pub fn has_plugin(name: &str, extra: &Extra) -> bool {
    let name = name.strip_prefix("Mail::SpamAssassin::Plugin::");
    name.is_some_and(|name| PLUGINS.contains(&name) || extra.contains(&name))
}

const PLUGINS: &[&str] = &[
    "AskDNS",
    "AutoLearnThreshold",
    "Bayes",
    "BodyEval",
    "Check",
    "DKIM",
    "DMARC",
    "DNSEval",
    "DecodeShortURLs",
    "FreeMail",
    "HTMLEval",
    "HTTPSMismatch",
    "HashBL",
    "HeaderEval",
    "ImageInfo",
    "MIMEEval",
    "MIMEHeader",
    "Pyzor",
    "Razor2",
    "RelayEval",
    "ReplaceTags",
    "SPF",
    "SpamCop",
    "URIDNSBL",
    "URIDetail",
    "URIEval",
    "VBounce",
    "WLBLEval",
    "WelcomeListSubject",
];

/// What `can()` and `has()` are asked for, without the module's name.
const FEATURES: &[&str] = &[
    "feature_askdns_has_tag_plugin",
    "feature_bayes_auto_learn_on_error",
    "feature_bayes_stopwords",
    "feature_blocklist_welcomelist",
    "feature_bug6558_free",
    "feature_capture_rules",
    "feature_dns_block_rule",
    "feature_dns_local_ports_permit_avoid",
    "feature_dns_query_restriction",
    "feature_edns",
    "feature_get_host",
    "feature_header_address_parser",
    "feature_header_match_many",
    "feature_local_tests_only",
    "feature_originating_ip_headers",
    "feature_registryboundaries",
    "feature_short_url",
    "feature_subjprefix",
    "feature_uri_host_listed",
    "feature_welcomelist_blocklist",
    "feature_yesno_takes_args",
    "has_arc",
    "has_autoclean",
    "has_check_abundant_unicode_ratio",
    "has_check_body_length",
    "has_check_for_ascii_text_illegal",
    "has_check_for_spf_errors",
    "has_check_qp_ratio",
    "has_clear",
    "has_get",
    "has_plaintext_body_sig_ratio",
    "has_raw",
    "has_short_url",
    "has_short_url_code",
    "has_subtest_for_ranges",
    "has_tflags_concat",
    "has_tflags_domains_only",
    "has_tflags_multiple",
    "has_tflags_nolog",
    "has_tflags_nosubject",
    "has_tflags_range",
    "has_uri_host_listed",
    "has_uridnsbl_for_a",
    "perl_min_version_5010000",
];

fn has_feature(path: &str, extra: &Extra) -> bool {
    let name = path.rsplit("::").next().unwrap_or(path);
    let module_known = !path.contains("::Plugin::")
        || path.rsplit_once("::").is_some_and(|(module, _)| has_plugin(module, extra) || has_plugin(path, extra));
    module_known && (FEATURES.contains(&name) || has_plugin(path, extra))
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if ["&&", "||", ">=", "<=", "==", "!="].iter().any(|op| rest.starts_with(op)) {
            2
        } else if "!()<>".contains(first) {
            1
        } else {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:.'".contains(c))).unwrap_or(rest.len())
        };
        if length == 0 {
            return Err(format!("cannot read `{rest}` in the condition"));
        }
        out.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(out)
}

struct Parser<'a> {
    tokens: &'a [String],
    extra: &'a Extra,
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t == token);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<f64, String> {
        let mut value = self.both()?;
        while self.take("||") {
            let other = self.both()?;
            value = truth(value != 0.0 || other != 0.0);
        }
        Ok(value)
    }

    fn both(&mut self) -> Result<f64, String> {
        let mut value = self.comparison()?;
        while self.take("&&") {
            let other = self.comparison()?;
            value = truth(value != 0.0 && other != 0.0);
        }
        Ok(value)
    }

    fn comparison(&mut self) -> Result<f64, String> {
        let left = self.unary()?;
        for (token, compare) in COMPARISONS {
            if self.take(token) {
                let right = self.unary()?;
                return Ok(truth(compare(&left, &right)));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > 100 {
            return Err("the condition is nested too deeply".to_owned());
        }
        let value = self.atom();
        self.depth -= 1;
        value
    }

    fn atom(&mut self) -> Result<f64, String> {
        if self.take("!") {
            return Ok(truth(self.unary()? == 0.0));
        }
        if self.take("(") {
            let value = self.either()?;
            return if self.take(")") { Ok(value) } else { Err("a bracket is not closed in the condition".to_owned()) };
        }
        let word = self.tokens.get(self.at).ok_or("the condition ends too early")?.clone();
        self.at += 1;
        if word == "version" {
            return Ok(VERSION);
        }
        if let Ok(number) = word.parse::<f64>() {
            return Ok(number);
        }
        let ask: fn(&str, &Extra) -> bool = match word.as_str() {
            "plugin" => has_plugin,
            "can" | "has" => has_feature,
            "local_tests_only" => return Ok(0.0),
            _ => return Err(format!("unknown word `{word}` in the condition")),
        };
        let argument = if self.take("(") { self.tokens.get(self.at).cloned() } else { None };
        self.at += 1;
        match argument {
            Some(name) if self.take(")") => Ok(truth(ask(name.trim_matches('\''), self.extra))),
            _ => Err(format!("`{word}` needs a name in brackets")),
        }
    }
}

type Compare = fn(&f64, &f64) -> bool;

const COMPARISONS: [(&str, Compare); 6] =
    [(">=", f64::ge), ("<=", f64::le), ("==", f64::eq), ("!=", f64::ne), (">", f64::gt), ("<", f64::lt)];

const fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        for (text, expected) in [
            ("(version >= 3.004000)", true),
            ("version < 4", false),
            ("!plugin(Mail::SpamAssassin::Plugin::ReplaceTags)", false),
            ("plugin(Mail::SpamAssassin::Plugin::TextCat) || (version > 3)", true),
            ("can(Mail::SpamAssassin::Conf::feature_bug6558_free)", true),
            ("can(Mail::SpamAssassin::Conf::feature_of_the_future)", false),
            ("!(can(Mail::SpamAssassin::Plugin::BodyEval::has_check_body_length))", false),
        ] {
            assert_eq!(holds(text, &[]), Ok(expected), "{text}");
        }
        for text in ["", "(", "version >=", "can()", "moon(x)", "1 1", "\u{e4}", &"(".repeat(5000)] {
            assert!(holds(text, &[]).is_err(), "{text}");
        }
        let asked = "plugin(Mail::SpamAssassin::Plugin::RelayCountry)";
        assert_eq!((holds(asked, &[]), holds(asked, &["RelayCountry"])), (Ok(false), Ok(true)));
    }
}
