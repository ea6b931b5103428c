//! Unpacks single streams within a limit: what is beyond it is never made.

use std::io::Read;

/// How a stream was packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    Stored,
    Deflate,
    Zlib,
    /// All members, one after the other.
    Gzip,
    Bzip2,
    Xz,
    /// Raw LZMA: the octet of properties, the dictionary's size, and the size that comes out.
    Lzma {
        properties: u8,
        dictionary: u32,
        size: u64,
    },
    Lzma2 {
        dictionary: u32,
    },
}

impl Method {
    /// What an octet of output costs against one of deflate.
    pub const fn cost(self) -> usize {
        match self {
            Self::Stored | Self::Deflate | Self::Zlib | Self::Gzip => 1,
            Self::Bzip2 | Self::Xz | Self::Lzma { .. } | Self::Lzma2 { .. } => 4,
        }
    }
}

/// How unpacking ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// At the stream's end.
    Whole,
    /// At the limit: there is more. So many packed octets were read for it, somewhat more than needed.
    Limit(usize),
    /// The stream is damaged or cut off here.
    Broken,
}

/// Members of a packed stream that are read.
const MEMBERS_MAX: usize = 2000;
/// Beginning a member of bzip2 takes as long as so many octets of deflate.
const MEMBER_COST: usize = 32 * 1024;
/// Dictionaries of LZMA may take this much memory.
const DICTIONARY_MAX_KIB: u32 = 64 * 1024;

/// At most `limit` octets of what `packed` holds.
pub fn unpack(method: Method, packed: &[u8], limit: usize) -> (Vec<u8>, End) {
    let (out, end, _) = unpack_counted(method, packed, limit);
    (out, end)
}

/// The same, and what it cost: octets of deflate that would have taken as long.
pub fn unpack_counted(method: Method, packed: &[u8], limit: usize) -> (Vec<u8>, End, usize) {
    let mut extra = 0;
    let (out, end) = unpack_inner(method, packed, limit, &mut extra);
    let cost = out.len().saturating_mul(method.cost()).saturating_add(extra.saturating_mul(MEMBER_COST));
    (out, end, cost)
}

/// `extra` counts the members after the first.
fn unpack_inner(method: Method, packed: &[u8], limit: usize, extra: &mut usize) -> (Vec<u8>, End) {
    // Moves on as the decoder reads.
    let mut rest = packed;
    let (out, end) = match method {
        Method::Stored => match packed.get(..limit) {
            Some(front) if front.len() < packed.len() => return (front.to_vec(), End::Limit(limit)),
            _ => return (packed.to_vec(), End::Whole),
        },
        Method::Deflate => read(flate2::read::DeflateDecoder::new(&mut rest), limit),
        Method::Zlib => read(flate2::read::ZlibDecoder::new(&mut rest), limit),
        Method::Gzip => {
            members(&mut rest, limit, extra, |rest, limit| read(flate2::bufread::GzDecoder::new(rest), limit))
        }
        Method::Bzip2 => {
            members(&mut rest, limit, extra, |rest, limit| read(bzip2::bufread::BzDecoder::new(rest), limit))
        }
        Method::Xz => read(lzma_rust2::XzReader::new_mem_limit(&mut rest, true, DICTIONARY_MAX_KIB), limit),
        Method::Lzma { properties, dictionary, size } => {
            if dictionary > DICTIONARY_MAX_KIB * 1024 || properties >= 9 * 5 * 5 {
                return (Vec::new(), End::Limit(0));
            }
            match lzma_rust2::LzmaReader::new_with_props(&mut rest, size, properties, dictionary, None) {
                Ok(reader) => read(reader, limit),
                Err(_) => (Vec::new(), End::Broken),
            }
        }
        Method::Lzma2 { dictionary } => {
            match lzma_rust2::Lzma2Reader::new_mem_limit(&mut rest, dictionary, DICTIONARY_MAX_KIB, None) {
                Ok(reader) => read(reader, limit),
                Err(_) => (Vec::new(), End::Broken),
            }
        }
    };
    match end {
        End::Limit(_) => (out, End::Limit(packed.len() - rest.len())),
        End::Whole | End::Broken => (out, end),
    }
}

/// One member after the other, as the usual programs read them. Each costs far more than its octets, so there is a limit.
fn members(
    rest: &mut &[u8],
    limit: usize,
    extra: &mut usize,
    one: impl Fn(&mut &[u8], usize) -> (Vec<u8>, End),
) -> (Vec<u8>, End) {
    let mark = rest.get(..2);
    let (mut out, mut end) = one(rest, limit);
    for _ in 1..MEMBERS_MAX {
        if end != End::Whole || rest.is_empty() {
            return (out, end);
        }
        *extra += 1;
        let is_member = rest.get(..2) == mark;
        let (more, then) = one(rest, limit.saturating_sub(out.len()));
        // Padding after the last member is passed over by everybody.
        if then == End::Broken && more.is_empty() && !is_member {
            return (out, End::Whole);
        }
        out.extend_from_slice(&more);
        end = then;
    }
    (out, End::Limit(0))
}

fn read(mut stream: impl Read, limit: usize) -> (Vec<u8>, End) {
    let mut out = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (out, End::Whole),
            Ok(length) => {
                let room = limit.saturating_sub(out.len());
                let piece = chunk.get(..length).unwrap_or_default();
                out.extend_from_slice(piece.get(..room).unwrap_or(piece));
                if length > room {
                    return (out, End::Limit(0));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // A dictionary that is larger than we allow: others may unpack it.
            Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => return (out, End::Limit(0)),
            Err(_) => return (out, End::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn output_ends_at_the_limit() {
        let packed = gzip(&vec![7; 1_000_000]);
        let (front, end) = unpack(Method::Gzip, &packed, 5000);
        assert!(front == vec![7; 5000] && matches!(end, End::Limit(1..)));
        let (all, end) = unpack(Method::Gzip, &packed, 2_000_000);
        assert_eq!((all.len(), end), (1_000_000, End::Whole));
        assert_eq!(unpack(Method::Gzip, &packed, 1_000_000).1, End::Whole);
        assert_eq!(unpack(Method::Stored, b"abc", 2), (b"ab".to_vec(), End::Limit(2)));
    }

    #[test]
    fn members_are_read_one_after_the_other_and_damage_is_told() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpack(Method::Gzip, &two, 100), (b"one two".to_vec(), End::Whole));
        assert_eq!(unpack(Method::Gzip, &[&two[..], &[0; 9]].concat(), 100), (b"one two".to_vec(), End::Whole));
        assert!(matches!(unpack(Method::Gzip, &gzip(b"").repeat(MEMBERS_MAX + 1), 100).1, End::Limit(_)));
        let cut = two.get(..two.len() - 12).unwrap();
        let (front, end) = unpack(Method::Gzip, cut, 100);
        assert!(front.starts_with(b"one ") && end == End::Broken);
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_not_made() {
        let method = Method::Lzma { properties: 0x5d, dictionary: u32::MAX, size: 10 };
        assert_eq!(unpack(method, &[0; 64], 10), (Vec::new(), End::Limit(0)));
        assert_eq!(unpack(Method::Lzma2 { dictionary: u32::MAX }, &[1; 64], 10).0, [0; 0]);
    }
}
