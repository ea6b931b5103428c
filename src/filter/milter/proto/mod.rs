//! The milter protocol, version 6, both directions: packets, commands and responses. Pure.
//!
//! A packet is a length (32 bits, big-endian), a command byte and data. Texts in data end with NUL.

mod command;
mod packet;
mod response;

pub use command::{Address, Command};
pub use packet::{Packet, PacketReader, ProtocolError};
pub use response::Response;

/// What both sides agree on (`SMFIC_OPTNEG`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiation {
    pub version: u32,
    pub actions: u32,
    pub steps: u32,
}

pub const VERSION: u32 = 6;

/// What a milter may do at the end of a message (`SMFIF_*`).
pub mod action {
    pub const ADD_HEADERS: u32 = 0x01;
    pub const CHANGE_BODY: u32 = 0x02;
    pub const ADD_RECIPIENTS: u32 = 0x04;
    pub const DELETE_RECIPIENTS: u32 = 0x08;
    pub const CHANGE_HEADERS: u32 = 0x10;
    pub const QUARANTINE: u32 = 0x20;
}

/// What the two sides leave out (`SMFIP_*`).
pub mod step {
    pub const NO_CONNECT: u32 = 0x01;
    pub const NO_HELO: u32 = 0x02;
    pub const NO_MAIL: u32 = 0x04;
    pub const NO_RCPT: u32 = 0x08;
    pub const NO_BODY: u32 = 0x10;
    pub const NO_HEADERS: u32 = 0x20;
    pub const NO_END_OF_HEADERS: u32 = 0x40;
    pub const NO_REPLY_HEADER: u32 = 0x80;
    pub const NO_UNKNOWN: u32 = 0x100;
    pub const NO_DATA: u32 = 0x200;
    /// The milter may answer "skip" to body chunks.
    pub const SKIP: u32 = 0x400;
    pub const NO_REPLY_CONNECT: u32 = 0x1000;
    pub const NO_REPLY_HELO: u32 = 0x2000;
    pub const NO_REPLY_MAIL: u32 = 0x4000;
    pub const NO_REPLY_RCPT: u32 = 0x8000;
    pub const NO_REPLY_DATA: u32 = 0x1_0000;
    pub const NO_REPLY_UNKNOWN: u32 = 0x2_0000;
    pub const NO_REPLY_END_OF_HEADERS: u32 = 0x4_0000;
    pub const NO_REPLY_BODY: u32 = 0x8_0000;
    /// Header values keep the space after the colon.
    pub const HEADER_LEADING_SPACE: u32 = 0x10_0000;
}

/// The longest data of a packet that every milter takes: what libmilter reads unless more was agreed on.
pub const DATA_MAX: usize = 65_535;

/// Reads the texts of a packet's data, each ended by NUL.
pub(crate) struct Texts<'a>(pub &'a [u8]);

impl<'a> Texts<'a> {
    pub fn next_text(&mut self) -> Result<&'a [u8], ProtocolError> {
        let end = memchr::memchr(0, self.0).ok_or(ProtocolError::Malformed)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    pub fn all(mut self) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let mut out = Vec::new();
        while !self.0.is_empty() {
            out.push(self.next_text()?.to_vec());
        }
        Ok(out)
    }

    pub fn pair(mut self) -> Result<(Vec<u8>, Vec<u8>), ProtocolError> {
        let pair = (self.next_text()?.to_vec(), self.next_text()?.to_vec());
        if self.0.is_empty() { Ok(pair) } else { Err(ProtocolError::Malformed) }
    }

    pub fn only(mut self) -> Result<Vec<u8>, ProtocolError> {
        let text = self.next_text()?.to_vec();
        if self.0.is_empty() { Ok(text) } else { Err(ProtocolError::Malformed) }
    }
}

pub(crate) fn number(data: &[u8]) -> Result<(u32, &[u8]), ProtocolError> {
    let (head, rest) = data.split_first_chunk::<4>().ok_or(ProtocolError::Malformed)?;
    Ok((u32::from_be_bytes(*head), rest))
}

/// Appends texts, each ended by NUL. A NUL within one would shift those after it: it becomes a space.
pub(crate) fn put_texts<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a [u8]>) {
    for text in texts {
        out.extend(text.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
        out.push(0);
    }
}

impl Negotiation {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, ProtocolError> {
        let (version, rest) = number(data)?;
        let (actions, rest) = number(rest)?;
        // More may follow: lists of macros that the other side would like.
        let (steps, _) = number(rest)?;
        Ok(Self { version, actions, steps })
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.version, self.actions, self.steps].into_iter().flat_map(u32::to_be_bytes).collect()
    }
}

#[cfg(test)]
mod tests;
