//! Server-sent events: bounded in number, ended when the node stops or the viewer may no longer see them.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use directory::Hold;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::server::Inner;

/// After this a stream ends and the client comes back, with its rights checked anew.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);

/// A place among the open streams.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    closing: CancellationToken,
    hold: Hold,
}

/// Where events come from. `None` ends the stream.
pub(crate) trait Source: Send + 'static {
    /// Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;
}

impl Place {
    /// # Errors
    /// [`ApiError::Busy`] when there are too many streams.
    pub fn take(web: &Inner, hold: Hold) -> Result<Self, ApiError> {
        let permit = web.streams.clone().try_acquire_owned().map_err(|_| ApiError::Busy)?;
        Ok(Self { _permit: permit, closing: web.closing.clone(), hold })
    }

    /// Answers with the source's events. `ping` is how often an idle stream says that it lives.
    pub fn answer(self, source: impl Source, ping: Option<Duration>) -> Response {
        let end = Box::pin(tokio::time::sleep(STREAM_MAX));
        let events = stream::unfold((self, source, end), |(place, mut source, mut end)| async move {
            let event = tokio::select! {
                event = source.next() => event?,
                () = place.closing.cancelled() => return None,
                () = place.hold.ended() => return None,
                () = end.as_mut() => return None,
            };
            Some((Ok::<_, Infallible>(event), (place, source, end)))
        });
        let answer = Sse::new(events);
        match ping {
            Some(every) => {
                let text = Event::default().event("ping").data(format!("{{\"interval\":{}}}", every.as_secs()));
                answer.keep_alive(KeepAlive::new().interval(every).event(text)).into_response()
            }
            None => answer.into_response(),
        }
    }
}
