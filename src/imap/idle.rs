//! IDLE (RFC 2177): news as they happen.

use std::time::Duration;

use crate::connection::Connection;
use crate::proto::{Event, Reply};
use crate::session::Phase;
use crate::sync::Telling;
use crate::wire::Closed;

impl Connection {
    /// Until DONE. Wakes are coalesced: the first is told at once, further ones at most every [`NEWS_EVERY`].
    pub async fn idle(&mut self) -> Result<Reply, Closed> {
        self.wire.out.extend_from_slice(b"+ idling\r\n");
        self.wire.framer.expect_line();
        let telling = Telling { may_expunge: true, own: &[], condstore: self.session.condstore };
        // Listening begins before the look at what is there, so that nothing falls in between.
        let mut hints = match &self.session.phase {
            Phase::Selected(_, selected) => Some(selected.view.hints()),
            Phase::Greeted | Phase::Ready(_) => None,
        };
        self.tell_news(telling).await?;
        let until = self.clock.now() + self.config.autologout;
        let mut next_news = self.clock.now();
        loop {
            self.wire.flush().await?;
            let left = until.saturating_duration_since(self.clock.now());
            let hinted = async {
                match &mut hints {
                    Some(hints) => hints.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = self.wire.event(left) => return Ok(match event? {
                    Event::Line(line) if line.eq_ignore_ascii_case(b"DONE") => Reply::ok("IDLE completed"),
                    _ => Reply::bad("Expected DONE"),
                }),
                changed = hinted => {
                    if changed.is_err() {
                        hints = None;
                    }
                    let wait = next_news.saturating_duration_since(self.clock.now());
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    next_news = self.clock.now() + NEWS_EVERY;
                    self.tell_news(telling).await?;
                }
                () = tokio::time::sleep(self.config.idle_notice) => {
                    self.wire.out.extend_from_slice(b"* OK Still here\r\n");
                    // Hints from other nodes may be lost: look all the same.
                    self.tell_news(telling).await?;
                }
            }
        }
    }
}

/// A burst of deliveries is told in one go.
const NEWS_EVERY: Duration = Duration::from_millis(50);
