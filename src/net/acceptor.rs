//! Listening sockets: bound with a clear error, accepted from within limits.

use std::collections::HashMap;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::event::{LISTENER_FAILED, SESSION_REFUSED};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::cidr::{Cidr, client_network};
use crate::proxy::{self, Header};
use crate::task::Tasks;

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{0}: the port is in use; stop the program that has it (`ss -ltnp` shows which) or choose another")]
    InUse(SocketAddr),
    #[error("{0}: not allowed; ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    Forbidden(SocketAddr),
    #[error("{0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// Binds an address. Must be called inside the runtime.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => BindError::InUse(address),
        ErrorKind::PermissionDenied => BindError::Forbidden(address),
        _ => BindError::Other(address, error),
    })
}

/// A connection with who is really at its other end.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    /// The client: from the PROXY header, if a trusted balancer sent one.
    pub client: SocketAddr,
    /// The address the client connected to.
    pub local: SocketAddr,
    /// The connection comes from a trusted network: XCLIENT is allowed.
    pub trusted: bool,
    /// Counts the session as open until it is dropped.
    pub seat: Seat,
}

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct AcceptorSettings {
    /// For logs and metrics: `smtp`, `imaps`, …
    pub name: &'static str,
    pub sessions_max: usize,
    pub sessions_per_client_max: usize,
    /// From here a connection may begin with a PROXY header.
    pub trusted: Vec<Cidr>,
    /// Places that all listeners of the process share: each session needs open files.
    pub places: Arc<Semaphore>,
    /// Said to a client that is turned away, before the connection is closed; empty for protocols where clients speak first.
    pub refusal: &'static [u8],
}

/// Accepts connections of one listener until it is told to stop.
pub struct Acceptor {
    listener: TcpListener,
    settings: Arc<AcceptorSettings>,
    seats: Arc<Seats>,
}

/// How many sessions are open, in all and by client network.
#[derive(Debug)]
struct Seats {
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
    name: &'static str,
}

/// A session's place; dropping it makes room.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    network: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.0 = taken.0.saturating_sub(1);
        if let Some(count) = taken.1.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.1.remove(&self.network);
            }
        }
        metrics::gauge!("ortler_sessions_open", "listener" => self.seats.name).decrement(1.0);
    }
}

/// How long a trusted peer has to send the rest of a PROXY header it began.
const HEADER_WAIT: Duration = Duration::from_secs(3);
/// How long a trusted peer has to begin one: it may also be a plain client that waits for our greeting.
const FIRST_BYTE_WAIT: Duration = Duration::from_millis(100);
const PEEK_PAUSE: Duration = Duration::from_millis(2);
/// After a failed accept (no file descriptors left): time for sessions to end.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

impl Acceptor {
    pub fn new(listener: TcpListener, settings: AcceptorSettings) -> Self {
        let seats = Arc::new(Seats { taken: Mutex::new((0, HashMap::new())), name: settings.name });
        Self { listener, settings: Arc::new(settings), seats }
    }

    /// Accepts until `stop`; each connection is served in a task of `tasks`.
    pub async fn run<F, S>(self, tasks: Tasks, stop: CancellationToken, serve: S)
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Accepted) -> F + Clone + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(event = LISTENER_FAILED, listener = self.settings.name, %error);
                    tokio::time::sleep(FAILURE_PAUSE).await;
                    continue;
                }
            };
            // A socket that cannot be tuned is served all the same.
            let _ = stream.set_nodelay(true);
            let (settings, seats, serve) = (Arc::clone(&self.settings), Arc::clone(&self.seats), serve.clone());
            if settings.trusted.iter().any(|network| network.contains(peer.ip())) {
                tasks.spawn(settings.name, async move {
                    if let Some(accepted) = admit_trusted(stream, peer, &settings, &seats).await {
                        serve(accepted).await;
                    }
                });
            } else if let Some(accepted) = admit(stream, peer, None, false, &settings, &seats) {
                tasks.spawn(settings.name, serve(accepted));
            }
        }
    }
}

/// Reads the PROXY header, if there is one, without taking a byte more.
async fn admit_trusted(
    mut stream: TcpStream,
    peer: SocketAddr,
    settings: &AcceptorSettings,
    seats: &Arc<Seats>,
) -> Option<Accepted> {
    let mut bytes = [0u8; proxy::HEADER_MAX];
    let first = tokio::time::timeout(FIRST_BYTE_WAIT, stream.peek(&mut bytes)).await;
    let mut length = match first {
        Ok(Ok(length)) => length,
        Ok(Err(_)) => return None,
        Err(_silent) => return admit(stream, peer, None, true, settings, seats),
    };
    let header = tokio::time::timeout(HEADER_WAIT, async {
        loop {
            match proxy::parse(bytes.get(..length).unwrap_or_default()) {
                Header::Partial => {
                    tokio::time::sleep(PEEK_PAUSE).await;
                    let more = stream.peek(&mut bytes).await.ok()?;
                    if more == 0 {
                        return None;
                    }
                    length = more;
                }
                header => return Some(header),
            }
        }
    });
    match header.await {
        Ok(Some(Header::None)) => admit(stream, peer, None, true, settings, seats),
        Ok(Some(Header::Found { length, client, local })) => {
            stream.read_exact(bytes.get_mut(..length)?).await.ok()?;
            let client = client.unwrap_or(peer);
            admit(stream, client, local, true, settings, seats)
        }
        Ok(Some(Header::Broken | Header::Partial) | None) | Err(_) => {
            tracing::warn!(event = SESSION_REFUSED, listener = settings.name, peer = %peer.ip(), reason = "bad PROXY header");
            None
        }
    }
}

fn admit(
    stream: TcpStream,
    client: SocketAddr,
    local: Option<SocketAddr>,
    trusted: bool,
    settings: &AcceptorSettings,
    seats: &Arc<Seats>,
) -> Option<Accepted> {
    let network = client_network(client.ip());
    let Ok(place) = Arc::clone(&settings.places).try_acquire_owned() else {
        turn_away(&stream, client, settings, "too few open files");
        return None;
    };
    let mut taken = seats.taken.lock();
    let of_client = taken.1.get(&network).copied().unwrap_or(0);
    if taken.0 >= settings.sessions_max || of_client >= settings.sessions_per_client_max {
        drop(taken);
        turn_away(&stream, client, settings, "too many sessions");
        return None;
    }
    taken.0 += 1;
    *taken.1.entry(network).or_insert(0) += 1;
    drop(taken);
    metrics::gauge!("ortler_sessions_open", "listener" => settings.name).increment(1.0);
    metrics::counter!("ortler_sessions_total", "listener" => settings.name).increment(1);
    let seat = Seat { seats: Arc::clone(seats), network, _place: place };
    let local = match local {
        Some(local) => local,
        None => stream.local_addr().ok()?,
    };
    Some(Accepted { stream, client, local, trusted, seat })
}

fn turn_away(stream: &TcpStream, client: SocketAddr, settings: &AcceptorSettings, reason: &'static str) {
    metrics::counter!("ortler_sessions_refused_total", "listener" => settings.name).increment(1);
    tracing::info!(event = SESSION_REFUSED, listener = settings.name, peer = %client.ip(), reason);
    // Best effort: a fresh socket takes a short line at once.
    let _ = stream.try_write(settings.refusal);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// What the server side sees of a client that sends `bytes`: the client's address and the bytes after the header.
    async fn seen(trusted: bool, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = AcceptorSettings {
            name: "test",
            sessions_max: 1,
            sessions_per_client_max: 1,
            trusted: if trusted { vec![Cidr::new("127.0.0.0".parse().unwrap(), 8)] } else { vec![] },
            places: Arc::new(Semaphore::new(1)),
            refusal: b"no\r\n",
        };
        let tasks = Tasks::new();
        let (told, mut hear) = tokio::sync::mpsc::channel(1);
        let acceptor = Acceptor::new(listener, settings).run(tasks.clone(), tasks.stopping(), move |mut accepted| {
            let told = told.clone();
            async move {
                let mut rest = Vec::new();
                let _ = accepted.stream.read_to_end(&mut rest).await;
                let _ = told.send((accepted.client.ip().to_string(), rest)).await;
            }
        });
        tasks.spawn("acceptor", acceptor);
        let mut client = TcpStream::connect(address).await.unwrap();
        for piece in bytes.chunks(7) {
            client.write_all(piece).await.unwrap();
        }
        drop(client);
        let seen = tokio::time::timeout(Duration::from_secs(5), hear.recv());
        let seen = tokio::select! { seen = seen => seen.ok().flatten(), () = tokio::time::sleep(Duration::from_millis(500)) => None };
        tasks.shutdown(Duration::from_secs(1)).await;
        seen
    }

    #[tokio::test]
    async fn only_trusted_networks_may_speak_for_others() {
        let header = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\nEHLO x\r\n";
        assert_eq!(seen(true, header).await, Some(("192.0.2.1".to_owned(), b"EHLO x\r\n".to_vec())));
        assert_eq!(seen(true, b"EHLO x\r\n").await, Some(("127.0.0.1".to_owned(), b"EHLO x\r\n".to_vec())));
        assert_eq!(seen(false, header).await, Some(("127.0.0.1".to_owned(), header.to_vec())));
        assert_eq!(seen(true, b"PROXY nonsense\r\n").await, None);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(matches!(error, BindError::InUse(_)) && error.to_string().contains(&address.to_string()));
    }
}
