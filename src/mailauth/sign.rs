//! Signatures on what leaves: DKIM (RFC 6376, RFC 8463), and ARC (RFC 8617) on what is passed on.

use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mail::{HeaderFields, ReversePath};
use mail_auth::arc::ArcSealer;
use mail_auth::crypto::{Algorithm, DkimKey, Ed25519Key, RsaKey, Sha256};
use mail_auth::dkim::DkimSigner;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::headers::{HeaderWriter as _, Writable};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{AuthenticatedMessage, AuthenticationResults, SpfOutput};
use rcgen::PublicKeyData as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;

use crate::resolver::{Resolver, Unresolved};
use crate::verify::ConnectionFacts;

/// A kind of key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyKind {
    /// `rsa-sha256`, which every receiver knows.
    Rsa,
    /// `ed25519-sha256` (RFC 8463): short, and not known everywhere yet.
    Ed25519,
}

impl KeyKind {
    pub const ALL: [Self; 2] = [Self::Rsa, Self::Ed25519];

    /// `k=` of the key's record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A key cannot be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be used: {0}")]
pub struct KeyError(pub String);

fn unusable(error: impl std::fmt::Display) -> KeyError {
    KeyError(error.to_string())
}

/// A private key and what the DNS says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPair {
    pub kind: KeyKind,
    /// DER, PKCS #8 or PKCS #1.
    pub private: Secret<Vec<u8>>,
    /// `p=` of the key's record.
    pub public: String,
}

impl KeyPair {
    /// A new one: RSA of 2048 bits, or Ed25519. Takes up to a second.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        match kind {
            KeyKind::Rsa => {
                let made = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
                let made = made.map_err(unusable)?;
                let public = STANDARD.encode(made.subject_public_key_info());
                Ok(Self { kind, private: Secret::new(made.serialize_der()), public })
            }
            KeyKind::Ed25519 => Self::of_ed25519(Ed25519Key::generate_pkcs8().map_err(unusable)?),
        }
    }

    /// One that another system used: PEM, PKCS #8 or PKCS #1.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let found =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable("there is no private key in PEM"))?;
        let der = found.secret_der().to_vec();
        if Ed25519Key::from_pkcs8_maybe_unchecked_der(&der).is_ok() {
            return Self::of_ed25519(der);
        }
        let key = RsaKey::<Sha256>::from_key_der(found)
            .map_err(|error| unusable(format!("it is neither RSA of 1024 bits or more nor Ed25519 ({error})")))?;
        let public = STANDARD.encode(public_key_info(&key.public_key()));
        Ok(Self { kind: KeyKind::Rsa, private: Secret::new(der), public })
    }

    fn of_ed25519(der: Vec<u8>) -> Result<Self, KeyError> {
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(&der).map_err(unusable)?;
        let public = STANDARD.encode(key.public_key());
        Ok(Self { kind: KeyKind::Ed25519, private: Secret::new(der), public })
    }

    /// The record at `SELECTOR._domainkey.DOMAIN`.
    pub fn record(kind: KeyKind, public: &str) -> String {
        match kind {
            KeyKind::Rsa => format!("v=DKIM1; k=rsa; h=sha256; p={public}"),
            KeyKind::Ed25519 => format!("v=DKIM1; k=ed25519; p={public}"),
        }
    }
}

/// A `SubjectPublicKeyInfo` around an `RSAPublicKey` (RFC 3279 §2.3.1).
fn public_key_info(pkcs1: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = [&[0x00], pkcs1].concat();
    der(0x30, &[RSA_ENCRYPTION.as_slice(), &der(0x03, &bits)].concat())
}

/// A tag, the length (X.690 §8.1.3), the content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = length.get(length.iter().take_while(|byte| **byte == 0).count()..).unwrap_or_default();
    let mut out = vec![tag];
    match digits {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        _ => {
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A key at work for a domain.
#[derive(Clone)]
pub struct Signer {
    domain: String,
    selector: String,
    kind: KeyKind,
    key: Arc<DkimKey>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({}/{})", self.domain, self.selector)
    }
}

/// The library wants to own its key.
struct Shared(Arc<DkimKey>);

impl mail_auth::crypto::SigningKey for Shared {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.0.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

/// Fields that are signed once more than they are there: whoever adds one breaks the signature (RFC 6376 §8.15).
const SEALED: [&str; 9] =
    ["From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"];
/// Fields that are signed where they are there.
const COVERED: [&str; 10] = [
    "Sender",
    "Content-Transfer-Encoding",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Post",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

impl Signer {
    pub fn new(domain: &str, selector: &str, kind: KeyKind, private: &[u8]) -> Result<Self, KeyError> {
        let key = match kind {
            KeyKind::Ed25519 => Ed25519Key::from_pkcs8_maybe_unchecked_der(private).map(DkimKey::from),
            KeyKind::Rsa => {
                let der = PrivateKeyDer::try_from(private)
                    .unwrap_or_else(|_| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private)));
                RsaKey::<Sha256>::from_key_der(der).map(DkimKey::from)
            }
        };
        let key = Arc::new(key.map_err(unusable)?);
        Ok(Self { domain: domain.to_owned(), selector: selector.to_owned(), kind, key })
    }

    /// `d=`
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The whole `DKIM-Signature` field with its line end. The message is complete, with CRLF.
    fn field(&self, message: &[u8], names: &[&str]) -> Result<String, KeyError> {
        let signer = DkimSigner::from_key(Shared(Arc::clone(&self.key)))
            .domain(self.domain.as_str())
            .selector(self.selector.as_str())
            .headers(names.iter().copied());
        Ok(signer.sign(message).map_err(unusable)?.to_header())
    }
}

/// Names for `h=`: a name that is there twice in the list is once more signed than there.
fn names_in(message: &[u8]) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for field in HeaderFields::of(message) {
        let name = SEALED.iter().chain(&COVERED).find(|name| field.is(name));
        found.extend(name.filter(|name| !found.contains(name)));
    }
    found.extend(SEALED);
    found
}

/// A `DKIM-Signature` by each of the keys, as whole fields. Takes about a millisecond for each RSA key; work for a thread that
/// may block where the message is large.
pub fn sign(signers: &[Arc<Signer>], message: &[u8]) -> Result<String, KeyError> {
    let names = names_in(message);
    signers.iter().map(|signer| signer.field(message, &names)).collect()
}

/// For all that sealing asks of the DNS; what was asked for before is remembered.
const SEAL_WITHIN: Duration = Duration::from_secs(5);

/// A set of ARC fields for a message that goes on: what we found when it came, and our seal on it. `came` is the message as
/// it came in, `leaves` as it goes out. Empty where a chain is broken already, which nobody may seal (RFC 8617 §5.1).
pub async fn seal(
    resolver: &Resolver,
    facts: &ConnectionFacts,
    signer: &Signer,
    came: &Bytes,
    leaves: &[u8],
) -> Result<String, KeyError> {
    let Some(parsed) = AuthenticatedMessage::parse(came) else { return Err(unusable("the message has no header")) };
    let Some(leaving) = AuthenticatedMessage::parse(leaves) else { return Err(unusable("the message has no header")) };
    let authenticator = resolver.authenticator();
    let sender = facts.reverse_path.to_string();
    let spf_domain = match &facts.reverse_path {
        ReversePath::Address(address) => address.domain.to_string(),
        ReversePath::Null => facts.helo.clone(),
    };
    let parameters = |ip| match &facts.reverse_path {
        ReversePath::Null => SpfParameters::helo(ip, &facts.helo, &facts.host_name),
        ReversePath::Address(_) => SpfParameters::mail_from(ip, &facts.helo, &facts.host_name, &sender),
    };
    let asking = async {
        let spf = async {
            match facts.ip {
                Some(ip) => Some(authenticator.verify_spf(resolver.cached(parameters(ip))).await),
                None => None,
            }
        };
        let dkim = authenticator.verify_dkim(resolver.cached(&parsed));
        let arc = authenticator.verify_arc(resolver.cached(&parsed));
        let (spf, dkim, arc) = tokio::join!(spf, dkim, arc);
        let unchecked = SpfOutput::new(spf_domain.clone());
        let input = DmarcParameters::new(&parsed, &dkim, &spf_domain, spf.as_ref().unwrap_or(&unchecked));
        let dmarc = authenticator.verify_dmarc(resolver.cached(input)).await;
        (spf, dkim, arc, dmarc)
    };
    let (spf, dkim, arc, dmarc) =
        timeout(SEAL_WITHIN, asking).await.map_err(|_| unusable("name servers do not answer"))?;
    if !arc.can_be_sealed() {
        return Ok(String::new());
    }
    let mut results = AuthenticationResults::new(&facts.host_name)
        .with_dkim_results(&dkim, parsed.first_from_address())
        .with_dmarc_result(&dmarc);
    if let (Some(spf), Some(ip)) = (&spf, facts.ip) {
        results.set_spf_result(spf, &parameters(ip));
    }
    if let (false, Some(ip)) = (arc.chain().is_empty(), facts.ip) {
        results.set_arc_result(&arc, ip);
    }
    let sealer = ArcSealer::from_key(Shared(Arc::clone(&signer.key)))
        .domain(signer.domain.as_str())
        .selector(signer.selector.as_str())
        .headers(names_in(leaves).into_iter().chain(["DKIM-Signature"]));
    Ok(sealer.seal(&leaving, &results, &arc).map_err(unusable)?.to_header())
}

/// What the DNS has where a key should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// The key.
    Yes,
    /// Nothing.
    Missing,
    /// Something else: its text.
    Differs(String),
    /// Name servers do not answer.
    Unknown,
}

impl Published {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "published",
            Self::Missing => "missing",
            Self::Differs(_) => "differs",
            Self::Unknown => "unknown",
        }
    }
}

/// Looks whether the key with this `p=` is at `SELECTOR._domainkey.DOMAIN` (RFC 6376 §3.6.1).
pub async fn published(resolver: &Resolver, domain: &str, selector: &str, public: &str) -> Published {
    match resolver.ask_texts(&format!("{selector}._domainkey.{domain}")).await {
        Err(Unresolved::Absent) => Published::Missing,
        Err(Unresolved::Failed) => Published::Unknown,
        Ok(texts) => match texts.iter().find(|text| public_of(text).as_deref() == Some(public)) {
            Some(_) => Published::Yes,
            None => Published::Differs(texts.first().map(ToString::to_string).unwrap_or_default()),
        },
    }
}

/// `p=` of a key's record, without white space.
fn public_of(record: &str) -> Option<String> {
    record.split(';').find_map(|tag| {
        let (name, value) = tag.split_once('=')?;
        (name.trim() == "p").then(|| value.split_ascii_whitespace().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::ResolverSettings;
    use crate::stub::StubServer;
    use crate::verify::{AuthResult, verify};

    const MESSAGE: &str = "From: Anna <anna@signed.test>\r\nTo: bob@example.net\r\nSubject: Invoice\r\n\
        Date: Fri, 27 Nov 2026 10:00:00 +0100\r\nList-Id: <x.signed.test>\r\n\r\nGood morning,\r\n\r\nhere it is.\r\n";

    fn signers(domain: &str) -> (Vec<Arc<Signer>>, String) {
        let (mut signers, mut zone) = (Vec::new(), String::new());
        for kind in KeyKind::ALL {
            let pair = KeyPair::generate(kind).unwrap();
            let name = kind.as_str();
            signers.push(Arc::new(Signer::new(domain, name, kind, pair.private.reveal()).unwrap()));
            zone += &format!("{name}._domainkey.{domain} TXT {}\n", KeyPair::record(kind, &pair.public));
        }
        (signers, zone)
    }

    fn resolver(zone: &str) -> (StubServer, Resolver) {
        let server = StubServer::start(zone);
        let settings = ResolverSettings { name_servers: vec![server.address()], ..ResolverSettings::default() };
        let resolver = Resolver::new(&settings).unwrap();
        (server, resolver)
    }

    fn facts(reverse_path: &str) -> ConnectionFacts {
        ConnectionFacts {
            ip: "192.0.2.7".parse().ok(),
            helo: "out.signed.test".to_owned(),
            reverse_path: reverse_path.parse().map_or(ReversePath::Null, ReversePath::Address),
            host_name: "mx.us.test".to_owned(),
        }
    }

    async fn results(resolver: &Resolver, message: &str) -> Vec<AuthResult> {
        let whole = Bytes::from(message.to_owned());
        let outcome = verify(resolver, &facts("anna@signed.test"), None, &whole, Duration::from_secs(5)).await;
        outcome.dkim.iter().map(|one| one.result).collect()
    }

    #[tokio::test]
    async fn both_signatures_hold_until_something_is_changed_or_added() {
        let (signers, zone) = signers("signed.test");
        let (_server, resolver) = resolver(&zone);
        let fields = sign(&signers, MESSAGE.as_bytes()).unwrap();
        assert_eq!(fields.matches("DKIM-Signature:").count(), 2);
        assert!(fields.lines().all(|line| line.len() <= 100), "{fields}");
        let signed = format!("{fields}{MESSAGE}");
        use AuthResult::{Fail, Pass};
        assert_eq!(results(&resolver, &signed).await, [Pass, Pass]);
        assert_eq!(results(&resolver, &format!("Received: by x\r\n{signed}")).await, [Pass, Pass]);
        for changed in [
            signed.replace("Invoice", "Refund"),
            signed.replace("here", "there"),
            signed.replace("To: bob", "Cc: eve@x.test\r\nTo: bob"),
            signed.replace("From: Anna", "From: Eve <eve@x.test>\r\nFrom: Anna"),
            signed.replace("x.signed.test>", "y.signed.test>"),
        ] {
            assert_eq!(results(&resolver, &changed).await, [Fail, Fail], "{changed}");
        }
    }

    #[tokio::test]
    async fn what_is_passed_on_is_sealed() {
        let (keys, zone) = signers("signed.test");
        let (sealers, of_sealer) = signers("us.test");
        let zone = format!("{zone}{of_sealer}_dmarc.signed.test TXT v=DMARC1; p=reject\n");
        let (_server, resolver) = resolver(&zone);
        let came = format!("{}{MESSAGE}", sign(&keys, MESSAGE.as_bytes()).unwrap());
        let leaves = came.replace("Subject: Invoice", "Subject: [List] Invoice");
        let facts = facts("anna@signed.test");
        let bytes = Bytes::from(came.clone());
        let set = seal(&resolver, &facts, &sealers[0], &bytes, leaves.as_bytes()).await.unwrap();
        let sealed = Bytes::from(format!("{set}{leaves}"));
        let outcome = verify(&resolver, &facts, None, &sealed, Duration::from_secs(5)).await;
        assert_eq!((outcome.arc.result, outcome.arc.sets), (AuthResult::Pass, 1));
        // The signature broke with the subject; the chain says that it was good before.
        assert!(outcome.dkim.iter().all(|one| one.result == AuthResult::Fail));
        let mut trusting = outcome.clone();
        trusting.trust_sealers(&["us.test".to_owned()]);
        assert!(trusting.is_vouched, "{set}");
        // One more on the way.
        let second = seal(&resolver, &facts, &sealers[1], &sealed, &sealed).await.unwrap();
        let twice = Bytes::from([second.as_bytes(), &sealed].concat());
        let outcome = verify(&resolver, &facts, None, &twice, Duration::from_secs(5)).await;
        assert_eq!((outcome.arc.result, outcome.arc.sets), (AuthResult::Pass, 2));
        // A broken chain is not made whole again.
        let broken =
            Bytes::from(String::from_utf8_lossy(&twice).replace("good morning", "x").replace("morning", "day"));
        let third = seal(&resolver, &facts, &sealers[0], &broken, &broken).await.unwrap();
        let thrice = Bytes::from([third.as_bytes(), &broken].concat());
        let outcome = verify(&resolver, &facts, None, &thrice, Duration::from_secs(5)).await;
        assert_ne!(outcome.arc.result, AuthResult::Pass);
    }

    #[tokio::test]
    async fn the_dns_is_looked_at() {
        let pair = KeyPair::generate(KeyKind::Ed25519).unwrap();
        let zone = format!(
            "a._domainkey.d.test TXT v=DKIM1; k=ed25519; p={}\nb._domainkey.d.test TXT v=DKIM1; p=AAAA\n\
             late._domainkey.d.test SERVFAIL\n",
            pair.public
        );
        let (_server, resolver) = resolver(&zone);
        for (selector, expected) in [
            ("a", Published::Yes),
            ("b", Published::Differs("v=DKIM1; p=AAAA".to_owned())),
            ("c", Published::Missing),
            ("late", Published::Unknown),
        ] {
            assert_eq!(published(&resolver, "d.test", selector, &pair.public).await, expected, "{selector}");
        }
    }

    #[test]
    fn keys_of_other_systems_are_read() {
        let made = KeyPair::generate(KeyKind::Rsa).unwrap();
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
        };
        let read = KeyPair::from_pem(&pem("PRIVATE KEY", made.private.reveal())).unwrap();
        assert_eq!((read.kind, &read.public), (KeyKind::Rsa, &made.public));
        let made = KeyPair::generate(KeyKind::Ed25519).unwrap();
        let read = KeyPair::from_pem(&pem("PRIVATE KEY", made.private.reveal())).unwrap();
        assert_eq!((read.kind, &read.public), (KeyKind::Ed25519, &made.public));
        for text in ["", "no key", &pem("CERTIFICATE", b"x"), &pem("PRIVATE KEY", b"nonsense")] {
            assert!(KeyPair::from_pem(text).is_err(), "{text}");
        }
    }
}
