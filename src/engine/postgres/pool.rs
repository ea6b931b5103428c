//! Connections: a bounded number, each with its prepared statements, none waited on without a limit.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::settings::{Line, PgSettings, SESSION_WAIT};
use crate::error::EngineError;
use crate::waypoints::Waypoints;

/// What is asked once, on a new connection.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The server gives up on a statement before we do, so that we hear why.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// A statement that is not answered for so long has us look whether another host takes writes now.
const LOOK_EVERY: Duration = Duration::from_secs(4);

/// Connections to one server, or to whichever of several takes writes.
pub struct Pool {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Link>>>,
    office: Arc<Office>,
}

/// What connections of one pool know of their servers together.
struct Office {
    settings: PgSettings,
    /// What the last answer said.
    is_reachable: AtomicBool,
    /// The host that takes writes, when last one was looked for. Connections to others are given up, also by those who wait
    /// for an answer.
    host: watch::Sender<usize>,
    /// Counts the times that a server fell silent: connections of before are not used again.
    era: AtomicU64,
    /// Somebody looks for the host that takes writes.
    is_looking: tokio::sync::Mutex<()>,
}

/// One connection. Dropping it ends the task that drives it; the server then rolls back.
struct Link {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// An answer did not come in time.
    is_silent: AtomicBool,
    /// An answer came with the end of the connection.
    has_ended: AtomicBool,
    /// The server takes no writes any more: the link does not go back to the others.
    is_read_only: AtomicBool,
    /// See [`Line`].
    is_in_doubt: Arc<AtomicBool>,
    host: usize,
    era: u64,
    office: Arc<Office>,
    wait: Duration,
    waypoints: Waypoints,
    _driver: JoinSet<()>,
}

/// A connection in use. It goes back to the pool only by [`Session::end`]: one that was left in the middle of something,
/// because its future was dropped or failed, is closed.
pub struct Session {
    link: Link,
    idle: Arc<Mutex<Vec<Link>>>,
    _permit: OwnedSemaphorePermit,
}

/// Values of a statement, `$1` first.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Pool {
    /// Connects when first asked.
    pub fn new(settings: PgSettings) -> Self {
        let permits = Arc::new(Semaphore::new(settings.connections));
        let office = Office {
            settings,
            is_reachable: AtomicBool::new(true),
            host: watch::Sender::new(0),
            era: AtomicU64::new(0),
            is_looking: tokio::sync::Mutex::default(),
        };
        Self { permits, idle: Arc::default(), office: Arc::new(office) }
    }

    pub fn settings(&self) -> &PgSettings {
        &self.office.settings
    }

    pub fn waypoints(&self) -> Waypoints {
        self.office.settings.waypoints
    }

    /// A connection outside a transaction.
    ///
    /// # Errors
    /// All are in use for long, or no server answers that takes writes.
    pub async fn session(&self) -> Result<Session, EngineError> {
        let permit = tokio::time::timeout(SESSION_WAIT, Arc::clone(&self.permits).acquire_owned());
        let permit = permit.await.map_err(|_| unavailable("all connections are in use"))?;
        let permit = permit.map_err(|_| EngineError::Closing)?;
        let link = match self.take_idle() {
            Some(link) => link,
            None => {
                let connected = self.connect().await;
                self.office.is_reachable.store(connected.is_ok(), Ordering::Relaxed);
                connected?
            }
        };
        Ok(Session { link, idle: Arc::clone(&self.idle), _permit: permit })
    }

    /// False if the last word of the servers was that none can be reached, or none that takes writes.
    pub fn is_reachable(&self) -> bool {
        self.office.is_reachable.load(Ordering::Relaxed)
    }

    /// Those that are of no use any more go.
    fn take_idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock();
        idle.retain(Link::is_usable);
        idle.pop()
    }

    async fn connect(&self) -> Result<Link, EngineError> {
        let era = self.office.era.load(Ordering::Relaxed);
        let Line { client, host, is_in_doubt, driver } = self.office.dial().await?;
        let wait = self.office.settings.statement_wait;
        // A server told not to wait for its disk would make our acknowledgements lies.
        let limits = format!(
            "SET statement_timeout = {}; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s';
             SET client_min_messages = warning; SET jit = off;
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            wait.as_millis()
        );
        bounded(client.batch_execute(&limits)).await?;
        let wait = wait + ANSWER_WAIT;
        Ok(Link {
            client,
            statements: Mutex::default(),
            is_silent: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            is_read_only: AtomicBool::new(false),
            is_in_doubt,
            host,
            era,
            office: Arc::clone(&self.office),
            wait,
            waypoints: self.office.settings.waypoints,
            _driver: driver,
        })
    }

    /// Asks outside a transaction, again if the connection turns out to be closed: for questions that change nothing.
    pub async fn query(&self, text: &str, params: Params<'_>) -> Result<Vec<Row>, EngineError> {
        self.ask(text, params, true).await
    }

    /// As [`Pool::query`], for a text of many forms: it is not kept prepared.
    pub async fn query_once(&self, text: &str, params: Params<'_>) -> Result<Vec<Row>, EngineError> {
        self.ask(text, params, false).await
    }

    async fn ask(&self, text: &str, params: Params<'_>, is_kept: bool) -> Result<Vec<Row>, EngineError> {
        let mut tries = 0;
        loop {
            let session = self.session().await?;
            tries += 1;
            let answer = match is_kept {
                true => session.rows(text, params).await,
                false => session.link.asked(session.link.client.query(text, params)).await,
            };
            match answer {
                Err(_) if session.link.has_ended() && tries <= self.office.settings.connections => {}
                answer => {
                    if !session.is_lost() {
                        session.give_back();
                    }
                    return answer;
                }
            }
        }
    }

    /// A transaction on a connection that answers: one found dead is replaced. Reads see one moment.
    pub async fn begin(&self, is_read: bool) -> Result<Session, EngineError> {
        let mut tries = 0;
        loop {
            let session = self.session().await?;
            tries += 1;
            match session.batch(begin(is_read)).await {
                Ok(()) => return Ok(session),
                // Not for one that is silent: the others may be so too, and each takes its time.
                Err(_) if session.link.has_ended() && tries <= self.office.settings.connections => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Session {
    /// Commits if the work was done, else rolls back. An error of the commit itself leaves open whether it happened.
    pub async fn end<T, E: From<EngineError>>(self, done: Result<T, E>) -> Result<T, E> {
        if done.is_ok() {
            self.link.waypoints.pass("server.commit");
        }
        let ended = self.batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
        if done.is_ok() && ended.is_ok() {
            self.link.waypoints.pass("server.committed");
        }
        match (done, ended) {
            (Ok(value), Ok(())) => {
                self.give_back();
                Ok(value)
            }
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), Ok(())) => {
                self.give_back();
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// True if the connection is gone or did not answer: then the outcome of what was last asked is unknown.
    pub fn is_lost(&self) -> bool {
        self.link.is_silent.load(Ordering::Relaxed) || self.link.has_ended()
    }

    /// Outside a transaction: nothing is open on the connection.
    pub fn give_back(self) {
        if self.link.is_usable() && !self.is_lost() {
            self.idle.lock().push(self.link);
        }
    }

    /// Statements without parameters, one after the other.
    pub async fn batch(&self, text: &str) -> Result<(), EngineError> {
        self.link.asked(self.link.client.batch_execute(text)).await
    }

    /// [`Session::batch`] that waits for the answer for as long as it takes.
    pub(super) async fn batch_unbounded(&self, text: &str) -> Result<(), EngineError> {
        self.link.answered(self.link.client.batch_execute(text).await)
    }

    async fn statement(&self, text: &str) -> Result<Statement, EngineError> {
        if let Some(known) = self.link.statements.lock().get(text) {
            return Ok(known.clone());
        }
        let made = self.link.asked(self.link.client.prepare(text)).await?;
        self.link.statements.lock().insert(text.to_owned(), made.clone());
        Ok(made)
    }

    /// Prepared once for each connection.
    pub async fn rows(&self, text: &str, params: Params<'_>) -> Result<Vec<Row>, EngineError> {
        let statement = self.statement(text).await?;
        self.link.asked(self.link.client.query(&statement, params)).await
    }

    pub async fn row_opt(&self, text: &str, params: Params<'_>) -> Result<Option<Row>, EngineError> {
        Ok(self.rows(text, params).await?.into_iter().next())
    }

    /// # Errors
    /// Also if there is no row.
    pub async fn row(&self, text: &str, params: Params<'_>) -> Result<Row, EngineError> {
        self.row_opt(text, params).await?.ok_or_else(|| EngineError::damaged("a row is missing"))
    }

    /// Gives the number of rows changed.
    pub async fn execute(&self, text: &str, params: Params<'_>) -> Result<u64, EngineError> {
        let statement = self.statement(text).await?;
        self.link.asked(self.link.client.execute(&statement, params)).await
    }
}

impl Office {
    async fn dial(&self) -> Result<Line, EngineError> {
        let line = self.settings.dial(None).await?;
        self.host.send_if_modified(|host| std::mem::replace(host, line.host) != line.host);
        Ok(line)
    }

    /// Looks from time to time which of several hosts takes writes.
    async fn look_around(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Ok(_looking) = self.is_looking.try_lock() {
                // That none is found is told by whoever needs one.
                let _ = self.dial().await;
            }
        }
    }
}

impl Link {
    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// True if it may be given to somebody.
    fn is_usable(&self) -> bool {
        let is_current = self.era == self.office.era.load(Ordering::Relaxed) && self.host == *self.office.host.borrow();
        is_current && !self.client.is_closed() && !self.is_read_only.load(Ordering::Relaxed)
    }

    /// Ends when another host takes writes.
    async fn is_superseded(&self) {
        let mut host = self.office.host.subscribe();
        // The pool's end of it is ours.
        let _ = host.wait_for(|host| *host != self.host).await;
    }

    async fn asked<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, EngineError> {
        self.waypoints.pass("server.ask");
        let are_several = self.office.settings.hosts() > 1;
        tokio::select! {
            biased;
            answer = work => {
                self.waypoints.pass("server.answered");
                self.answered(answer)
            }
            () = self.is_superseded(), if are_several => {
                self.has_ended.store(true, Ordering::Relaxed);
                Err(unavailable("another host takes writes now"))
            }
            () = tokio::time::sleep(self.wait) => {
                self.is_silent.store(true, Ordering::Relaxed);
                self.office.era.fetch_add(1, Ordering::Relaxed);
                self.office.is_reachable.store(false, Ordering::Relaxed);
                Err(unavailable("no answer in time"))
            }
            never = self.office.look_around(), if are_several => match never {},
        }
    }

    /// What the answer says of the connection and the server.
    fn answered<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, EngineError> {
        if answer.is_ok() && self.is_in_doubt.load(Ordering::Acquire) {
            self.has_ended.store(true, Ordering::Relaxed);
            return Err(unavailable("committed, but perhaps not on a standby"));
        }
        match answer.as_ref().map_err(|error| error.code()) {
            Ok(_) if self.is_read_only.load(Ordering::Relaxed) => {}
            Ok(_) => self.office.is_reachable.store(true, Ordering::Relaxed),
            Err(Some(code)) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                self.is_read_only.store(true, Ordering::Relaxed);
                self.office.is_reachable.store(false, Ordering::Relaxed);
            }
            Err(Some(code)) if !is_farewell(code) => {}
            // Without a code of the server's it is the connection that failed.
            Err(_) => {
                self.has_ended.store(true, Ordering::Relaxed);
                self.office.is_reachable.store(false, Ordering::Relaxed);
            }
        }
        answer.map_err(|error| failed(&error))
    }
}

/// The server says it last on a connection, which may take a moment longer to be seen closed.
fn is_farewell(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT].contains(code)
}

const fn begin(is_read: bool) -> &'static str {
    if is_read { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" }
}

/// For what is asked once, on a new connection.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, EngineError> {
    match tokio::time::timeout(FIRST_WAIT, work).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(unavailable("no answer in time")),
    }
}

pub(super) fn unavailable(what: impl Into<String>) -> EngineError {
    EngineError::Postgres { reason: what.into() }
}

pub(super) fn failed(error: &tokio_postgres::Error) -> EngineError {
    match (error.code(), error.as_db_error()) {
        (Some(code), _) if *code == SqlState::DISK_FULL => EngineError::DiskFull { file: "postgresql".into() },
        (Some(code), Some(db)) if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            EngineError::damaged(db.message())
        }
        (Some(code), Some(db)) => unavailable(format!("{} ({})", db.message(), code.code())),
        _ => match std::error::Error::source(error) {
            Some(cause) => unavailable(format!("{error}: {cause}")),
            None => unavailable(error.to_string()),
        },
    }
}

/// A column's value.
///
/// # Errors
/// It is not of this type: the tables are not ours.
pub fn value<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, EngineError> {
    row.try_get(column).map_err(|error| EngineError::damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::super::settings::CONNECT_WAIT;
    use super::*;

    /// The probe follows what the connections hear, not only the last attempt to make one.
    #[tokio::test]
    async fn is_reachable_as_the_last_answer_says() {
        let Some(server) = Server::start() else { return };
        let url = server.database("mail");
        let pool = Pool::new(PgSettings::parse(&url, 2).unwrap());
        let other = Pool::new(server.settings(1)).session().await.unwrap();
        let first = pool.session().await.unwrap();
        // No second connection is let in, as when a server has too many: the first goes on.
        other.batch("ALTER DATABASE mail ALLOW_CONNECTIONS false").await.unwrap();
        assert!(pool.session().await.is_err() && !pool.is_reachable());
        first.batch("SELECT 1").await.unwrap();
        assert!(pool.is_reachable());

        // What fails for a reason of its own says nothing.
        assert!(first.batch("nonsense").await.is_err() && pool.is_reachable());

        other.batch("ALTER DATABASE mail ALLOW_CONNECTIONS true").await.unwrap();
        let second = pool.session().await.unwrap();
        second.batch("SET default_transaction_read_only = on").await.unwrap();
        assert!(second.batch("CREATE TABLE one (a bigint)").await.is_err() && !pool.is_reachable());
        second.batch("SELECT 1").await.unwrap();
        assert!(!pool.is_reachable(), "that it can be read is no news");
        second.give_back();
        pool.session().await.unwrap().batch("CREATE TABLE one (a bigint)").await.unwrap();
        assert!(pool.is_reachable());

        let backends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'mail'";
        other.batch(backends).await.unwrap();
        assert!(first.batch("SELECT 1").await.is_err() && !pool.is_reachable());
        drop(first);
        pool.query("SELECT 1", &[]).await.unwrap();
        assert!(pool.is_reachable());
    }

    /// Connections that a dead network leaves behind cost one wait, not one for each of them.
    #[tokio::test]
    async fn a_silent_server_is_waited_for_once() {
        let Some(server) = Server::start() else { return };
        let pool = Pool::new(server.settings(4).with_waits(CONNECT_WAIT, Duration::from_millis(100)));
        let mut sessions = Vec::new();
        let mut backends = Vec::new();
        for _ in 0..4 {
            let session = pool.session().await.unwrap();
            backends.push(value::<i32>(&session.row("SELECT pg_backend_pid()", &[]).await.unwrap(), 0).unwrap());
            sessions.push(session);
        }
        sessions.into_iter().for_each(Session::give_back);
        let signal = |signal: nix::sys::signal::Signal| {
            for pid in &backends {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal).unwrap();
            }
        };
        signal(nix::sys::signal::Signal::SIGSTOP);
        let waited = tokio::time::timeout(ANSWER_WAIT + Duration::from_secs(5), pool.begin(true)).await;
        signal(nix::sys::signal::Signal::SIGCONT);
        assert!(waited.expect("it waited for more than one").is_err() && !pool.is_reachable());
        pool.begin(true).await.unwrap();
    }

    /// A commit that gave up waiting for a standby is not told as done, however it was asked for.
    #[tokio::test]
    async fn a_commit_that_no_standby_may_have_is_none() {
        let Some(server) = Server::start() else { return };
        let other = Pool::new(server.settings(1)).session().await.unwrap();
        other.batch("CREATE TABLE one (a bigint)").await.unwrap();
        other.batch("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
        other.batch("SELECT pg_reload_conf()").await.unwrap();
        let pool = Pool::new(server.settings(1));
        let cancels = async || {
            let text = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            for _ in 0..1000 {
                if value::<i64>(&other.row(text, &[]).await.unwrap(), 0).unwrap() > 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("no commit waits for a standby");
        };
        let commits = async {
            // The server takes a moment to follow its new setting.
            for _ in 0..1000 {
                let sql = pool.begin(false).await.unwrap();
                sql.execute("INSERT INTO one VALUES (1)", &[]).await.unwrap();
                if let Err(error) = sql.end::<(), EngineError>(Ok(())).await {
                    return error;
                }
            }
            panic!("all commits were told as done");
        };
        let (error, ()) = tokio::join!(commits, cancels());
        assert!(error.to_string().contains("standby") && error.is_transient(), "{error}");

        let sql = pool.session().await.unwrap();
        let (done, ()) = tokio::join!(sql.execute("INSERT INTO one VALUES (2)", &[]), cancels());
        assert!(done.is_err() && sql.is_lost());
    }

    /// Another host that takes writes is found, and gone on with, although this one's connections are as they were.
    #[tokio::test]
    async fn who_waits_for_a_host_that_stands_still_goes_on_with_another() {
        let (Some(first), Some(second)) = (Server::start(), Server::start()) else { return };
        second.promote();
        let [one, other] = [&first, &second].map(|server| server.socket_dir().display().to_string());
        let url = format!("host={one},{other} user=ortler dbname=postgres");
        let pool = Pool::new(PgSettings::parse(&url, 2).unwrap());
        let sessions = [pool.session().await.unwrap(), pool.session().await.unwrap()];
        let mut stopped = vec![first.pid()];
        for session in &sessions {
            stopped.push(value::<i32>(&session.row("SELECT pg_backend_pid()", &[]).await.unwrap(), 0).unwrap());
        }
        sessions.into_iter().for_each(Session::give_back);
        let signal = |signal: nix::sys::signal::Signal| {
            for pid in &stopped {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal).unwrap();
            }
        };
        signal(nix::sys::signal::Signal::SIGSTOP);
        let asked = pool.query("SELECT current_setting('unix_socket_directories')", &[]);
        let asked = tokio::time::timeout(LOOK_EVERY * 2, asked).await;
        signal(nix::sys::signal::Signal::SIGCONT);
        let rows = asked.expect("it waited for the first").unwrap();
        assert_eq!(value::<&str>(&rows[0], 0).unwrap(), other);
        assert!(
            pool.is_reachable() && pool.take_idle().is_some_and(|link| link.host == 1 && pool.take_idle().is_none())
        );
        // The first takes writes again, and would lose them: it does not know that it was followed.
        drop(second);
        let refused = pool.query("SELECT 1", &[]).await.unwrap_err();
        assert!(!pool.is_reachable(), "{refused}");
    }
}
