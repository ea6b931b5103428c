//! Where another service listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a scanner or milter listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceAddress {
    /// `host:port`
    Tcp(String),
    /// A path.
    Socket(PathBuf),
}

impl FromStr for ServiceAddress {
    type Err = InvalidServiceAddress;

    /// `host:port`, `unix:/path` or `/path`.
    fn from_str(text: &str) -> Result<Self, InvalidServiceAddress> {
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            return if path.starts_with('/') { Ok(Self::Socket(path.into())) } else { Err(InvalidServiceAddress) };
        }
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if matches!(port, Some(Ok(1..))) { Ok(Self::Tcp(text.into())) } else { Err(InvalidServiceAddress) }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT or unix:/PATH")]
pub struct InvalidServiceAddress;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write() {
        for (text, written) in [
            ("127.0.0.1:3310", "127.0.0.1:3310"),
            ("[::1]:3310", "[::1]:3310"),
            ("clamd.test:3310", "clamd.test:3310"),
            ("unix:/run/clamd.ctl", "unix:/run/clamd.ctl"),
            ("/run/clamd.ctl", "unix:/run/clamd.ctl"),
        ] {
            assert_eq!(text.parse::<ServiceAddress>().unwrap().to_string(), written);
        }
        for text in ["", "host", "host:", ":3310", "host:0", "host:99999", "unix:relative"] {
            assert!(text.parse::<ServiceAddress>().is_err(), "{text}");
        }
    }
}
