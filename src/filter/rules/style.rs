//! What attributes and styles do to text: whether one can read it.

use super::html::Marks;
use super::names;

/// `None`: a colour that is none.
type Colour = Option<u32>;

/// Sizes and colours in force, as SpamAssassin follows them: inline styles and old attributes of a few elements.
#[derive(Debug)]
pub struct Look {
    /// `<basefont size>`
    base: i64,
    stack: Vec<Level>,
    size_min: i64,
    size_max: i64,
}

#[derive(Clone, Debug)]
struct Level {
    name: String,
    text: Colour,
    background: Colour,
    size: i64,
    /// `display: none` or `visibility: hidden`
    is_hidden: bool,
}

const LEVELS_MAX: usize = 1000;
/// Colours closer than this cannot be told apart.
const DISTANCE_MIN: f64 = 12.0;

impl Default for Look {
    fn default() -> Self {
        let first = Level {
            name: "default".to_owned(),
            text: Some(0),
            background: Some(0x00ff_ffff),
            size: 3,
            is_hidden: false,
        };
        Self { base: 3, stack: vec![first], size_min: 3, size_max: 3 }
    }
}

impl Look {
    pub fn size_min(&self) -> i64 {
        self.size_min
    }

    pub fn size_max(&self) -> i64 {
        self.size_max
    }

    /// Names and attribute names are lower case.
    pub fn start(&mut self, name: &str, attributes: &[(String, String)]) {
        let name = if name == "th" { "td" } else { name };
        let allowed: &[&str] = match name {
            "basefont" | "font" => &["color", "size"],
            "body" => &["text"],
            "table" | "td" | "tr" | "span" | "p" | "div" | "a" => &["style"],
            "big" | "small" | "marquee" => &[],
            _ => return,
        };
        if name == "basefont"
            && let Some(size) =
                attributes.iter().find(|(name, _)| name == "size").and_then(|(_, size)| leading(size.trim_start()))
        {
            self.base = size;
            return;
        }
        if matches!(name, "td" | "tr") {
            self.close_cell(name);
        }
        let Some(parent) = self.stack.last().cloned() else { return };
        let mut level = Level { name: name.to_owned(), ..parent.clone() };
        match name {
            "big" => level.size += 1,
            "small" => level.size -= 1,
            _ => {
                for (attribute, value) in attributes.iter().filter(|(name, _)| allowed.contains(&name.as_str())) {
                    match attribute.as_str() {
                        "color" | "text" => level.text = colour(value),
                        "size" => level.size = self.size(value, level.size),
                        _ => level.apply(value, &parent),
                    }
                    self.size_max = self.size_max.max(level.size);
                    self.size_min = self.size_min.min(level.size);
                }
            }
        }
        if self.stack.len() < LEVELS_MAX {
            self.stack.push(level);
        }
    }

    pub fn end(&mut self, name: &str) {
        let name = if name == "th" { "td" } else { name };
        if name != "body"
            && let Some(at) = self.stack.iter().rposition(|level| level.name == name).filter(|at| *at > 0)
        {
            self.stack.truncate(at);
        }
    }

    /// A cell ends the one before it.
    fn close_cell(&mut self, name: &str) {
        if !self.stack.iter().any(|level| level.name == name) {
            return;
        }
        while self.stack.len() > 1
            && self.stack.last().is_some_and(|level| {
                matches!(level.name.as_str(), "font" | "td") || (name == "tr" && level.name == "tr")
            })
        {
            self.stack.pop();
        }
    }

    fn size(&self, value: &str, before: i64) -> i64 {
        let value = value.trim_start();
        let number = value.strip_prefix(['+', '-']).and_then(leading);
        match number {
            Some(number) if value.starts_with('-') => self.base - number,
            Some(number) => self.base + number,
            None => leading(value).unwrap_or(before),
        }
    }

    /// Notes why, where the reason has a mark.
    pub fn is_invisible(&self, marks: &mut Marks) -> bool {
        let Some(level) = self.stack.last() else { return false };
        if level.text == level.background {
            marks.font_low_contrast = true;
            return true;
        }
        match level.text.zip(level.background) {
            Some((text, background)) if distance(text, background) < DISTANCE_MIN => {
                marks.font_low_contrast = true;
                return true;
            }
            None => {
                marks.font_invalid_color = true;
                return true;
            }
            Some(_) => {}
        }
        level.size <= 1 || level.is_hidden
    }
}

impl Level {
    fn apply(&mut self, style: &str, parent: &Self) {
        let (mut see_through, mut see_through_text) = (false, false);
        for rule in style.split(';') {
            let Some((name, value)) = rule.split_once(':') else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                property @ ("color" | "background-color") => {
                    let value = value.to_ascii_lowercase();
                    let value = value
                        .strip_suffix("important")
                        .map_or(value.as_str(), |rest| rest.trim_end().strip_suffix('!').unwrap_or(rest).trim_end());
                    let is_text = property == "color";
                    let target = if is_text { &mut self.text } else { &mut self.background };
                    if value.contains("rgb") {
                        *target = Some(rgb(value));
                    } else if value == "transparent" {
                        *if is_text { &mut see_through_text } else { &mut see_through } = true;
                    } else if value != "inherit" && !value.is_empty() {
                        *target = colour(value);
                    }
                }
                "background" => {
                    let value = value.to_ascii_lowercase();
                    let layer = value.rsplit(',').next().unwrap_or_default();
                    if let Some(found) = layer.split(' ').filter(|word| !word.is_empty()).find_map(colour) {
                        self.background = Some(found);
                    }
                }
                "display" => self.is_hidden |= value.eq_ignore_ascii_case("none"),
                "visibility" => self.is_hidden |= value.eq_ignore_ascii_case("hidden"),
                _ => {}
            }
        }
        if see_through {
            self.background = parent.background;
        }
        if see_through_text {
            self.text = self.background;
        }
    }
}

fn leading(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end.min(9))?.parse().ok()
}

fn distance(one: u32, other: u32) -> f64 {
    let part = |colour: u32, shift: u32| f64::from((colour >> shift) & 0xff);
    let weighted = [(16, 0.2126), (8, 0.7152), (0, 0.0722)];
    let sum: f64 =
        weighted.iter().map(|(shift, weight)| (weight * (part(one, *shift) - part(other, *shift))).powi(2)).sum();
    sum.sqrt()
}

/// `rgb(1, 2, 300)`
fn rgb(value: &str) -> u32 {
    let digits: String = value.chars().filter(|c| c.is_ascii_digit() || *c == ',').collect();
    let mut parts = digits
        .split(',')
        .map(|part| part.get(..part.len().min(6)).unwrap_or_default().parse::<u32>().unwrap_or(0).min(255));
    let mut next = || parts.next().unwrap_or(0);
    (next() << 16) | (next() << 8) | next()
}

/// A name, or `#` with digits; SpamAssassin takes no digits without `#`.
fn colour(value: &str) -> Colour {
    let value = value.trim().to_ascii_lowercase();
    if let Some(colour) = names::colour(&value) {
        return Some(colour);
    }
    if value.starts_with("rgb(") && value.ends_with(')') {
        return Some(rgb(&value));
    }
    let digits = value.strip_prefix('#')?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit() || b == b'#') {
        return None;
    }
    let mut digits: String = digits.chars().filter(char::is_ascii_hexdigit).take(6).collect();
    if (4..6).contains(&digits.len()) {
        digits.truncate(3);
    }
    while digits.is_empty() || !digits.len().is_multiple_of(3) {
        digits.push('0');
    }
    if digits.len() == 3 {
        digits = digits.chars().flat_map(|c| [c, c]).collect();
    }
    u32::from_str_radix(&digits, 16).ok()
}

/// What hides an element's text whatever its surroundings are.
pub fn hides(attributes: &[(String, String)]) -> bool {
    let style = attributes.iter().find(|(name, _)| name == "style").map_or("", |(_, value)| value.as_str());
    attributes.iter().any(|(name, _)| name == "hidden") || (!style.is_empty() && hides_by(&compact(style)))
}

fn compact(style: &str) -> String {
    style.to_ascii_lowercase().split_whitespace().collect()
}

fn hides_by(style: &str) -> bool {
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

/// Text and background colour of an element, where attributes or styles set them: what browsers show.
#[derive(Clone, Default, Debug)]
pub struct Shade {
    text: Option<u32>,
    background: Option<u32>,
}

impl Shade {
    /// The colours inside an element.
    pub fn within(&self, attributes: &[(String, String)]) -> Self {
        let find = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let style = compact(find("style").unwrap_or_default());
        let declared = |property: &str| {
            let mut rules = style.split(';').filter_map(|rule| rule.split_once(':'));
            rules.find(|(name, _)| *name == property).and_then(|(_, value)| loose(value.trim_end_matches("!important")))
        };
        let text = declared("color").or_else(|| find("color").and_then(loose)).or_else(|| find("text").and_then(loose));
        let background =
            declared("background-color").or_else(|| declared("background")).or_else(|| find("bgcolor").and_then(loose));
        Self { text: text.or(self.text), background: background.or(self.background) }
    }

    /// Text in the colour of what it stands on; pages are white.
    pub fn is_blank(&self) -> bool {
        self.text.is_some_and(|text| text == self.background.unwrap_or(0x00ff_ffff))
    }
}

/// Browsers take digits without `#` in attributes.
fn loose(value: &str) -> Option<u32> {
    colour(value).or_else(|| colour(&format!("#{}", value.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours() {
        for (value, expected) in [
            ("White", Some(0x00ff_ffff)),
            ("#abc", Some(0x00aa_bbcc)),
            ("#abcd", Some(0x00aa_bbcc)),
            ("#0102030405", Some(0x0001_0203)),
            ("rgb(255, 0, 300)", Some(0x00ff_00ff)),
            ("ffffff", None),
            ("nonsense", None),
        ] {
            assert_eq!(colour(value), expected, "{value}");
        }
    }

    #[test]
    fn looks() {
        let attribute = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for (name, attributes, invisible) in [
            ("font", attribute("color", "white"), true),
            ("font", attribute("color", "#fdfdfd"), true),
            ("font", attribute("color", "ffffff"), true),
            ("font", attribute("size", "1"), true),
            ("font", attribute("size", "-1"), false),
            ("span", attribute("style", "color: #FFFFFF !important"), true),
            ("span", attribute("style", "background:url(x) black; color:rgb(0,0,0)"), true),
            ("span", attribute("style", "visibility:hidden"), true),
            ("p", attribute("style", "color:transparent"), true),
            ("b", attribute("style", "display:none"), false),
            ("td", attribute("bgcolor", "black"), false),
        ] {
            let mut look = Look::default();
            look.start(name, &attributes);
            assert_eq!(look.is_invisible(&mut Marks::default()), invisible, "{name} {attributes:?}");
            look.end(name);
            assert!(!look.is_invisible(&mut Marks::default()));
        }
    }
}
