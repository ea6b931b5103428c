use std::fmt::Write as _;
use std::io::Write as _;

use super::*;
use crate::archive::zip::tests::{Put, put, write};
use crate::archive::{iso, tar};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn program() -> Vec<u8> {
    let mut program = b"MZ\x90\0\x03".to_vec();
    program.resize(128, 0);
    program
}

/// What was seen: `Mark path`, in order.
fn said(report: &Report) -> String {
    let mut out = String::new();
    for seen in &report.seen {
        write!(out, "{:?} {}; ", seen.mark, seen.paths.join(", ")).unwrap();
    }
    out.trim_end_matches("; ").to_owned()
}

fn check(name: &str, declared: &str, content: &[u8], expected: &str) {
    assert_eq!(said(&inspect_part(name, declared, content, &Limits::default())), expected, "{name}");
}

#[test]
fn programs_by_name_and_by_content() {
    check("a.exe", "application/octet-stream", b"??", "Executable a.exe");
    check("a.dat", "application/octet-stream", &program(), "Executable a.dat");
    check("photo.jpg", "image/jpeg", &program(), "Executable photo.jpg; Disguised photo.jpg");
    check("", "image/png", &program(), "Executable image/png; Disguised image/png");
    check("scan.pdf.exe", "", b"x", "Executable scan.pdf.exe; Disguised scan.pdf.exe");
    check("x\u{202e}fdp.exe", "", b"x", "Executable xfdp.exe; Disguised xfdp.exe");
    check("a.pdf", "application/pdf", b"%PDF-1.4", "");
    check("a.pdf", "application/pdf", b"<html><b>x", "Mismatch a.pdf");
    check("jane@example.com", "image/png", b"\x89PNG\r\n\x1a\n", "");
    check("eicar.com", "", b"X5O!P%", "Executable eicar.com");
    check("run.lnk", "", b"", "Shortcut run.lnk");
    check("disk", "", &iso::tests::disk(true), "DiskImage disk; Executable disk/setup.exe");
    check("", "text/javascript", b"x=1", "Script text/javascript");
    check("x", "text/plain", b"#!/bin/sh\n", "Script x");
}

#[test]
fn inside_archives() {
    let zip = write(&[put("scan.pdf.exe", &program()), put("readme.txt", b"hello")]);
    check("invoice.zip", "", &zip, "Executable invoice.zip/scan.pdf.exe; Disguised invoice.zip/scan.pdf.exe");
    let renamed = write(&[put("picture.png", &program())]);
    let seen = "Executable a.zip/picture.png; Disguised a.zip/picture.png";
    check("a.zip", "", &renamed, seen);
    let outer = write(&[put("in.zip", &renamed)]);
    check(
        "out.zip",
        "",
        &outer,
        "NestedArchive out.zip/in.zip; Executable out.zip/in.zip/picture.png; Disguised out.zip/in.zip/picture.png",
    );
    let locked = write(&[Put { flags: 1, ..put("a.txt", b"??") }]);
    check("l.zip", "", &locked, "Encrypted l.zip");
    let tgz = gzip(&tar::one("run.js", b'0', b"x"));
    check("a.tgz", "", &tgz, "Script a.tgz/a.tar/run.js");
    check("a.gz", "", &gzip(&program()), "Executable a.gz/a");
    check("a.doc", "", &write(&[put("[Content_Types].xml", b"<x/>"), put("word/vbaProject.bin", b"?")]), "Macro a.doc");
    let jar = write(&[put("META-INF/MANIFEST.MF", b"x"), put("A.class", b"\xca\xfe\xba\xbe")]);
    check("a.zip", "", &jar, "Executable a.zip, a.zip/A.class");
    let mail = b"Content-Type: application/octet-stream; name=in.exe\r\n\r\nMZ";
    check("a.zip", "", &write(&[put("m.eml", mail)]), "Executable a.zip/m.eml/in.exe");
}

#[test]
fn bzip2_and_xz_are_read() {
    // `printf '#!/bin/sh\n' | bzip2 | xxd -p` and the same with `xz`.
    let bytes = |hex: &str| -> Vec<u8> {
        hex.as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    check("s.bz2", "", &bytes(BZIP2), "Script s.bz2/s");
    check("s.xz", "", &bytes(XZ), "Script s.xz/s");
}

const BZIP2: &str =
    "425a6839314159265359adcf6fb500000151800010280090610800200031064c410313221a1a8e0f177245385090adcf6fb5";
const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000923212f62696e2f73680a000000d782b23563eb61db0001220a151ae1671fb6f37d010000000004595a";

#[test]
fn a_document_with_remote_template_and_password() {
    let relations =
        b"<Relationship Type=\"http://s/attachedTemplate\" Target=\"http://evil.test/x\" TargetMode=\"External\"/>";
    let entries = [put("[Content_Types].xml", b"<x/>"), put("word/_rels/settings.xml.rels", relations)];
    check("a.docx", "", &write(&entries), "ActiveContent a.docx");
    let odt = [put("mimetype", b"x"), put("META-INF/manifest.xml", b"<manifest:encryption-data/>")];
    check("a.odt", "", &write(&odt), "Encrypted a.odt");
}

fn nested(levels: usize) -> Vec<u8> {
    let mut content = write(&[put("deep.exe", &program())]);
    for _ in 1..levels {
        content = write(&[put("in.zip", &content)]);
    }
    content
}

#[test]
fn five_levels_are_opened_and_the_sixth_is_told() {
    let five = inspect_part("a.zip", "", &nested(5), &Limits::default());
    assert!(five.get(Mark::Executable).is_some_and(|seen| seen.paths[0].ends_with("in.zip/deep.exe")));
    assert!(!five.has(Mark::TooDeep));
    let six = inspect_part("a.zip", "", &nested(6), &Limits::default());
    assert!(six.has(Mark::TooDeep) && !six.has(Mark::Executable));
    let mut packed = b"x".to_vec();
    (0..7).for_each(|_| packed = gzip(&packed));
    assert!(inspect_part("a.gz", "", &packed, &Limits::default()).has(Mark::TooDeep));
}

#[test]
fn bombs_are_told_and_not_unpacked() {
    let zeros = vec![0; 20 * 1024 * 1024];
    let limits = Limits { item_bytes: 8 * 1024 * 1024, ..Limits::default() };
    // A stream that unpacks to another.
    let bomb = gzip(&gzip(&[b"\x1f\x8b\x08".as_slice(), &zeros].concat()));
    let report = inspect_part("a.gz", "", &bomb, &limits);
    assert!(report.bytes < 10 * 1024 * 1024, "{}", report.bytes);
    let flat = write(&[put("a.pdf", &[b"%PDF-".as_slice(), &zeros].concat())]);
    let report = inspect_part("a.zip", "", &flat, &limits);
    assert!(report.has(Mark::Bomb) && report.bytes < 9 * 1024 * 1024);
    // All entries share one content.
    let mut shared = write(&[put("a.pdf", &zeros), put("b.pdf", b"x"), put("c.exe", b"x")]);
    let ends: Vec<usize> = memchr::memmem::find_iter(&shared, b"PK\x01\x02").collect();
    ends.iter().for_each(|at| shared[at + 42..at + 46].fill(0));
    let report = inspect_part("a.zip", "", &shared, &Limits::default());
    assert!(report.has(Mark::Bomb) && report.has(Mark::Executable) && report.bytes < 100_000);
}

#[test]
fn budgets_hold() {
    let many: Vec<Put<'_>> = (0..50).map(|_| put("a.txt", b"hello")).collect();
    let zip = write(&many);
    let report = inspect_part("a.zip", "", &zip, &Limits { items: 20, ..Limits::default() });
    assert!(report.has(Mark::TooMuch) && report.items == 20);
    let big = vec![7; 100_000];
    let pdf = [b"%PDF-".as_slice(), &big].concat();
    let stored: Vec<Put<'_>> = (0..20).map(|_| Put { stored: true, ..put("a.pdf", &pdf) }).collect();
    let report = inspect_part("a.zip", "", &write(&stored), &Limits { bytes: 3_000_000, ..Limits::default() });
    assert!(report.has(Mark::TooMuch) && report.bytes < 3_200_000);
    // Names go on being read.
    assert_eq!(report.items, 21);
}

#[test]
fn parts_of_a_message() {
    let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
        Content-Type: application/pdf; name=\"a.exe\"\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\n\r\n%PDF-\r\n--b\r\n\
        Content-Type: text/html\r\n\r\n<script>not a file</script>\r\n--b\r\n\
        Content-Type: text/html; name=x.html\r\n\r\n<script>a file</script>\r\n--b\r\n\
        Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        Q29udGVudC1UeXBlOiBhcHBsaWNhdGlvbi94OyBuYW1lPSI9P3V0Zi04P1E/Yi52YnM/PSINCg0KeA==\r\n--b--\r\n";
    let report = inspect(message, &Limits::default());
    assert_eq!(said(&report), "Executable a.exe; ActiveContent x.html; Script b.vbs");
    assert_eq!(report.extensions.keys().collect::<Vec<_>>(), ["exe", "html", "pdf", "vbs"]);
    let lost = b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts at all\r\n";
    assert_eq!(said(&inspect(lost, &Limits::default())), "Damaged (message)");
}

#[test]
fn many_parts_and_deep_nesting_end() {
    let mut many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for _ in 0..10_000 {
        many.extend_from_slice(b"--b\r\nContent-Type: image/png; name=a.png\r\n\r\nx\r\n");
    }
    let report = inspect(&many, &Limits::default());
    assert!(report.has(Mark::TooMuch) && report.items < 1000);
    let messages = b"Content-Type: message/rfc822\r\n\r\n".repeat(500);
    assert!(inspect(&messages, &Limits::default()).has(Mark::TooDeep));
    let mut deep = Vec::new();
    for level in 0..200 {
        write!(deep, "Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n").unwrap();
    }
    assert!(inspect(&deep, &Limits::default()).has(Mark::TooDeep));
}

#[test]
fn files_in_text_are_attachments() {
    let message = b"Subject: x\r\n\r\nHello\r\nbegin 644 photo.jpg\r\n$35J0````\r\n`\r\nend\r\n";
    let report = inspect(message, &Limits::default());
    assert_eq!(report.items, 1);
    assert_eq!(report.extensions.keys().collect::<Vec<_>>(), ["jpg"]);
}

/// A ZIP archive whose entries quote the header of the next, so that all of them unpack the last one's content.
fn quoting(entries: u16, kernel: &[u8]) -> Vec<u8> {
    let header = |name: u16, packed: u32| {
        let name = format!("{name:04}");
        let sizes = [packed.to_le_bytes(), 0x1000_0000u32.to_le_bytes()].concat();
        [&[20, 0, 0, 0, 8, 0][..], &[0; 8], &sizes, &[4, 0, 0, 0], name.as_bytes()].concat()
    };
    let mut packed = u32::try_from(kernel.len()).unwrap();
    let (mut content, mut sizes) = (kernel.to_vec(), Vec::new());
    for at in (0..entries).rev() {
        let mut before = [b"PK\x03\x04", &header(at, packed)[..]].concat();
        sizes.push(packed);
        if at > 0 {
            // A stored block of deflate that holds the next header.
            let length = u16::try_from(before.len()).unwrap();
            before = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), &before].concat();
            packed += u32::try_from(before.len()).unwrap();
        }
        content = [before, content].concat();
    }
    let offset = u32::try_from(content.len()).unwrap();
    let mut directory = Vec::new();
    for (at, size) in (0..entries).zip(sizes.iter().rev()) {
        let place = if at == 0 { 0 } else { 34 + 39 * u32::from(at - 1) + 5 };
        let header = header(at, *size);
        let (front, name) = header.split_at(header.len() - 4);
        directory.extend([b"PK\x01\x02\x14\0", front, &[0; 10], &place.to_le_bytes(), name].concat());
    }
    let size = u32::try_from(directory.len()).unwrap();
    let counts = [entries.to_le_bytes(), entries.to_le_bytes()].concat();
    [content, directory, b"PK\x05\x06\0\0\0\0".to_vec(), counts]
        .into_iter()
        .chain([size.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec(), vec![0; 2]])
        .flatten()
        .collect()
}

#[test]
fn hostile_shapes_cost_little() {
    let kernel = crate::archive::zip::tests::deflated(&vec![b'a'; 4_000_000]);
    let report = inspect_part("a.zip", "", &quoting(500, &kernel), &Limits::default());
    assert!(report.has(Mark::Bomb) && report.items == 501 && report.bytes < 200_000, "{report:?}");
    // Packed three times, a hundred megabytes are a few hundred octets.
    let mut packed = vec![0; 100_000_000];
    (0..3).for_each(|_| packed = gzip(&packed));
    let report = inspect_part("a.gz", "", &packed, &Limits::default());
    assert!(packed.len() < 2000 && report.bytes < 1_000_000, "{}", report.bytes);
    // Streams of nothing, again and again: each has its price.
    let empty: Vec<u8> = gzip(b"").repeat(2000);
    let names: Vec<String> = (0..200).map(|at| format!("{at}.gz")).collect();
    let files: Vec<Put<'_>> = names.iter().map(|name| Put { stored: true, ..put(name, &empty) }).collect();
    let report = inspect_part("a.zip", "", &write(&files), &Limits::default());
    assert!(report.has(Mark::TooMuch) && report.items < 210);
    // Entries without sizes, each ended by the next.
    let streamed = b"PK\x03\x04\x14\0\x08\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0axxxxx".repeat(30_000);
    let report = inspect_part("a.zip", "", &streamed, &Limits::default());
    assert!(report.has(Mark::TooMuch) && report.items == Limits::default().items);
}
