//! What a connection may do now, and what it has been promised.

use std::sync::Arc;

use base::{AccountId, MailboxId};
use store::View;

use crate::proto::{Body, Reply};
use crate::sync::Seen;

/// One connection's state.
pub struct Session {
    pub phase: Phase,
    pub transport: Transport,
    /// The client knows of mod-sequences: FETCH responses carry them (RFC 7162 §3.1).
    pub condstore: bool,
    pub failures: u32,
    pub bad_commands: u32,
}

pub enum Phase {
    Greeted,
    Ready(AccountId),
    Selected(AccountId, Box<Selected>),
}

/// How the bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tls,
    /// In the clear; `starttls` if it can become TLS, `login` if passwords may cross it all the same.
    Plain {
        starttls: bool,
        login: bool,
    },
}

/// The mailbox that is open.
pub struct Selected {
    pub mailbox: MailboxId,
    pub read_only: bool,
    pub view: Arc<View>,
    /// What the client has been told of it.
    pub seen: Seen,
    /// The store could not be asked for what came since.
    pub owes_news: bool,
}

impl Session {
    pub const fn new(transport: Transport) -> Self {
        Self { phase: Phase::Greeted, transport, condstore: false, failures: 0, bad_commands: 0 }
    }

    pub const fn account(&self) -> Option<AccountId> {
        match &self.phase {
            Phase::Greeted => None,
            Phase::Ready(account) | Phase::Selected(account, _) => Some(*account),
        }
    }

    pub fn selected(&mut self) -> Option<&mut Selected> {
        match &mut self.phase {
            Phase::Selected(_, selected) => Some(selected),
            Phase::Greeted | Phase::Ready(_) => None,
        }
    }

    /// Closes the mailbox, if one is open.
    pub fn deselect(&mut self) -> Option<Box<Selected>> {
        let account = self.account()?;
        match std::mem::replace(&mut self.phase, Phase::Ready(account)) {
            Phase::Selected(_, selected) => Some(selected),
            Phase::Greeted | Phase::Ready(_) => None,
        }
    }

    pub const fn may_send_passwords(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Plain { login: true, .. })
    }

    /// Refuses what the state does not allow (RFC 3501 §6).
    pub fn admit(&self, body: &Body) -> Result<(), Reply> {
        match (Need::of(body), &self.phase) {
            (Need::Nothing, _)
            | (Need::NotLoggedIn, Phase::Greeted)
            | (Need::Login, Phase::Ready(_) | Phase::Selected(..)) => {}
            (Need::NotLoggedIn, _) => return Err(Reply::bad("Already signed in")),
            (_, Phase::Greeted) => return Err(Reply::bad("Sign in first")),
            (_, Phase::Ready(_)) => return Err(Reply::bad("Select a mailbox first")),
            (need, Phase::Selected(_, selected)) => {
                if need == Need::Writable && selected.read_only {
                    return Err(Reply::no("CANNOT", "Mailbox is open read-only"));
                }
            }
        }
        match body {
            Body::StartTls if !matches!(self.transport, Transport::Plain { starttls: true, .. }) => {
                Err(Reply::bad("TLS is active or not available"))
            }
            Body::Login { .. } | Body::Authenticate { .. } if !self.may_send_passwords() => {
                Err(Reply::no("PRIVACYREQUIRED", "Use TLS to sign in"))
            }
            _ => Ok(()),
        }
    }

    /// The answer to a sign-in.
    pub fn signed_in(&self) -> Reply {
        Reply::ok("Signed in").with_code(format!("CAPABILITY {}", self.capabilities()))
    }

    /// The list after `CAPABILITY `.
    pub fn capabilities(&self) -> String {
        let mut list = String::from("IMAP4rev1 LITERAL+ SASL-IR ID ENABLE");
        match self.phase {
            Phase::Greeted => {
                if matches!(self.transport, Transport::Plain { starttls: true, .. }) {
                    list.push_str(" STARTTLS");
                }
                list.push_str(if self.may_send_passwords() { " AUTH=PLAIN AUTH=LOGIN" } else { " LOGINDISABLED" });
            }
            Phase::Ready(_) | Phase::Selected(..) => {
                list.push_str(
                    " IDLE NAMESPACE UNSELECT UIDPLUS MOVE MULTIAPPEND CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE \
                     CREATE-SPECIAL-USE STATUS=SIZE CONDSTORE ESEARCH WITHIN OBJECTID PREVIEW QUOTA QUOTA=RES-STORAGE \
                     QUOTA=RES-MESSAGE",
                );
            }
        }
        list
    }
}

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    NotLoggedIn,
    Login,
    Selected,
    /// Selected, and not read-only.
    Writable,
}

impl Need {
    const fn of(body: &Body) -> Self {
        match body {
            Body::Capability | Body::Noop | Body::Logout | Body::Id => Self::Nothing,
            Body::StartTls | Body::Authenticate { .. } | Body::Login { .. } => Self::NotLoggedIn,
            Body::Enable(_)
            | Body::Select { .. }
            | Body::Create { .. }
            | Body::Delete(_)
            | Body::Rename { .. }
            | Body::Subscribe(_)
            | Body::Unsubscribe(_)
            | Body::List(_)
            | Body::Lsub { .. }
            | Body::Namespace
            | Body::GetQuota(_)
            | Body::GetQuotaRoot(_)
            | Body::Status { .. }
            | Body::Idle => Self::Login,
            Body::Check
            | Body::Close
            | Body::Unselect
            | Body::Search { .. }
            | Body::Fetch { .. }
            | Body::Copy { .. } => Self::Selected,
            Body::Expunge | Body::UidExpunge(_) | Body::Store { .. } | Body::Move { .. } => Self::Writable,
        }
    }
}
