//! One connection as the filter follows it, stage by stage.

use std::net::IpAddr;
use std::sync::Arc;

use mail::{Enhanced, ForwardPath, Status};
use mailauth::{Begun, ConnectionFacts};
use policy::ExternalWish;

use crate::facts::MessageFacts;
use crate::milter::{Greeting, Milters, Peer, Start};
use crate::pipeline::{AUTH_TIMEOUT, Filter};
use crate::verdict::Judgement;

/// Follows one connection, driven by whoever receives mail: `connected`, `helo`, then for each message `sender`,
/// `recipient`, `judge` and `message_done`. External milters are asked at their stages, and an error is what the client
/// is to be told there. Sender checks that need no content begin with the first recipient that is accepted and run beside
/// what follows. Dropped, it stops them.
pub struct Stages {
    filter: Arc<Filter>,
    milters: Milters,
    helo: String,
    checks: Checks,
}

/// Sender checks of one message that need no content.
enum Checks {
    Unwanted,
    /// Wait for a recipient: who only tries addresses costs no questions.
    Waiting(ConnectionFacts),
    Begun(ConnectionFacts, Begun),
}

impl Stages {
    pub fn new(filter: Arc<Filter>) -> Self {
        let milters = filter.milters();
        Self { filter, milters, helo: String::new(), checks: Checks::Unwanted }
    }

    /// A client connected, or is known better than before. A refusal is `554`, "later" is `421`: there is no other
    /// greeting that says it (RFC 5321 §3.1).
    pub async fn connected(&mut self, peer: Peer) -> Result<(), Status> {
        let now = self.filter.now();
        told(self.milters.connected(peer, now).await).map_err(|status| {
            let (code, class) = if status.is_permanent() { (554, 5) } else { (421, 4) };
            let Enhanced(_, subject, detail) = status.enhanced();
            Status::with_text(code, Enhanced(class, subject, detail), status.text())
        })
    }

    pub async fn helo(&mut self, greeting: Greeting) -> Result<(), Status> {
        self.helo.clone_from(&greeting.helo);
        let now = self.filter.now();
        told(self.milters.helo(greeting, now).await)
    }

    /// MAIL. `client`: the host whose right to send for the reverse path is to be proven.
    pub async fn sender(&mut self, start: &Start<'_>, client: Option<IpAddr>) -> Result<(), Status> {
        self.message_done().await;
        self.checks = client.map_or(Checks::Unwanted, |ip| {
            Checks::Waiting(ConnectionFacts {
                ip: Some(ip),
                helo: self.helo.clone(),
                reverse_path: start.reverse_path.clone(),
                host_name: self.filter.host_name().to_owned(),
            })
        });
        let now = self.filter.now();
        let refused = told(self.milters.mail(start, now).await);
        if refused.is_err() {
            self.message_done().await;
        }
        refused
    }

    /// RCPT. An error is for this recipient alone.
    pub async fn recipient(&mut self, start: &Start<'_>, path: &ForwardPath) -> Result<(), Status> {
        let now = self.filter.now();
        told(self.milters.rcpt(start, path, now).await)?;
        if let (Checks::Waiting(facts), Some(resolver)) = (&self.checks, self.filter.resolver()) {
            self.checks = Checks::Begun(facts.clone(), Begun::now(resolver, facts, AUTH_TIMEOUT));
        }
        Ok(())
    }

    /// All checks of the message that `sender` and `recipient` announced; as [`Filter::judge`].
    pub async fn judge(&mut self, id: base::MessageId, facts: &MessageFacts) -> Judgement {
        let fits = |connection: &ConnectionFacts| {
            connection.ip == facts.source.client_ip()
                && facts.source.helo() == Some(&connection.helo)
                && connection.reverse_path == facts.envelope.reverse_path
        };
        let begun = match std::mem::replace(&mut self.checks, Checks::Unwanted) {
            Checks::Begun(connection, begun) if fits(&connection) => Some(begun),
            // Begun for another envelope, it proves nothing.
            Checks::Begun(..) | Checks::Waiting(_) | Checks::Unwanted => None,
        };
        self.filter.judge_in(facts, Some(id), begun, &mut self.milters).await
    }

    /// The message is over, judged or not.
    pub async fn message_done(&mut self) {
        self.checks = Checks::Unwanted;
        self.milters.message_done().await;
    }

    /// The connection is over.
    pub async fn close(self) {
        self.milters.close().await;
    }
}

/// A wish as an answer at its stage. One to hold the message back never comes before its end.
fn told(wish: Option<ExternalWish>) -> Result<(), Status> {
    match wish {
        None | Some(ExternalWish::Quarantine { .. }) => Ok(()),
        Some(ExternalWish::Reject(status) | ExternalWish::Defer(status)) => Err(status),
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
