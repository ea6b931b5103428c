//! Templates for how mail servers write `Received` fields, and how a field is read by one.

/// A template: words in braces are what to take, the rest is itself. `{x?}` may be empty, `{_}` is any word, `{~}` any
/// text, `{HELO}` either greeting, `{ip}` an address, `{port?}` a colon and digits.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

/// What a template takes, by the names in its braces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Ip,
    Helo,
    Rdns,
    By,
    Id,
    /// Greeting and name are the same.
    Both,
    Ident,
    Sub,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Text(&'static str),
    /// At least so many bytes without a space.
    Word(usize, Option<Name>),
    /// As little as possible of anything.
    Any(Option<Name>),
    Address(Option<Name>),
    Greeting,
    Port,
}

/// What was taken, as written; `None` where the template has no such name.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Taken<'t> {
    pub ip: Option<&'t str>,
    pub helo: Option<&'t str>,
    pub rdns: Option<&'t str>,
    pub by: Option<&'t str>,
    pub id: Option<&'t str>,
    pub both: Option<&'t str>,
    pub ident: Option<&'t str>,
    pub sub: Option<&'t str>,
}

/// Bytes of an address, without `IPv6:`.
pub const ADDRESS_BYTES_MIN: usize = 3;
pub const ADDRESS_BYTES_MAX: usize = 45;

impl Template {
    pub fn of(template: &'static str) -> Self {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, after)) = rest.split_once('{') {
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
            let (name, after) = after.split_once('}').expect("templates of this crate are well-formed");
            parts.push(part(name));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest));
        }
        Self { parts }
    }

    /// Reads `text`, in which white space is single spaces, from its start: each word takes as much as the rest of the
    /// template allows. What follows the template does not matter. `None` if it does not fit.
    pub fn read<'t>(&self, text: &'t str) -> Option<Taken<'t>> {
        let mut taken = Taken::default();
        fits(&self.parts, text, 0, &mut taken).then_some(taken)
    }
}

fn part(name: &str) -> Part {
    match name {
        "ip" => Part::Address(Some(Name::Ip)),
        "IP" => Part::Address(None),
        "_" => Part::Word(1, None),
        "_?" => Part::Word(0, None),
        "~" => Part::Any(None),
        "sub" => Part::Any(Some(Name::Sub)),
        "HELO" => Part::Greeting,
        "port?" => Part::Port,
        _ => {
            let (name, least) = name.strip_suffix('?').map_or((name, 1), |name| (name, 0));
            let name = match name {
                "helo" => Name::Helo,
                "rdns" => Name::Rdns,
                "by" => Name::By,
                "id" => Name::Id,
                "both" => Name::Both,
                "ident" => Name::Ident,
                _ => unreachable!("templates of this crate use no other name"),
            };
            Part::Word(least, Some(name))
        }
    }
}

impl<'t> Taken<'t> {
    fn set(&mut self, name: Option<Name>, text: &'t str) {
        let place = match name {
            Some(Name::Ip) => &mut self.ip,
            Some(Name::Helo) => &mut self.helo,
            Some(Name::Rdns) => &mut self.rdns,
            Some(Name::By) => &mut self.by,
            Some(Name::Id) => &mut self.id,
            Some(Name::Both) => &mut self.both,
            Some(Name::Ident) => &mut self.ident,
            Some(Name::Sub) => &mut self.sub,
            None => return,
        };
        *place = Some(text);
    }
}

/// Whether the parts fit from `at` on: the first way in which they do, in the order of a backtracking matcher.
fn fits<'t>(parts: &[Part], text: &'t str, at: usize, taken: &mut Taken<'t>) -> bool {
    let Some((part, after)) = parts.split_first() else { return true };
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    match *part {
        Part::Text(wanted) => rest.starts_with(wanted.as_bytes()) && fits(after, text, at + wanted.len(), taken),
        Part::Word(least, name) => {
            let most = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            ends(after, rest, least, most).any(|length| take(after, text, at..at + length, name, taken))
        }
        Part::Any(name) => match after.first() {
            Some(Part::Text(next)) => {
                let mut from = 0;
                while let Some(found) = memchr::memmem::find(rest.get(from..).unwrap_or_default(), next.as_bytes()) {
                    if take(after, text, at..at + from + found, name, taken) {
                        return true;
                    }
                    from += found + 1;
                }
                false
            }
            Some(_) | None => (0..=rest.len()).any(|length| take(after, text, at..at + length, name, taken)),
        },
        Part::Address(name) => {
            let prefix = rest.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"ipv6:"));
            [5, 0].into_iter().skip(usize::from(!prefix)).any(|skipped| {
                let digits = address_bytes(rest.get(skipped..).unwrap_or_default());
                let lengths = (ADDRESS_BYTES_MIN..=digits.min(ADDRESS_BYTES_MAX)).rev();
                lengths.into_iter().any(|length| take(after, text, at..at + skipped + length, name, taken))
            })
        }
        Part::Greeting => (rest.starts_with(b"HELO") || rest.starts_with(b"EHLO")) && fits(after, text, at + 4, taken),
        Part::Port => {
            let digits =
                rest.strip_prefix(b":").map_or(0, |rest| rest.iter().take_while(|b| b.is_ascii_digit()).count());
            (1..=digits).rev().any(|digits| fits(after, text, at + 1 + digits, taken)) || fits(after, text, at, taken)
        }
    }
}

/// Lengths of a word that the text behind it allows, the longest first.
fn ends<'r>(after: &[Part], rest: &'r [u8], least: usize, most: usize) -> impl Iterator<Item = usize> + use<'r> {
    let next = match after.first() {
        Some(Part::Text(next)) => next.as_bytes().first().copied(),
        Some(_) | None => None,
    };
    let lengths = (least..=most).rev();
    lengths.filter(move |length| next.is_none_or(|next| rest.get(*length) == Some(&next)))
}

fn take<'t>(
    after: &[Part],
    text: &'t str,
    range: std::ops::Range<usize>,
    name: Option<Name>,
    taken: &mut Taken<'t>,
) -> bool {
    // Inside a character nothing of a template can stand.
    let Some(it) = text.get(range.clone()) else { return false };
    let fits = fits(after, text, range.end, taken);
    if fits {
        taken.set(name, it);
    }
    fits
}

/// How many bytes at the start an address could have.
pub fn address_bytes(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_take_what_the_rest_allows() {
        let read = |template, text| {
            let taken = Template::of(template).read(text)?;
            let all = [taken.ip, taken.helo, taken.rdns, taken.by, taken.both, taken.ident, taken.sub];
            Some(all.into_iter().flatten().collect::<Vec<_>>().join("|"))
        };
        for (template, text, expected) in [
            ("{helo} ({rdns} [{ip}]) by {by} ", "a (b [192.0.2.1]) by c with d", Some("192.0.2.1|a|b|c")),
            ("{helo} ({rdns} [{ip}]) by {by} ", "a (b [192.0.2.1]) by c", None),
            ("{helo} ({rdns}[{ip}]) by {by}", "a (b[x[::1]) by c", Some("::1|a|b[x|c")),
            ("{both} ([{ip}]{sub}) by {by} ", "a ([1.2.3.4] x) by y) by z ", Some("1.2.3.4|y)|a| x")),
            ("{both} [{ip}]{port?} by {by} ", "a [1.2.3.4]:25 by z w", Some("1.2.3.4|z|a")),
            ("{both} [{ip}]{port?} by {by} ", "a [IPv6:::1] by z w", Some("IPv6:::1|z|a")),
            ("{rdns} ({HELO} {helo?}) ({ip})", "a (EHLO ) (1.2.3.4)", Some("1.2.3.4||a")),
            ("{both} ({ident?}@{ip}) {~}by {by}", "a (x@y@1.2.3.4) by by b", Some("1.2.3.4|by|a|x@y")),
            ("{helo} (<unknown{_?}>[{ip}])", "a (<unknown>>[1.2.3.4])", Some("1.2.3.4|a")),
            ("{ip} by", "12 by", None),
            ("{_} by {by}", "\u{e4}\u{20ac} by \u{e4}", Some("\u{e4}")),
            ("{_}x", "xxx y", Some("")),
        ] {
            assert_eq!(read(template, text).as_deref(), expected, "{template} {text}");
        }
    }
}
