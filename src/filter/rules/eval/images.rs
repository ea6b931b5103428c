//! Sizes of attached images, from their first bytes.

use super::{Call, Function, argument, flag, number, size};
use crate::rules::mime::Node;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("image_count", |call| flag(fits(call, 1, size(images(call).0)))),
    ("image_name_regex", |call| {
        images(call)
            .1
            .into_iter()
            .filter_map(|image| image.name)
            .find(|name| call.pattern.is_some_and(|p| p.is_match(name.as_bytes())))
    }),
    ("image_named", |call| {
        images(call).1.into_iter().filter_map(|image| image.name).find(|name| name == argument(call, 1))
    }),
    ("image_size_exact", |call| {
        let (height, width) = (number(call, 1)?, number(call, 2)?);
        flag(images(call).1.iter().any(|image| f64::from(image.height) == height && f64::from(image.width) == width))
    }),
    ("image_size_range", |call| {
        let (height, width) = (number(call, 1)?, number(call, 2)?);
        let below = |at: usize, value: u32| number(call, at).is_none_or(|high| f64::from(value) <= high);
        flag(images(call).1.iter().any(|image| {
            f64::from(image.height) >= height
                && f64::from(image.width) >= width
                && below(3, image.height)
                && below(4, image.width)
        }))
    }),
    ("image_to_text_ratio", |call| {
        let pixels = pixels(call);
        let length: usize = call.targets.body().text.len();
        let ratio = size(length) / pixels.max(1.0);
        flag(length > 0 && pixels > 0.0 && ratio >= number(call, 1)? && ratio < number(call, 2)?)
    }),
    ("pixel_coverage", |call| flag(fits(call, 1, pixels(call)))),
];

struct Image {
    name: Option<String>,
    height: u32,
    width: u32,
}

/// Headers of photographs may hold a preview before the size.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// How many there are of the kind that the first argument names, and those whose size is known.
fn images(call: &Call<'_>) -> (usize, Vec<Image>) {
    let wanted = argument(call, 0);
    let mut out = Vec::new();
    let mut count = 0;
    for node in call.targets.leaves() {
        let kind = match node.kind.as_str() {
            "image/gif" => "gif",
            "image/png" => "png",
            "image/jpeg" | "image/jpg" => "jpeg",
            _ => continue,
        };
        if node.transfer_encoding() != "base64" || (wanted != "all" && wanted != kind) {
            continue;
        }
        count += 1;
        out.extend(image(node, kind));
    }
    (count, out)
}

fn pixels(call: &Call<'_>) -> f64 {
    images(call).1.iter().map(|image| f64::from(image.height) * f64::from(image.width)).sum()
}

fn fits(call: &Call<'_>, at: usize, value: f64) -> bool {
    number(call, at).is_some_and(|low| value >= low) && number(call, at + 1).is_none_or(|high| value <= high)
}

fn image(node: &Node, kind: &str) -> Option<Image> {
    let head = node.content(if kind == "jpeg" { HEAD_BYTES_MAX } else { 64 });
    let (width, height) = match kind {
        "gif" => gif(&head)?,
        "png" => png(&head)?,
        _ => jpeg(&head)?,
    };
    (width > 0 && height > 0).then(|| Image { name: node.name.clone(), height, width })
}

fn gif(head: &[u8]) -> Option<(u32, u32)> {
    let rest = head.strip_prefix(b"GIF87a").or_else(|| head.strip_prefix(b"GIF89a"))?;
    let [a, b, c, d] = *rest.first_chunk()?;
    Some((u16::from_le_bytes([a, b]).into(), u16::from_le_bytes([c, d]).into()))
}

fn png(head: &[u8]) -> Option<(u32, u32)> {
    let rest = head.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    Some((u32::from_be_bytes(*rest.first_chunk()?), u32::from_be_bytes(*rest.get(4..)?.first_chunk()?)))
}

/// Walks the segments to the one that has the frame's size.
fn jpeg(head: &[u8]) -> Option<(u32, u32)> {
    let mut rest = head.strip_prefix(b"\xff\xd8")?;
    loop {
        let [0xff, mark, high, low] = *rest.first_chunk()? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if matches!(mark, 0xda | 0xd9) || length < 2 {
            return None;
        }
        let block = rest.get(4..)?;
        if matches!(mark, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) {
            let [_, a, b, c, d] = *block.first_chunk()?;
            return Some((u16::from_be_bytes([c, d]).into(), u16::from_be_bytes([a, b]).into()));
        }
        rest = block.get(length - 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(gif(b"GIF89a\x02\x01\x03\0rest"), Some((258, 3)));
        assert_eq!(png(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x06\x08"), Some((5, 6)));
        assert_eq!(jpeg(b"\xff\xd8\xff\xe0\0\x04xx\xff\xc0\0\x0b\x08\0\x07\0\x08\x03"), Some((8, 7)));
        for text in [&b""[..], b"GIF89a", b"\xff\xd8\xff", b"\x89PNG"] {
            assert_eq!((gif(text), png(text), jpeg(text)), (None, None, None));
        }
    }
}
