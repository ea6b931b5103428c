//! What HTML parts look like.

use super::{Call, Function, argument, flag, number, size};
use crate::rules::html::Html;
use crate::rules::target::Shown;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_iframe_src", |call| {
        flag(call.targets.html().any(|html| html.uris.iter().any(|uri| uri.kinds.iter().any(|kind| kind == "iframe"))))
    }),
    ("html_charset_faraway", |_| None),
    ("html_eval", html_eval),
    ("html_hidden_share", html_hidden_share),
    ("html_image_only", html_image_only),
    ("html_image_ratio", html_image_ratio),
    ("html_range", html_range),
    ("html_tag_balance", html_tag_balance),
    ("html_tag_exists", |call| flag(call.targets.html().any(|html| html.has(&argument(call, 0).to_ascii_lowercase())))),
    ("html_test", |call| flag(call.targets.html().any(|html| test(html, argument(call, 0))))),
    ("html_text_match", |call| {
        texts(call).find(|text| call.pattern.is_some_and(|p| p.is_match(text.as_bytes()))).map(str::to_owned)
    }),
    ("html_text_not_match", |call| {
        texts(call).find(|text| call.pattern.is_some_and(|p| !p.is_match(text.as_bytes()))).map(str::to_owned)
    }),
    ("html_title_subject_ratio", html_title_subject_ratio),
];

/// Choices of `html_test`.
pub const TESTS: &[&str] = &[
    "embeds",
    "font_face_bad",
    "font_invalid_color",
    "font_low_contrast",
    "form_action_mailto",
    "has_form",
    "html",
    "javascript",
    "unknown_elements",
];

/// Choices of `html_range` and `html_eval`.
pub const VALUES: &[&str] = &[
    "backhair_count",
    "bad_tag_ratio",
    "closed_extra_ratio",
    "hidden",
    "image_area",
    "length",
    "max_size",
    "min_size",
    "non_element_ratio",
    "non_space_len",
    "obfuscation_ratio",
    "ratio",
    "title",
    "unknown_elements",
];

fn test(html: &Html, name: &str) -> bool {
    match name {
        "embeds" => html.marks.embeds,
        "font_face_bad" => html.marks.font_face_bad,
        "font_invalid_color" => html.marks.font_invalid_color,
        "font_low_contrast" => html.marks.font_low_contrast,
        "form_action_mailto" => html.marks.form_action_mailto,
        "has_form" => html.form_action.is_some(),
        "html" => true,
        "javascript" => html.has("script") || html.marks.script_handler,
        "unknown_elements" => html.unknown_elements > 5,
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of one message are far below 2^52")]
fn value(shown: &Shown, html: &Html, name: &str) -> Option<f64> {
    let share = |part: u32, all: u32| (all > 0).then(|| f64::from(part) / f64::from(all));
    Some(match name {
        "backhair_count" | "unknown_elements" => f64::from(html.unknown_elements),
        "bad_tag_ratio" => share(html.tags - html.elements, html.tags)?,
        "closed_extra_ratio" => share(html.closed_extra, html.tags)?,
        "hidden" => size(html.hidden),
        "image_area" => html.image_area as f64,
        "length" => size(html.length),
        "max_size" => html.size_max as f64,
        "min_size" => html.size_min as f64,
        "non_element_ratio" => share(html.tags_seen - html.elements_seen, html.tags_seen)?,
        "non_space_len" => size(letters(shown)),
        "obfuscation_ratio" if html.obfuscation > 0 => share(html.obfuscation, html.tags)?,
        "ratio" => {
            let characters = shown.text.as_ref().map_or(0, |text| text.chars().count());
            (size(shown.content_bytes) - size(characters)) / size(shown.content_bytes.max(1))
        }
        "title" if !html.titles.is_empty() => size(html.titles.len()),
        _ => return None,
    })
}

/// Characters that are no white space.
fn letters(shown: &Shown) -> usize {
    shown.text.as_ref().map_or(0, |text| text.chars().filter(|c| !c.is_whitespace()).count())
}

fn all<'c>(call: &'c Call<'_>) -> impl Iterator<Item = (&'c Shown, &'c Html)> {
    call.targets.shown().iter().filter_map(|shown| shown.html.as_ref().map(|html| (shown, html)))
}

/// `value > 5`
fn compares(value: f64, expression: &str) -> bool {
    let expression = expression.trim();
    let end = expression.find(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.')).unwrap_or(expression.len());
    let Ok(limit) = expression[end..].trim().parse::<f64>() else { return false };
    match expression[..end].trim() {
        ">" => value > limit,
        "<" => value < limit,
        ">=" => value >= limit,
        "<=" => value <= limit,
        "!=" => value != limit,
        "==" => value == limit,
        _ => false,
    }
}

fn html_eval(call: &Call<'_>) -> Option<String> {
    let mut values = all(call).filter_map(|(shown, html)| value(shown, html, argument(call, 0)));
    flag(values.any(|value| compares(value, argument(call, 1))))
}

/// Above the low end, up to the high one; `inf` or nothing leaves it open.
fn html_range(call: &Call<'_>) -> Option<String> {
    let low = number(call, 1)?;
    let mut values = all(call).filter_map(|(shown, html)| value(shown, html, argument(call, 0)));
    let found = values.find(|value| *value > low && number(call, 2).is_none_or(|high| *value <= high));
    found.map(|value| format!("{value:.2}"))
}

fn html_hidden_share(call: &Call<'_>) -> Option<String> {
    let low = number(call, 0)?;
    let found = call.targets.html().find(|html| html.hidden >= 40 && html.hidden_share() >= low);
    found.map(|html| format!("{:.0} % hidden", html.hidden_share() * 100.0))
}

/// Little HTML beside images: `(low, high)` in characters.
fn html_image_only(call: &Call<'_>) -> Option<String> {
    let (low, high) = (number(call, 0)?, number(call, 1)?);
    let found =
        call.targets.html().find(|html| html.has("img") && size(html.length) > low && size(html.length) <= high);
    found.map(|html| format!("{} characters", html.length))
}

fn html_image_ratio(call: &Call<'_>) -> Option<String> {
    let (low, high) = (number(call, 0)?, number(call, 1)?);
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no exactness")]
    let ratio = |(shown, html): (&Shown, &Html)| size(letters(shown)) / html.image_area as f64;
    flag(all(call).filter(|(_, html)| html.image_area > 0).map(ratio).any(|ratio| ratio > low && ratio <= high))
}

/// `('tag', '> 1')`: how often it is still open in the end.
fn html_tag_balance(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).to_ascii_lowercase();
    let mut found = call.targets.html().filter_map(|html| html.inside.get(&name));
    #[expect(clippy::cast_precision_loss, reason = "counts of tags are small")]
    let holds = found.any(|count| compares(*count as f64, argument(call, 1)));
    flag(holds)
}

fn texts<'c>(call: &'c Call<'_>) -> impl Iterator<Item = &'c str> {
    let which = argument(call, 0);
    call.targets
        .html()
        .flat_map(move |html| match which {
            "title" => html.titles.as_slice(),
            "comment" => html.comments.as_slice(),
            "anchor" => html.anchors.as_slice(),
            _ => &[],
        })
        .map(String::as_str)
}

fn html_title_subject_ratio(call: &Call<'_>) -> Option<String> {
    let subject = call.targets.joined("subject");
    let length = size(subject.chars().count().max(1));
    let longest = call.targets.html().flat_map(|html| &html.titles).map(|title| title.chars().count()).max()?;
    flag(!subject.is_empty() && size(longest) / length > number(call, 0)?)
}
