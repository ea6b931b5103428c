//! `replace_tag` and its kin: named pieces that `replace_rules` patterns are put together from.

use std::collections::HashMap;

/// All pieces of a rule set.
#[derive(Clone, Debug)]
pub struct Replacements {
    pub tags: HashMap<String, String>,
    pub before: HashMap<String, String>,
    pub between: HashMap<String, String>,
    pub after: HashMap<String, String>,
    pub start: char,
    pub end: char,
}

impl Default for Replacements {
    fn default() -> Self {
        let [tags, before, between, after] = Default::default();
        Self { tags, before, between, after, start: '<', end: '>' }
    }
}

/// Tags may stand in tags, to this depth.
const PASSES_MAX: usize = 6;
/// Longest pattern that expansion may make.
const EXPANDED_BYTES_MAX: usize = 1 << 20;

impl Replacements {
    /// The pattern with its tags replaced: `<pre X>`, `<inter X>` and `<post X>` name what goes before, between and
    /// after tags. What is no known tag stays as it is.
    pub fn expand(&self, pattern: &str) -> Result<String, String> {
        let mut text = pattern.to_owned();
        for _ in 0..PASSES_MAX {
            let before = self.take(&mut text, "pre").and_then(|name| self.before.get(&name));
            let after = self.take(&mut text, "post").and_then(|name| self.after.get(&name));
            let between = self.take(&mut text, "inter").and_then(|name| self.between.get(&name));
            let pieces = self.split(&text);
            let mut out = String::with_capacity(text.len() * 2);
            let mut again = false;
            for (at, piece) in pieces.iter().enumerate() {
                let Piece::Tag(name) = piece else {
                    if let Piece::Text(text) = piece {
                        out.push_str(text);
                    }
                    continue;
                };
                if at > 0
                    && matches!(pieces.get(at - 1), Some(Piece::Tag(_)))
                    && let Some(between) = between
                {
                    out.push_str(between);
                }
                out.extend(before.map(String::as_str));
                match self.tags.get(*name) {
                    Some(replacement) => {
                        again |= replacement.contains(self.start);
                        out.push_str(replacement);
                    }
                    None => {
                        out.push(self.start);
                        out.push_str(name);
                        out.push(self.end);
                    }
                }
                out.extend(after.map(String::as_str));
            }
            if out.len() > EXPANDED_BYTES_MAX {
                return Err("the pattern grows too long when its tags are replaced".to_owned());
            }
            text = out;
            if !again {
                break;
            }
        }
        Ok(text)
    }

    /// Cuts out the first `<kind NAME>` and gives the name.
    fn take(&self, text: &mut String, kind: &str) -> Option<String> {
        let mark = format!("{}{kind} ", self.start);
        let start = text.find(&mark)?;
        let length = text[start..].find(self.end)?;
        let name = text[start + mark.len()..start + length].to_owned();
        text.replace_range(start..start + length + self.end.len_utf8(), "");
        Some(name)
    }

    fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut out = Vec::new();
        let mut rest = text;
        let mut from = 0;
        while let Some(start) = rest[from..].find(self.start).map(|at| at + from) {
            let inside = &rest[start + self.start.len_utf8()..];
            let length = inside.find([self.start, self.end]).unwrap_or(inside.len());
            let is_tag = inside[length..].starts_with(self.end)
                && length > 0
                && inside[..length].chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_tag {
                from = start + self.start.len_utf8();
                continue;
            }
            if start > 0 {
                out.push(Piece::Text(&rest[..start]));
            }
            out.push(Piece::Tag(&inside[..length]));
            rest = &inside[length + self.end.len_utf8()..];
            from = 0;
        }
        if !rest.is_empty() {
            out.push(Piece::Text(rest));
        }
        out
    }
}

enum Piece<'t> {
    Text(&'t str),
    Tag(&'t str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_expand() {
        let mut with = Replacements::default();
        with.tags.insert("A".to_owned(), "[a4]".to_owned());
        with.tags.insert("AB".to_owned(), "<A>b".to_owned());
        with.between.insert("W".to_owned(), "_?".to_owned());
        with.after.insert("P".to_owned(), "+".to_owned());
        for (pattern, expected) in [
            ("x<A>y", "x[a4]y"),
            ("<inter W><A><A>l", "[a4]_?[a4]l"),
            ("<post P><A>z<A>", "[a4]+z[a4]+"),
            ("<AB><none>", "[a4]b<none>"),
            ("(?<A>x)<", "(?[a4]x)<"),
            ("<unclosed", "<unclosed"),
        ] {
            assert_eq!(with.expand(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        with.tags.insert("BOMB".to_owned(), "<BOMB><BOMB>".repeat(200));
        assert!(with.expand("<BOMB>").is_err());
    }
}
