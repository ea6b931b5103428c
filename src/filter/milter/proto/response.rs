//! What a milter answers.

use super::{Negotiation, Packet, ProtocolError, Texts, number, put_texts};

/// `SMFIR_*`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    Negotiate(Negotiation),
    Continue,
    /// Nothing more needs to be asked about this message.
    Accept,
    Reject,
    TempFail,
    Discard,
    /// No more body is wanted.
    Skip,
    /// Still at work.
    Progress,
    /// `550 5.7.1 text`: code, enhanced code, text.
    ReplyCode(Vec<u8>),
    Quarantine(Vec<u8>),
    AddHeader {
        name: Vec<u8>,
        value: Vec<u8>,
    },
    InsertHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// An empty value removes the field.
    ChangeHeader {
        index: u32,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    AddRecipient(Vec<u8>),
    /// With ESMTP parameters.
    AddRecipientWith(Vec<Vec<u8>>),
    DeleteRecipient(Vec<u8>),
    ReplaceBody(Vec<u8>),
    ChangeFrom(Vec<Vec<u8>>),
    Shutdown,
    ConnectionFailed,
}

impl Response {
    pub fn parse(packet: &Packet) -> Result<Self, ProtocolError> {
        let data = packet.data.as_slice();
        let bare = |response| if data.is_empty() { Ok(response) } else { Err(ProtocolError::Malformed) };
        match packet.code {
            b'O' => Ok(Self::Negotiate(Negotiation::parse(data)?)),
            b'c' => bare(Self::Continue),
            b'a' => bare(Self::Accept),
            b'r' => bare(Self::Reject),
            b't' => bare(Self::TempFail),
            b'd' => bare(Self::Discard),
            b's' => bare(Self::Skip),
            b'p' => bare(Self::Progress),
            b'4' => bare(Self::Shutdown),
            b'f' => bare(Self::ConnectionFailed),
            b'y' => Ok(Self::ReplyCode(Texts(data).only()?)),
            b'q' => Ok(Self::Quarantine(Texts(data).only()?)),
            b'h' => Texts(data).pair().map(|(name, value)| Self::AddHeader { name, value }),
            b'i' => {
                let (index, rest) = number(data)?;
                Texts(rest).pair().map(|(name, value)| Self::InsertHeader { index, name, value })
            }
            b'm' => {
                let (index, rest) = number(data)?;
                Texts(rest).pair().map(|(name, value)| Self::ChangeHeader { index, name, value })
            }
            b'+' => Ok(Self::AddRecipient(Texts(data).only()?)),
            b'2' => Ok(Self::AddRecipientWith(Texts(data).all()?)),
            b'-' => Ok(Self::DeleteRecipient(Texts(data).only()?)),
            b'b' => Ok(Self::ReplaceBody(data.to_vec())),
            b'e' => Ok(Self::ChangeFrom(Texts(data).all()?)),
            other => Err(ProtocolError::UnknownCode(other)),
        }
    }

    pub fn to_packet(&self) -> Packet {
        let mut data = Vec::new();
        let code = match self {
            Self::Negotiate(negotiation) => {
                data = negotiation.encode();
                b'O'
            }
            Self::Continue => b'c',
            Self::Accept => b'a',
            Self::Reject => b'r',
            Self::TempFail => b't',
            Self::Discard => b'd',
            Self::Skip => b's',
            Self::Progress => b'p',
            Self::Shutdown => b'4',
            Self::ConnectionFailed => b'f',
            Self::ReplyCode(text) => {
                put_texts(&mut data, [text.as_slice()]);
                b'y'
            }
            Self::Quarantine(reason) => {
                put_texts(&mut data, [reason.as_slice()]);
                b'q'
            }
            Self::AddHeader { name, value } => {
                put_texts(&mut data, [name.as_slice(), value]);
                b'h'
            }
            Self::InsertHeader { index, name, value } => {
                data.extend_from_slice(&index.to_be_bytes());
                put_texts(&mut data, [name.as_slice(), value]);
                b'i'
            }
            Self::ChangeHeader { index, name, value } => {
                data.extend_from_slice(&index.to_be_bytes());
                put_texts(&mut data, [name.as_slice(), value]);
                b'm'
            }
            Self::AddRecipient(path) => {
                put_texts(&mut data, [path.as_slice()]);
                b'+'
            }
            Self::AddRecipientWith(words) => {
                put_texts(&mut data, words.iter().map(Vec::as_slice));
                b'2'
            }
            Self::DeleteRecipient(path) => {
                put_texts(&mut data, [path.as_slice()]);
                b'-'
            }
            Self::ReplaceBody(chunk) => {
                data.extend_from_slice(chunk);
                b'b'
            }
            Self::ChangeFrom(words) => {
                put_texts(&mut data, words.iter().map(Vec::as_slice));
                b'e'
            }
        };
        Packet { code, data }
    }
}
