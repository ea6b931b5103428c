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

/// Dictionaries of LZMA may take this much memory.
const DICTIONARY_MAX_KIB: u32 = 64 * 1024;

/// At most `limit` octets of what `packed` holds.
pub fn unpack(method: Method, packed: &[u8], limit: usize) -> (Vec<u8>, End) {
    // Moves on as the decoder reads.
    let mut rest = packed;
    let (out, end) = match method {
        Method::Stored => match packed.get(..limit) {
            Some(front) if front.len() < packed.len() => return (front.to_vec(), End::Limit(limit)),
            _ => return (packed.to_vec(), End::Whole),
        },
        Method::Deflate => read(flate2::read::DeflateDecoder::new(&mut rest), limit),
        Method::Zlib => read(flate2::read::ZlibDecoder::new(&mut rest), limit),
        Method::Gzip => read(flate2::read::MultiGzDecoder::new(&mut rest), limit),
        Method::Bzip2 => read(bzip2::read::MultiBzDecoder::new(&mut rest), limit),
        Method::Xz => read(lzma_rust2::XzReader::new_mem_limit(&mut rest, true, DICTIONARY_MAX_KIB), limit),
        Method::Lzma { properties, dictionary, size } => {
            if dictionary > DICTIONARY_MAX_KIB * 1024 || properties >= 9 * 5 * 5 {
                return (Vec::new(), End::Broken);
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
        let cut = two.get(..two.len() - 12).unwrap();
        let (front, end) = unpack(Method::Gzip, cut, 100);
        assert!(front.starts_with(b"one ") && end == End::Broken);
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_not_made() {
        let method = Method::Lzma { properties: 0x5d, dictionary: u32::MAX, size: 10 };
        assert_eq!(unpack(method, &[0; 64], 10), (Vec::new(), End::Broken));
        assert_eq!(unpack(Method::Lzma2 { dictionary: u32::MAX }, &[1; 64], 10), (Vec::new(), End::Broken));
    }
}
