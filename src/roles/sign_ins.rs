//! Notes from which countries accounts are used.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::AccountId;
use directory::SignIn;
use filter::sending::used_from;
use filter::{Country, Filter};
use reputation::Reputation;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What is noted once is not noted again for so long.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Accounts and countries that are remembered.
const REMEMBERED_MAX: usize = 100_000;
/// Sign-ins that wait.
pub const WAITING_MAX: usize = 256;

/// Ends with `stop`.
pub async fn run(
    mut sign_ins: mpsc::Receiver<SignIn>,
    filter: Arc<Filter>,
    reputation: Arc<Reputation>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut noted: HashSet<(AccountId, Country)> = HashSet::new();
        let end = in_a_while();
        while noted.len() < REMEMBERED_MAX {
            let SignIn { account, peer } = tokio::select! {
                next = timeout_at(end, sign_ins.recv()) => match next {
                    Ok(Some(sign_in)) => sign_in,
                    Ok(None) => return,
                    Err(_later) => break,
                },
                () = stop.cancelled() => return,
            };
            let Some(country) = filter.country(peer) else { continue };
            if noted.insert((account, country)) {
                used_from(&reputation, &account.0.to_string(), country).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the runtime's own timer")]
fn in_a_while() -> Instant {
    Instant::now() + REMEMBERED
}
