//! What a mail server tells a milter.

use super::{Negotiation, Packet, ProtocolError, Texts, put_texts};

/// `SMFIC_*`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Negotiate(Negotiation),
    /// Values of macros for the command that follows.
    Macros {
        command: u8,
        values: Vec<(Vec<u8>, Vec<u8>)>,
    },
    Connect {
        host: Vec<u8>,
        address: Address,
    },
    Helo(Vec<u8>),
    /// The path in angle brackets, then ESMTP parameters.
    Mail(Vec<Vec<u8>>),
    Rcpt(Vec<Vec<u8>>),
    Data,
    Header {
        name: Vec<u8>,
        /// Without line end; folds as LF.
        value: Vec<u8>,
    },
    EndOfHeaders,
    Body(Vec<u8>),
    EndOfMessage,
    /// Forget this message, keep the connection's facts.
    Abort,
    Quit,
    /// Forget all; another connection's facts follow.
    QuitForNext,
    Unknown(Vec<u8>),
}

/// The client's address as CONNECT gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Unknown,
    Inet { family: Family, port: u16, ip: Vec<u8> },
    Unix(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Command {
    pub fn parse(packet: &Packet) -> Result<Self, ProtocolError> {
        let data = packet.data.as_slice();
        let bare = |command| if data.is_empty() { Ok(command) } else { Err(ProtocolError::Malformed) };
        match packet.code {
            b'O' => Ok(Self::Negotiate(Negotiation::parse(data)?)),
            b'D' => {
                let (command, rest) = data.split_first().ok_or(ProtocolError::Malformed)?;
                let mut texts = Texts(rest);
                let mut values = Vec::new();
                while !texts.0.is_empty() {
                    values.push((texts.next_text()?.to_vec(), texts.next_text()?.to_vec()));
                }
                Ok(Self::Macros { command: *command, values })
            }
            b'C' => {
                let mut texts = Texts(data);
                let host = texts.next_text()?.to_vec();
                Ok(Self::Connect { host, address: parse_address(texts.0)? })
            }
            b'H' => Ok(Self::Helo(Texts(data).only()?)),
            b'M' => Ok(Self::Mail(Texts(data).all()?)),
            b'R' => Ok(Self::Rcpt(Texts(data).all()?)),
            b'T' => bare(Self::Data),
            b'L' => Texts(data).pair().map(|(name, value)| Self::Header { name, value }),
            b'N' => bare(Self::EndOfHeaders),
            b'B' => Ok(Self::Body(data.to_vec())),
            // The last chunk may ride on it in old versions; ours never ask for that.
            b'E' => bare(Self::EndOfMessage),
            b'A' => bare(Self::Abort),
            b'Q' => bare(Self::Quit),
            b'K' => bare(Self::QuitForNext),
            b'U' => Ok(Self::Unknown(Texts(data).only()?)),
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
            Self::Macros { command, values } => {
                data.push(*command);
                values.iter().for_each(|(name, value)| put_texts(&mut data, [name.as_slice(), value]));
                b'D'
            }
            Self::Connect { host, address } => {
                put_texts(&mut data, [host.as_slice()]);
                put_address(&mut data, address);
                b'C'
            }
            Self::Helo(name) => {
                put_texts(&mut data, [name.as_slice()]);
                b'H'
            }
            Self::Mail(words) => {
                put_texts(&mut data, words.iter().map(Vec::as_slice));
                b'M'
            }
            Self::Rcpt(words) => {
                put_texts(&mut data, words.iter().map(Vec::as_slice));
                b'R'
            }
            Self::Data => b'T',
            Self::Header { name, value } => {
                put_texts(&mut data, [name.as_slice(), value]);
                b'L'
            }
            Self::EndOfHeaders => b'N',
            Self::Body(chunk) => {
                data.extend_from_slice(chunk);
                b'B'
            }
            Self::EndOfMessage => b'E',
            Self::Abort => b'A',
            Self::Quit => b'Q',
            Self::QuitForNext => b'K',
            Self::Unknown(line) => {
                put_texts(&mut data, [line.as_slice()]);
                b'U'
            }
        };
        Packet { code, data }
    }
}

fn parse_address(data: &[u8]) -> Result<Address, ProtocolError> {
    let (family, rest) = data.split_first().ok_or(ProtocolError::Malformed)?;
    let family = match family {
        b'U' => return Ok(Address::Unknown),
        b'4' => Some(Family::V4),
        b'6' => Some(Family::V6),
        b'L' => None,
        _ => return Err(ProtocolError::Malformed),
    };
    let (port, rest) = rest.split_first_chunk::<2>().ok_or(ProtocolError::Malformed)?;
    let text = Texts(rest).only()?;
    Ok(match family {
        Some(family) => Address::Inet { family, port: u16::from_be_bytes(*port), ip: text },
        None => Address::Unix(text),
    })
}

fn put_address(out: &mut Vec<u8>, address: &Address) {
    let (family, port, text) = match address {
        Address::Unknown => return out.push(b'U'),
        Address::Inet { family: Family::V4, port, ip } => (b'4', *port, ip),
        Address::Inet { family: Family::V6, port, ip } => (b'6', *port, ip),
        Address::Unix(path) => (b'L', 0, path),
    };
    out.push(family);
    out.extend_from_slice(&port.to_be_bytes());
    put_texts(out, [text.as_slice()]);
}

impl Address {
    pub fn of(ip: std::net::IpAddr, port: u16) -> Self {
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        Self::Inet { family, port, ip: ip.to_string().into_bytes() }
    }

    /// The IP address. Sendmail writes IPv6 ones with a prefix.
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Inet { ip, .. } => {
                let text = std::str::from_utf8(ip).ok()?;
                text.strip_prefix("IPv6:").unwrap_or(text).parse().ok()
            }
            Self::Unknown | Self::Unix(_) => None,
        }
    }
}
