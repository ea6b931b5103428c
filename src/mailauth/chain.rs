//! What the first forwarder of a message says it saw (RFC 8617 §4.1.1), for whoever trusts it. Pure.

/// One sealed set of an intact chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedSet {
    /// `d=` of the seal, lower case.
    pub sealer: String,
    /// Text of its `ARC-Authentication-Results`, unfolded or not.
    pub results: String,
}

/// A chain is believed only if each forwarder is trusted: the first made the claim, and any later one could have changed
/// the message below it.
pub fn vouches(chain: &[SealedSet], author: &str, is_trusted: impl Fn(&str) -> bool) -> bool {
    let Some(first) = chain.first() else { return false };
    !author.is_empty() && chain.iter().all(|set| is_trusted(&set.sealer)) && proves(&first.results, author)
}

/// True if the results say that DMARC passed for `author`; or, where they are silent on DMARC, that a signature or SPF
/// passed for the same domain or one that it lies in, or that lies in it.
fn proves(results: &str, author: &str) -> bool {
    let author = author.to_ascii_lowercase();
    let results = results.get(..results.floor_char_boundary(RESULTS_BYTES_MAX)).unwrap_or_default();
    let text = without_comments(results).to_ascii_lowercase();
    let mut dmarc = None;
    let mut aligned = false;
    for method in text.split(';').skip(1) {
        let mut words = method.split_ascii_whitespace();
        let Some((name, result)) = words.next().and_then(|word| word.split_once('=')) else { continue };
        let values: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let is_of = |property: &str| values.iter().any(|(name, value)| *name == property && is_aligned(value, &author));
        match name {
            // The set's own name of the author is no more than a claim of the same forwarder.
            "dmarc" => dmarc = Some(result == "pass" && (is_of("header.from") || values.is_empty())),
            "dkim" => aligned |= result == "pass" && (is_of("header.d") || is_of("header.i")),
            "spf" => aligned |= result == "pass" && is_of("smtp.mailfrom"),
            _ => {}
        }
    }
    dmarc.unwrap_or(aligned)
}

/// Results beyond are not read.
const RESULTS_BYTES_MAX: usize = 16 << 10;

fn is_aligned(value: &str, author: &str) -> bool {
    let domain = value.trim_matches('"').rsplit('@').next().unwrap_or_default().trim_end_matches('.');
    let within = |inner: &str, outer: &str| {
        outer.contains('.') && inner.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    within(domain, author) || within(author, domain)
}

/// Comments may hold anything, also what looks like a result (RFC 8601 §2.2).
fn without_comments(text: &str) -> String {
    let (mut out, mut depth, mut escaped) = (String::new(), 0_usize, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(character),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(sets: &[(&str, &str)]) -> Vec<SealedSet> {
        sets.iter()
            .map(|(sealer, results)| SealedSet { sealer: (*sealer).into(), results: (*results).into() })
            .collect()
    }

    #[test]
    fn only_trusted_forwarders_vouch() {
        let trusted = |sealer: &str| matches!(sealer, "list.test" | "relay.test");
        let pass = "i=1; mx.list.test; dmarc=pass header.from=author.test";
        for (sets, expected) in [
            (&[("list.test", pass)][..], true),
            (&[("list.test", pass), ("relay.test", "i=2; x; dmarc=fail")], true),
            // Whoever is not trusted may have made it up, or changed the message on the way.
            (&[("evil.test", pass), ("list.test", pass)], false),
            (&[("list.test", pass), ("evil.test", pass)], false),
            (&[], false),
        ] {
            assert_eq!(vouches(&chain(sets), "author.test", trusted), expected, "{sets:?}");
        }
        assert!(!vouches(&chain(&[("list.test", pass)]), "", trusted));
    }

    #[test]
    fn results_must_be_of_the_author() {
        for (results, expected) in [
            ("mx; dmarc=pass (p=reject) header.from=Author.test", true),
            ("i=1; mx;\r\n dkim=pass header.d=author.test;\r\n spf=fail smtp.mailfrom=x@list.test", true),
            ("mx; dkim=pass header.i=@mail.author.test", true),
            ("mx; spf=pass smtp.mailfrom=a@author.test", true),
            ("mx; dkim=pass header.d=other.test", false),
            ("mx; dkim=pass header.d=test", false),
            ("mx; dkim=pass header.d=notauthor.test", false),
            ("mx; dmarc=fail header.from=author.test; dkim=pass header.d=author.test", false),
            ("mx; dmarc=pass header.from=other.test", false),
            ("mx; spf=none (; dmarc=pass) smtp.mailfrom=author.test", false),
            ("dmarc=pass header.from=author.test", false),
            ("mx; none", false),
            ("", false),
        ] {
            assert_eq!(proves(results, "author.test"), expected, "{results}");
        }
    }
}
