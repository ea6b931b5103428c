//! HTML as the filter sees it: its text, its links, and what it does to hide either.

use std::collections::HashMap;

/// One HTML part, read leniently: whatever a browser would show counts as shown.
#[derive(Debug, Default)]
pub struct Html {
    /// Text with hidden text, blocks on lines of their own, white space not yet folded.
    pub text: String,
    pub links: Vec<Anchor>,
    /// `src`, `action`, `background` and `http-equiv=refresh` targets.
    pub resources: Vec<String>,
    /// How often each element opens (lower case), and closes.
    pub opened: HashMap<String, u32>,
    pub closed: HashMap<String, u32>,
    pub titles: Vec<String>,
    pub comments: Vec<String>,
    pub images: u32,
    /// Sum of width × height, where both are given.
    pub image_area: u64,
    /// Characters other than white space in visible and in hidden text.
    pub visible: usize,
    pub hidden: usize,
    /// Bytes inside tags, and of the whole part.
    pub tag_bytes: usize,
    pub bytes: usize,
    pub has_script_handler: bool,
    /// A form that sends to another server.
    pub form_action: Option<String>,
    /// Elements that no HTML knows: filler against word lists.
    pub unknown_elements: u32,
}

/// `<a href>` with the text that it shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Anchor {
    pub href: String,
    pub text: String,
}

/// What is remembered of an open element.
struct Open {
    name: String,
    hidden: bool,
    /// Text and background colour in force.
    colour: Option<String>,
    background: Option<String>,
}

const NESTING_MAX: usize = 256;
const LINKS_MAX: usize = 1000;
const TAG_BYTES_MAX: usize = 16 << 10;
const COMMENTS_MAX: usize = 100;
const ANCHOR_BYTES_MAX: usize = 500;

impl Html {
    pub fn read(source: &str) -> Self {
        let mut reader =
            Reader { html: Self { bytes: source.len(), ..Self::default() }, open: Vec::new(), anchor: None };
        let mut rest = source;
        while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
            reader.text(&rest[..at]);
            let tag = &rest[at..];
            rest = reader.markup(tag);
        }
        reader.text(rest);
        reader.close_anchor();
        reader.html
    }

    pub fn count(&self, element: &str) -> u32 {
        self.opened.get(element).copied().unwrap_or(0)
    }

    /// Hidden share of the text, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no exactness")]
    pub fn hidden_share(&self) -> f64 {
        let all = self.visible + self.hidden;
        if all == 0 { 0.0 } else { self.hidden as f64 / all as f64 }
    }

    /// Adds what another part holds.
    pub fn absorb(&mut self, other: Self) {
        self.text.push_str(&other.text);
        self.links.extend(other.links);
        self.resources.extend(other.resources);
        for (name, count) in other.opened {
            *self.opened.entry(name).or_default() += count;
        }
        for (name, count) in other.closed {
            *self.closed.entry(name).or_default() += count;
        }
        self.titles.extend(other.titles);
        self.comments.extend(other.comments);
        self.images += other.images;
        self.image_area = self.image_area.saturating_add(other.image_area);
        self.visible += other.visible;
        self.hidden += other.hidden;
        self.tag_bytes += other.tag_bytes;
        self.bytes += other.bytes;
        self.has_script_handler |= other.has_script_handler;
        self.form_action = self.form_action.take().or(other.form_action);
        self.unknown_elements += other.unknown_elements;
    }
}

struct Reader {
    html: Html,
    open: Vec<Open>,
    anchor: Option<Anchor>,
}

impl Reader {
    fn text(&mut self, raw: &str) {
        if raw.is_empty() {
            return;
        }
        let text = decode_entities(raw);
        let letters = text.chars().filter(|c| !c.is_whitespace() && !is_zero_width(*c)).count();
        if self.open.last().is_some_and(|open| open.hidden) {
            self.html.hidden += letters;
        } else {
            self.html.visible += letters;
        }
        if let Some(anchor) = &mut self.anchor
            && anchor.text.len() < ANCHOR_BYTES_MAX
        {
            anchor.text.push_str(&text);
        }
        if self.open.last().is_some_and(|open| open.name == "title") {
            self.html.titles.push(text.trim().to_owned());
        }
        self.html.text.push_str(&text);
    }

    /// Reads what starts with `<` and gives what follows it.
    fn markup<'t>(&mut self, tag: &'t str) -> &'t str {
        if let Some(inside) = tag.strip_prefix("<!--") {
            let (comment, rest) = inside.split_once("-->").unwrap_or((inside, ""));
            if self.html.comments.len() < COMMENTS_MAX {
                self.html.comments.push(comment.to_owned());
            }
            return rest;
        }
        let second = tag.as_bytes().get(1).copied().unwrap_or(b' ');
        if !(second.is_ascii_alphabetic() || matches!(second, b'/' | b'!' | b'?')) {
            self.text("<");
            return tag.get(1..).unwrap_or_default();
        }
        let end = tag_end(tag);
        self.html.tag_bytes += end;
        let inside = tag.get(1..end).unwrap_or_default().trim_end_matches('>');
        let rest = tag.get(end..).unwrap_or_default();
        if let Some(name) = inside.strip_prefix('/') {
            self.close(&name.trim().to_ascii_lowercase());
            return rest;
        }
        if matches!(second, b'!' | b'?') {
            return rest;
        }
        let name_end =
            inside.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | ':'))).unwrap_or(inside.len());
        let name = inside[..name_end].to_ascii_lowercase();
        let attributes = attributes(inside.get(name_end..).unwrap_or_default());
        self.element(&name, &attributes, inside.ends_with('/'));
        if matches!(name.as_str(), "script" | "style") {
            let close = format!("</{name}");
            let bytes = rest.as_bytes();
            let found = memchr::memchr_iter(b'<', bytes).find(|at| {
                bytes.get(*at..at + close.len()).is_some_and(|found| found.eq_ignore_ascii_case(close.as_bytes()))
            });
            return found.map_or("", |at| &rest[at..]);
        }
        rest
    }

    fn element(&mut self, name: &str, attributes: &[(String, String)], empty: bool) {
        let find = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        *self.html.opened.entry(name.to_owned()).or_default() += 1;
        if !KNOWN.contains(&name) && !name.contains(':') {
            self.html.unknown_elements += 1;
        }
        if BLOCKS.contains(&name) {
            self.html.text.push('\n');
            if matches!(name, "p" | "table" | "h1" | "h2" | "h3" | "hr" | "blockquote" | "ul" | "ol") {
                self.html.text.push('\n');
            }
        } else if matches!(name, "td" | "th") {
            self.html.text.push(' ');
        }
        self.html.has_script_handler |= attributes.iter().any(|(name, _)| name.starts_with("on"));
        match name {
            "a" | "area" => {
                self.close_anchor();
                if let Some(href) = find("href") {
                    self.anchor = Some(Anchor { href: href.trim().to_owned(), text: String::new() });
                }
            }
            "base" | "link" => self.html.resources.extend(find("href").map(str::to_owned)),
            "img" | "input" => {
                let size = |name| find(name).and_then(|value| value.trim_end_matches("px").trim().parse::<u64>().ok());
                if name == "img" {
                    self.html.images += 1;
                    let area =
                        size("width").zip(size("height")).map_or(0, |(width, height)| width.saturating_mul(height));
                    self.html.image_area = self.html.image_area.saturating_add(area);
                }
            }
            "form" => self.html.form_action = find("action").map(str::to_owned).or(self.html.form_action.take()),
            "meta" if find("http-equiv").is_some_and(|value| value.eq_ignore_ascii_case("refresh")) => {
                let target = find("content").and_then(|content| content.split_once('=')).map(|(_, url)| url.to_owned());
                self.html.resources.extend(target);
            }
            _ => {}
        }
        if self.html.resources.len() < LINKS_MAX {
            for name in ["src", "action", "background", "data"] {
                self.html.resources.extend(find(name).map(|value| value.trim().to_owned()));
            }
        }
        if empty || VOID.contains(&name) || self.open.len() >= NESTING_MAX {
            return;
        }
        let style: String = find("style").unwrap_or_default().to_ascii_lowercase().split_whitespace().collect();
        let parent = self.open.last();
        let colour = declared(&style, "color")
            .or_else(|| find("color").map(colour_name))
            .or_else(|| find("text").map(colour_name));
        let background = declared(&style, "background-color")
            .or_else(|| declared(&style, "background"))
            .or_else(|| find("bgcolor").map(colour_name));
        let colour = colour.or_else(|| parent.and_then(|open| open.colour.clone()));
        let background = background.or_else(|| parent.and_then(|open| open.background.clone()));
        let same = colour.is_some() && colour.as_deref() == Some(background.as_deref().unwrap_or("#ffffff"));
        let hidden = parent.is_some_and(|open| open.hidden)
            || attributes.iter().any(|(name, _)| name == "hidden")
            || hides(&style)
            || same
            || matches!(name, "title" | "noscript" | "template");
        self.open.push(Open { name: name.to_owned(), hidden, colour, background });
    }

    fn close(&mut self, name: &str) {
        *self.html.closed.entry(name.to_owned()).or_default() += 1;
        if BLOCKS.contains(&name) {
            self.html.text.push('\n');
        }
        if name == "a" {
            self.close_anchor();
        }
        if let Some(at) = self.open.iter().rposition(|open| open.name == name) {
            self.open.truncate(at);
        }
    }

    fn close_anchor(&mut self) {
        if let Some(anchor) = self.anchor.take()
            && self.html.links.len() < LINKS_MAX
        {
            self.html.links.push(anchor);
        }
    }
}

/// Index after the `>` that ends a tag; quotes may hold one. An unclosed tag ends at its limit.
fn tag_end(tag: &str) -> usize {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in tag.bytes().enumerate().take(TAG_BYTES_MAX) {
        match quote {
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'"' | b'\'') && after_equals => quote = Some(byte),
            None if byte == b'>' => return at + 1,
            None => {}
        }
        if !byte.is_ascii_whitespace() {
            after_equals = byte == b'=';
        }
    }
    // A quote that is never closed must not swallow the message.
    memchr::memchr(b'>', tag.as_bytes())
        .map_or_else(|| tag.floor_char_boundary(TAG_BYTES_MAX.min(tag.len())), |at| at + 1)
}

fn attributes(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text;
    while out.len() < 100 {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
        if rest.is_empty() {
            break;
        }
        let name = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let Some(value) = rest.strip_prefix('=') else {
            if !name.is_empty() {
                out.push((name, String::new()));
            }
            continue;
        };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        out.push((name, decode_entities(value)));
        rest = after;
    }
    out
}

/// The value of a property in a style without white space, lower case.
fn declared(style: &str, property: &str) -> Option<String> {
    style
        .split(';')
        .filter_map(|rule| rule.split_once(':'))
        .find(|(name, _)| *name == property)
        .map(|(_, value)| colour_name(value.trim_end_matches("!important")))
}

fn colour_name(value: &str) -> String {
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "white" | "#fff" | "ffffff" | "rgb(255,255,255)" => "#ffffff".to_owned(),
        "black" | "#000" | "000000" | "rgb(0,0,0)" => "#000000".to_owned(),
        _ => value,
    }
}

fn hides(style: &str) -> bool {
    style.split(';').filter_map(|rule| rule.split_once(':')).any(|(name, value)| {
        let value = value.trim_end_matches("!important");
        match name {
            "display" => value == "none",
            "visibility" => value == "hidden",
            "font-size" => matches!(value, "0" | "0px" | "0pt" | "0em" | "1px" | "1pt" | "0%"),
            "opacity" => matches!(value, "0" | "0.0"),
            "max-height" | "max-width" => matches!(value, "0" | "0px"),
            "text-indent" => value.starts_with("-9"),
            _ => false,
        }
    })
}

pub(super) fn is_zero_width(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// `&amp;`, `&#65;`, `&#x41;`; what is unknown stays.
fn decode_entities(text: &str) -> String {
    let Some(first) = memchr::memchr(b'&', text.as_bytes()) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end =
            rest.bytes().take(12).position(|b| !(b.is_ascii_alphanumeric() || b == b'#')).unwrap_or(rest.len().min(12));
        let Some(name) = rest.get(..end) else {
            out.push('&');
            continue;
        };
        let code = name.strip_prefix('#').and_then(|number| {
            let hex = number.strip_prefix(['x', 'X']);
            hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
        });
        let character = match code {
            Some(code) => char::from_u32(code).filter(|c| *c != '\0'),
            None => ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, c)| *c),
        };
        match character {
            Some(character) => {
                out.push(character);
                rest = &rest[end..];
                rest = rest.strip_prefix(';').unwrap_or(rest);
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    out
}

const ENTITIES: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("copy", '\u{a9}'),
    ("reg", '\u{ae}'),
    ("trade", '\u{2122}'),
    ("euro", '\u{20ac}'),
    ("pound", '\u{a3}'),
    ("yen", '\u{a5}'),
    ("auml", '\u{e4}'),
    ("ouml", '\u{f6}'),
    ("uuml", '\u{fc}'),
    ("Auml", '\u{c4}'),
    ("Ouml", '\u{d6}'),
    ("Uuml", '\u{dc}'),
    ("szlig", '\u{df}'),
    ("agrave", '\u{e0}'),
    ("aacute", '\u{e1}'),
    ("acirc", '\u{e2}'),
    ("atilde", '\u{e3}'),
    ("aring", '\u{e5}'),
    ("aelig", '\u{e6}'),
    ("ccedil", '\u{e7}'),
    ("egrave", '\u{e8}'),
    ("eacute", '\u{e9}'),
    ("ecirc", '\u{ea}'),
    ("igrave", '\u{ec}'),
    ("iacute", '\u{ed}'),
    ("icirc", '\u{ee}'),
    ("ntilde", '\u{f1}'),
    ("ograve", '\u{f2}'),
    ("oacute", '\u{f3}'),
    ("ocirc", '\u{f4}'),
    ("otilde", '\u{f5}'),
    ("oslash", '\u{f8}'),
    ("ugrave", '\u{f9}'),
    ("uacute", '\u{fa}'),
    ("ucirc", '\u{fb}'),
    ("Egrave", '\u{c8}'),
    ("Eacute", '\u{c9}'),
    ("Agrave", '\u{c0}'),
    ("Ccedil", '\u{c7}'),
    ("ndash", '\u{2013}'),
    ("mdash", '\u{2014}'),
    ("lsquo", '\u{2018}'),
    ("rsquo", '\u{2019}'),
    ("ldquo", '\u{201c}'),
    ("rdquo", '\u{201d}'),
    ("bdquo", '\u{201e}'),
    ("hellip", '\u{2026}'),
    ("bull", '\u{2022}'),
    ("middot", '\u{b7}'),
    ("laquo", '\u{ab}'),
    ("raquo", '\u{bb}'),
    ("shy", '\u{ad}'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
    ("ensp", '\u{2002}'),
    ("emsp", '\u{2003}'),
    ("thinsp", '\u{2009}'),
    ("deg", '\u{b0}'),
    ("sect", '\u{a7}'),
    ("times", '\u{d7}'),
];

const VOID: &[&str] = &[
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
    "source", "track", "wbr",
];

const BLOCKS: &[&str] = &[
    "address",
    "article",
    "blockquote",
    "body",
    "br",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "ol",
    "option",
    "p",
    "pre",
    "section",
    "table",
    "title",
    "tr",
    "ul",
];

const KNOWN: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "applet",
    "area",
    "article",
    "aside",
    "audio",
    "b",
    "base",
    "basefont",
    "bdi",
    "bdo",
    "bgsound",
    "big",
    "blink",
    "blockquote",
    "body",
    "br",
    "button",
    "canvas",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "details",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "embed",
    "fieldset",
    "figcaption",
    "figure",
    "font",
    "footer",
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
    "header",
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
    "layer",
    "legend",
    "li",
    "link",
    "main",
    "map",
    "mark",
    "marquee",
    "menu",
    "meta",
    "multicol",
    "nav",
    "nobr",
    "noembed",
    "noframes",
    "nolayer",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "picture",
    "plaintext",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "section",
    "select",
    "small",
    "source",
    "spacer",
    "span",
    "strike",
    "strong",
    "style",
    "sub",
    "summary",
    "sup",
    "svg",
    "path",
    "g",
    "table",
    "tbody",
    "td",
    "template",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "time",
    "title",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
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
    fn text_as_shown() {
        for (source, expected) in [
            ("<p>a</p><p>b", "a b"),
            ("x<br>y&nbsp;&auml;&#8364;&#x41;&bogus;", "x y \u{e4}\u{20ac}A&bogus;"),
            ("Vi<!-- no -->ag<span></span>ra", "Viagra"),
            ("<style>p{}</style><script>x<y</script>ok", "ok"),
            ("1 < 2 <b", "1 < 2"),
            ("<img alt=\"a>b\" src='x'>after", "after"),
            ("<a href=\"x>no end", "no end"),
            ("<td>a</td><td>b</td>", "a b"),
        ] {
            assert_eq!(folded(source), expected, "{source}");
        }
    }

    #[test]
    fn links_and_images() {
        let html = Html::read(
            "<a href=http://a.example/?x&amp;y>go <b>now</b></a><img src=cid:1 width=10 height=20px>\
             <form action='http://f.example/'><div onclick=x>",
        );
        assert_eq!(html.links, [Anchor { href: "http://a.example/?x&y".to_owned(), text: "go now".to_owned() }]);
        assert_eq!(html.resources, ["cid:1", "http://f.example/"]);
        assert_eq!((html.images, html.image_area, html.count("div")), (1, 200, 1));
        assert!(html.has_script_handler && html.form_action.is_some());
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
        for source in ["<".repeat(200_000), "<a href=\"".repeat(50_000), "<div>".repeat(100_000), "&#".repeat(100_000)]
        {
            Html::read(&source);
        }
        Html::read("</\u{e4}><\u{e4}");
    }
}
