//! Where a packet ends.

/// One packet, not yet understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub code: u8,
    pub data: Vec<u8>,
}

/// The other side does not speak the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("packet of {length} octets: the limit is {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("packet without a command")]
    Empty,
    #[error("malformed data")]
    Malformed,
    #[error("unknown command {0:#04x}")]
    UnknownCode(u8),
    #[error("command out of order")]
    OutOfOrder,
}

/// Collects bytes and gives whole packets. Holds at most one packet's length more than it was fed at a time.
#[derive(Debug, Default)]
pub struct PacketReader {
    buffer: Vec<u8>,
    start: usize,
}

/// A chunk of 1 MiB is the most that the protocol knows (`SMFIP_MDS_1M`), header fields included.
const LENGTH_MAX: usize = 1024 * 1024 + 1;

impl PacketReader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet, if there is one. After an error the stream is lost.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, ProtocolError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((head, rest)) = pending.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > LENGTH_MAX {
            return Err(ProtocolError::TooLong { length, limit: LENGTH_MAX });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (code, data) = body.split_first().ok_or(ProtocolError::Empty)?;
        let packet = Packet { code: *code, data: data.to_vec() };
        self.start += 4 + length;
        Ok(Some(packet))
    }
}

impl Packet {
    /// Appends the packet as it stands on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.data.len().saturating_add(1)).unwrap_or(u32::MAX);
        debug_assert!(self.data.len() < LENGTH_MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(self.code);
        out.extend_from_slice(&self.data);
    }
}
