//! What was known of a message, as the log keeps it: from it, any other policy can be asked what it would have done.

use std::sync::Arc;

use base::UtcMillis;
use mail::{Enhanced, Status};
use serde_json::{Map, Value, json};

use crate::disposition::{Attachments, DmarcWish, ExternalWish, Facts, Greylisting, VirusState};
use crate::finding::Score;
use crate::list::SenderFacts;
use crate::option::AttachmentClass;

/// Files told of one message.
const FILES_MAX: usize = 20;

/// The facts, but for what is usual.
pub fn record(facts: &Facts) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    put("score", json!(facts.score.0));
    match &facts.virus {
        VirusState::NotScanned => {}
        VirusState::Clean => put("virus", json!("clean")),
        VirusState::Unavailable => put("virus", json!("unavailable")),
        VirusState::Found(name) => put("virus", json!({ "found": &**name })),
        VirusState::Suspected(name) => put("virus", json!({ "suspected": &**name })),
    }
    let classes = &facts.attachments.classes;
    if !classes.is_empty() {
        let told: Vec<Value> =
            classes.iter().take(FILES_MAX).map(|(class, path)| json!([class.as_str(), &**path])).collect();
        put("classes", told.into());
    }
    let extensions = &facts.attachments.extensions;
    if !extensions.is_empty() {
        let told: Vec<Value> =
            extensions.iter().take(FILES_MAX).map(|(extension, path)| json!([&**extension, &**path])).collect();
        put("extensions", told.into());
    }
    if facts.spf_failed {
        put("spf", json!(true));
    }
    match facts.dmarc {
        DmarcWish::Nothing => {}
        DmarcWish::Quarantine => put("dmarc", json!("quarantine")),
        DmarcWish::Reject => put("dmarc", json!("reject")),
    }
    match &facts.external {
        None => {}
        Some(ExternalWish::Quarantine { .. }) => put("milter", json!("quarantine")),
        Some(ExternalWish::Reject(_)) => put("milter", json!("reject")),
        Some(ExternalWish::Defer(_)) => put("milter", json!("defer")),
    }
    let grey = match facts.greylisting {
        Greylisting::Unknown => None,
        Greylisting::First => Some("first"),
        Greylisting::TooSoon => Some("too-soon"),
        Greylisting::CameAgain => Some("came-again"),
        Greylisting::Returns => Some("returns"),
    };
    if let Some(grey) = grey {
        put("grey", json!(grey));
    }
    for (name, is) in [("newsletter", facts.is_newsletter), ("own_domain", facts.is_own_domain_claimed)] {
        if is {
            put(name, json!(true));
        }
    }
    if let Some(country) = &facts.country {
        put("country", json!(&**country));
    }
    put("size", json!(facts.size_bytes));
    let sender = &facts.sender;
    for (name, address, is_proven) in
        [("author", &sender.author, sender.is_author_proven), ("envelope", &sender.envelope, sender.is_envelope_proven)]
    {
        if let Some(address) = address {
            put(name, json!([&**address, is_proven]));
        }
    }
    if let Some(client) = sender.client {
        put("client", json!(client.to_string()));
    }
    put("at", json!(facts.at.0));
    Value::Object(out)
}

/// What [`record`] wrote down; `None` for anything else.
pub fn recorded(value: &Value) -> Option<Facts> {
    let object = value.as_object()?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let is = |name: &str| object.get(name).and_then(Value::as_bool).unwrap_or(false);
    let score = Score(i32::try_from(object.get("score")?.as_i64()?).ok()?);
    let named = |name: &str| -> Option<Arc<str>> { object.get("virus")?.get(name)?.as_str().map(Arc::from) };
    let virus = match text("virus") {
        Some("clean") => VirusState::Clean,
        Some("unavailable") => VirusState::Unavailable,
        _ => match (named("found"), named("suspected")) {
            (Some(name), _) => VirusState::Found(name),
            (None, Some(name)) => VirusState::Suspected(name),
            (None, None) => VirusState::NotScanned,
        },
    };
    let pairs = |name: &str| -> Vec<(String, Arc<str>)> {
        let all = object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let pair = |one: &Value| Some((one.get(0)?.as_str()?.to_owned(), Arc::from(one.get(1)?.as_str()?)));
        all.iter().filter_map(pair).collect()
    };
    let class = |(class, path): (String, Arc<str>)| Some((AttachmentClass::from_word(&class)?, path));
    let attachments = Attachments {
        classes: pairs("classes").into_iter().filter_map(class).collect(),
        extensions: pairs("extensions").into_iter().map(|(extension, path)| (extension.into(), path)).collect(),
    };
    let status = |code| Status::with_text(code, Enhanced(if code < 500 { 4 } else { 5 }, 7, 1), "as a milter said");
    let party = |name: &str| -> (Option<Arc<str>>, bool) {
        let one = object.get(name);
        let address = one.and_then(|one| one.get(0)).and_then(Value::as_str).map(Arc::from);
        (address, one.and_then(|one| one.get(1)).and_then(Value::as_bool).unwrap_or(false))
    };
    let ((author, is_author_proven), (envelope, is_envelope_proven)) = (party("author"), party("envelope"));
    Some(Facts {
        score,
        virus,
        attachments,
        spf_failed: is("spf"),
        dmarc: match text("dmarc") {
            Some("reject") => DmarcWish::Reject,
            Some("quarantine") => DmarcWish::Quarantine,
            _ => DmarcWish::Nothing,
        },
        external: match text("milter") {
            Some("quarantine") => Some(ExternalWish::Quarantine { reason: "".into() }),
            Some("reject") => Some(ExternalWish::Reject(status(550))),
            Some("defer") => Some(ExternalWish::Defer(status(451))),
            _ => None,
        },
        sender: SenderFacts {
            author,
            is_author_proven,
            envelope,
            is_envelope_proven,
            client: text("client").and_then(|client| client.parse().ok()),
        },
        greylisting: match text("grey") {
            Some("first") => Greylisting::First,
            Some("too-soon") => Greylisting::TooSoon,
            Some("came-again") => Greylisting::CameAgain,
            Some("returns") => Greylisting::Returns,
            _ => Greylisting::Unknown,
        },
        is_newsletter: is("newsletter"),
        is_own_domain_claimed: is("own_domain"),
        country: text("country").map(Arc::from),
        size_bytes: object.get("size").and_then(Value::as_u64).unwrap_or(0),
        at: UtcMillis(object.get("at").and_then(Value::as_i64).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disposition::decide;
    use crate::resolve::EffectivePolicy;

    #[test]
    fn what_is_recorded_is_decided_the_same() {
        let all = Facts {
            score: Score(5250),
            virus: VirusState::Suspected("Heuristic.X".into()),
            attachments: Attachments {
                classes: vec![(AttachmentClass::Macros, "a.zip/b.docm".into())],
                extensions: vec![("docm".into(), "a.zip/b.docm".into())],
            },
            spf_failed: true,
            dmarc: DmarcWish::Quarantine,
            external: Some(ExternalWish::Quarantine { reason: "".into() }),
            sender: SenderFacts {
                author: Some("a@b.test".into()),
                is_author_proven: true,
                envelope: Some("c@d.test".into()),
                is_envelope_proven: false,
                client: "192.0.2.7".parse().ok(),
            },
            greylisting: Greylisting::TooSoon,
            is_newsletter: true,
            is_own_domain_claimed: true,
            country: Some("AT".into()),
            size_bytes: 4711,
            at: UtcMillis(1_795_500_000_000),
        };
        for facts in [all, Facts::default(), Facts { virus: VirusState::Found("X".into()), ..Facts::default() }] {
            let again = recorded(&record(&facts)).unwrap();
            assert_eq!(again, facts);
            let policy = EffectivePolicy::defaults();
            assert_eq!(decide(&policy, &again), decide(&policy, &facts));
        }
        assert!(recorded(&json!({})).is_none() && recorded(&json!([1])).is_none() && recorded(&json!(null)).is_none());
    }
}
