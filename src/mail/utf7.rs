//! Modified UTF-7, the spelling of mailbox names in IMAP4rev1 (RFC 3501 §5.1.3).

/// The name in modified UTF-7: printable ASCII stands for itself, `&` is `&-`, the rest is UTF-16 in base 64.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut run: Vec<u16> = Vec::new();
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            flush(&mut run, &mut out);
            out.push(character);
            if character == '&' {
                out.push('-');
            }
        } else {
            run.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        }
    }
    flush(&mut run, &mut out);
    out
}

/// The name that `raw` spells. `None` if it is broken: an unfinished or needless shift, half a surrogate pair.
/// Names that already are UTF-8 are taken as they stand: several clients send them, and IMAP4rev2 will.
pub fn decode(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok()?;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, shifted)) = rest.split_once('&') {
        out.push_str(plain);
        let (run, after) = shifted.split_once('-')?;
        if run.is_empty() {
            out.push('&');
        } else {
            let units = units_of(run)?;
            for character in char::decode_utf16(units) {
                // A shift around printable ASCII would give a name two spellings.
                out.push(character.ok().filter(|c| !matches!(c, ' '..='~'))?);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

fn flush(run: &mut Vec<u16>, out: &mut String) {
    if run.is_empty() {
        return;
    }
    out.push('&');
    let (mut bits, mut held) = (0u32, 0u32);
    for unit in run.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        held += 16;
        while held >= 6 {
            held -= 6;
            push_digit(bits >> held, out);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        push_digit(bits << (6 - held), out);
    }
    out.push('-');
}

fn push_digit(value: u32, out: &mut String) {
    out.push(char::from(ALPHABET[(value & 63) as usize]));
}

fn units_of(run: &str) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(run.len() * 3 / 8 + 1);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in run.bytes() {
        let digit = ALPHABET.iter().position(|&c| c == byte)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        held += 6;
        if held >= 16 {
            held -= 16;
            units.push(u16::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    // What is left is padding: fewer than six bits, all zero.
    (held < 6 && bits == 0 && !units.is_empty()).then_some(units)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (name, raw) in [
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("a&b", "a&-b"),
            // RFC 3501 §5.1.3
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("😀!", "&2D3eAA-!"),
            ("é\u{1}", "&AOkAAQ-"),
        ] {
            assert_eq!(encode(name), raw);
            assert_eq!(decode(raw.as_bytes()).as_deref(), Some(name), "{raw}");
        }
        assert_eq!(decode("Entwürfe".as_bytes()).as_deref(), Some("Entwürfe"));
    }

    #[test]
    fn broken_names_are_refused() {
        for raw in ["&", "a&AP", "&AP-", "&2D0-", "&AGE-", "&APx-", "&!!!-", "&AAAAAAAA"] {
            assert_eq!(decode(raw.as_bytes()), None, "{raw}");
        }
        assert_eq!(decode(b"\xff"), None);
    }
}
