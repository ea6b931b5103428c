//! How a machine becomes a node: an administrator asks a node for a code, which holds for some minutes and once; whoever
//! shows it, over TLS to a node that the code proves, gets what it takes to be one.
//!
//! ```text
//! {"join":{"secret":"…","name":"mx3.example.net","version":"0.1.0"}}\n
//! {"size":4711}\n<4711 octets>          or  {"error":"…"}\n
//! ```

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use engine::EngineError;
use engine::postgres::Pool;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What a code says: where the nodes are, how they prove themselves, and what they want to hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    secret: [u8; 16],
    /// Of the authority's certificate: the first half of its BLAKE3.
    authority: [u8; 16],
    /// Nodes, by name and address.
    nodes: Vec<(String, String)>,
}

/// The first octets of a code say what it is, and of which form.
const FORM: u8 = 1;
const PREFIX: &str = "ortler-";
/// Nodes that a code names.
const NODES_MAX: usize = 3;
const CODE_MAX: usize = 2000;
const LINE_MAX: u64 = 4096;
/// What a node is made of.
const BUNDLE_MAX: u64 = 64 << 20;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("this is no code of `ortler cluster invite`, or not all of it")]
    NoCode,
    #[error("none of the nodes can be reached: {0}")]
    Unreached(String),
    #[error("the node refuses: {0}")]
    Refused(String),
}

impl std::fmt::Display for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(|(name, address)| format!("{name}={address}")).collect();
        let mut octets = [&[FORM][..], &self.secret, &self.authority, nodes.join(",").as_bytes()].concat();
        octets.extend(check(&octets));
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(octets))
    }
}

impl FromStr for Invitation {
    type Err = JoinError;

    fn from_str(code: &str) -> Result<Self, JoinError> {
        let code = code.trim();
        let text = code.strip_prefix(PREFIX).filter(|text| text.len() <= CODE_MAX).ok_or(JoinError::NoCode)?;
        let octets = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinError::NoCode)?;
        let (octets, found) = octets.split_last_chunk::<2>().ok_or(JoinError::NoCode)?;
        if *found != check(octets) {
            return Err(JoinError::NoCode);
        }
        let rest = octets.strip_prefix(&[FORM]).ok_or(JoinError::NoCode)?;
        let (secret, rest) = rest.split_first_chunk::<16>().ok_or(JoinError::NoCode)?;
        let (authority, rest) = rest.split_first_chunk::<16>().ok_or(JoinError::NoCode)?;
        let nodes = std::str::from_utf8(rest).map_err(|_| JoinError::NoCode)?.split(',');
        let nodes = nodes.map(|pair| pair.split_once('=').map(|(name, at)| (name.to_owned(), at.to_owned())));
        let nodes = nodes.collect::<Option<Vec<_>>>().ok_or(JoinError::NoCode)?;
        Ok(Self { secret: *secret, authority: *authority, nodes })
    }
}

/// For what gets lost when a code is copied.
fn check(octets: &[u8]) -> [u8; 2] {
    let digest = *blake3::hash(octets).as_bytes();
    [digest[0], digest[1]]
}

fn half(digest: blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_bytes()[..16]);
    half
}

impl Invitation {
    /// Writes an invitation down, which holds for `valid`. `nodes` are those that can be asked, by name and address.
    pub(crate) async fn write(
        pool: &Pool,
        authority: &CertificateDer<'_>,
        nodes: Vec<(String, String)>,
        valid: Duration,
    ) -> Result<Self, EngineError> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("the operating system gives random bytes");
        let sql = pool.session().await?;
        sql.execute("DELETE FROM cluster_invitation WHERE until < clock_timestamp()", &[]).await?;
        let text = "INSERT INTO cluster_invitation (digest, until)
            VALUES ($1, clock_timestamp() + $2 * interval '1 second')";
        sql.execute(text, &[&digest(&secret), &valid.as_secs_f64()]).await?;
        sql.give_back();
        let nodes = nodes.into_iter().take(NODES_MAX).collect();
        Ok(Self { secret, authority: half(blake3::hash(authority)), nodes })
    }

    /// Asks the nodes for what a node is made of. `name` is what this one will be called.
    ///
    /// # Errors
    /// None can be reached, or the code is not or no longer good.
    pub async fn accept(&self, name: &str, version: &str) -> Result<Accepted, JoinError> {
        let mut failed = Vec::new();
        for (node, address) in &self.nodes {
            let connected = tokio::time::timeout(CONNECT_WAIT, self.connect(node, address)).await;
            match connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok((stream, own)) => {
                    let asked = Asked { secret: BASE64_URL_SAFE_NO_PAD.encode(self.secret), name, version };
                    let answer = tokio::time::timeout(ANSWER_WAIT, ask(stream, &asked)).await;
                    let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
                    let answer = answer.map_err(|error| JoinError::Refused(error.to_string()))?;
                    return answer.map(|bundle| Accepted { bundle, own }).map_err(JoinError::Refused);
                }
                Err(error) => failed.push(format!("{node} at {address}: {error}")),
            }
        }
        Err(JoinError::Unreached(failed.join("; ")))
    }

    async fn connect(&self, node: &str, address: &str) -> std::io::Result<(TlsStream, std::net::IpAddr)> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Pinned { authority: self.authority, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let own = stream.local_addr()?.ip();
        let name = ServerName::try_from(node.to_owned()).map_err(std::io::Error::other)?;
        Ok((TlsConnector::from(Arc::new(config)).connect(name, stream).await?, own))
    }
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// What a machine that joins was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    pub bundle: Vec<u8>,
    /// The own address on the way to the other node.
    pub own: std::net::IpAddr,
}

#[derive(Serialize)]
struct Asked<'a> {
    secret: String,
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize, Deserialize, Default)]
struct Answer {
    #[serde(default)]
    size: u64,
    #[serde(default)]
    error: Option<String>,
}

async fn ask(stream: TlsStream, asked: &Asked<'_>) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut stream = BufReader::new(stream);
    let line = format!("{}\n", serde_json::json!({ "join": asked }));
    stream.write_all(line.as_bytes()).await?;
    stream.flush().await?;
    let mut line = String::new();
    (&mut stream).take(LINE_MAX).read_line(&mut line).await?;
    let answer: Answer = serde_json::from_str(&line)?;
    if let Some(error) = answer.error {
        return Ok(Err(error));
    }
    if answer.size > BUNDLE_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bundle = Vec::new();
    stream.take(answer.size).read_to_end(&mut bundle).await?;
    if bundle.len() as u64 == answer.size { Ok(Ok(bundle)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Whose certificate comes from the authority that the code names.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 16],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn verifier(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let authority = chain.iter().find(|one| half(blake3::hash(one)) == self.authority);
        let authority = authority.ok_or_else(|| rustls::Error::General("it is of another system".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        builder.build().map_err(|error| rustls::Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier(intermediates)?.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A machine that wants to join, at the node that it asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joiner {
    pub name: String,
    pub version: String,
    secret: Vec<u8>,
}

#[derive(Deserialize)]
struct JoinLine {
    join: JoinFields,
}

#[derive(Deserialize)]
struct JoinFields {
    secret: String,
    name: String,
    #[serde(default)]
    version: String,
}

impl Joiner {
    /// Reads what it says, and no octet after it.
    ///
    /// # Errors
    /// The stream ends, or says something else.
    pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => break,
                _ if line.len() as u64 >= LINE_MAX => return Err(std::io::ErrorKind::InvalidData.into()),
                octet => line.push(octet),
            }
        }
        let JoinLine { join: JoinFields { secret, name, version } } = serde_json::from_slice(&line)?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret).map_err(std::io::Error::other)?;
        Ok(Self { name, version, secret })
    }

    /// True if its code is good, which it is only once.
    pub(crate) async fn is_invited(&self, pool: &Pool) -> Result<bool, EngineError> {
        let text = "DELETE FROM cluster_invitation WHERE digest = $1 AND until >= clock_timestamp()";
        let sql = pool.session().await?;
        let taken = sql.execute(text, &[&digest(&self.secret)]).await?;
        sql.give_back();
        Ok(taken > 0)
    }

    /// Answers it.
    pub async fn answer(
        stream: &mut (impl AsyncWrite + Unpin),
        bundle: Result<Vec<u8>, String>,
    ) -> std::io::Result<()> {
        let (answer, bundle) = match bundle {
            Ok(bundle) => (Answer { size: bundle.len() as u64, error: None }, bundle),
            Err(error) => (Answer { size: 0, error: Some(error) }, Vec::new()),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.write_all(&bundle).await?;
        stream.flush().await?;
        stream.shutdown().await
    }
}

fn digest(secret: &[u8]) -> Vec<u8> {
    blake3::hash(secret).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_all_and_a_broken_one_nothing() {
        let nodes =
            vec![("mx1.example.net".to_owned(), "[2001:db8::1]:8899".to_owned()), ("b".to_owned(), "b:1".to_owned())];
        let invitation = Invitation { secret: [7; 16], authority: [9; 16], nodes };
        let code = invitation.to_string();
        assert_eq!(format!(" {code}\n").parse::<Invitation>().unwrap(), invitation);
        for at in 0..code.len() {
            let mut broken = code.clone();
            broken.remove(at);
            assert!(broken.parse::<Invitation>().is_err(), "{broken}");
        }
        for broken in ["", "ortler-", "ortler-AAAA", "x", &format!("ortler-{}", "A".repeat(5000))] {
            assert!(broken.parse::<Invitation>().is_err());
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_bounded_and_refused() {
        for text in
            ["", "\n", "{}\n", "{\"join\":{}}\n", "{\"join\":{\"secret\":\"!\",\"name\":\"x\"}}\n", &"x".repeat(9999)]
        {
            assert!(Joiner::receive(&mut text.as_bytes()).await.is_err(), "{text}");
        }
        let line = "{\"join\":{\"secret\":\"AAAA\",\"name\":\"x\",\"since\":1}}\n";
        assert_eq!(Joiner::receive(&mut line.as_bytes()).await.unwrap().name, "x");
    }
}
