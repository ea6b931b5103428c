//! All links of one message.

use std::collections::HashMap;

use regex_syntax::hir::Hir;

use super::boundaries::Boundaries;
use super::{canonical, text};
use crate::rules::prefilter::{self, Prefilter, Scratch};
use crate::rules::regex::Pattern;

/// A link as it was found, with all that is known of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// As found; with a scheme where it was written out in text.
    pub url: String,
    /// Names of the HTML elements that point there; `parsed` for text, `schemeless`, `unlinked`, `domainkeys`.
    pub kinds: Vec<String>,
    /// The link and its canonical forms; empty for names in signatures.
    pub forms: Vec<String>,
    /// Texts of the anchors that lead there.
    pub anchors: Vec<String>,
    /// Hosts of all forms with their registered names, lower case.
    pub hosts: Vec<(String, String)>,
}

/// Links of one message, each once, in the order found.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<Link>,
    places: HashMap<String, usize>,
    /// A longer link was cut.
    pub truncated: bool,
}

/// Patterns of rule files that find a redirector's target.
#[derive(Debug, Default)]
pub struct Redirectors {
    patterns: Vec<Pattern>,
    needs: prefilter::Builder,
    prefilter: Prefilter,
}

/// Most links kept of one message.
const LINKS_MAX: usize = 1000;
/// Longer ones are cut.
const LINK_BYTES_MAX: usize = 8192;

impl Redirectors {
    /// `hir` as [`Pattern::compile`] gives it.
    pub fn add(&mut self, pattern: Pattern, hir: &Hir) {
        self.patterns.push(pattern);
        self.needs.add(hir);
        self.prefilter = self.needs.clone().build();
    }

    pub fn target(&self, url: &str) -> Option<String> {
        let mut candidates = self.prefilter.candidates(url.as_bytes(), &mut Scratch::default());
        candidates.sort_unstable();
        let patterns = candidates.iter().filter_map(|at| self.patterns.get(*at));
        let mut found = patterns.filter_map(|pattern| pattern.first_group(url.as_bytes()));
        found
            .find(|range| url.get(range.clone()).is_some_and(|text| text.contains('.')))
            .and_then(|range| url.get(range))
            .map(str::to_owned)
    }
}

impl Links {
    /// Adds a link from HTML.
    pub fn add_html(&mut self, uri: &crate::rules::html::Uri, boundaries: &Boundaries, redirectors: &Redirectors) {
        if let Some(at) = self.add(&uri.url, &uri.kinds, false, boundaries, redirectors)
            && let Some(link) = self.links.get_mut(at)
        {
            for text in &uri.anchors {
                if !link.anchors.contains(text) {
                    link.anchors.push(text.clone());
                }
            }
        }
    }

    /// Adds the links written out in a paragraph.
    pub fn add_text(&mut self, paragraph: &[u8], boundaries: &Boundaries, redirectors: &Redirectors) {
        for found in text::links_in(paragraph, boundaries) {
            if self.links.len() >= LINKS_MAX {
                return;
            }
            if self.places.contains_key(&found.url) {
                continue;
            }
            let mut kinds = vec!["parsed".to_owned()];
            kinds.extend(found.is_schemeless.then(|| "schemeless".to_owned()));
            kinds.extend(found.is_unlinked.then(|| "unlinked".to_owned()));
            self.add(&found.url, &kinds, true, boundaries, redirectors);
        }
    }

    /// A domain that a signature names: lists know it, rules about links do not see it.
    pub fn add_signer(&mut self, domain: &str, boundaries: &Boundaries) {
        let url = format!("domainkeys:{domain}");
        if self.links.len() < LINKS_MAX
            && !self.places.contains_key(&url)
            && let Some((registered, host)) = boundaries.of_url(&format!("http://{domain}"))
        {
            self.places.insert(url.clone(), self.links.len());
            let kinds = vec!["domainkeys".to_owned()];
            self.links.push(Link { url, kinds, hosts: vec![(host, registered)], ..Link::default() });
        }
    }

    fn add(
        &mut self,
        url: &str,
        kinds: &[String],
        needs_domain: bool,
        boundaries: &Boundaries,
        redirectors: &Redirectors,
    ) -> Option<usize> {
        let mut forms = canonical::forms(url, redirectors);
        for form in &mut forms {
            if form.len() > LINK_BYTES_MAX {
                form.truncate(form.floor_char_boundary(LINK_BYTES_MAX));
                self.truncated = true;
            }
        }
        let mut hosts: Vec<(String, String)> = Vec::new();
        for form in &forms {
            if let Some((domain, host)) = boundaries.of_url(form)
                && !hosts.iter().any(|(known, _)| *known == host)
            {
                hosts.push((host, domain));
            }
        }
        if forms.is_empty() || (needs_domain && hosts.is_empty()) {
            return None;
        }
        let at = match self.places.get(url) {
            Some(at) => *at,
            None if self.links.len() >= LINKS_MAX => return None,
            None => {
                self.places.insert(url.to_owned(), self.links.len());
                self.links.push(Link { url: url.to_owned(), forms, hosts, ..Link::default() });
                self.links.len() - 1
            }
        };
        if let Some(link) = self.links.get_mut(at) {
            for kind in kinds {
                if !link.kinds.contains(kind) {
                    link.kinds.push(kind.clone());
                }
            }
        }
        Some(at)
    }

    pub fn as_slice(&self) -> &[Link] {
        &self.links
    }

    /// All forms of all links, each once.
    pub fn forms(&self) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        self.links.iter().flat_map(|link| &link.forms).map(String::as_str).filter(|form| seen.insert(*form)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<String> {
        let mut links = Links::default();
        links.add_text(text.as_bytes(), &Boundaries::default(), &Redirectors::default());
        links.forms().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn links_are_found_once_with_their_forms() {
        for (text, expected) in [
            ("http://a.com http://a.com", &["http://a.com"][..]),
            ("HTTP://a.com:80/%41", &["HTTP://a.com:80/%41", "HTTP://a.com:80/A"]),
            ("http://a.nonsense/", &[]),
        ] {
            assert_eq!(forms(text), expected, "{text}");
        }
    }

    #[test]
    fn hostile_text_is_bounded() {
        let many: String = (0..5000).map(|n| format!("http://h{n}.com/ ")).collect();
        assert_eq!(forms(&many).len(), LINKS_MAX);
        let long = format!("http://a.com/{}", "%41".repeat(100_000));
        assert!(forms(&long).iter().all(|url| url.len() <= LINK_BYTES_MAX));
    }
}
