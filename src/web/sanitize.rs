//! A message's HTML with everything taken out that is not known to be harmless.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ammonia::{Builder, Url, UrlRelative};
use maud::{DOCTYPE, PreEscaped, html};

/// Layout and text; no scripts, forms, frames, media, SVG or MathML.
const TAGS: &[&str] = &[
    "a",
    "abbr",
    "address",
    "article",
    "b",
    "bdi",
    "bdo",
    "big",
    "blockquote",
    "br",
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
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "mark",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "section",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "time",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "wbr",
];

/// Elements whose text is no text.
const DROPPED: &[&str] = &[
    "script", "style", "title", "noscript", "template", "iframe", "object", "embed", "svg", "math", "textarea",
    "select", "button", "audio", "video", "canvas",
];

const ATTRIBUTES: &[&str] = &[
    "align",
    "bgcolor",
    "border",
    "cellpadding",
    "cellspacing",
    "color",
    "colspan",
    "dir",
    "face",
    "height",
    "lang",
    "nowrap",
    "rowspan",
    "size",
    "start",
    "style",
    "title",
    "type",
    "valign",
    "value",
    "width",
];

/// Properties that cannot load anything or leave the message's own box.
const PROPERTIES: &[&str] = &[
    "background-color",
    "border",
    "border-bottom",
    "border-collapse",
    "border-color",
    "border-left",
    "border-radius",
    "border-right",
    "border-spacing",
    "border-style",
    "border-top",
    "border-width",
    "color",
    "direction",
    "display",
    "float",
    "clear",
    "font",
    "font-family",
    "font-size",
    "font-style",
    "font-variant",
    "font-weight",
    "height",
    "letter-spacing",
    "line-height",
    "list-style-type",
    "margin",
    "margin-bottom",
    "margin-left",
    "margin-right",
    "margin-top",
    "max-height",
    "max-width",
    "min-height",
    "min-width",
    "overflow-wrap",
    "padding",
    "padding-bottom",
    "padding-left",
    "padding-right",
    "padding-top",
    "table-layout",
    "text-align",
    "text-decoration",
    "text-indent",
    "text-transform",
    "vertical-align",
    "white-space",
    "width",
    "word-break",
    "word-wrap",
];

/// Deeper nesting than any message needs is a burden for whoever shows it; such HTML is shown as text.
const SIZE_MAX: usize = 8 << 20;

/// Pictures that lie on other hosts tell their owner who reads when and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remote {
    /// Left out, their text stays.
    Blocked,
    /// The reader asked for them.
    Shown,
}

/// A page of the HTML. `host` is ours as the browser knows it, without a port: a picture there is never shown, for the
/// reader's cookie would go along; without it no remote picture is. `image` says where the part lies that `cid:` names.
/// `data-blocked` of the body is the number of pictures left out that lie on other hosts.
pub fn html_page(
    source: &str,
    remote: Remote,
    host: Option<&str>,
    image: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> String {
    let source = source.get(..source.floor_char_boundary(SIZE_MAX)).unwrap_or_default();
    let (content, blocked) = fragment(source, remote, host, image);
    page(PreEscaped(content), false, blocked)
}

/// A page of plain text, with its links.
pub(crate) fn text_page(text: &str) -> String {
    let content = html! {
        div.text {
            @for (at, line) in text.split('\n').enumerate() {
                @if at > 0 { br; }
                @for (is_link, piece) in links(line) {
                    @if is_link {
                        a href=(piece) target="_blank" rel="noopener noreferrer" { (piece) }
                    } @else { (piece) }
                }
            }
        }
    };
    page(content, true, 0)
}

/// The HTML that is safe to show, and how many remote pictures were left out of it.
fn fragment(
    source: &str,
    remote: Remote,
    host: Option<&str>,
    image: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> (String, usize) {
    let blocked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&blocked);
    let host = host.map(str::to_owned);
    let set = |names: &'static [&'static str]| names.iter().copied().collect::<HashSet<_>>();
    let clean = Builder::empty()
        .tags(set(TAGS))
        .clean_content_tags(set(DROPPED))
        .generic_attributes(set(ATTRIBUTES))
        .tag_attributes(HashMap::from([("a", HashSet::from(["href"])), ("img", HashSet::from(["src", "alt"]))]))
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "cid", "data"]))
        // What the filter lets through is absolute and on another host, or our own path to a picture of this message.
        .url_relative(UrlRelative::PassThrough)
        .link_rel(Some("noopener noreferrer"))
        .set_tag_attribute_value("a", "target", "_blank")
        .filter_style_properties(set(PROPERTIES))
        .strip_comments(true)
        .attribute_filter(move |element, attribute, value| {
            let picture = (element == "img" && attribute == "src").then(|| remote_address(value, host.as_deref()?));
            match (remote, picture.flatten()) {
                // As it was understood: one spelling leads to one place.
                (Remote::Shown, Some(url)) => return Some(Cow::Owned(url.into())),
                (Remote::Blocked, Some(_)) => drop(count.fetch_add(1, Ordering::Relaxed)),
                (Remote::Shown | Remote::Blocked, None) => {}
            }
            filter(element, attribute, value, &image)
        })
        .clean(source)
        .to_string();
    (clean, blocked.load(Ordering::Relaxed))
}

/// The address on another host that a browser reads there. Everything else would lead to a path of ours; so would
/// our own name at any port, for cookies know no ports.
fn remote_address(value: &str, host: &str) -> Option<Url> {
    let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let is_own = url.host_str()?.trim_end_matches('.').eq_ignore_ascii_case(host.trim_end_matches('.'));
    (!is_own).then_some(url)
}

fn filter<'a>(
    element: &str,
    attribute: &str,
    value: &'a str,
    image: &impl Fn(&str) -> Option<String>,
) -> Option<Cow<'a, str>> {
    let lower = value.trim().to_ascii_lowercase();
    match (element, attribute) {
        ("img", "src") => match lower.strip_prefix("cid:") {
            Some(_) => image(value.trim().get(4..)?).map(Cow::Owned),
            None => is_data_image(&lower).then_some(Cow::Borrowed(value)),
        },
        ("a", "href") => ["http://", "https://", "mailto:", "tel:"]
            .iter()
            .any(|scheme| lower.starts_with(scheme))
            .then_some(Cow::Borrowed(value)),
        // Whatever is left after the properties were chosen must not load or compute.
        (_, "style") => {
            let is_active = ["url(", "expression", "image(", "image-set(", "\\", "@", "javascript:", "var("];
            (!is_active.iter().any(|word| lower.contains(word))).then_some(Cow::Borrowed(value))
        }
        _ => Some(Cow::Borrowed(value)),
    }
}

fn is_data_image(lower: &str) -> bool {
    ["png", "jpeg", "gif", "webp", "bmp"].iter().any(|kind| lower.starts_with(&format!("data:image/{kind};base64,")))
}

/// Pieces of a line; true for links.
fn links(line: &str) -> Vec<(bool, &str)> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = [rest.find("https://"), rest.find("http://")].into_iter().flatten().min() {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| c.is_whitespace() || "<>\"'`".contains(c)).unwrap_or(from.len());
        let link = from.get(..end).unwrap_or(from).trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']']);
        out.push((false, before));
        out.push((true, link));
        rest = from.get(link.len()..).unwrap_or_default();
    }
    out.push((false, rest));
    out.retain(|(_, piece)| !piece.is_empty());
    out
}

fn page(content: maud::Markup, is_text: bool, blocked: usize) -> String {
    html! {
        (DOCTYPE)
        html {
            head {
                meta charset="utf-8";
                meta name="color-scheme" content=(if is_text { "light dark" } else { "light" });
                style { (PreEscaped(STYLE)) }
            }
            body data-blocked=(blocked) data-kind=(if is_text { "text" } else { "html" }) { (content) }
        }
    }
    .into_string()
}

const STYLE: &str = "body{margin:0;padding:1rem;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
    img{max-width:100%;height:auto}table{max-width:100%}pre{white-space:pre-wrap}\
    blockquote{margin:.5rem 0;padding-left:.75rem;border-left:3px solid #8888}.text{white-space:pre-wrap}";

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(source: &str) -> String {
        fragment(source, Remote::Blocked, Some("mail.test"), |cid| {
            (cid == "known@x").then(|| "/own/e1-2-3-2".to_owned())
        })
        .0
    }

    /// What is hostile leaves no trace that a browser would act on.
    #[test]
    fn hostile_html_is_disarmed() {
        for source in [
            "<script>alert(1)</script>",
            "<scr<script>ipt>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<img src=\"https://tracker.example/1.gif\">",
            "<img src=//tracker.example/1.gif>",
            "<img src=/api/v1/accounts>",
            "<img srcset=\"https://tracker.example/1.gif 1x\">",
            "<svg><animate onbegin=alert(1) attributeName=x></svg>",
            "<svg><image href=\"https://tracker.example/1.gif\"></svg>",
            "<svg><style><img src=x onerror=alert(1)></style></svg>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
            "<p style=\"background:url(https://tracker.example/1.gif)\">x</p>",
            "<p style=\"background-color:url(https://tracker.example/1.gif)\">x</p>",
            "<p style=\"width:expression(alert(1))\">x</p>",
            "<p style=\"color:\\75rl(https://tracker.example)\">x</p>",
            "<p style=\"position:fixed;top:0\">x</p>",
            "<style>@import 'https://tracker.example/x.css'; p{color:red}</style>",
            "<link rel=stylesheet href=https://tracker.example/x.css>",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<a href=\" jAvAsCrIpT:alert(1)\">x</a>",
            "<a href=\"java&#10;script:alert(1)\">x</a>",
            "<a href=\"data:text/html,<script>alert(1)</script>\">x</a>",
            "<a href=\"vbscript:x\">x</a>",
            "<img src=\"data:image/svg+xml;base64,PHN2Zz4=\">",
            "<meta http-equiv=refresh content=\"0;url=https://tracker.example\">",
            "<base href=\"https://tracker.example/\">",
            "<form action=https://tracker.example><input name=password><button>x</button></form>",
            "<iframe src=\"https://tracker.example\"></iframe><iframe srcdoc=\"<script>alert(1)</script>\"></iframe>",
            "<object data=x></object><embed src=x><video src=x onerror=alert(1)></video><audio src=x></audio>",
            "<body background=\"https://tracker.example/1.gif\" onload=alert(1)>",
            "<table background=\"https://tracker.example/1.gif\"><tr><td>x</table>",
            "<!--[if IE]><script>alert(1)</script><![endif]-->",
            "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
            "<template><script>alert(1)</script></template>",
            "<img src=\"cid:unknown@x\">",
        ] {
            let out = clean(source).to_ascii_lowercase();
            let page = html_page(source, Remote::Blocked, Some("mail.test"), |_| None);
            assert!(page.starts_with("<!DOCTYPE html>"));
            for word in [
                "<script",
                "onerror=a",
                "onload",
                "onbegin",
                "tracker",
                "<svg",
                "<math",
                "javascript:",
                "vbscript",
                "data:",
                "<meta",
                "<base",
                "<form",
                "<input",
                "<iframe",
                "<object",
                "<embed",
                "<video",
                "<link",
                "<style",
                "expression",
                "url(",
                "position",
                "/api/",
                "src=",
                "srcset",
                "background=",
            ] {
                // Inside a title attribute the words are harmless text.
                let visible = out.split("title=\"").next().unwrap_or_default();
                assert!(!visible.contains(word), "{source} gives {out}");
            }
        }
    }

    #[test]
    fn ordinary_html_stays() {
        for (source, expected) in [
            ("<p style=\"color: red; position: fixed\">a</p>", "<p style=\"color:red\">a</p>"),
            (
                "<a href=\"https://x.example/?a=1\">x</a>",
                "<a href=\"https://x.example/?a=1\" target=\"_blank\" rel=\"noopener noreferrer\">x</a>",
            ),
            ("<img src=\"cid:known@x\" alt=\"a\">", "<img src=\"/own/e1-2-3-2\" alt=\"a\">"),
            ("<img src=\"data:image/png;base64,AAAA\">", "<img src=\"data:image/png;base64,AAAA\">"),
            ("<td colspan=2 bgcolor=\"#fff\">x", "x"),
            ("<b>1 &lt; 2</b>", "<b>1 &lt; 2</b>"),
        ] {
            assert_eq!(clean(source), expected);
        }
    }

    #[test]
    fn remote_pictures_are_counted_and_come_on_request_alone() {
        let source = "<img src=https://t.example/a.gif><img src=\"http://t.example/b\" onerror=x><img src=/api/v1/node>\
            <img src=//t.example/c><img src=cid:known@x><p style=\"background:url(https://t.example/d)\">x</p>";
        let show = |remote| fragment(source, remote, Some("mail.test"), |_| None);
        let (blocked, count) = show(Remote::Blocked);
        assert_eq!((count, blocked.matches("src=").count()), (2, 0), "{blocked}");
        let (shown, count) = show(Remote::Shown);
        assert_eq!((count, shown.matches("src=\"http").count(), shown.matches("src=").count()), (0, 2, 2), "{shown}");
        assert!(!shown.contains("onerror") && !shown.contains("url("));
        assert!(html_page(source, Remote::Blocked, Some("mail.test"), |_| None).contains("data-blocked=\"2\""));
    }

    /// However it is spelled: the reader's cookie would go along.
    #[test]
    fn our_own_paths_are_no_remote_pictures() {
        for source in [
            "https://mail.test/api/v1/node",
            "HTTP://MAIL.test:8080/x",
            "http://mail.test./x",
            "http:///mail.test/x",
            "https:\\\\mail.test\\x",
            "http://user@mail.test/x",
            "http://m&#9;ail.test/x",
            "http://m%61il.test/x",
            "http://\u{ff4d}ail.test/x",
            " https:mail.test/x",
        ] {
            for remote in [Remote::Blocked, Remote::Shown] {
                let (out, count) = fragment(&format!("<img src=\"{source}\">"), remote, Some("mail.test"), |_| None);
                assert_eq!((out.as_str(), count), ("<img>", 0), "{source}");
            }
        }
        for (source, host, is_shown) in [
            ("https://mail.test.example/x", Some("mail.test"), true),
            ("https://example/mail.test", Some("mail.test"), true),
            ("https:mail.example/x", Some("mail.test"), true),
            ("http://[::1]:8080/x", Some("[::1]"), false),
            ("http://127.1/x", Some("127.0.0.1"), false),
            // Without a name to compare with, none is let through.
            ("https://example/x", None, false),
        ] {
            let (out, _) = fragment(&format!("<img src=\"{source}\">"), Remote::Shown, host, |_| None);
            assert_eq!(out.contains("src=\"http"), is_shown, "{source}");
            assert!(!out.contains("https:mail"), "relative to a page of ours: {out}");
        }
    }

    #[test]
    fn plain_text_is_escaped_and_its_links_work() {
        let page = text_page("<b>a</b>\nsee https://x.example/a?b=1&c, ok");
        assert!(
            page.contains("&lt;b&gt;a&lt;/b&gt;<br>see <a href=\"https://x.example/a?b=1&amp;c\" target=\"_blank\"")
        );
        assert!(page.contains("</a>, ok"));
        assert_eq!(links("no link"), [(false, "no link")]);
    }
}
