//! Who decides: the seam between the session and mail flow.

use std::net::SocketAddr;

use async_trait::async_trait;
use base::{AccountId, MessageId, Secret, SessionId};
use bytes::Bytes;
use mail::{Address, Envelope, ForwardPath, ReversePath, Status};
use net::{Outbound, Spool, Spooled, TlsFacts};

use crate::proto::MailParameters;

/// What is spoken, and to whom it is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Port 25: other servers.
    Smtp,
    /// Ports 587 and 465: users who sign in.
    Submission,
    /// RFC 2033: servers that trust us, one reply for each recipient.
    Lmtp,
}

/// A user who signed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub account: AccountId,
    /// The account's primary address.
    pub address: Address,
    pub mechanism: Mechanism,
}

/// The SASL dialogue by which a user signs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    pub mechanism: Mechanism,
    pub login: String,
    pub password: Secret<String>,
}

/// Where a user who signed in goes on.
#[derive(Debug)]
pub enum SignIn {
    Here(Identity),
    /// On another server, which has taken the password: from the answer on, all is between it and the client.
    Elsewhere(Box<Onward>),
}

/// A session on another server.
#[derive(Debug)]
pub struct Onward {
    pub stream: Outbound,
    /// What it said after it took the password.
    pub said: Bytes,
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub id: SessionId,
    pub protocol: Protocol,
    /// The client: from the socket, the PROXY header or XCLIENT.
    pub client: SocketAddr,
    /// Reverse name, if XCLIENT told one.
    pub client_name: Option<String>,
    /// HELO, EHLO or LHLO, as given; empty before.
    pub helo: String,
    /// Greeted with EHLO or LHLO.
    pub extended: bool,
    pub tls: Option<TlsFacts>,
    pub identity: Option<Identity>,
    /// The client spoke before we greeted it.
    pub early_talker: bool,
}

impl SessionFacts {
    /// RFC 3848's word for `Received ... with`.
    pub fn with_protocol(&self) -> &'static str {
        match (self.protocol, self.extended, self.tls.is_some(), self.identity.is_some()) {
            (Protocol::Lmtp, _, true, _) => "LMTPS",
            (Protocol::Lmtp, _, false, _) => "LMTP",
            (_, true, true, true) => "ESMTPSA",
            (_, true, true, false) => "ESMTPS",
            (_, true, false, true) => "ESMTPA",
            (_, true, false, false) => "ESMTP",
            (_, false, _, _) => "SMTP",
        }
    }
}

/// One message's envelope as it grows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    pub id: MessageId,
    pub envelope: Envelope,
    /// Each recipient is answered for by itself: LMTP (RFC 2033 §4.2), or the client's wish (PRDR).
    pub answers_each: bool,
}

/// Mail flow as one session sees it. Each answer is told to the client as it is.
#[async_trait]
pub trait Handler: Send {
    /// A client connected, or XCLIENT said who it is. An error turns it away.
    async fn connected(&mut self, facts: &SessionFacts) -> Result<(), Status>;

    /// HELO, EHLO or LHLO, as `facts` have it. After an error the client has to greet again.
    async fn greeted(&mut self, facts: &SessionFacts) -> Result<(), Status>;

    /// Checks a password. The handler delays refusals itself.
    async fn authenticate(&mut self, facts: &SessionFacts, credentials: Credentials) -> Result<SignIn, Status>;

    /// MAIL FROM.
    async fn sender(
        &mut self,
        facts: &SessionFacts,
        id: MessageId,
        reverse_path: &ReversePath,
        parameters: &MailParameters,
    ) -> Result<(), Status>;

    /// RCPT TO, one more of `transaction`.
    async fn recipient(
        &mut self,
        facts: &SessionFacts,
        transaction: &Transaction,
        forward_path: &ForwardPath,
    ) -> Result<(), Status>;

    /// A place for the content of a message.
    fn spool(&self) -> Spool;

    /// The whole message: CRLF line ends, not dot-stuffed. Success means that it is durable. One status for SMTP and
    /// submission, one for each recipient of the envelope, in order, for LMTP.
    async fn message(&mut self, facts: &SessionFacts, transaction: Transaction, content: Spooled) -> Vec<Status>;

    /// A transaction ended without a message: RSET, a new MAIL, a refusal of the content, or the connection broke.
    async fn abandoned(&mut self, facts: &SessionFacts, transaction: &Transaction, reason: &Status);

    /// The connection is over.
    async fn closed(&mut self, facts: &SessionFacts);
}
