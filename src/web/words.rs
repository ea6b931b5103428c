//! What findings are called in each language of the interface, for others who explain them.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A language of the interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    German,
    Italian,
    English,
}

impl Language {
    pub const CODES: [&'static str; 3] = ["de", "it", "en"];

    /// `de`, `it` or `en`.
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::German, Self::Italian, Self::English].into_iter().find(|language| language.code() == code)
    }

    const fn code(self) -> &'static str {
        match self {
            Self::German => "de",
            Self::Italian => "it",
            Self::English => "en",
        }
    }
}

/// The words of one language.
#[derive(Clone, Debug)]
pub struct Words {
    texts: Map<String, Value>,
    findings: HashMap<String, String>,
}

impl Words {
    pub fn of(language: Language) -> Self {
        let findings = match language {
            Language::English => HashMap::new(),
            Language::German => findings(0),
            Language::Italian => findings(1),
        };
        Self { texts: texts(language.code()), findings }
    }

    /// Why a class of findings matters; the class itself where there are no words for it.
    pub fn reason<'a>(&'a self, class: &'a str) -> &'a str {
        self.texts.get(&format!("r-{class}")).and_then(Value::as_str).unwrap_or(class)
    }

    /// What a check saw; `description`, which is English, where there are no words for it.
    pub fn finding<'a>(&'a self, name: &str, description: &'a str) -> &'a str {
        self.findings.get(name).map_or(description, String::as_str)
    }
}

fn file(path: &str) -> String {
    crate::assets::compiled_in(path).map(|content| String::from_utf8_lossy(&content).into_owned()).unwrap_or_default()
}

/// The file is a module that exports one object, which is JSON but for a comma at its end.
pub(crate) fn texts(code: &str) -> Map<String, Value> {
    let module = file(&format!("i18n/{code}.js"));
    let json = module.trim_start_matches("export default ").trim().trim_end_matches(';').replace(",\n}", "\n}");
    serde_json::from_str(&json).unwrap_or_default()
}

/// `NAME: ['de', 'it'],` on one line, or on four.
fn findings(language: usize) -> HashMap<String, String> {
    let module = file("i18n/findings.js");
    let mut out = HashMap::new();
    let mut rest = module.as_str();
    while let Some((before, after)) = rest.split_once(": [") {
        let name = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        let (words, end) = quoted(after);
        if let Some(word) = words.into_iter().nth(language) {
            out.insert(name.to_owned(), word);
        }
        rest = after.get(end..).unwrap_or_default();
    }
    out
}

/// The texts between single quotes up to `]`, and where that is.
fn quoted(list: &str) -> (Vec<String>, usize) {
    let (mut words, mut word, mut escaped) = (Vec::new(), None::<String>, false);
    for (at, c) in list.char_indices() {
        match (&mut word, c) {
            (None, ']') => return (words, at),
            (None, '\'') => word = Some(String::new()),
            (None, _) => {}
            (Some(text), _) if escaped => {
                text.push(c);
                escaped = false;
            }
            (Some(_), '\\') => escaped = true,
            (Some(_), '\'') => words.extend(word.take()),
            (Some(text), _) => text.push(c),
        }
    }
    (words, list.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_names_reasons_and_findings() {
        let of = |code| Words::of(Language::from_code(code).unwrap());
        let (de, it, en) = (of("de"), of("it"), of("en"));
        assert_eq!(de.reason("sender-proof"), "Der Absender ist nicht bewiesen");
        assert_eq!((it.reason("virus"), en.reason("virus")), ("Contiene un virus", "It carries a virus"));
        assert_eq!(en.reason("none such"), "none such");
        assert_eq!(de.finding("NO_DATE", "No date"), "Ohne Datum");
        assert_eq!(it.finding("NO_FROM", "x"), "Nessun mittente nell'intestazione", "a quote in a text");
        assert_eq!((en.finding("NO_DATE", "No date"), de.finding("OWN_RULE", "of ours")), ("No date", "of ours"));
        assert!(de.findings.len() > 100 && de.findings.len() == it.findings.len());
        assert!(de.findings.values().chain(it.findings.values()).all(|text| !text.is_empty() && !text.contains('\\')));
    }
}
