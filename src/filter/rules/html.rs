//! HTML as rules see it: its text, its links, and what it does to hide either.

use std::collections::HashMap;

use super::markup::{Markup, Token};
use super::style::{Look, Shade, hides};

/// One HTML part, read as SpamAssassin reads it.
#[derive(Debug, Default)]
pub struct Html {
    /// Text with hidden text, line ends for blocks, white space not yet folded.
    pub text: String,
    pub links: Vec<Anchor>,
    pub uris: Vec<Uri>,
    /// For each element that opens or closes somewhere: how often it is open in the end.
    pub inside: HashMap<String, i64>,
    pub titles: Vec<String>,
    /// With their brackets.
    pub comments: Vec<String>,
    /// What stands between `<a>` and `</a>`.
    pub anchors: Vec<String>,
    /// Characters of the part.
    pub length: usize,
    /// Sum of width × height, in pixels.
    pub image_area: u64,
    pub tags: u32,
    /// Tags of elements that HTML knows.
    pub elements: u32,
    /// Different tags, and of these the known ones.
    pub tags_seen: u32,
    pub elements_seen: u32,
    /// End tags without a start.
    pub closed_extra: u32,
    /// Tags in the middle of words.
    pub obfuscation: u32,
    pub size_min: i64,
    pub size_max: i64,
    pub marks: Marks,
    /// Characters other than white space in visible and in hidden text.
    pub visible: usize,
    pub hidden: usize,
    /// `action` of a form.
    pub form_action: Option<String>,
    /// Tags of elements that no HTML knows: filler against word lists.
    pub unknown_elements: u32,
    /// A longer link was cut.
    pub uri_truncated: bool,
}

/// What was seen at least once.
#[derive(Clone, Copy, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks, asked for by name")]
pub struct Marks {
    pub embeds: bool,
    pub font_face_bad: bool,
    pub font_invalid_color: bool,
    pub font_low_contrast: bool,
    pub form_action_mailto: bool,
    pub script_handler: bool,
}

/// `<a href>` with the text that it shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Anchor {
    pub href: String,
    pub text: String,
}

/// A link target with the elements that name it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uri {
    pub url: String,
    /// Element names, each once.
    pub kinds: Vec<String>,
    pub anchors: Vec<String>,
}

/// What is remembered of an open element, for hidden text.
struct Open {
    name: String,
    hidden: bool,
    shade: Shade,
}

const NESTING_MAX: usize = 256;
const LINKS_MAX: usize = 1000;
const COMMENTS_MAX: usize = 200;
const ANCHOR_BYTES_MAX: usize = 4000;
/// Longer links are cut.
const URI_BYTES_MAX: usize = 8192;

impl Html {
    pub fn read(source: &str) -> Self {
        let length = source.chars().count();
        let source = source.replace("&nbsp;", " ").replace(['\u{201c}', '\u{201d}'], "\"");
        let source = without_empty_tags(&source);
        let html = Self { length, size_min: 3, size_max: 3, ..Self::default() };
        let mut reader = Reader {
            html,
            look: Look::default(),
            open: Vec::new(),
            anchor: None,
            base: None,
            piece: Piece::None,
            places: HashMap::new(),
        };
        for token in Markup::of(&source) {
            match token {
                Token::Start(name, attributes) => reader.start(&name, &attributes),
                Token::End(name) => reader.end(&name),
                Token::Text(text) => reader.text(&text),
                Token::Comment(text) => {
                    if reader.html.comments.len() < COMMENTS_MAX {
                        reader.html.comments.push(text.to_owned());
                    }
                }
                Token::Declaration(text) => reader.declaration(text),
            }
        }
        reader.close_anchor();
        reader.html
    }

    /// True if the element (lower case) opens or closes anywhere.
    pub fn has(&self, element: &str) -> bool {
        self.inside.contains_key(element)
    }

    /// Hidden share of the text, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no exactness")]
    pub fn hidden_share(&self) -> f64 {
        let all = self.visible + self.hidden;
        if all == 0 { 0.0 } else { self.hidden as f64 / all as f64 }
    }
}

/// `<br/>` would be an element of that name.
fn without_empty_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = memchr::memmem::find(rest.as_bytes(), b"/>") {
        let (head, tail) = rest.split_at(at);
        let trimmed = head.trim_ascii_end();
        let name = trimmed.rfind('<').map(|start| &trimmed[start + 1..]);
        let is_bare =
            name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        out.push_str(if is_bare { trimmed } else { head });
        out.push_str(if is_bare { ">" } else { "/>" });
        rest = &tail[2..];
    }
    out.push_str(rest);
    out
}

/// The last piece of text, which decides about spaces beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    None,
    Text { empty: bool, invisible: bool },
    Space,
}

struct Reader {
    html: Html,
    look: Look,
    open: Vec<Open>,
    anchor: Option<Anchor>,
    /// `<base href>`.
    base: Option<String>,
    piece: Piece,
    /// Where in `html.uris` a URL stands.
    places: HashMap<String, usize>,
}

impl Reader {
    fn is_in(&self, name: &str) -> bool {
        self.html.inside.get(name).is_some_and(|count| *count > 0)
    }

    fn declaration(&mut self, text: &str) {
        if text.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("<!doctype")) {
            self.html.elements += 1;
            self.html.tags += 1;
            self.html.inside.insert("!doctype".to_owned(), 0);
        }
    }

    fn text(&mut self, text: &str) {
        if self.is_in("script") || self.is_in("style") {
            return;
        }
        let letters = text.chars().filter(|c| !c.is_whitespace() && !is_zero_width(*c)).count();
        if self.open.last().is_some_and(|open| open.hidden) {
            self.html.hidden += letters;
        } else {
            self.html.visible += letters;
        }
        if self.is_in("a") {
            self.anchor_text(text);
        }
        if let Some(anchor) = &mut self.anchor
            && anchor.text.len() < ANCHOR_BYTES_MAX
        {
            anchor.text.push_str(text);
        }
        if self.is_in("title")
            && let Some(title) = self.html.titles.last_mut()
        {
            title.push_str(text);
        }
        let blank = text.chars().all(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\x0b'));
        let invisible = !blank && self.look.is_invisible(&mut self.html.marks);
        let in_word = |c: char| !c.is_whitespace() && !c.is_ascii_punctuation();
        let before = match self.piece {
            Piece::Text { empty: false, .. } => self.html.text.chars().next_back(),
            Piece::Text { empty: true, .. } | Piece::Space | Piece::None => None,
        };
        if before.is_some_and(in_word) && text.starts_with(in_word) {
            self.html.obfuscation += 1;
        }
        self.show(text, invisible);
    }

    fn show(&mut self, text: &str, invisible: bool) {
        let start = self.html.text.len();
        let out = &mut self.html.text;
        let mut spaced = false;
        for character in text.chars() {
            if matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\x0b') {
                if !spaced {
                    out.push(' ');
                }
                spaced = true;
            } else {
                out.push(character);
                spaced = false;
            }
        }
        if self.piece == Piece::Space && !invisible && out[start..].starts_with(' ') {
            out.remove(start);
        }
        self.piece = Piece::Text { empty: out.len() == start, invisible };
    }

    /// White space that an element stands for.
    fn space(&mut self, what: &str) {
        if matches!(self.piece, Piece::Text { empty: false, invisible: false }) && self.html.text.ends_with(' ') {
            self.html.text.pop();
        }
        self.html.text.push_str(what);
        self.piece = Piece::Space;
    }

    fn anchor_text(&mut self, text: &str) {
        if let Some(last) = self.html.anchors.last_mut()
            && last.len() < ANCHOR_BYTES_MAX
        {
            last.push_str(text);
        }
        let url = self.anchor.as_ref().map_or("", |anchor| anchor.href.as_str()).to_owned();
        if let Some(at) = self.place(&url)
            && let Some(uri) = self.html.uris.get_mut(at)
        {
            match uri.anchors.last_mut() {
                Some(last) if last.len() < ANCHOR_BYTES_MAX => last.push_str(text),
                Some(_) => {}
                None => uri.anchors.push(text.to_owned()),
            }
        }
    }

    /// Counts a tag; true if the element is one that rules know.
    fn count(&mut self, name: &str, by: i64) -> bool {
        let is_office = is_office(name);
        let known = is_one_of(ELEMENTS, name);
        let new = !self.html.inside.contains_key(name);
        if known || is_office {
            self.html.elements += 1;
            self.html.elements_seen += u32::from(new);
        }
        self.html.tags += 1;
        self.html.tags_seen += u32::from(new);
        let inside = self.html.inside.entry(name.to_owned()).or_default();
        *inside += by;
        if *inside < 0 {
            *inside = 0;
            self.html.closed_extra += 1;
        }
        !is_office && (known || matches!(name, "bgsound" | "embed" | "listing" | "plaintext" | "xmp"))
    }

    fn white_space(&mut self, name: &str) {
        match name {
            "br" | "div" => self.space("\n"),
            "li" | "td" | "th" | "dd" | "dt" | "embed" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.space(" "),
            "p" | "hr" | "blockquote" | "pre" | "listing" | "plaintext" | "xmp" | "title" => self.space("\n\n"),
            _ => {}
        }
    }

    fn start(&mut self, name: &str, attributes: &[(String, String)]) {
        let find =
            |wanted: &str| attributes.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        if !(is_one_of(ELEMENTS, name) || is_one_of(MODERN, name) || name.contains(':')) {
            self.html.unknown_elements += 1;
        }
        self.html.marks.script_handler |= attributes.iter().any(|(name, _)| name.starts_with("on"));
        self.open(name, attributes);
        if !self.count(name, 1) {
            return;
        }
        self.look.start(name, attributes);
        self.html.size_min = self.html.size_min.min(self.look.size_min());
        self.html.size_max = self.html.size_max.max(self.look.size_max());
        self.white_space(name);
        self.targets(name, &find);
        match name {
            "font" if find("face").is_some_and(|face| !is_good_face(face)) => self.html.marks.font_face_bad = true,
            "img" => {
                if self.is_in("a") {
                    self.anchor_text("<img>\n");
                }
                if let (Some(width), Some(height)) = (find("width"), find("height")) {
                    let area = pixels(width, 8).saturating_mul(pixels(height, 6));
                    self.html.image_area = self.html.image_area.saturating_add(area);
                }
            }
            "form" => {
                if let Some(action) = find("action") {
                    self.html.marks.form_action_mailto |= action.to_ascii_lowercase().contains("mailto:");
                    self.html.form_action.get_or_insert_with(|| action.to_owned());
                }
            }
            "object" | "embed" => self.html.marks.embeds = true,
            "a" => {
                self.close_anchor();
                let href = self.trimmed(find("href").unwrap_or_default());
                if let Some(at) = self.place(&href)
                    && let Some(uri) = self.html.uris.get_mut(at).filter(|uri| uri.anchors.len() < LINKS_MAX)
                {
                    uri.anchors.push(String::new());
                }
                if self.html.anchors.len() < LINKS_MAX {
                    self.html.anchors.push(String::new());
                }
                self.anchor = Some(Anchor { href, text: String::new() });
            }
            "title" => self.html.titles.push(String::new()),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if name == "a" && self.html.inside.get("a").is_none_or(|count| *count <= 1) {
            self.close_anchor();
        }
        if let Some(at) = self.open.iter().rposition(|open| open.name == name) {
            self.open.truncate(at);
        }
        if self.count(name, -1) {
            self.look.end(name);
            self.white_space(name);
        }
    }

    fn open(&mut self, name: &str, attributes: &[(String, String)]) {
        if is_one_of(VOID, name) || self.open.len() >= NESTING_MAX {
            return;
        }
        let parent = self.open.last();
        let shade = parent.map(|open| open.shade.clone()).unwrap_or_default().within(attributes);
        let hidden = parent.is_some_and(|open| open.hidden)
            || hides(attributes)
            || shade.is_blank()
            || matches!(name, "title" | "noscript" | "template");
        self.open.push(Open { name: name.to_owned(), hidden, shade });
    }

    fn close_anchor(&mut self) {
        if let Some(anchor) = self.anchor.take()
            && self.html.links.len() < LINKS_MAX
            && !anchor.href.is_empty()
        {
            self.html.links.push(anchor);
        }
    }

    fn trimmed(&mut self, url: &str) -> String {
        let url = url.trim_matches(|c: char| c.is_whitespace() || c == '\u{a0}');
        let cut = &url[..url.floor_char_boundary(URI_BYTES_MAX.min(url.len()))];
        self.html.uri_truncated |= cut.len() < url.len();
        cut.to_owned()
    }

    fn place(&mut self, url: &str) -> Option<usize> {
        if let Some(at) = self.places.get(url) {
            return Some(*at);
        }
        if self.html.uris.len() >= LINKS_MAX {
            return None;
        }
        self.html.uris.push(Uri { url: url.to_owned(), ..Uri::default() });
        self.places.insert(url.to_owned(), self.html.uris.len() - 1);
        Some(self.html.uris.len() - 1)
    }

    fn add(&mut self, kind: &str, url: &str) {
        let url = self.trimmed(url);
        if url.is_empty() {
            return;
        }
        let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let is_plain = url.contains(':') && matches!(scheme.as_str(), "data" | "mailto" | "file" | "cid" | "tel");
        let target = if is_plain { url } else { crate::url::joined(self.base.as_deref().unwrap_or_default(), &url) };
        if target.is_empty() {
            return;
        }
        if let Some(at) = self.place(&target)
            && let Some(uri) = self.html.uris.get_mut(at)
            && !uri.kinds.iter().any(|known| known == kind)
        {
            uri.kinds.push(kind.to_owned());
        }
    }

    /// Links of one element.
    fn targets<'a>(&mut self, name: &str, find: &dyn Fn(&str) -> Option<&'a str>) {
        match name {
            "body" | "table" | "tr" | "td" => find("background").into_iter().for_each(|url| self.add(name, url)),
            "a" | "area" | "link" => {
                for url in [find("href"), find("data-saferedirecturl")].into_iter().flatten() {
                    self.add(name, &url.replace('\u{feff}', ""));
                }
            }
            "img" | "frame" | "iframe" | "embed" | "script" | "bgsound" => {
                find("src").into_iter().for_each(|url| self.add(name, url));
            }
            "form" => find("action").into_iter().for_each(|url| self.add(name, url)),
            "base" => {
                if let Some(url) = find("href").filter(|url| !url.is_empty()) {
                    self.add(name, url);
                    self.base = crate::url::base_of(self.trimmed(url));
                }
            }
            "meta" => {
                let refreshes = find("http-equiv").is_some_and(|value| value.to_ascii_lowercase().contains("refresh"));
                let content = find("content").filter(|_| refreshes).unwrap_or_default();
                let lower = content.to_ascii_lowercase();
                if let Some(at) = lower.find("url").filter(|at| lower[at + 3..].trim_start().starts_with('=')) {
                    let url = content[at + 3..].trim_start().trim_start_matches('=').trim_start();
                    self.add(name, url.split(';').next().unwrap_or_default());
                }
            }
            _ => {}
        }
    }
}

/// `list` is in order.
fn is_one_of(list: &[&str], name: &str) -> bool {
    list.binary_search(&name).is_ok()
}

/// Elements of office programs.
fn is_office(name: &str) -> bool {
    let Some((space, rest)) = name.split_once(':') else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_space =
        space == "o" || (space.len() == 3 && space.starts_with("st") && space.ends_with(|c: char| c.is_ascii_digit()));
    is_space && !rest.is_empty() && rest.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

/// A number of pixels; one percent counts as `percent` pixels. What is no number counts as 200.
fn pixels(value: &str, percent: u64) -> u64 {
    let (number, times) = value.strip_suffix('%').map_or((value, 1), |number| (number, percent));
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let pixels = if is_number { number.parse::<u64>().unwrap_or(0).saturating_mul(times) } else { 0 };
    if pixels == 0 { 200 } else { pixels }
}

/// A list of font names as people write them.
fn is_good_face(face: &str) -> bool {
    let face = face.strip_suffix(';').unwrap_or(face);
    face.split(',').enumerate().all(|(at, name)| {
        let name = name.trim_start();
        let quotes: &[char] = if at == 0 { &['"', '\'', '.'] } else { &['"', '\''] };
        let name = name.strip_prefix(quotes).unwrap_or(name);
        let name = name.strip_suffix(['"', '\'']).unwrap_or(name);
        let name = name.strip_suffix(|c: char| c.is_ascii_digit()).unwrap_or(name);
        name.len() >= 2
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || (at == 0 && c == ' '))
            && name.ends_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, ' ' | '-'))
    })
}

pub(super) fn is_zero_width(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

const VOID: &[&str] = &[
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
    "source", "track", "wbr",
];

/// Elements of HTML 4, of its frames, and three that mail programs add.
const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "applet",
    "area",
    "b",
    "base",
    "basefont",
    "bdo",
    "big",
    "blockquote",
    "body",
    "br",
    "button",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "fieldset",
    "font",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "html",
    "i",
    "iframe",
    "img",
    "input",
    "ins",
    "isindex",
    "kbd",
    "label",
    "legend",
    "li",
    "link",
    "map",
    "menu",
    "meta",
    "nobr",
    "noframes",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "select",
    "small",
    "span",
    "strike",
    "strong",
    "style",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "x-sigsep",
    "x-tab",
];

/// Elements that HTML has since, and old ones that browsers know.
const MODERN: &[&str] = &[
    "article",
    "aside",
    "audio",
    "bdi",
    "bgsound",
    "blink",
    "canvas",
    "details",
    "embed",
    "figcaption",
    "figure",
    "footer",
    "g",
    "header",
    "layer",
    "main",
    "mark",
    "marquee",
    "multicol",
    "nav",
    "noembed",
    "nolayer",
    "path",
    "picture",
    "plaintext",
    "section",
    "source",
    "spacer",
    "summary",
    "svg",
    "template",
    "time",
    "track",
    "video",
    "wbr",
    "xml",
    "xmp",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(source: &str) -> String {
        Html::read(source).text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_are_in_order() {
        assert!([VOID, ELEMENTS, MODERN].into_iter().all(<[&str]>::is_sorted));
    }

    #[test]
    fn text_as_shown() {
        for (source, expected) in [
            ("<p>a</p><p>b", "a b"),
            ("x<br>y&nbsp;&auml;&#8364;&#x41;&bogus;", "x y \u{e4}\u{20ac}A&bogus;"),
            ("Vi<!-- no -->ag<span></span>ra", "Viagra"),
            ("<style>p{}</style><script>x<y</script>ok", "ok"),
            ("1 < 2 <b", "1 < 2 <b"),
            ("<img alt=\"a>b\" src='x'>after", "after"),
            ("<td>a</td><td>b</td>", "a b"),
        ] {
            assert_eq!(folded(source), expected, "{source}");
        }
    }

    #[test]
    fn white_space_is_exact() {
        for (source, expected) in [
            ("<b>a </b> b", "a  b"),
            ("a <br> b", "a\nb"),
            ("a\n\n b<p>c</p>d", "a b\n\nc\n\nd"),
            ("<title>t</title>x", "\n\nt\n\nx"),
            ("<li>a<li> b", " a b"),
        ] {
            assert_eq!(Html::read(source).text, expected, "{source}");
        }
    }

    #[test]
    fn links_and_images() {
        let html = Html::read(
            "<base href=http://h.example/d/x.html><a href=http://a.example/?x&amp;y>go <b>now</b></a>\
             <img src=i.gif width=10 height=20><form action='http://f.example/'><div onclick=x>",
        );
        assert_eq!(html.links, [Anchor { href: "http://a.example/?x&y".to_owned(), text: "go now".to_owned() }]);
        let urls: Vec<&str> = html.uris.iter().map(|uri| uri.url.as_str()).collect();
        assert_eq!(
            urls,
            ["http://h.example/d/x.html", "http://a.example/?x&y", "http://h.example/d/i.gif", "http://f.example/"]
        );
        assert_eq!((html.uris[1].kinds.join(""), html.uris[1].anchors.join("")), ("a".to_owned(), "go now".to_owned()));
        assert_eq!((html.has("img"), html.image_area, html.inside["div"]), (true, 200, 1));
        assert!(html.marks.script_handler && html.form_action.is_some());
    }

    #[test]
    fn tags_are_counted() {
        let html = Html::read("<!DOCTYPE html><p>a</p></b><bogus>Vi<i>ag</i>ra<br/><o:p></o:p>");
        assert_eq!((html.tags, html.elements, html.closed_extra, html.obfuscation), (10, 9, 1, 2));
        assert_eq!(html.unknown_elements, 1);
        let html = Html::read("<font face='x1y'>a</font><img width=10% height=bad>");
        assert!(html.marks.font_face_bad);
        assert_eq!(html.image_area, 80 * 200);
    }

    #[test]
    fn hidden_text_is_counted() {
        for (source, hidden) in [
            ("<div style='display: none'>abc</div>d", 3),
            ("<font color=white>abc</font>d", 3),
            ("<body bgcolor=black><font color=white>abc</font>", 0),
            ("<p style=\"font-size:0px\">abc<b>d</b></p>e", 4),
            ("<p>abc", 0),
        ] {
            assert_eq!(Html::read(source).hidden, hidden, "{source}");
        }
    }

    #[test]
    fn hostile_markup_is_bounded() {
        for source in [
            "<".repeat(200_000),
            "<a href=\"".repeat(50_000),
            "<div>".repeat(100_000),
            "&#".repeat(100_000),
            "<!--".repeat(100_000),
            "<title>".repeat(50_000),
            "<a href=x>".repeat(50_000),
        ] {
            Html::read(&source);
        }
        Html::read("</\u{e4}><\u{e4}");
    }
}
