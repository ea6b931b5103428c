//! Signed-in browsers: every node knows them, and none knows their cookies.

use std::time::Duration;

use base::{AccountId, UtcMillis};
use engine::EngineError;

use crate::registry::Registry;

/// One signed-in browser.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSession {
    /// BLAKE3 of the cookie: who reads the table cannot sign in with it.
    pub digest: [u8; 32],
    pub account: AccountId,
    /// What calls that change something must repeat in a header.
    pub csrf: String,
    pub opened_at: UtcMillis,
    /// Within [`WebSession::USE_STEP`] of its last use.
    pub used_at: UtcMillis,
}

impl WebSession {
    pub const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
    pub const AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
    /// Uses closer together are written once.
    pub const USE_STEP: Duration = Duration::from_secs(300);
    /// Of one account; then the one unused for longest goes.
    pub const OF_ACCOUNT_MAX: u32 = 50;

    pub fn is_live(&self, now: UtcMillis) -> bool {
        now.since(self.used_at) < Self::IDLE_MAX && now.since(self.opened_at) < Self::AGE_MAX
    }
}

/// What is on record is kept for so long: thirteen months.
const AUDIT_KEPT_MS: i64 = 396 * 86_400_000;

impl Registry {
    pub async fn open_web_session(&self, session: WebSession) -> Result<(), EngineError> {
        self.tables.open_web_session(session).await
    }

    /// The session, if it is live; its use is noted.
    pub async fn use_web_session(&self, digest: &[u8; 32]) -> Result<Option<WebSession>, EngineError> {
        let Some(mut session) = self.tables.web_session(digest).await? else { return Ok(None) };
        let now = self.clock.utc();
        if !session.is_live(now) {
            self.tables.close_web_session(digest).await?;
            return Ok(None);
        }
        if now.since(session.used_at) >= WebSession::USE_STEP {
            self.tables.touch_web_session(digest, now).await?;
            session.used_at = now;
        }
        Ok(Some(session))
    }

    pub async fn close_web_session(&self, digest: &[u8; 32]) -> Result<(), EngineError> {
        self.tables.close_web_session(digest).await
    }

    /// Removes what nobody can use any more, forgets old records, and ends what outlived its app password. A node calls it every hour.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        self.end_outlived().await?;
        self.tidy_calls().await?;
        self.tidy_audit(UtcMillis(self.clock.utc().0 - AUDIT_KEPT_MS)).await?;
        let idle = self.clock.utc().0 - i64::try_from(WebSession::IDLE_MAX.as_millis()).unwrap_or(i64::MAX);
        self.tables.tidy(UtcMillis(idle)).await
    }
}
