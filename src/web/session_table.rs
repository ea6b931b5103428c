//! Who is signed in with which cookie.

use std::collections::HashMap;
use std::time::Duration;

use base::{AccountId, UtcMillis};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// One signed-in browser.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub account: AccountId,
    /// What state-changing calls must repeat in a header.
    pub csrf: String,
    last_use: UtcMillis,
    opened_at: UtcMillis,
}

/// Sessions of this node, in memory: a restart signs everybody out.
#[derive(Default)]
pub(crate) struct SessionTable {
    open: Mutex<HashMap<String, Session>>,
}

const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
const AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// All sessions; then the one unused for longest goes.
const SESSIONS_MAX: usize = 50_000;
const ACCOUNT_SESSIONS_MAX: usize = 50;

impl SessionTable {
    /// Opens a session; gives the cookie's value.
    pub fn open(&self, account: AccountId, now: UtcMillis) -> String {
        let key = random_text();
        let session = Session { account, csrf: random_text(), last_use: now, opened_at: now };
        let mut open = self.open.lock();
        let own = open.values().filter(|session| session.account == account).count();
        if own >= ACCOUNT_SESSIONS_MAX {
            remove_oldest(&mut open, |session| session.account == account);
        }
        if open.len() >= SESSIONS_MAX {
            open.retain(|_, session| session.is_live(now));
        }
        if open.len() >= SESSIONS_MAX {
            remove_oldest(&mut open, |_| true);
        }
        open.insert(key.clone(), session);
        key
    }

    pub fn find(&self, key: &str, now: UtcMillis) -> Option<Session> {
        let mut open = self.open.lock();
        let session = open.get_mut(key)?;
        if !session.is_live(now) {
            open.remove(key);
            return None;
        }
        session.last_use = now;
        Some(session.clone())
    }

    pub fn close(&self, key: &str) {
        self.open.lock().remove(key);
    }
}

impl Session {
    fn is_live(&self, now: UtcMillis) -> bool {
        now.since(self.last_use) < IDLE_MAX && now.since(self.opened_at) < AGE_MAX
    }
}

fn remove_oldest(open: &mut HashMap<String, Session>, of: impl Fn(&Session) -> bool) {
    let oldest = open.iter().filter(|(_, session)| of(session)).min_by_key(|(_, session)| session.last_use);
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        open.remove(&key);
    }
}

/// 256 random bits.
fn random_text() -> String {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_and_are_bounded() {
        let table = SessionTable::default();
        let key = table.open(AccountId(1), UtcMillis(0));
        let hours = |n: i64| UtcMillis(n * 3_600_000);
        assert!(table.find(&key, hours(11)).is_some(), "use keeps it");
        assert!(table.find(&key, hours(22)).is_some());
        assert!(table.find(&key, hours(35)).is_none(), "idle too long");
        let mut key = table.open(AccountId(1), UtcMillis(0));
        for n in 0..ACCOUNT_SESSIONS_MAX {
            let next = table.open(AccountId(1), UtcMillis(i64::try_from(n).unwrap() + 1));
            if n == ACCOUNT_SESSIONS_MAX - 1 {
                assert!(table.find(&key, hours(1)).is_none(), "the oldest makes room");
                key = next;
            }
        }
        table.close(&key);
        assert!(table.find(&key, hours(1)).is_none() && table.find("", hours(1)).is_none());
    }
}
