//! The form of records on disk.

use base::BlobId;
use bytes::Bytes;

use super::record::{self, BadRecord, Contexts, FRAME, HEAD, Head, Locator, Packer};

fn id() -> BlobId {
    BlobId::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677)
}

/// What is in the fixtures: one frame compressed, one that cannot be.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..FRAME).map(|n| b"Received: by mx\r\n"[n % 17]).chain((0..300).map(|_| noise())).collect()
}

/// Long enough for every number of frames of small segments, and around each border.
#[test]
fn a_blank_record_is_a_whole_record_of_its_length() {
    let borders = [1, 2, 16].map(|frames| HEAD + frames * (FRAME + 12));
    let lengths = (HEAD..HEAD + 40).chain(borders.into_iter().flat_map(|border| border - 20..border + 40));
    let mut none = 0;
    for length in lengths {
        let Some(blank) = record::blank(length as u32) else {
            none += 1;
            continue;
        };
        let content = unpack(&blank).unwrap();
        assert!(blank.len() == length && content.iter().all(|byte| *byte == 0), "{length}");
        let head = head_of(&blank).unwrap();
        assert_eq!((head.length as usize, head.id), (length, BlobId::from_u128(0)));
    }
    // Between n full frames and one more with an octet there is no room for the row of the latter.
    assert_eq!(none, 12 * 4);
}

fn head_of(record: &[u8]) -> Result<Head, BadRecord> {
    Head::parse(record, record.get(record::table_of(record)?).ok_or(BadRecord::Head)?)
}

fn unpack(record: &[u8]) -> Result<Vec<u8>, BadRecord> {
    let head = head_of(record)?;
    head.verify(true, |stored, out| {
        out.extend_from_slice(record.get(stored).ok_or(BadRecord::Content)?);
        Ok::<_, BadRecord>(())
    })?;
    let mut out = Vec::new();
    for (nth, stored) in head.frames_of(&(0..head.size_bytes)) {
        head.unpack(nth, &record[stored], &(0..u64::MAX), &mut out)?;
    }
    Ok(out)
}

/// A record as it grows, its content in pieces of `step`.
fn grown(content: &[u8], step: usize) -> Vec<u8> {
    let contexts = Contexts::default();
    let mut packer = Packer::new(id());
    let mut record = vec![0; HEAD];
    content.chunks(step).for_each(|piece| packer.push(&contexts, piece, &mut record));
    let packed = packer.finish(&contexts, &mut record).unwrap();
    record[..HEAD].copy_from_slice(&packed.head);
    assert_eq!((packed.length as usize, packed.size_bytes), (record.len(), content.len() as u64));
    record
}

/// Records of every version ever shipped stay readable.
#[test]
fn every_version_reads_as_it_was_written() {
    for record in [&include_bytes!("fixtures/record-v1.bin")[..], include_bytes!("fixtures/record-v2.bin")] {
        let head = head_of(record).unwrap();
        assert_eq!((head.id, head.length as usize, head.size_bytes), (id(), record.len(), content().len() as u64));
        assert_eq!(head.digest, *blake3::hash(&content()).as_bytes());
        assert!(unpack(record).unwrap() == content());
    }
}

#[test]
fn what_is_written_today_reads_back_and_is_version_1_or_2() {
    let record = Contexts::default().encode(id(), &[Bytes::from(content())]).unwrap();
    assert!(unpack(&record.bytes).unwrap() == content());
    assert_eq!(record.bytes[..HEAD - 8], include_bytes!("fixtures/record-v1.bin")[..HEAD - 8]);
    assert!(record.bytes.len() < 2000, "repeated lines are compressed");
    for step in [1000, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME] {
        let record = grown(&content(), step);
        assert!(unpack(&record).unwrap() == content());
        assert_eq!(record[..HEAD - 8], include_bytes!("fixtures/record-v2.bin")[..HEAD - 8]);
    }
}

#[test]
fn pieces_do_not_matter() {
    let whole = content();
    let contexts = Contexts::default();
    let once = contexts.encode(id(), &[Bytes::from(whole.clone())]).unwrap();
    for cut in [0, 1, 5000, FRAME - 1, FRAME, FRAME + 1] {
        let (head, tail) = whole.split_at(cut);
        let pieces = [Bytes::copy_from_slice(head), Bytes::new(), Bytes::copy_from_slice(tail)];
        assert!(contexts.encode(id(), &pieces).unwrap().bytes == once.bytes);
    }
}

#[test]
fn any_cut_or_changed_record_is_refused() {
    let short = b"a short message";
    let whole = Contexts::default().encode(id(), &[Bytes::from_static(short)]).unwrap().bytes;
    any_cut_or_change_is_seen(&whole);
    any_cut_or_change_is_seen(&grown(short, 4));
    assert_eq!(unpack(&[0; 4096]), Err(BadRecord::NoRecord));
}

fn any_cut_or_change_is_seen(record: &[u8]) {
    for length in 0..record.len() {
        assert!(unpack(&record[..length]).is_err(), "cut at {length}");
    }
    for at in 0..record.len() {
        for bit in 0..8 {
            let mut changed = record.to_vec();
            changed[at] ^= 1 << bit;
            assert!(unpack(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

/// A changed byte costs the frame it lies in, no other.
#[test]
fn what_is_intact_of_a_damaged_record_is_read() {
    let content: Vec<u8> = (0..3 * FRAME).map(|n| b"abcdefgh\r\n"[(n / 9 + n / FRAME) % 10]).collect();
    let mut record = grown(&content, FRAME);
    let head = head_of(&record).unwrap();
    let middle = head.frames_of(&(0..u64::MAX)).nth(1).unwrap().1;
    record[middle.start + 5] ^= 1;
    let read = |nth: usize| {
        let (_, stored) = head.frames_of(&(0..u64::MAX)).nth(nth).unwrap();
        let mut out = Vec::new();
        head.unpack(nth, &record[stored], &(0..u64::MAX), &mut out).map(|()| out)
    };
    assert!(read(0).unwrap() == content[..FRAME] && read(2).unwrap() == content[2 * FRAME..]);
    assert_eq!(read(1), Err(BadRecord::Content));
}

#[test]
fn locators_sort_by_place() {
    let places = [(1, 64, 900), (1, 70_000, 80), (2, 64, 5), (300, 64, 5)];
    let encoded: Vec<_> =
        places.iter().map(|&(segment, offset, length)| Locator { segment, offset, length }.encode()).collect();
    assert!(encoded.is_sorted());
    assert_eq!(Locator::decode(&encoded[1]), Some(Locator { segment: 1, offset: 70_000, length: 80 }));
    let (from, below) = Locator::bounds(1);
    assert_eq!(encoded.iter().filter(|e| **e >= from && **e < below).count(), 2);
    assert_eq!(Locator::decode(b"short"), None);
}
