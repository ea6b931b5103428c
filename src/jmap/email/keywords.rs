//! JMAP keywords and IMAP flags (RFC 8621 §4.1.1).

use serde_json::{Map, Value};
use store::{Flags, Keyword, SystemFlags};

use crate::error::SetError;

const SYSTEM: [(&str, SystemFlags); 4] = [
    ("$seen", SystemFlags::SEEN),
    ("$draft", SystemFlags::DRAFT),
    ("$flagged", SystemFlags::FLAGGED),
    ("$answered", SystemFlags::ANSWERED),
];

pub(crate) fn to_json(flags: &Flags) -> Value {
    let mut out = Map::new();
    for (name, flag) in SYSTEM {
        if flags.system.contains(flag) {
            out.insert(name.to_owned(), Value::Bool(true));
        }
    }
    for keyword in &flags.keywords {
        out.insert(keyword.as_str().to_ascii_lowercase(), Value::Bool(true));
    }
    Value::Object(out)
}

/// One keyword as a set of flags that holds it alone. `None` for what no keyword can be.
pub(crate) fn parse(name: &str) -> Option<Flags> {
    let lower = name.to_ascii_lowercase();
    match SYSTEM.iter().find(|(known, _)| *known == lower) {
        Some((_, flag)) => Some(Flags::system(*flag)),
        // IMAP's own marks that JMAP does not show.
        None if lower == "$recent" || lower == "$deleted" => None,
        None => {
            let keyword: Keyword = lower.parse().ok()?;
            Some(Flags { keywords: [keyword].into(), ..Flags::default() })
        }
    }
}

/// A whole `keywords` object: every value must be true.
pub(crate) fn parse_all(value: &Value) -> Result<Flags, SetError> {
    let wrong = |what: &str| SetError::property("keywords", what);
    let names = value.as_object().ok_or_else(|| wrong("must be an object"))?;
    let mut flags = Flags::default();
    for (name, value) in names {
        if value != &Value::Bool(true) {
            return Err(wrong("every value must be true"));
        }
        add(&mut flags, parse(name).ok_or_else(|| wrong("not a valid keyword"))?);
    }
    if flags.keywords.len() > Flags::KEYWORDS_MAX {
        return Err(SetError::new("tooManyKeywords", ""));
    }
    Ok(flags)
}

pub(crate) fn add(flags: &mut Flags, more: Flags) {
    flags.system = flags.system.with(more.system);
    flags.keywords.extend(more.keywords);
}

/// True if `flags` holds all of `wanted`.
pub(crate) fn holds(flags: &Flags, wanted: &Flags) -> bool {
    flags.system.contains(wanted.system) && wanted.keywords.is_subset(&flags.keywords)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_are_flags_in_lower_case() {
        let flags = parse_all(&json!({ "$Seen": true, "$draft": true, "Work": true })).unwrap();
        assert_eq!(to_json(&flags), json!({ "$seen": true, "$draft": true, "work": true }));
        assert!(holds(&flags, &parse("WORK").unwrap()) && !holds(&flags, &parse("$flagged").unwrap()));
        for bad in [json!({ "a": false }), json!({ "a b": true }), json!([]), json!({ "$deleted": true })] {
            assert!(parse_all(&bad).is_err(), "{bad}");
        }
    }
}
