//! The statistical classifier at work: what it sees of a message, and what its opinion counts.

mod features;
mod opinion;
mod unasked;

pub use features::{Features, VERSION};
pub use opinion::{finding, personal};
pub use unasked::by_itself;

pub use classifier::Key;
use classifier::{Class, Lesson, Owner};
use mail::HeaderFields;

use crate::rules::{Context, Targets};

/// A message as a lesson of full strength. Its features are those of a file: how it came is not known any more.
pub fn lesson(message: &[u8], owner: Owner, class: Class) -> Lesson {
    let targets = Targets::of(message, Context::default());
    let numbers = Features::of(&targets).numbers();
    Lesson { owner, key: key(message), class, numbers, version: VERSION, strength: 1000 }
}

/// Tells a message from others by what no server on its way changes: some of its header, and its body, whatever its line
/// ends.
pub fn key(message: &[u8]) -> Key {
    let mut hash = blake3::Hasher::new();
    for field in HeaderFields::of(message) {
        if let Some(at) = NAMING.iter().position(|name| field.is(name)) {
            hash.update(&[u8::try_from(at).unwrap_or(0), b':']);
            for word in field.value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                hash.update(word);
                hash.update(b" ");
            }
        }
    }
    hash.update(b"\n");
    let body = message.get(mail::header::body_offset(message)..).unwrap_or_default();
    for piece in body.split(|octet| *octet == b'\r') {
        hash.update(piece);
    }
    let mut out = [0; 16];
    hash.finalize_xof().fill(&mut out);
    Key(out)
}

const NAMING: [&str; 4] = ["Message-ID", "Date", "From", "Subject"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_again_whatever_servers_add() {
        let plain = b"From: a@x.test\nSubject: Two\n words\n\nLine\nand line\n";
        let came =
            b"Received: by mx\r\nX-Spam-Score: 3\r\nFrom: a@x.test\r\nSubject: Two words\r\n\r\nLine\r\nand line\r\n";
        assert_eq!(key(plain), key(came));
        for other in [
            &b"From: b@x.test\nSubject: Two words\n\nLine\nand line\n"[..],
            b"From: a@x.test\nSubject: Two words\n\nLine\n",
        ] {
            assert_ne!(key(plain), key(other));
        }
    }
}
