//! Who is signed in with which cookie: on any node, and also after a node was started again.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use directory::{Registry, WebSession};
use moka::sync::Cache;

use crate::error::ApiError;

/// The directory's sessions, and what of them was just looked at.
pub(crate) struct SessionTable {
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    recent: Cache<[u8; 32], WebSession>,
}

/// So long a session that was ended elsewhere may still be used here.
const RECENT: Duration = Duration::from_secs(3);
const RECENT_MAX: u64 = 50_000;
/// A cookie of ours is shorter.
const KEY_MAX: usize = 100;

impl SessionTable {
    pub fn new(registry: Arc<Registry>, clock: Arc<dyn Clock>) -> Self {
        Self { registry, clock, recent: Cache::builder().max_capacity(RECENT_MAX).time_to_live(RECENT).build() }
    }

    /// Opens a session; gives the cookie's value.
    pub async fn open(&self, account: AccountId) -> Result<String, ApiError> {
        let (key, now) = (random_text(), self.clock.utc());
        let (digest, csrf) = (*blake3::hash(key.as_bytes()).as_bytes(), random_text());
        let session = WebSession { digest, account, csrf, opened_at: now, used_at: now };
        self.registry.open_web_session(session).await?;
        Ok(key)
    }

    pub async fn find(&self, key: &str) -> Result<Option<WebSession>, ApiError> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Ok(None);
        }
        let digest = *blake3::hash(key.as_bytes()).as_bytes();
        if let Some(session) = self.recent.get(&digest) {
            return Ok(Some(session));
        }
        let found = self.registry.use_web_session(&digest).await?;
        if let Some(session) = &found {
            self.recent.insert(digest, session.clone());
        }
        Ok(found)
    }

    /// Asks the directory again for every session.
    pub fn forget(&self) {
        self.recent.invalidate_all();
    }

    pub async fn close(&self, key: &str) -> Result<(), ApiError> {
        let digest = *blake3::hash(key.as_bytes()).as_bytes();
        self.registry.close_web_session(&digest).await?;
        self.recent.invalidate(&digest);
        Ok(())
    }
}

/// 256 random bits.
fn random_text() -> String {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
