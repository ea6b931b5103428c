//! MIME as IMAP and JMAP ask for it.

use std::sync::Arc;

use mail::mime::Summary;
use mail::mime::decode::decode_header_text;
use mail::mime::text::searchable_text;

/// Reads messages by [`mail::mime`].
pub struct Mime;

/// Text of one message that a search looks into.
const SEARCHED_MAX: usize = 4 * 1024 * 1024;

impl imap::Mime for Mime {
    fn summarise(&self, message: &[u8]) -> Arc<[u8]> {
        Summary::of(message).encode().into()
    }

    fn read_summary(&self, encoded: &[u8]) -> Option<Summary> {
        Summary::decode(encoded).ok()
    }

    fn text(&self, message: &[u8]) -> String {
        searchable_text(message, &Summary::of(message).root, SEARCHED_MAX)
    }

    fn header_text(&self, value: &[u8]) -> String {
        decode_header_text(value)
    }
}

impl jmap::Mime for Mime {
    fn summarise(&self, message: &[u8]) -> Arc<[u8]> {
        Summary::of(message).encode().into()
    }

    fn read_summary(&self, encoded: &[u8]) -> Option<Summary> {
        Summary::decode(encoded).ok()
    }
}
