//! Keys at work: whose signature goes on what leaves.

use std::sync::Arc;

use base::event;
use bytes::Bytes;
use directory::{Directory, DirectoryError, DomainKey};
use mailauth::{KeyKind, Signer};
use moka::sync::Cache;

/// The keys of all domains, read when they are needed.
pub struct Keyring {
    directory: Arc<dyn Directory>,
    /// By the name of the key's record and its time.
    signers: Cache<(String, i64), Arc<Signer>>,
}

const SIGNERS_MAX: u64 = 20_000;

impl Keyring {
    pub fn new(directory: Arc<dyn Directory>) -> Self {
        Self { directory, signers: Cache::new(SIGNERS_MAX) }
    }

    /// `DKIM-Signature` fields, by each active key of `domain`, or of the nearest domain that it lies in. Empty where there
    /// are none. The message is complete, with CRLF.
    ///
    /// # Errors
    /// The directory does not say: without its signature a message may be refused where it goes, so it waits.
    pub async fn sign(&self, domain: &str, message: &Bytes) -> Result<String, DirectoryError> {
        let signers = self.signers(domain).await?;
        if signers.is_empty() {
            return Ok(String::new());
        }
        let message = message.clone();
        let signed = tokio::task::spawn_blocking(move || mailauth::sign::sign(&signers, &message)).await;
        match signed {
            Ok(Ok(fields)) => {
                metrics::counter!("ortler_signed_total").increment(1);
                Ok(fields)
            }
            Ok(Err(error)) => {
                tracing::error!(event = event::SIGNING_FAILED, domain, %error);
                Ok(String::new())
            }
            Err(error) => {
                tracing::error!(event = event::SIGNING_FAILED, domain, %error);
                Ok(String::new())
            }
        }
    }

    /// Who seals what passes through a host: its domain's RSA key, which every receiver knows, else another of its keys.
    pub async fn sealer(&self, host_name: &str) -> Result<Option<Arc<Signer>>, DirectoryError> {
        let signers = self.signers(host_name).await?;
        Ok(signers.iter().find(|signer| signer.kind() == KeyKind::Rsa).or(signers.first()).cloned())
    }

    async fn signers(&self, domain: &str) -> Result<Vec<Arc<Signer>>, DirectoryError> {
        let keys = self.directory.signing_keys(domain).await?;
        Ok(keys.iter().filter_map(|key| self.signer(key)).collect())
    }

    fn signer(&self, key: &DomainKey) -> Option<Arc<Signer>> {
        let name = (key.name(), key.created_at.0);
        if let Some(known) = self.signers.get(&name) {
            return Some(known);
        }
        let kind = KeyKind::from_name(&key.kind)?;
        match Signer::new(&key.domain, &key.selector, kind, key.private.reveal()) {
            Ok(signer) => {
                let signer = Arc::new(signer);
                self.signers.insert(name, Arc::clone(&signer));
                Some(signer)
            }
            Err(error) => {
                tracing::error!(event = event::SIGNING_FAILED, domain = key.domain, selector = key.selector, %error);
                None
            }
        }
    }
}
