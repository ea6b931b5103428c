//! Connections that we open to servers of other make: where to, under which protection, whom to believe.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy;
use crate::stream::Outbound;

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Security {
    /// TLS from the first octet.
    Tls,
    /// TLS by the protocol's own command, always: a server that does not offer it is not used.
    StartTls,
    /// In the clear.
    Plain,
}

impl Security {
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Tls, "tls"), (Self::StartTls, "starttls"), (Self::Plain, "none")];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(security, _)| *security == self).map_or("", |(_, name)| name)
    }
}

/// A server's address: written `starttls://mail.example.test:143`. Without a word before it, the ports 465, 993 and 995
/// stand for TLS, others for STARTTLS.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub security: Security,
}

/// The text is no [`Endpoint`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an address is HOST:PORT, if wanted after tls://, starttls:// or none://")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (security, place) = match text.split_once("://") {
            Some((word, place)) => {
                let known = Security::ALL.iter().find(|(_, name)| *name == word);
                (Some(known.ok_or(InvalidEndpoint)?.0), place)
            }
            None => (None, text),
        };
        let (host, port) = place.rsplit_once(':').ok_or(InvalidEndpoint)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().map_err(|_| InvalidEndpoint)?;
        if port == 0 || host.len() > 255 || ServerName::try_from(host).is_err() {
            return Err(InvalidEndpoint);
        }
        let usual = if matches!(port, 465 | 993 | 995) { Security::Tls } else { Security::StartTls };
        Ok(Self { host: host.to_ascii_lowercase(), port, security: security.unwrap_or(usual) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}:{}", self.security.as_str(), self.host, self.port)
    }
}

/// A server that takes mail: `HOST` or `HOST:PORT` with TLS where it is offered, or an [`Endpoint`] with its word.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MailHost {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// `None`: TLS where it is offered, with whoever answers.
    pub security: Option<Security>,
}

impl MailHost {
    /// `usual_port` is that of a text without one.
    pub fn parse(text: &str, usual_port: u16) -> Result<Self, InvalidEndpoint> {
        let text = text.trim();
        let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']') || host.contains("://"))
        });
        let whole = if has_port { text.to_owned() } else { format!("{text}:{usual_port}") };
        let Endpoint { host, port, security } = whole.parse()?;
        Ok(Self { host, port, security: text.contains("://").then_some(security) })
    }
}

impl fmt::Display for MailHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        if let Some(security) = self.security {
            write!(f, "{}://", security.as_str())?;
        }
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// Which certificate of a server is believed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Trust {
    /// One that the system's authorities signed for the host.
    System,
    /// One that these authorities, in PEM, signed for the host.
    Authorities(String),
    /// The one with this SHA-256.
    Fingerprint([u8; 32]),
    /// Any: whoever sits in between reads along.
    Anything,
}

/// What the DNS says of a server's certificate (RFC 6698 §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tlsa {
    /// 2: it is signed by what is named; 3: it is what is named.
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    pub data: Vec<u8>,
}

impl Tlsa {
    /// False for what mail servers do not look at (RFC 7672 §3.1.3), and for what is not known.
    pub fn is_usable(&self) -> bool {
        let length_fits = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        matches!(self.usage, 2 | 3) && self.selector <= 1 && length_fits
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            0 => certificate.to_vec(),
            _ => match ParsedCertificate::try_from(certificate) {
                Ok(parsed) => parsed.subject_public_key_info().to_vec(),
                Err(_) => return false,
            },
        };
        match self.matching {
            0 => selected == self.data,
            1 => Sha256::digest(&selected).as_slice() == self.data,
            2 => Sha512::digest(&selected).as_slice() == self.data,
            _ => false,
        }
    }
}

impl std::fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Trust {
    /// For people: `system`, `off`, `sha256:HEX`, or that authorities were given.
    pub fn word(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::Anything => "off".to_owned(),
            Self::Authorities(_) => "of given authorities".to_owned(),
            Self::Fingerprint(octets) => {
                octets.iter().fold("sha256:".to_owned(), |text, octet| format!("{text}{octet:02x}"))
            }
        }
    }

    /// # Errors
    /// Says what is wrong with the authorities.
    pub fn check(&self) -> Result<(), String> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                webpki(found.certs, provider)?
            }
            Self::Authorities(pem) => {
                let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
                webpki(found.map_err(|error| error.to_string())?, provider)?
            }
            Self::Fingerprint(wanted) => Arc::new(Own { belief: Belief::Pinned(*wanted), provider }),
            Self::Anything => Arc::new(Own { belief: Belief::Anything, provider }),
        };
        config(verifier)
    }
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn webpki(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        return Err("there is no certificate of an authority".to_owned());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    match verifier {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(error.to_string()),
    }
}

/// Believes by its own measure, and in any case only who has the certificate's key.
#[derive(Debug)]
struct Own {
    belief: Belief,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Belief {
    Anything,
    /// The certificate with this SHA-256.
    Pinned([u8; 32]),
    /// What the DNS names (RFC 7672 §3.1).
    Dns(Arc<[Tlsa]>),
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let none = || rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let records = match &self.belief {
            Belief::Anything => return Ok(ServerCertVerified::assertion()),
            Belief::Pinned(wanted) if Sha256::digest(end_entity).as_slice() == wanted => {
                return Ok(ServerCertVerified::assertion());
            }
            Belief::Pinned(_) => return Err(none()),
            Belief::Dns(records) => records,
        };
        let usable = || records.iter().filter(|record| record.is_usable());
        // Neither its name nor its dates matter: the DNS says which it is.
        if usable().any(|record| record.usage == 3 && record.matches(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        let mut anchors: Vec<CertificateDer<'static>> = Vec::new();
        for record in usable().filter(|record| record.usage == 2) {
            let named = intermediates.iter().filter(|certificate| record.matches(certificate));
            anchors.extend(named.map(|certificate| certificate.clone().into_owned()));
            if (record.selector, record.matching) == (0, 0) {
                anchors.push(CertificateDer::from(record.data.clone()));
            }
        }
        let verifier = webpki(anchors, Arc::clone(&self.provider)).map_err(|_| none())?;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a certificate is not believed, or TLS does not come about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsTrouble {
    /// The server has no TLS.
    NotOffered,
    Expired,
    WrongName,
    /// Nobody who is believed stands for it.
    NotTrusted,
    Other,
}

impl TlsTrouble {
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(rustls::Error::InvalidCertificate(wrong)) = inner else { return Self::Other };
        match wrong {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            _ => Self::NotTrusted,
        }
    }
}

/// Who is named by a PROXY header at the beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announce {
    /// There is no header.
    Nothing,
    /// The client on whose behalf we come.
    Client(SocketAddr),
    /// We come by ourselves.
    Ourselves,
}

/// Opens connections. Keeps what TLS needs for each [`Trust`]: the authorities read, and tickets that make the next
/// handshake cheap.
#[derive(Default)]
pub struct Connectors {
    /// Few: one for each server that somebody named.
    known: Mutex<Vec<(Trust, TlsConnector)>>,
}

const KNOWN_MAX: usize = 64;
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

impl Connectors {
    /// A TCP connection, under TLS if the endpoint has that from the first octet. `announce` goes ahead.
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// Nobody answers in time, or not as somebody believed.
    pub async fn open(&self, to: &Endpoint, trust: &Trust, announce: Announce) -> io::Result<Outbound> {
        let connecting = async {
            let mut stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            stream.set_nodelay(true)?;
            let from = match announce {
                Announce::Nothing => None,
                Announce::Client(client) => Some(client),
                Announce::Ourselves => Some(stream.local_addr()?),
            };
            if let Some(from) = from {
                let header = proxy::header_v2(from, stream.peer_addr()?);
                stream.write_all(&header).await?;
            }
            io::Result::Ok(stream)
        };
        let stream = within(CONNECT_WAIT, connecting).await?;
        match to.security {
            Security::Tls => self.secure(stream, &to.host, trust).await,
            Security::StartTls | Security::Plain => Ok(Outbound::Plain(stream)),
        }
    }

    /// Starts TLS with `host`, which `trust` must believe.
    pub async fn secure(&self, stream: TcpStream, host: &str, trust: &Trust) -> io::Result<Outbound> {
        let connector = self.connector(trust)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = within(HANDSHAKE_WAIT, connector.connect(name, stream)).await?;
        Ok(Outbound::Tls(Box::new(stream)))
    }

    /// The same with a host whose certificate is one that these records, proven by DNSSEC, name (RFC 7672).
    pub async fn secure_by_dns(&self, stream: TcpStream, host: &str, records: &Arc<[Tlsa]>) -> io::Result<Outbound> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Own { belief: Belief::Dns(Arc::clone(records)), provider });
        let connector = TlsConnector::from(Arc::new(config(verifier).map_err(io::Error::other)?));
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = within(HANDSHAKE_WAIT, connector.connect(name, stream)).await?;
        Ok(Outbound::Tls(Box::new(stream)))
    }

    fn connector(&self, trust: &Trust) -> io::Result<TlsConnector> {
        if let Some((_, connector)) = self.known.lock().iter().find(|(known, _)| known == trust) {
            return Ok(connector.clone());
        }
        let config = trust.config().map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.push((trust.clone(), connector.clone()));
        Ok(connector)
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::Tls;

    #[test]
    fn endpoints_are_written_and_read() {
        for (text, expected) in [
            ("mail.example.test:143", "starttls://mail.example.test:143"),
            ("Mail.example.test:993", "tls://mail.example.test:993"),
            ("none://192.0.2.1:143", "none://192.0.2.1:143"),
            ("[2001:db8::1]:465", "tls://[2001:db8::1]:465"),
            ("starttls://[::1]:995", "starttls://[::1]:995"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), expected);
            assert_eq!(expected.parse::<Endpoint>().unwrap(), endpoint);
        }
        for text in ["", "mail", "mail:", "mail:x", "mail:0", ":143", "http://mail:80", "ma il:143", "mail:99999"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    /// What the server hears of a client.
    async fn heard(
        listener: &TcpListener,
        tls: &Tls,
        connect: impl Future<Output = io::Result<Outbound>>,
    ) -> io::Result<String> {
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut heard = String::new();
            tls.acceptor(&[]).unwrap().accept(stream).await?.read_to_string(&mut heard).await?;
            io::Result::Ok(heard)
        };
        let client = async {
            let mut stream = connect.await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let (heard, said) = tokio::join!(server, client);
        said.and(heard)
    }

    #[tokio::test]
    async fn only_who_is_believed_is_talked_to() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::self_signed_in(folder.path(), vec!["localhost".to_owned()]).unwrap();
        let other = tempfile::tempdir().unwrap();
        Tls::self_signed_in(other.path(), vec!["localhost".to_owned()]).unwrap();
        let pem = |folder: &tempfile::TempDir| std::fs::read_to_string(folder.path().join("certificate.pem")).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem(&folder).as_bytes()).unwrap();
        let fingerprint: [u8; 32] = Sha256::digest(&certificate).into();
        let mut wrong = fingerprint;
        wrong[31] ^= 1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connectors = Connectors::default();
        for (trust, is_believed) in [
            (Trust::Fingerprint(fingerprint), true),
            (Trust::Fingerprint(wrong), false),
            (Trust::Authorities(pem(&folder)), true),
            (Trust::Authorities(pem(&other)), false),
            (Trust::Anything, true),
            (Trust::System, false),
        ] {
            // Again with what was kept of the first time.
            for _ in 0..2 {
                let port = listener.local_addr().unwrap().port();
                let to = Endpoint { host: "localhost".to_owned(), port, security: Security::Tls };
                let heard = heard(&listener, &tls, connectors.open(&to, &trust, Announce::Nothing)).await;
                assert_eq!(heard.is_ok_and(|heard| heard == "hello"), is_believed, "{trust:?}");
            }
        }
        assert!(Trust::Authorities("no PEM".to_owned()).check().is_err());
    }

    #[tokio::test]
    async fn the_dns_names_certificates() {
        let folder = tempfile::tempdir().unwrap();
        // An authority, and a server's certificate that it signed.
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = |name: &str| {
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connectors = Connectors::default();
        for (name, is_named) in [("localhost", true), ("other.test", false)] {
            let certificate = made(name);
            let chain = format!("{}{}", certificate.pem(), authority_certificate.pem());
            let (file, key_file) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
            std::fs::write(&file, chain).unwrap();
            std::fs::write(&key_file, key.serialize_pem()).unwrap();
            let tls = Tls::from_files(&file, &key_file).unwrap();
            let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
            let sha256 = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
            let record = |usage, selector, matching, data: Vec<u8>| Tlsa { usage, selector, matching, data };
            let of_authority = authority_certificate.der().to_vec();
            for (records, is_believed) in [
                (vec![record(3, 0, 0, certificate.der().to_vec())], true),
                (vec![record(3, 1, 1, sha256(&spki))], true),
                (vec![record(3, 1, 2, Sha512::digest(&spki).to_vec())], true),
                (vec![record(3, 1, 1, vec![7; 32])], false),
                (vec![record(3, 1, 1, vec![7; 32]), record(3, 0, 1, sha256(certificate.der()))], true),
                // Signed by who is named: then its name counts.
                (vec![record(2, 0, 1, sha256(&of_authority))], is_named),
                (vec![record(2, 0, 0, of_authority.clone())], is_named),
                (vec![record(2, 0, 1, sha256(certificate.der()))], false),
                // Not for mail.
                (vec![record(1, 1, 1, sha256(&spki))], false),
            ] {
                let records: Arc<[Tlsa]> = records.into();
                let connect = async {
                    let stream = TcpStream::connect(listener.local_addr().unwrap()).await?;
                    connectors.secure_by_dns(stream, "localhost", &records).await
                };
                let heard = heard(&listener, &tls, connect).await;
                assert_eq!(heard.is_ok_and(|heard| heard == "hello"), is_believed, "{name} {records:?}");
            }
        }
    }
}
