//! Whether any name server answers at all: while none does, nobody waits for one.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base::event::{DNS_DOWN, DNS_UP};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// What is known of the name servers together.
pub(crate) struct Outage {
    servers: Vec<SocketAddr>,
    down: watch::Sender<bool>,
    suspected: Notify,
}

/// Work that takes longer makes the servers suspect.
const PATIENCE: Duration = Duration::from_millis(750);
/// A server that is up says something to any question within this time, if only that it failed.
const PROBE_WAIT: Duration = Duration::from_millis(750);
/// A lost packet is no outage.
const PROBES: usize = 2;
/// Between probes: while the servers are down, and after a suspicion that was wrong.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

impl Outage {
    pub fn of(servers: Vec<SocketAddr>) -> Self {
        Self { servers, down: watch::Sender::new(false), suspected: Notify::new() }
    }

    pub fn is_down(&self) -> bool {
        *self.down.borrow()
    }

    /// Resolves when the servers are found to be down. Awaiting it for long makes them suspect. Cancel safe.
    pub async fn begins(&self) {
        let mut down = self.down.subscribe();
        sleep(PATIENCE).await;
        self.suspected.notify_one();
        // Never an error: the sender lives as long as `self`.
        let _ = down.wait_for(|down| *down).await;
    }

    /// Looks at the servers whenever they are suspect. Never ends.
    pub async fn watch(&self) {
        metrics::gauge!("ortler_dns_down").set(0.0);
        loop {
            self.suspected.notified().await;
            if !self.answers_one_of(PROBES).await {
                self.tell_down();
                while !self.answers_one_of(1).await {
                    sleep(PROBE_PAUSE).await;
                }
                self.tell_up();
            }
            sleep(PROBE_PAUSE).await;
        }
    }

    fn tell_down(&self) {
        tracing::error!(
            event = DNS_DOWN,
            servers = ?self.servers,
            next_step = "messages are judged without DNS until a server of dns.servers answers again",
        );
        metrics::gauge!("ortler_dns_down").set(1.0);
        metrics::counter!("ortler_dns_outages_total").increment(1);
        self.down.send_replace(true);
    }

    fn tell_up(&self) {
        self.down.send_replace(false);
        metrics::gauge!("ortler_dns_down").set(0.0);
        tracing::info!(event = DNS_UP, servers = ?self.servers);
    }

    async fn answers_one_of(&self, probes: usize) -> bool {
        for _ in 0..probes {
            let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) = self.servers.iter().partition(|server| server.is_ipv4());
            let any = async {
                tokio::select! {
                    () = probe(&v4, (Ipv4Addr::UNSPECIFIED, 0).into()) => {}
                    () = probe(&v6, (Ipv6Addr::UNSPECIFIED, 0).into()) => {}
                }
            };
            if timeout(PROBE_WAIT, any).await.is_ok() {
                return true;
            }
        }
        false
    }
}

/// The name servers of the root: every resolver has an opinion on them.
const QUESTION: [u8; 17] = [0x6f, 0x72, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Resolves when one of the servers answers; never otherwise.
async fn probe(servers: &[SocketAddr], from: SocketAddr) {
    if !servers.is_empty()
        && let Ok(socket) = UdpSocket::bind(from).await
    {
        for server in servers {
            // Unreachable is as good as silent.
            let _ = socket.send_to(&QUESTION, server).await;
        }
        let mut answer = [0u8; 512];
        while let Ok((length, sender)) = socket.recv_from(&mut answer).await {
            let is_answer =
                length >= 12 && answer.starts_with(&[0x6f, 0x72]) && answer.get(2).is_some_and(|b| b & 0x80 != 0);
            if is_answer && servers.contains(&sender) {
                return;
            }
        }
    }
    std::future::pending().await
}
