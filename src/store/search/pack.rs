//! Packs: the search texts of some tens of messages, compressed together.
//!
//! Version 1, unpacked: for each message its email id (8 octets), the lengths of header and body (4 each, all big-endian)
//! and both texts.

use mail::search::SearchText;

use crate::model::EmailId;

/// Where a pack is full. Larger ones compress little better, and a search of few messages unpacks more for nothing.
pub(super) const FULL_BYTES: usize = 512 * 1024;

const VERSION: u8 = 1;
const LEVEL: i32 = 1;

/// A pack being filled.
#[derive(Default)]
pub(super) struct Builder {
    raw: Vec<u8>,
    emails: Vec<EmailId>,
}

/// A pack that cannot be read; it is only a cache, so it is dropped and made again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl Builder {
    /// Texts beyond 4 GiB do not exist: messages are limited long before.
    pub(super) fn add(&mut self, email: EmailId, header: &str, body: &str) {
        let (Ok(header_len), Ok(body_len)) = (u32::try_from(header.len()), u32::try_from(body.len())) else { return };
        self.raw.extend_from_slice(&email.0.to_be_bytes());
        self.raw.extend_from_slice(&header_len.to_be_bytes());
        self.raw.extend_from_slice(&body_len.to_be_bytes());
        self.raw.extend_from_slice(header.as_bytes());
        self.raw.extend_from_slice(body.as_bytes());
        self.emails.push(email);
    }

    pub(super) fn is_full(&self) -> bool {
        self.raw.len() >= FULL_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.emails.is_empty()
    }

    pub(super) fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// The packed texts and the ids they belong to.
    pub(super) fn pack(self) -> std::io::Result<(Vec<u8>, Vec<EmailId>)> {
        let mut data = vec![VERSION];
        data.extend_from_slice(&(self.raw.len() as u64).to_be_bytes());
        let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
        packer.include_checksum(true)?;
        data.extend_from_slice(&packer.compress(&self.raw)?);
        Ok((data, self.emails))
    }
}

/// An unpacked pack.
pub(super) struct Pack {
    raw: Vec<u8>,
}

impl Pack {
    pub(super) fn unpack(data: &[u8]) -> Result<Self, Damaged> {
        let (head, packed) = data.split_at_checked(9).ok_or(Damaged)?;
        let (version, len) = head.split_first().ok_or(Damaged)?;
        let len = len.try_into().map(u64::from_be_bytes).map_err(|_| Damaged)?;
        // No text compresses better than a thousandfold: a length beyond is no length.
        let len = usize::try_from(len).ok().filter(|len| *len / 100_000 <= packed.len()).ok_or(Damaged)?;
        if *version != VERSION {
            return Err(Damaged);
        }
        let raw = zstd::bulk::decompress(packed, len).map_err(|_| Damaged)?;
        let pack = Self { raw };
        if pack.raw.len() != len {
            return Err(Damaged);
        }
        let mut all = pack.texts();
        all.by_ref().for_each(drop);
        if all.is_damaged { Err(Damaged) } else { Ok(pack) }
    }

    pub(super) fn texts(&self) -> Texts<'_> {
        Texts { rest: &self.raw, is_damaged: false }
    }
}

/// Walks the texts of a pack.
pub(super) struct Texts<'a> {
    rest: &'a [u8],
    is_damaged: bool,
}

impl<'a> Texts<'a> {
    fn read(&mut self) -> Option<(EmailId, SearchText<'a>)> {
        let (email, rest) = self.rest.split_first_chunk::<8>()?;
        let (header_len, rest) = rest.split_first_chunk::<4>()?;
        let (body_len, rest) = rest.split_first_chunk::<4>()?;
        let (header, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*header_len)).ok()?)?;
        let (body, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*body_len)).ok()?)?;
        let text = SearchText { header: std::str::from_utf8(header).ok()?, body: std::str::from_utf8(body).ok()? };
        self.rest = rest;
        Some((EmailId(u64::from_be_bytes(*email)), text))
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = (EmailId, SearchText<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.is_damaged {
            return None;
        }
        let read = self.read();
        self.is_damaged = read.is_none();
        read
    }
}

pub(super) fn encode_ids(emails: &[EmailId]) -> Vec<u8> {
    emails.iter().flat_map(|email| email.0.to_be_bytes()).collect()
}

pub(super) fn decode_ids(octets: &[u8]) -> impl Iterator<Item = EmailId> + '_ {
    octets.as_chunks::<8>().0.iter().map(|id| EmailId(u64::from_be_bytes(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_damage_is_noticed() {
        let mut builder = Builder::default();
        builder.add(EmailId(7), "SUBJECT: A\n", "ÄPFEL");
        builder.add(EmailId(u64::MAX), "", "");
        let (data, emails) = builder.pack().unwrap();
        assert_eq!(decode_ids(&encode_ids(&emails)).collect::<Vec<_>>(), emails);
        let pack = Pack::unpack(&data).unwrap();
        let texts: Vec<_> = pack.texts().map(|(email, text)| (email.0, text.header, text.body)).collect();
        assert_eq!(texts, [(7, "SUBJECT: A\n", "ÄPFEL"), (u64::MAX, "", "")]);
        for end in 0..data.len() {
            assert!(Pack::unpack(&data[..end]).is_err());
        }
        for at in 0..data.len() {
            let mut other = data.clone();
            other[at] ^= 0x80;
            assert!(Pack::unpack(&other).is_err(), "octet {at}");
        }
    }
}
