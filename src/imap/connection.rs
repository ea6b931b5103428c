//! One connection: each command to the code that carries it out, each answer back.

use std::net::SocketAddr;
use std::sync::Arc;

use base::{AccountId, Clock, SessionId, Uid};
use directory::Directory;
use store::{BlobStore, MailStore, Picture, Searcher, StoreError, Views};

use crate::config::Config;
use crate::mailboxes;
use crate::mime::Mime;
use crate::proto::{Body, Command, Reply, SequenceSet};
use crate::quota;
use crate::session::{Phase, Session, Transport};
use crate::sync::Telling;
use crate::wire::{Closed, Wire};

/// What sessions work on.
pub struct Services {
    pub mail: Arc<dyn MailStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub views: Arc<Views>,
    pub search: Arc<Searcher>,
    pub directory: Arc<dyn Directory>,
    pub mime: Arc<dyn Mime>,
    /// For messages of APPEND on their way in.
    pub spool: Arc<net::SpoolSettings>,
    /// For those being read and stored.
    pub budget: net::MemoryBudget,
    /// For STARTTLS; `None` offers none.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
    /// Leads sessions to the node of their account; `None` on a node that is alone.
    pub affinity: Option<Arc<cluster::Affinity>>,
    /// The way to old servers.
    pub legacy: Arc<legacy::Gateway>,
}

pub struct Connection {
    pub wire: Wire,
    pub session: Session,
    pub services: Arc<Services>,
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub peer: SocketAddr,
    pub id: SessionId,
    /// The answer to a message that is passing unseen.
    pub refused: Option<Reply>,
    /// Where the session goes on.
    pub led: Option<Led>,
}

/// Another server that goes on with the session.
pub enum Led {
    /// A node, which answers the sign-in and knows what the client said after it.
    Node(Box<cluster::Led>),
    /// An old server: the sign-in was answered here, and what the client said after it has to be told.
    Legacy(Box<legacy::Opened>),
}

/// Why a command did not run to its end.
#[derive(Debug)]
pub enum Stop {
    /// It is answered with this.
    Reply(Reply),
    Closed(Closed),
}

impl<E: Into<Reply>> From<E> for Stop {
    fn from(reply: E) -> Self {
        Self::Reply(reply.into())
    }
}

impl From<Closed> for Stop {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

/// A set of messages as the store takes it.
pub type UidRanges = Vec<std::ops::RangeInclusive<Uid>>;

impl Connection {
    /// Runs a command and writes its answer.
    pub async fn run(&mut self, command: Command) -> Result<(), Closed> {
        let Command { tag, body } = command;
        let was_greeted = self.session.account().is_none();
        let reply = match self.session.admit(&body) {
            Err(reply) => reply,
            Ok(()) => match self.carry_out(&tag, body).await {
                Ok(reply) if let Some(Led::Legacy(opened)) = &self.led => {
                    reply.write(&mut self.wire.out, &tag);
                    self.wire.out.extend_from_slice(&opened.said);
                    return Err(Closed::Led);
                }
                Ok(_) if was_greeted && self.lead(&tag).await => return Err(Closed::Led),
                Ok(reply) | Err(Stop::Reply(reply)) => reply,
                Err(Stop::Closed(closed)) => return Err(closed),
            },
        };
        reply.write(&mut self.wire.out, &tag);
        self.wire.flush_some().await
    }

    /// True if another node has taken the session of a client that has just signed in, and answers it.
    async fn lead(&mut self, tag: &str) -> bool {
        let (Some(affinity), Some(account)) = (&self.services.affinity, self.session.account()) else { return false };
        let handoff = cluster::Handoff {
            protocol: "imap".to_owned(),
            account,
            rights: self.wire.hold.as_ref().map(|hold| hold.rights().0),
            session: self.id,
            client: self.peer,
            is_tls: self.session.transport == Transport::Tls,
            tag: tag.to_owned(),
            ahead: self.wire.ahead(),
        };
        self.led = affinity.lead(&handoff).await.map(|link| Led::Node(Box::new(link)));
        self.led.is_some()
    }

    async fn carry_out(&mut self, tag: &str, body: Body) -> Result<Reply, Stop> {
        let telling = Telling { may_expunge: may_expunge(&body), own: &[], condstore: self.session.condstore };
        // A UID that the client has from elsewhere, as from APPENDUID, would be passed over without a word.
        if names_uids(&body) && self.owes_news() {
            self.tell_news(telling).await?;
            if self.owes_news() {
                return Err(Reply::unavailable().into());
            }
        }
        let reply = self.dispatch(tag, body).await;
        match reply {
            Err(Stop::Closed(closed)) => return Err(closed.into()),
            _ => self.tell_news(telling).await?,
        }
        reply
    }

    async fn dispatch(&mut self, tag: &str, body: Body) -> Result<Reply, Stop> {
        let services = Arc::clone(&self.services);
        let mail = &*services.mail;
        let out = &mut self.wire.out;
        Ok(match body {
            Body::Capability => {
                out.extend_from_slice(format!("* CAPABILITY {}\r\n", self.session.capabilities()).as_bytes());
                Reply::ok("CAPABILITY completed")
            }
            Body::Noop => Reply::ok("NOOP completed"),
            Body::Check => Reply::ok("CHECK completed"),
            Body::Id => {
                out.extend_from_slice(b"* ID (\"name\" \"Ortler\")\r\n");
                Reply::ok("ID completed")
            }
            Body::Enable(names) => self.enable(&names),
            Body::Namespace => {
                out.extend_from_slice(b"* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                Reply::ok("NAMESPACE completed")
            }
            Body::Login { login, password } => self.login(&login, &password).await?,
            Body::Authenticate { mechanism, initial } => self.authenticate(&mechanism, initial).await?,
            Body::Select { mailbox, read_only, condstore } => self.select(&mailbox, read_only, condstore).await?,
            Body::Create { mailbox, role } => mailboxes::create(mail, self.account()?, &mailbox, role).await?,
            Body::Delete(mailbox) => mailboxes::delete(mail, self.account()?, &mailbox).await?,
            Body::Rename { from, to } => mailboxes::rename(mail, self.account()?, &from, &to).await?,
            Body::Subscribe(mailbox) => mailboxes::subscribe(mail, self.account()?, &mailbox, true).await?,
            Body::Unsubscribe(mailbox) => mailboxes::subscribe(mail, self.account()?, &mailbox, false).await?,
            Body::List(list) => {
                let account = self.account()?;
                mailboxes::list(mail, account, &list, &mut self.wire.out).await?
            }
            Body::Lsub { reference, pattern } => {
                let account = self.account()?;
                mailboxes::lsub(mail, account, &reference, &pattern, &mut self.wire.out).await?
            }
            Body::Status { mailbox, items } => {
                let account = self.account()?;
                self.session.condstore |= items.contains(&crate::proto::StatusItem::HighestModSeq);
                mailboxes::status(mail, account, &mailbox, &items, &mut self.wire.out).await?
            }
            Body::GetQuota(root) => {
                let account = self.account()?;
                quota::get(mail, account, &root, &mut self.wire.out).await?
            }
            Body::GetQuotaRoot(mailbox) => {
                let account = self.account()?;
                quota::roots(mail, account, &mailbox, &mut self.wire.out).await?
            }
            Body::Close => self.close().await?,
            Body::Unselect => {
                self.session.deselect();
                Reply::ok("UNSELECT completed")
            }
            Body::Expunge => self.expunge(None).await?,
            Body::UidExpunge(set) => self.expunge(Some(&set)).await?,
            Body::Store { by_uid, set, store } => self.store(by_uid, &set, store).await?,
            Body::Copy { by_uid, set, to } => self.copy(by_uid, &set, &to).await?,
            Body::Move { by_uid, set, to } => self.r#move(by_uid, &set, &to).await?,
            Body::Fetch { by_uid, set, fetch } => self.fetch(by_uid, &set, fetch).await?,
            Body::Search { by_uid, search } => self.search(tag, by_uid, search).await?,
            Body::Logout | Body::StartTls | Body::Idle => Reply::bad("Not possible here"),
        })
    }

    pub fn account(&self) -> Result<AccountId, Reply> {
        self.session.account().ok_or(Reply::bad("Sign in first"))
    }

    /// ENABLE (RFC 5161).
    fn enable(&mut self, names: &[String]) -> Reply {
        let condstore = names.iter().any(|name| name == "CONDSTORE");
        self.session.condstore |= condstore;
        let granted: &[u8] = if condstore { b"* ENABLED CONDSTORE\r\n" } else { b"* ENABLED\r\n" };
        self.wire.out.extend_from_slice(granted);
        Reply::ok("ENABLE completed")
    }

    /// Tells the client what changed in the open mailbox. When the store cannot be asked, news come later.
    pub async fn tell_news(&mut self, telling: Telling<'_>) -> Result<(), Closed> {
        let Some(selected) = self.session.selected() else { return Ok(()) };
        match selected.view.refresh().await {
            Ok(Some(picture)) => {
                selected.seen.advance(picture, telling, &mut self.wire.out);
                selected.owes_news = false;
                Ok(())
            }
            Ok(None) => {
                self.wire.out.extend_from_slice(b"* BYE [NONEXISTENT] Mailbox is gone\r\n");
                Err(Closed::Done)
            }
            Err(error) => {
                selected.owes_news = true;
                self.store_failed(&error);
                Ok(())
            }
        }
    }

    fn owes_news(&mut self) -> bool {
        self.session.selected().is_some_and(|selected| selected.owes_news)
    }

    pub fn store_failed(&self, error: &StoreError) {
        tracing::warn!(event = base::event::STORE_FAILED, session = %self.id, %error);
    }

    /// The UIDs that `set` names among the messages that the client knows of: what arrived since is out of its reach.
    pub fn uids(&mut self, by_uid: bool, set: &SequenceSet) -> Result<UidRanges, Reply> {
        let Phase::Selected(_, selected) = &self.session.phase else {
            return Err(Reply::bad("Select a mailbox first"));
        };
        uids_of(&selected.seen.picture, by_uid, set)
    }
}

/// RFC 3501 §7.4.1: sequence numbers stay during these.
const fn may_expunge(body: &Body) -> bool {
    !matches!(
        body,
        Body::Fetch { by_uid: false, .. } | Body::Store { by_uid: false, .. } | Body::Search { by_uid: false, .. }
    )
}

const fn names_uids(body: &Body) -> bool {
    matches!(
        body,
        Body::UidExpunge(_)
            | Body::Store { by_uid: true, .. }
            | Body::Copy { by_uid: true, .. }
            | Body::Move { by_uid: true, .. }
            | Body::Fetch { by_uid: true, .. }
            | Body::Search { by_uid: true, .. }
    )
}

fn uids_of(picture: &Picture, by_uid: bool, set: &SequenceSet) -> Result<UidRanges, Reply> {
    let last = picture.len().checked_sub(1).and_then(|index| picture.at(index)).map(|entry| entry.uid);
    let Some(last) = last else { return Ok(Vec::new()) };
    if by_uid {
        let ranges = set.resolve_uids(Some(last));
        let known = ranges.into_iter().filter(|range| *range.start() <= last);
        return Ok(known.map(|range| *range.start()..=(*range.end()).min(last)).collect());
    }
    let count = u32::try_from(picture.len()).unwrap_or(u32::MAX);
    let uid_at = |number: u32| {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        index.and_then(|index| picture.at(index)).map(|entry| entry.uid).ok_or(Reply::bad("No such message number"))
    };
    set.resolve(count).into_iter().map(|range| Ok(uid_at(*range.start())?..=uid_at(*range.end())?)).collect()
}
