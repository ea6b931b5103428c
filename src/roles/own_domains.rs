//! Tells the filter which domains are ours.

use std::sync::Arc;
use std::time::Duration;

use base::event;
use directory::Listing;
use filter::OwnDomains;
use tokio_util::sync::CancellationToken;

use super::engines::Engines;

/// A domain that is added counts from then on.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Ends with `stop`.
pub async fn run(engines: Arc<Engines>, own: Arc<OwnDomains>, stop: CancellationToken) {
    loop {
        if let Err(error) = look(&engines, &own).await {
            tracing::warn!(event = event::STORE_FAILED, what = "directory", %error);
        }
        if tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// All or none: what was known before stays if the directory does not answer.
async fn look(engines: &Engines, own: &OwnDomains) -> Result<(), engine::EngineError> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let listing = Listing { after: after.clone(), ..Listing::default() };
        let (limit, some) = (listing.limit, engines.directory.domains(listing).await?);
        let is_last = some.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        all.extend(some.into_iter().map(|domain| domain.name.to_string()));
        match all.last() {
            Some(last) if !is_last && *last != after => after.clone_from(last),
            Some(_) | None => break,
        }
    }
    own.replace(all);
    Ok(())
}
