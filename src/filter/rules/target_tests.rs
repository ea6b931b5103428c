//! Views of messages.

use super::*;

fn field(name: &str, part: FieldPart, raw: bool) -> Field {
    Field { raw, part, ..Field::plain(name) }
}

const MESSAGE: &str = "From: =?utf-8?q?J=C3=B6rg?= <joe@mail.example.org>\r\nTo: a@x.example,\r\n b@y.example\r\n\
    Cc: c@z.example\r\nSubject: Two\r\n  words\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
    One  line\r\nand more\r\n \r\n\r\nNext http://t.com/\r\n--b\r\nContent-Type: text/html\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Hello=20<b>you</b></p><a href=3D\"http://h.com\">x</a>\r\n--b--\r\n";

#[test]
fn header_views() {
    let targets = Targets::of(MESSAGE.as_bytes(), Context::default());
    for (name, part, raw, expected) in [
        ("from", FieldPart::Whole, false, Some("J\u{f6}rg <joe@mail.example.org>\n")),
        ("from", FieldPart::Whole, true, Some(" =?utf-8?q?J=C3=B6rg?= <joe@mail.example.org>\n")),
        ("from", FieldPart::Address, false, Some("joe@mail.example.org")),
        ("from", FieldPart::DisplayName, false, Some("J\u{f6}rg")),
        ("ALL-EXTERNAL", FieldPart::Whole, false, None),
        ("ToCc", FieldPart::Whole, false, Some("a@x.example, b@y.example\nc@z.example\n")),
        ("subject", FieldPart::Whole, false, Some("Two words\n")),
        ("reply-to", FieldPart::Whole, false, None),
    ] {
        let seen = targets.header(&field(name, part, raw)).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(seen.as_deref(), expected, "{name} {part:?} {raw}");
    }
}

#[test]
fn body_views() {
    let targets = Targets::of(MESSAGE.as_bytes(), Context::default());
    let text = |pieces: &Pieces| pieces.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>();
    assert_eq!(
        text(targets.body()),
        ["Two words\n", "One line and more\n", "Next http://t.com/\n", "Hello you\n", "x"]
    );
    assert!(text(targets.raw_body())[1].contains("<b>you</b>"));
    assert_eq!(text(&targets.uri_pieces()), ["http://t.com/", "http://h.com"]);
    assert!(!text(targets.full())[0].contains('\r'));
    let encoding = field("content-transfer-encoding", FieldPart::Whole, false);
    assert_eq!(text(&targets.mime_header(&encoding, Parts::ALL)), ["quoted-printable\n"]);
    let all = Parts { joined: true, ..Parts::ALL };
    assert!(text(&targets.mime_header(&encoding, all))[0].contains("\nquoted-printable\n"));
    assert!(text(&targets.mime_header(&encoding, Parts { last: 1, ..Parts::ALL })).is_empty());
}

#[test]
fn long_texts_are_cut() {
    let mut pieces = Pieces::default();
    pieces.push_lines("word ".repeat(2000).as_bytes());
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX + 1 && piece.ends_with(b" ")));
    let mut pieces = Pieces::default();
    pieces.push_chunks(&b"0123456789\n".repeat(2000));
    assert!(pieces.iter().all(|piece| piece.len() <= 2 * PIECE_BYTES_MAX && piece.ends_with(b"\n")));
    let huge = format!("Subject: x\r\n\r\n{}", "filler text\r\n".repeat(200_000));
    let targets = Targets::of(huge.as_bytes(), Context::default());
    assert!(targets.body().text.len() <= TEXT_BYTES_MAX + 100 && targets.raw_body().text.len() <= TEXT_BYTES_MAX * 2);
}
