//! How the server is reached, and found among several of which one takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::DbError;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, SimpleQueryMessage, Socket};

use super::pool::{failed, unavailable};
use super::tls::{Connector, PgTls};
use crate::error::EngineError;
use crate::waypoints::Waypoints;

/// How the server is reached.
#[derive(Clone)]
pub struct PgSettings {
    /// Several hosts may be named; the one that takes writes is used.
    config: Config,
    pub(super) connections: usize,
    pub(super) statement_wait: Duration,
    tls: Option<Connector>,
    pub(super) waypoints: Waypoints,
    /// The host that took writes when last one was looked for, by its place in the list.
    writer: Arc<AtomicUsize>,
    /// The newest timeline, and when it was met. Each server that takes another's place begins a new one.
    newest: Arc<Mutex<Option<(u32, Instant)>>>,
}

/// A connection, and what drives it.
pub(super) struct Line {
    pub(super) client: Client,
    /// Its place in the list of hosts.
    pub(super) host: usize,
    /// The server committed something without being sure that a standby has it.
    pub(super) is_in_doubt: Arc<AtomicBool>,
    pub(super) driver: JoinSet<()>,
}

/// Where notices go, and what says that some did not fit.
pub(super) type Heard = (mpsc::Sender<Notification>, Arc<AtomicBool>);

/// For a new connection, over all hosts.
pub(super) const SESSION_WAIT: Duration = Duration::from_secs(15);
/// For one host of the list, until something listens there.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// For one statement.
const STATEMENT_WAIT: Duration = Duration::from_secs(30);
/// A host that has not answered by then may stand still: the next is asked beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// For hosts that stand still, when all others have said no: soon one of these may take writes, and is to be asked again.
const SILENCE_WAIT: Duration = Duration::from_secs(4);
/// So long a server is not used that another one replaced, from when that one was last connected to. Where it is the only
/// one left after that, someone has decided so.
const OVERTAKEN: Duration = Duration::from_secs(120);
/// A peer that is gone without a word is noticed after about half a minute, also where nothing is asked.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What was sent and its machine does not acknowledge for so long (a process that stands still does no harm): the way there
/// is cut, and another host may have taken its place.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

impl PgSettings {
    /// From a connection string as libpq has it, `host=a,b dbname=ortler` or `postgresql://…`, for up to `connections` at
    /// a time. Not encrypted until [`PgSettings::with_tls`].
    ///
    /// # Errors
    /// Says what is wrong with the connection string, without repeating it: it may hold a password.
    pub fn parse(url: &str, connections: usize) -> Result<Self, EngineError> {
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| failed(&error))?;
        let (names, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
        if names == 0 && addresses == 0 {
            return Err(unavailable("the connection string names no host"));
        }
        if names > 0 && addresses > 0 && names != addresses {
            return Err(unavailable(
                "the connection string names as many hosts as it gives addresses, or only one of both",
            ));
        }
        if config.get_ports().len() > 1 && config.get_ports().len() != names.max(addresses) {
            return Err(unavailable("the connection string gives one port, or one for each host"));
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).application_name("ortler");
        config.ssl_mode(SslMode::Disable);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED);
        }
        Ok(Self {
            config,
            connections: connections.max(1),
            statement_wait: STATEMENT_WAIT,
            tls: None,
            waypoints: Waypoints::default(),
            writer: Arc::default(),
            newest: Arc::default(),
        })
    }

    /// Told of each statement and commit.
    pub const fn with_waypoints(mut self, waypoints: Waypoints) -> Self {
        self.waypoints = waypoints;
        self
    }

    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// `connect` for each host of the list, `statement` for each statement.
    pub fn with_waits(mut self, connect: Duration, statement: Duration) -> Self {
        self.config.connect_timeout(connect);
        self.statement_wait = statement;
        self
    }

    /// A server that is reached by a local socket is never asked for TLS.
    ///
    /// # Errors
    /// Names the file of authorities that cannot be used.
    pub fn with_tls(mut self, tls: PgTls<'_>) -> Result<Self, EngineError> {
        let tls = Connector::new(tls).map_err(unavailable)?;
        let is_local = self.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let is_local = is_local && self.config.get_hostaddrs().is_empty();
        self.tls = tls.filter(|_| !is_local);
        self.config.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(self)
    }

    /// How many hosts are named.
    pub(super) fn hosts(&self) -> usize {
        self.config.get_hosts().len().max(self.config.get_hostaddrs().len())
    }

    /// A connection to the host that takes writes. The last one that did is asked first; one that stands still, so that it
    /// lets in and does not answer, keeps nobody from the others.
    pub(super) async fn dial(&self, notices: Option<Heard>) -> Result<Line, EngineError> {
        let looking = async {
            let count = self.hosts();
            let first = self.writer.load(Ordering::Relaxed);
            let mut waiting = (0..count).map(|nth| (first + nth) % count);
            // Those that come to nothing end with this.
            let mut attempts = JoinSet::new();
            let mut refused = unavailable("no server answered that takes writes");
            loop {
                let next = waiting.next();
                if let Some(host) = next {
                    attempts.spawn(self.clone().connect(host, notices.clone()));
                }
                let wait = match next {
                    Some(_) => HEAD_START,
                    None if count > 1 => SILENCE_WAIT,
                    None => SESSION_WAIT,
                };
                match tokio::time::timeout(wait, attempts.join_next()).await {
                    Ok(Some(Ok(Ok(line)))) => {
                        self.writer.store(line.host, Ordering::Relaxed);
                        return Ok(line);
                    }
                    Ok(Some(Ok(Err(error)))) => refused = error,
                    Ok(None) => return Err(refused),
                    Err(_) if next.is_none() => return Err(refused),
                    Ok(Some(Err(_))) | Err(_) => {}
                }
            }
        };
        let found = tokio::time::timeout(SESSION_WAIT, looking).await;
        found.unwrap_or_else(|_| Err(unavailable("no server answered that takes writes")))
    }

    async fn connect(self, host: usize, heard: Option<Heard>) -> Result<Line, EngineError> {
        let config = self.only(host);
        let mut driver = JoinSet::new();
        let is_in_doubt = Arc::new(AtomicBool::new(false));
        let client = match self.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|error| failed(&error))?;
                driver.spawn(drive(connection, heard, Arc::clone(&is_in_doubt)));
                client
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls).await.map_err(|error| failed(&error))?;
                driver.spawn(drive(connection, heard, Arc::clone(&is_in_doubt)));
                client
            }
        };
        // A primary that stood still goes on for a moment when it wakes, and what it takes then is lost.
        if is_overtaken(&self.newest, timeline(&client).await?) {
            return Err(unavailable("another server has taken this one's place"));
        }
        Ok(Line { client, host, is_in_doubt, driver })
    }

    /// The same for one host of the list.
    fn only(&self, host: usize) -> Config {
        let all = &self.config;
        let mut one = Config::new();
        match all.get_hosts().get(host) {
            Some(Host::Tcp(name)) => one.host(name),
            Some(Host::Unix(folder)) => one.host_path(folder),
            None => &mut one,
        };
        if let Some(address) = all.get_hostaddrs().get(host) {
            one.hostaddr(*address);
        }
        if let Some(port) = all.get_ports().get(host).or(all.get_ports().first()) {
            one.port(*port);
        }
        for (value, set) in [
            (all.get_user(), Config::user as fn(&mut Config, String) -> &mut Config),
            (all.get_dbname(), Config::dbname),
            (all.get_options(), Config::options),
            (all.get_application_name(), Config::application_name),
        ] {
            if let Some(value) = value {
                set(&mut one, value.to_owned());
            }
        }
        if let Some(password) = all.get_password() {
            one.password(password);
        }
        if let Some(wait) = all.get_connect_timeout() {
            one.connect_timeout(*wait);
        }
        if let Some(wait) = all.get_tcp_user_timeout() {
            one.tcp_user_timeout(*wait);
        }
        if let Some(interval) = all.get_keepalives_interval() {
            one.keepalives_interval(interval);
        }
        if let Some(retries) = all.get_keepalives_retries() {
            one.keepalives_retries(retries);
        }
        one.keepalives(all.get_keepalives()).keepalives_idle(all.get_keepalives_idle());
        one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
        one.channel_binding(all.get_channel_binding()).load_balance_hosts(all.get_load_balance_hosts());
        one.target_session_attrs(all.get_target_session_attrs());
        one
    }
}

/// True if a server on a newer timeline was met not long ago.
fn is_overtaken(newest: &Mutex<Option<(u32, Instant)>>, timeline: u32) -> bool {
    let (mut newest, now) = (newest.lock(), SystemClock.now());
    if newest.is_some_and(|(known, at)| timeline < known && now.duration_since(at) < OVERTAKEN) {
        return true;
    }
    *newest = Some((timeline, now));
    false
}

/// That of the server which the connection leads to.
async fn timeline(client: &Client) -> Result<u32, EngineError> {
    let said = client.simple_query("SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    let said = said.map_err(|error| failed(&error))?;
    let name = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.get(..8),
        _ => None,
    });
    let number = name.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| unavailable("the server does not say which timeline it is on"))
}

/// Whoever waits for an answer is told of the connection's error. What the server says beside comes before the answer.
async fn drive<T>(mut connection: Connection<Socket, T>, heard: Option<Heard>, is_in_doubt: Arc<AtomicBool>)
where
    T: AsyncRead + AsyncWrite + TlsStream + Unpin,
{
    while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            AsyncMessage::Notification(notice) => {
                if let Some((said, is_behind)) = &heard
                    && said.try_send(notice).is_err()
                {
                    is_behind.store(true, Ordering::Release);
                }
            }
            AsyncMessage::Notice(warning) if tells_of_doubt(&warning) => is_in_doubt.store(true, Ordering::Release),
            _ => {}
        }
    }
}

/// A COMMIT that waits for a standby and is cancelled succeeds, with a warning that the standby may not have it. The words
/// are in the server's language and the code is that of any warning; only its origin tells.
fn tells_of_doubt(warning: &DbError) -> bool {
    warning.file().is_some_and(|file| file.ends_with("syncrep.c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_addresses_and_ports_belong_together() {
        for (url, is_fine) in [
            ("host=a,b,c port=1,2,3", true),
            ("host=a,b,c port=1", true),
            ("host=a,b hostaddr=127.0.0.1,127.0.0.2", true),
            ("hostaddr=127.0.0.1,127.0.0.2", true),
            ("host=a,b port=1,2,3", false),
            ("host=a,b hostaddr=127.0.0.1", false),
            ("dbname=a", false),
        ] {
            assert_eq!(PgSettings::parse(url, 1).is_ok(), is_fine, "{url}");
        }
    }

    /// But for the other hosts, nothing is left out.
    #[test]
    fn one_host_is_reached_as_all_are() {
        let text = "host=a,/b port=1,2 user=u password=p dbname=d options='-c x=y' connect_timeout=4 \
                    tcp_user_timeout=5 keepalives=1 keepalives_idle=6 keepalives_interval=7 keepalives_retries=8 \
                    channel_binding=require load_balance_hosts=random sslnegotiation=direct";
        let all = PgSettings::parse(text, 1).unwrap();
        for (host, own) in [(0, "host=a port=1"), (1, "host=/b port=2")] {
            let expected = PgSettings::parse(&text.replace("host=a,/b port=1,2", own), 1).unwrap();
            assert_eq!(all.only(host), expected.config);
        }
    }

    #[tokio::test]
    async fn a_host_that_stands_still_keeps_nobody_from_the_next() {
        let Some(server) = super::super::Server::start() else { return };
        // Lets in, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "host=127.0.0.1,{} port={},5432 user=ortler dbname=postgres",
            server.socket_dir().display(),
            silent.local_addr().unwrap().port()
        );
        let settings = PgSettings::parse(&url, 1).unwrap();
        let found = tokio::time::timeout(Duration::from_secs(5), settings.dial(None)).await.unwrap().unwrap();
        assert_eq!(found.host, 1);
        assert_eq!(settings.writer.load(Ordering::Relaxed), 1, "it is asked first from now on");
    }
}
