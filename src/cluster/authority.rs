//! The cluster's own certificate authority. Its key lies where the mail lies, on the server that all nodes share: whoever
//! can read it there needs no certificate. Each node makes a key of its own and signs it; no key but the authority's ever
//! leaves its node.

use base::UtcMillis;
use engine::EngineError;
use engine::postgres::{Pool, value};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A node's certificate holds from some days before it was made, for clocks that differ, for so long.
pub(crate) const VALID_DAYS: i32 = 30;
const EARLY_DAYS: i32 = 2;

/// What signs nodes' certificates.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// A node's certificate and its key.
pub(crate) struct Issued {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

/// As the authority calls itself in certificates.
const NAME: &str = "Ortler cluster";

impl Authority {
    /// The one that the nodes on the server share; the first node makes it.
    pub(crate) async fn shared(pool: &Pool) -> Result<Self, EngineError> {
        const FIND: &str = "SELECT certificate, key FROM cluster_authority";
        if let Some(row) = pool.query(FIND, &[]).await?.first() {
            return Self::parse(value(row, 0)?, value(row, 1)?);
        }
        let (certificate, key) = make()?;
        let text = "INSERT INTO cluster_authority (certificate, key) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let sql = pool.session().await?;
        sql.execute(text, &[&certificate, &key]).await?;
        // Perhaps another node was quicker.
        let row = sql.row(FIND, &[]).await?;
        sql.give_back();
        Self::parse(value(&row, 0)?, value(&row, 1)?)
    }

    fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, EngineError> {
        let key = KeyPair::try_from(key).map_err(|_| broken("its key cannot be read"))?;
        Ok(Self { certificate: CertificateDer::from(certificate.to_vec()), key })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate of the node `name`, for both ends of a connection, with a new key.
    pub(crate) fn issue(&self, name: &str, now: UtcMillis) -> Result<Issued, EngineError> {
        let failed = |error: rcgen::Error| broken(&format!("no certificate for {name}: {error}"));
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (day(now, -EARLY_DAYS), day(now, VALID_DAYS));
        let signer = KeyPair::try_from(self.key.serialized_der()).map_err(failed)?;
        let certificate = params.signed_by(&key, &Issuer::new(authority_params(), signer)).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
        Ok(Issued { certificate: certificate.der().clone(), key })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Certificate and key, both DER.
fn make() -> Result<(Vec<u8>, Vec<u8>), EngineError> {
    let failed = |error: rcgen::Error| broken(&error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = authority_params().self_signed(&key).map_err(failed)?;
    Ok((certificate.der().to_vec(), key.serialized_der().to_vec()))
}

fn day(now: UtcMillis, days: i32) -> time::OffsetDateTime {
    let at = now.as_secs() + i64::from(days) * 86_400;
    time::OffsetDateTime::from_unix_timestamp(at).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn broken(what: &str) -> EngineError {
    EngineError::Postgres { reason: format!("the cluster's authority: {what}") }
}
