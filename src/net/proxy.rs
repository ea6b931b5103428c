//! The PROXY protocol, versions 1 and 2 (HAProxy's specification `proxy-protocol.txt`): who the client really is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the beginning of a connection says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// No PROXY header: the bytes are the client's own.
    None,
    /// More bytes are needed to tell.
    Partial,
    /// A header of `length` bytes. `client` is `None` for LOCAL and UNKNOWN: the connection speaks for itself.
    Found { length: usize, client: Option<SocketAddr>, local: Option<SocketAddr> },
    /// It begins like a header and is none.
    Broken,
}

/// A whole header fits in this: version 1 has at most 107 bytes, version 2 is cut at what we take.
pub const HEADER_MAX: usize = 1024;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_MAX: usize = 107;

/// Looks at the first bytes of a connection. At most [`HEADER_MAX`] bytes matter.
pub fn parse(bytes: &[u8]) -> Header {
    if starts_like(bytes, SIGNATURE) {
        if bytes.len() < 16 { Header::Partial } else { parse_v2(bytes) }
    } else if starts_like(bytes, b"PROXY ") {
        match bytes.iter().take(V1_MAX).position(|byte| *byte == b'\n') {
            Some(end) => parse_v1(bytes, end + 1),
            None if bytes.len() >= V1_MAX => Header::Broken,
            None => Header::Partial,
        }
    } else {
        Header::None
    }
}

/// True if one of the two is a prefix of the other, and there is at least one byte.
fn starts_like(bytes: &[u8], signature: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8], length: usize) -> Header {
    let line = bytes.get(..length).and_then(|line| line.strip_suffix(b"\r\n"));
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else { return Header::Broken };
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Header::Found { length, client: None, local: None };
    }
    let (source, target, source_port, target_port) = (words.next(), words.next(), words.next(), words.next());
    let address = |text: Option<&str>| match family {
        Some("TCP4") => text?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => text?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: Option<&str>| text?.parse::<u16>().ok();
    let client = address(source).zip(port(source_port)).map(SocketAddr::from);
    let local = address(target).zip(port(target_port)).map(SocketAddr::from);
    match (client, local, words.next()) {
        (Some(client), Some(local), None) => Header::Found { length, client: Some(client), local: Some(local) },
        _ => Header::Broken,
    }
}

fn parse_v2(bytes: &[u8]) -> Header {
    let (Some([command, family, high, low]), true) = (bytes.get(12..16), bytes.len() >= 16) else {
        return Header::Partial;
    };
    let length = 16 + usize::from(u16::from_be_bytes([*high, *low]));
    if command >> 4 != 2 || length > HEADER_MAX {
        return Header::Broken;
    }
    let Some(content) = bytes.get(16..length) else { return Header::Partial };
    let addresses = match (command & 15, family) {
        (0, _) => return Header::Found { length, client: None, local: None },
        (1, 0x11 | 0x12) => read_pair::<4>(content),
        (1, 0x21 | 0x22) => read_pair::<16>(content),
        (1, _) => return Header::Found { length, client: None, local: None },
        _ => return Header::Broken,
    };
    match addresses {
        Some((client, local)) => Header::Found { length, client: Some(client), local: Some(local) },
        None => Header::Broken,
    }
}

/// A header of version 2: we come on behalf of `client`, which wants `local`.
pub fn header_v2(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(0x21);
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            out.extend_from_slice(&[0x21, 0, 36]);
            out.extend_from_slice(&octets(from));
            out.extend_from_slice(&octets(to));
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&local.port().to_be_bytes());
    out
}

/// Source and target address, then source and target port.
fn read_pair<const N: usize>(content: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        match N {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let port = |at: usize| content.get(at..at + 2).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(u16::from_be_bytes);
    let source = SocketAddr::new(address(content.get(..N)?)?, port(2 * N)?);
    let target = SocketAddr::new(address(content.get(N..2 * N)?)?, port(2 * N + 2)?);
    Some((source, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, content].concat()
    }

    fn client(header: Header) -> String {
        match header {
            Header::Found { client, .. } => client.map_or("local".to_owned(), |client| client.to_string()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn headers_tell_the_client() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0, 25];
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\nEHLO".to_vec(), "192.0.2.1:12345"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 25\r\n".to_vec(), "[2001:db8::1]:12345"),
            (b"PROXY UNKNOWN whatever\r\n".to_vec(), "local"),
            (b"PROXY TCP4 192.0.2.1\r\n".to_vec(), "Broken"),
            (b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(), "Broken"),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\n".to_vec(), "Broken"),
            ([b"PROXY ".to_vec(), vec![b'x'; 200]].concat(), "Broken"),
            (v2(1, 0x11, &v4), "192.0.2.1:12345"),
            (v2(1, 0x11, &[&v4[..], &[3, 0, 1, 9]].concat()), "192.0.2.1:12345"),
            (v2(0, 0, &[]), "local"),
            (v2(1, 0x31, &[0; 216]), "local"),
            (v2(1, 0x11, &v4[..8]), "Broken"),
            (v2(2, 0x11, &v4), "Broken"),
            (b"EHLO x\r\n".to_vec(), "None"),
            (b"PRO".to_vec(), "Partial"),
            (vec![], "None"),
        ] {
            assert_eq!(client(parse(&bytes)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (from, to) in [
            ("192.0.2.1:12345", "198.51.100.1:25"),
            ("[2001:db8::1]:1", "[2001:db8::2]:65535"),
            ("192.0.2.1:12345", "[2001:db8::2]:993"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let bytes = header_v2(from, to);
            let Header::Found { length, client: Some(client), local: Some(local) } = parse(&bytes) else {
                panic!("{from} {to}")
            };
            assert_eq!((length, client.port(), local), (bytes.len(), from.port(), to));
            assert_eq!(client.ip().to_canonical(), from.ip());
        }
    }

    #[test]
    fn any_prefix_of_a_header_is_partial_and_nothing_panics() {
        for whole in [b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\n".to_vec(), v2(1, 0x21, &[7; 36])] {
            for end in 1..whole.len() {
                assert_eq!(parse(&whole[..end]), Header::Partial, "{end}");
                let mut changed = whole.clone();
                for value in [0, 0x7F, 0xFF] {
                    changed[end] = value;
                    let _ = parse(&changed);
                }
            }
        }
    }
}
