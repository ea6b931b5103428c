//! SearchSnippet/get (RFC 8621 §5).

use base::AccountId;
use mail::mime::text::searchable_text;
use serde_json::{Value, json};

use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::core::Jmap;
use crate::email::{Filter, Form, Place, own_fields, show_header};
use crate::error::MethodError;
use crate::id::{email_id, parse_email_id};

/// Octets of a preview before marks and escapes (RFC 8621 §5: at most 255).
const PREVIEW_MAX: usize = 200;

/// Octets of text that an excerpt is looked for in.
const SEARCHED_MAX: usize = 1 << 20;

impl Jmap {
    pub(crate) async fn snippet_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let filter = arguments.value("filter").map(Filter::read).transpose()?;
        let words = |place| filter.as_ref().map(|filter| filter.words(place)).unwrap_or_default();
        let (subject_words, body_words) = (words(Place::Subject), words(Place::Body));
        let ids = arguments.texts("emailIds")?.unwrap_or_default();
        if ids.len() > OBJECTS_MAX {
            return Err(MethodError::new("requestTooLarge", "at most 500 ids in one call"));
        }
        let known = ids.iter().filter_map(|id| parse_email_id(id)).collect();
        let mut list = Vec::new();
        let mut found = std::collections::HashSet::new();
        for entry in self.services.mail.emails(account, known).await? {
            let summary = self.summary_of(&entry)?;
            let id = email_id(entry.email);
            let subject = own_fields(&entry.prefix, &summary.common_fields).filter(|f| f.is("subject")).last();
            let subject = subject.map(|field| show_header(Form::Text, field.value));
            let subject = subject.as_ref().and_then(Value::as_str).and_then(|text| mark(text, &subject_words));
            let preview = if body_words.is_empty() {
                None
            } else {
                let message = self.content(&entry).read_blob(0..entry.size_bytes).await?;
                let text = searchable_text(&message, &summary.root, SEARCHED_MAX);
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                excerpt(&text, &body_words).and_then(|text| mark(text, &body_words))
            };
            found.insert(id.clone());
            list.push(json!({ "emailId": id, "subject": subject, "preview": preview }));
        }
        let missing: Vec<String> = ids.into_iter().filter(|id| !found.contains(id)).collect();
        Ok(json!({ "list": list, "notFound": missing }))
    }
}

/// Where a word occurs without regard to case, if lower case keeps the lengths, as it does in nearly all scripts.
fn find(text: &str, word: &str, from: usize) -> Option<usize> {
    let lower = text.to_lowercase();
    if lower.len() != text.len() {
        return text.get(from..)?.find(word).map(|at| from + at);
    }
    lower.get(from..)?.find(word).map(|at| from + at).filter(|at| text.is_char_boundary(*at))
}

/// The surroundings of the first hit.
fn excerpt<'a>(text: &'a str, words: &[String]) -> Option<&'a str> {
    let hit = words.iter().filter_map(|word| find(text, word, 0)).min()?;
    let start = text.floor_char_boundary(hit.saturating_sub(PREVIEW_MAX / 4));
    let end = text.floor_char_boundary(start.saturating_add(PREVIEW_MAX).min(text.len()));
    text.get(start..end)
}

/// HTML with every hit in `<mark>`; `None` if there is none.
fn mark(text: &str, words: &[String]) -> Option<String> {
    let mut out = String::new();
    let (mut at, mut is_marked) = (0, false);
    loop {
        let next = words.iter().filter_map(|word| Some((find(text, word, at)?, word.len()))).min();
        let Some((hit, len)) = next.filter(|(hit, len)| text.get(*hit..hit + len).is_some() && *len > 0) else { break };
        escape(text.get(at..hit).unwrap_or_default(), &mut out);
        out.push_str("<mark>");
        escape(text.get(hit..hit + len).unwrap_or_default(), &mut out);
        out.push_str("</mark>");
        (at, is_marked) = (hit + len, true);
    }
    escape(text.get(at..).unwrap_or_default(), &mut out);
    is_marked.then_some(out)
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_marked_and_the_rest_is_escaped() {
        let words = ["foo".to_owned(), "b\u{e4}r".to_owned()];
        assert_eq!(mark("<Foo> & B\u{c4}R", &words).unwrap(), "&lt;<mark>Foo</mark>&gt; &amp; <mark>B\u{c4}R</mark>");
        assert_eq!(mark("nothing", &words), None);
        let long = format!("{} foo {}", "x ".repeat(300), "y ".repeat(300));
        let cut = excerpt(&long, &words).unwrap();
        assert!(cut.len() <= PREVIEW_MAX && cut.contains("foo"));
    }
}
