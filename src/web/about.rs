//! What is known of a message beside its text: who proved to have sent it, and why it lies where it lies.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use base::MessageId;
use jmap::parse_email_id;
use mail::{HeaderField, HeaderFields};
use serde_json::{Value, json};
use trail::Kind;

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

/// How sure it is that the sender is who the message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    /// Its domain vouches for it: DMARC passes.
    Verified,
    /// Somebody who signed in here sent it.
    Own,
    /// Nobody vouches for it, and nobody says that it is false.
    Unverified,
    /// Its domain says that such mail is not from there.
    Forged,
    /// It did not come in by this system: nothing was checked.
    Unknown,
}

impl Proof {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Own => "own",
            Self::Unverified => "unverified",
            Self::Forged => "forged",
            Self::Unknown => "unknown",
        }
    }
}

/// What our own trace fields say.
#[derive(Debug, Default)]
struct Trace {
    id: Option<MessageId>,
    is_own: bool,
    /// Method and what follows it, such as `dmarc` and `pass header.from=a.example policy.dmarc=reject`.
    methods: Vec<(String, String)>,
}

pub(crate) async fn about(
    State(web): State<Arc<Inner>>,
    Path(email): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let id = parse_email_id(&email).ok_or(ApiError::NotFound)?;
    let header = web.services.jmap.header_as_stored(viewer.account.id, id).await?.ok_or(ApiError::NotFound)?;
    let trace = Trace::read(&header);
    let mut out = json!({ "proof": trace.proof_to_json(), "log": null, "judged": null, "decided": null });
    if let (Some(id), Some(fields)) = (trace.id, out.as_object_mut()) {
        // Empty when the log no longer holds it: the message is read all the same.
        let story = web.services.trail.story(&trail::Scope::Account(viewer.account.id), id).await?;
        if !story.is_empty() {
            fields.insert("log".to_owned(), json!(id.to_string()));
        }
        let last = |kind| story.iter().rev().find(|event| event.kind == kind).map(|event| event.fields.clone());
        fields.insert("judged".to_owned(), json!(last(Kind::Judged)));
        fields.insert("decided".to_owned(), json!(last(Kind::Decided)));
    }
    Ok(Json(out))
}

impl Trace {
    /// Believes only what stands above the first foreign trace field: below it anybody may have written anything.
    fn read(header: &[u8]) -> Self {
        let mut out = Self::default();
        let mut results: Option<String> = None;
        for field in HeaderFields::of(header) {
            if field.is("Authentication-Results") {
                results.get_or_insert_with(|| text(&field));
            } else if field.is("Received") {
                let line = text(&field);
                let mut words = line.split_whitespace().peekable();
                // What the client called itself may be any word, `by` too: it ends with the address that we saw.
                if words.next_if_eq(&"from").is_some() {
                    words.find(|word| word.ends_with("])"));
                }
                let (Some("by"), Some(name), Some("(Ortler)")) = (words.next(), words.next(), words.next()) else {
                    break;
                };
                let with = words.by_ref().skip_while(|word| *word != "with").nth(1).unwrap_or_default();
                out.is_own = matches!(with, "HTTPS" | "ESMTPA" | "ESMTPSA" | "UTF8SMTPA" | "UTF8SMTPSA");
                let id = words.skip_while(|word| *word != "id").nth(1);
                out.id = id.and_then(|id| id.trim_end_matches(';').parse().ok());
                let ours = results.take().and_then(|line| methods(&line, name));
                out.methods = ours.unwrap_or_default();
                break;
            }
        }
        out
    }

    fn method(&self, name: &str) -> Option<&str> {
        self.methods.iter().find(|(known, _)| known == name).map(|(_, rest)| rest.as_str())
    }

    fn result(&self, name: &str) -> Option<&str> {
        self.method(name)?.split_whitespace().next()
    }

    fn property(&self, method: &str, name: &str) -> Option<&str> {
        let mut words = self.method(method)?.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'))
    }

    fn proof(&self) -> Proof {
        let is_wished = matches!(self.property("dmarc", "policy.dmarc"), Some("reject" | "quarantine"));
        match (self.id, self.result("dmarc")) {
            (None, _) => Proof::Unknown,
            (Some(_), Some("pass")) => Proof::Verified,
            (Some(_), Some("fail")) if is_wished => Proof::Forged,
            (Some(_), _) if self.is_own => Proof::Own,
            (Some(_), _) => Proof::Unverified,
        }
    }

    fn proof_to_json(&self) -> Value {
        json!({
            "state": self.proof().as_str(),
            "domain": self.property("dmarc", "header.from"),
            "spf": self.result("spf"),
            "dkim": self.result("dkim"),
            "dmarc": self.result("dmarc"),
            "arc": self.result("arc"),
        })
    }
}

fn text(field: &HeaderField<'_>) -> String {
    String::from_utf8_lossy(&field.unfolded()).into_owned()
}

/// The methods of a field that `name` wrote; `None` if somebody else did. A `;` in quotes parts nothing.
fn methods(line: &str, name: &str) -> Option<Vec<(String, String)>> {
    let (mut pieces, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        quoted ^= character == '"';
        match pieces.last_mut() {
            Some(piece) if character != ';' || quoted => piece.push(character),
            _ => pieces.push(String::new()),
        }
    }
    let mut pieces = pieces.into_iter();
    let author = pieces.next()?;
    if !author.trim().trim_matches('"').eq_ignore_ascii_case(name) {
        return None;
    }
    let split = |piece: String| piece.trim().split_once('=').map(|(method, rest)| (method.to_owned(), rest.to_owned()));
    Some(pieces.filter_map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(header: &str) -> (&'static str, bool) {
        let header = header.replace('\n', "\r\n");
        let trace = Trace::read(header.as_bytes());
        (trace.proof().as_str(), trace.id.is_some())
    }

    #[test]
    fn only_our_own_fields_prove_anything() {
        let id = base::IdSource::fixed().message(base::UtcMillis(0)).to_string();
        {
            let ours = format!(
                "Received: from x ([192.0.2.1])\n\tby mx.a.test (Ortler) with ESMTPS id {id}\n\tfor <a@a.test>; x\n"
            );
            let results = |dmarc: &str| {
                format!("Authentication-Results: mx.a.test;\n\tspf=pass smtp.mailfrom=b.test;\n\t{dmarc}\n")
            };
            let forged = "Authentication-Results: mx.a.test; dmarc=pass header.from=b.test\n";
            for (header, expected) in [
                (results("dmarc=pass header.from=b.test policy.dmarc=reject") + &ours, "verified"),
                (results("dmarc=fail header.from=b.test policy.dmarc=reject") + &ours, "forged"),
                (results("dmarc=fail header.from=b.test policy.dmarc=none") + &ours, "unverified"),
                (results("dkim=fail reason=\"x; dmarc=pass\";\n\tdmarc=none") + &ours, "unverified"),
                (ours.clone() + forged, "unverified"),
                (results("dmarc=pass").replace("mx.a.test", "mx.evil.test") + &ours, "unverified"),
                (format!("{forged}Received: from y by mx.evil.test with SMTP id 1; x\n{ours}"), "unknown"),
                (forged.to_owned(), "unknown"),
                (format!("Received: by mx.a.test (Ortler) with HTTPS id {id};\n\tx\n"), "own"),
                (ours.replace("from x (", "from by ("), "unverified"),
                (ours.replace("from x (", "from from (by "), "unverified"),
                (results("dmarc=pass header.from=b.test") + &ours.replace("from x (", "from by ("), "verified"),
                // Below a foreign field that only looks like ours.
                (
                    format!("Received: from by mx.a.test (Ortler) with HTTPS id {id} ([192.0.2.1])\n\tby x; x\n"),
                    "unknown",
                ),
                (format!("Received: from x by mx.a.test (Ortler) with HTTPS id {id};\n\tx\n"), "unknown"),
                (String::new(), "unknown"),
            ] {
                assert_eq!(proof(&header).0, expected, "{header}");
                assert_eq!(proof(&header).1, expected != "unknown", "{header}");
            }
        }
    }
}
