//! Each listener with the service behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ByteSize, Clock, IdSource, event};
use cluster::{Affinity, Handoff, Joiner, Links, Membership, State};
use config::{Config, Listener, Role, Service};
use filter::Filter;
use legacy::Gateway;
use net::{Accepted, Acceptor, AcceptorSettings, Cidr, Stream, Tasks, Tls};
use reception::{Intake, Reception};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::engines::Engines;
use super::joining::Bundle;

/// Everything that listeners hand to sessions.
#[derive(Clone)]
pub struct Services {
    pub config: Arc<Config>,
    pub tls: Tls,
    pub intake: Arc<Intake>,
    pub imap: Arc<imap::Services>,
    pub pop3: Arc<pop3::Services>,
    pub managesieve: Arc<managesieve::Services>,
    pub web: Arc<web::Web>,
    pub health: Arc<web::Health>,
    /// To other nodes and from them.
    pub links: Option<Arc<Links>>,
    pub membership: Arc<Membership>,
    pub filter: Arc<Filter>,
    pub ids: Arc<IdSource>,
    pub clock: Arc<dyn Clock>,
    /// Sessions that the limit on open files allows, over all listeners.
    pub places: Arc<Semaphore>,
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// The role that a service belongs to.
pub fn role(service: Service) -> Option<Role> {
    match service {
        Service::Smtp | Service::Submission | Service::Submissions | Service::Lmtp | Service::Milter => {
            Some(Role::Filter)
        }
        Service::Imap | Service::Imaps | Service::Pop3 | Service::Pop3s | Service::ManageSieve | Service::Cluster => {
            Some(Role::Store)
        }
        Service::Http | Service::Https => Some(Role::Web),
        Service::Health => None,
    }
}

/// Sessions at a time: in all, and of one client.
pub fn limits(config: &Config, service: Service) -> (usize, usize) {
    match service {
        Service::Smtp | Service::Submission | Service::Submissions => {
            (config.smtp_sessions_max, config.smtp_sessions_per_client_max)
        }
        // Servers that trust us come from few addresses with many sessions.
        Service::Lmtp | Service::Milter => (config.smtp_sessions_max, config.smtp_sessions_max),
        Service::Imap | Service::Imaps => (config.imap_sessions_max, config.imap_sessions_per_client_max),
        // Whoever edits filters reads mail meanwhile: more than these have no use.
        Service::ManageSieve | Service::Pop3 | Service::Pop3s => {
            (config.pop3_sessions_max, config.pop3_sessions_per_client_max)
        }
        Service::Http | Service::Https => (config.web_sessions_max, config.web_sessions_max),
        Service::Health => (100, 100),
        // Their clients were counted where they came in.
        Service::Cluster => {
            let all = config.imap_sessions_max + config.pop3_sessions_max + config.web_sessions_max;
            (all, all)
        }
    }
}

/// Accepts connections of one listener in tasks of `sessions`, until `tasks` stop.
pub fn serve(
    listener: Listener,
    socket: TcpListener,
    services: &Services,
    tasks: &Tasks,
    sessions: &Tasks,
) -> anyhow::Result<()> {
    let service = listener.service;
    let (sessions_max, sessions_per_client_max) = limits(&services.config, service);
    let trusted = services.config.trusted_proxies.iter();
    let settings = AcceptorSettings {
        name: service.as_str(),
        sessions_max,
        sessions_per_client_max,
        trusted: trusted.map(|network| Cidr::new(network.address, network.prefix)).collect(),
        places: Arc::clone(&services.places),
        refusal: refusal(service),
    };
    let implicit = matches!(service, Service::Submissions | Service::Imaps | Service::Pop3s | Service::Https);
    let acceptor = match (implicit, service) {
        (true, Service::Https) => Some(services.tls.acceptor(&["h2", "http/1.1"])?),
        (true, _) => Some(services.tls.acceptor(&[])?),
        (false, _) => None,
    };
    let session = Arc::new(SessionMaker::new(service, services)?);
    let stop = sessions.stopping();
    let serve = move |accepted: Accepted| {
        let (session, acceptor, stop) = (Arc::clone(&session), acceptor.clone(), stop.clone());
        async move { session.serve(accepted, acceptor, stop).await }
    };
    let accepting = Acceptor::new(socket, settings).run(sessions.clone(), tasks.stopping(), serve);
    tasks.spawn("accept", accepting);
    Ok(())
}

/// Makes sessions of one service.
struct SessionMaker {
    service: Service,
    services: Services,
    smtp: Option<Arc<smtp::server::Config>>,
    imap: Arc<imap::Config>,
    pop3: Arc<pop3::Config>,
    managesieve: Arc<managesieve::Config>,
}

impl SessionMaker {
    fn new(service: Service, services: &Services) -> anyhow::Result<Self> {
        let config = &services.config;
        let plain = config.plaintext_on_loopback;
        let protocol = match service {
            Service::Smtp => Some(smtp::Protocol::Smtp),
            Service::Submission | Service::Submissions => Some(smtp::Protocol::Submission),
            Service::Lmtp => Some(smtp::Protocol::Lmtp),
            _ => None,
        };
        let starttls = services.tls.acceptor(&[])?;
        let smtp = protocol.map(|protocol| {
            Arc::new(smtp::server::Config {
                host_name: config.node_name.clone(),
                protocol,
                limits: smtp::Limits {
                    message_size_max: config.message_size_max,
                    recipients_max: config.recipients_max,
                    ..smtp::Limits::default()
                },
                tls: Some(starttls),
                plain_login_on_loopback: plain,
            })
        });
        let imap = imap::Config {
            message_size_max: config.message_size_max,
            plain_login_on_loopback: plain,
            ..imap::Config::default()
        };
        let pop3 = pop3::Config { plain_login_on_loopback: plain, ..pop3::Config::default() };
        let managesieve = managesieve::Config { plain_login_on_loopback: plain, ..managesieve::Config::default() };
        Ok(Self {
            service,
            services: services.clone(),
            smtp,
            imap: Arc::new(imap),
            pop3: Arc::new(pop3),
            managesieve: Arc::new(managesieve),
        })
    }

    async fn serve(&self, accepted: Accepted, acceptor: Option<TlsAcceptor>, stop: CancellationToken) {
        let Accepted { stream, client, local: _, trusted, seat: _seat } = accepted;
        if self.service == Service::Cluster {
            return Box::pin(self.serve_led(stream, client, stop)).await;
        }
        let stream = match acceptor {
            None => Stream::Plain(stream),
            Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                Ok(Err(error)) => {
                    tracing::debug!(event = event::SESSION_CLOSED, peer = %client.ip(), reason = "tls", %error);
                    return;
                }
                Err(_elapsed) => return,
            },
        };
        let services = &self.services;
        let (ids, clock) = (Arc::clone(&services.ids), Arc::clone(&services.clock));
        let is_tls = stream.tls_facts().is_some();
        match self.service {
            Service::Smtp | Service::Submission | Service::Submissions | Service::Lmtp => {
                let Some(config) = self.smtp.clone() else { return };
                let handler = Box::new(Reception::new(Arc::clone(&services.intake)));
                Box::pin(smtp::serve(stream, client, trusted, config, handler, ids, clock, stop)).await;
            }
            Service::Imap | Service::Imaps => {
                let (config, services) = (Arc::clone(&self.imap), Arc::clone(&services.imap));
                imap::serve(stream, is_tls, client, config, services, ids, clock, stop).await;
            }
            Service::Pop3 | Service::Pop3s => {
                let (config, services) = (Arc::clone(&self.pop3), Arc::clone(&services.pop3));
                Box::pin(pop3::serve(stream, is_tls, client, config, services, ids, clock, stop)).await;
            }
            Service::ManageSieve => {
                let (config, services) = (Arc::clone(&self.managesieve), Arc::clone(&services.managesieve));
                Box::pin(managesieve::serve(stream, client, config, services, ids, clock, stop)).await;
            }
            Service::Http | Service::Https => {
                Box::pin(services.web.serve(stream, web::Peer { address: client.ip(), is_tls })).await;
            }
            Service::Health => services.health.serve(stream).await,
            // Above.
            Service::Cluster => {}
            Service::Milter => {
                let size_max = services.config.message_size_max.as_usize();
                let served = Box::pin(filter::milter::serve(stream, Arc::clone(&services.filter), clock, size_max));
                tokio::select! {
                    served = served => {
                        if let Err(error) = served {
                            tracing::debug!(event = event::SESSION_CLOSED, peer = %client.ip(), protocol = "milter", %error);
                        }
                    }
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

impl SessionMaker {
    /// A session that another node leads here.
    async fn serve_led(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        let services = &self.services;
        let Some(links) = &services.links else { return };
        let acceptor = links.acceptor();
        let opening = async {
            cluster::notice_loss(&stream)?;
            let mut stream = acceptor.accept(stream).await?;
            if stream.get_ref().1.peer_certificates().is_none() {
                self.welcome(&mut stream, links, peer).await?;
                return Ok(None);
            }
            let handoff = Handoff::receive(&mut stream).await?;
            if matches!(handoff.protocol.as_str(), "imap" | "pop3" | "http") {
                Handoff::take(&mut stream).await?;
            }
            std::io::Result::Ok(Some((stream, handoff)))
        };
        let (stream, handoff) = match tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await {
            Ok(Ok(Some(opened))) => opened,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::warn!(event = event::SESSION_REFUSED, listener = "cluster", peer = %peer.ip(), %error);
                return;
            }
            Err(_elapsed) => return,
        };
        match handoff.protocol.as_str() {
            "imap" => {
                let (config, work) = (Arc::clone(&self.imap), Arc::clone(&services.imap));
                imap::serve_led(stream, handoff, config, work, Arc::clone(&services.clock), stop).await;
            }
            "pop3" => {
                let (config, work) = (Arc::clone(&self.pop3), Arc::clone(&services.pop3));
                Box::pin(pop3::serve_led(stream, handoff, config, work, stop)).await;
            }
            "http" => {
                let peer = web::Peer { address: handoff.client.ip(), is_tls: handoff.is_tls };
                Box::pin(services.web.serve_led(stream, peer)).await;
            }
            _ => {}
        }
    }
}

impl SessionMaker {
    /// A machine that was invited gets what a node is made of.
    async fn welcome(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        links: &Links,
        peer: SocketAddr,
    ) -> std::io::Result<()> {
        let joiner = Joiner::receive(stream).await?;
        let answer = self.bundle(&joiner, links).await;
        match &answer {
            Ok(_) => tracing::info!(event = event::NODE_JOINS, node = %joiner.name, peer = %peer.ip()),
            Err(error) => {
                tracing::warn!(event = event::NODE_REFUSED, node = %joiner.name, peer = %peer.ip(), %error);
                // No code is guessed, and nobody is kept busy with it.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Joiner::answer(stream, answer).await
    }

    async fn bundle(&self, joiner: &Joiner, links: &Links) -> Result<Vec<u8>, String> {
        let view = self.services.membership.view();
        if view.members.iter().any(|one| one.name == joiner.name && one.state() != State::Down) {
            return Err(format!("a node called {} is up; choose another name", joiner.name));
        }
        let Some(file) = self.services.config.file.clone() else {
            return Err("this node has no configuration file to hand on".to_owned());
        };
        match links.is_invited(joiner).await {
            Ok(true) => {}
            Ok(false) => {
                return Err("the code is not valid, or not any more; `ortler cluster invite` gives one".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
        let made = tokio::task::spawn_blocking(move || {
            let bundle = Bundle::of(&file)?;
            anyhow::Ok(serde_json::to_vec(&bundle)?)
        });
        match made.await {
            Ok(Ok(bundle)) => Ok(bundle),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a client hears that is turned away.
const fn refusal(service: Service) -> &'static [u8] {
    match service {
        Service::Smtp | Service::Submission | Service::Lmtp => b"421 4.7.0 Too many sessions, try again later\r\n",
        Service::Imap => b"* BYE Too many sessions, try again later\r\n",
        Service::ManageSieve => b"BYE (TRYLATER) \"Too many sessions, try again later\"\r\n",
        Service::Pop3 => b"-ERR [SYS/TEMP] Too many sessions, try again later\r\n",
        Service::Submissions
        | Service::Imaps
        | Service::Pop3s
        | Service::Milter
        | Service::Http
        | Service::Https
        | Service::Health
        | Service::Cluster => b"",
    }
}

/// The budget and spool of messages on their way in.
pub fn spool(config: &Config) -> (Arc<net::SpoolSettings>, net::MemoryBudget) {
    let settings = net::SpoolSettings {
        size_max: config.message_size_max,
        waiting: net::MemoryBudget::new(ByteSize(config.memory_for_messages.0 / 4)),
        ..net::SpoolSettings::in_folder(config.data.join("spool"))
    };
    (Arc::new(settings), net::MemoryBudget::new(config.memory_for_messages))
}

/// What IMAP sessions work on.
pub fn imap_services(
    engines: &Engines,
    tls: &Tls,
    spool: &Arc<net::SpoolSettings>,
    budget: &net::MemoryBudget,
    affinity: Option<Arc<Affinity>>,
    legacy: Arc<Gateway>,
) -> anyhow::Result<Arc<imap::Services>> {
    Ok(Arc::new(imap::Services {
        mail: Arc::clone(&engines.storage.mail),
        blobs: Arc::clone(&engines.storage.blobs),
        views: Arc::clone(&engines.storage.views),
        search: Arc::clone(&engines.storage.search),
        directory: engines.directory.clone(),
        mime: Arc::new(super::mime::Mime),
        spool: Arc::clone(spool),
        budget: budget.clone(),
        tls: Some(tls.acceptor(&[])?),
        affinity,
        legacy,
    }))
}

/// What POP3 sessions work on.
pub fn pop3_services(
    engines: &Engines,
    tls: &Tls,
    affinity: Option<Arc<Affinity>>,
    legacy: Arc<Gateway>,
) -> anyhow::Result<Arc<pop3::Services>> {
    Ok(Arc::new(pop3::Services {
        mail: Arc::clone(&engines.storage.mail),
        blobs: Arc::clone(&engines.storage.blobs),
        directory: engines.directory.clone(),
        maildrops: Arc::default(),
        tls: Some(tls.acceptor(&[])?),
        affinity,
        legacy,
    }))
}

/// What ManageSieve sessions work on.
pub fn managesieve_services(
    engines: &Engines,
    tls: &Tls,
    legacy: Arc<Gateway>,
) -> anyhow::Result<Arc<managesieve::Services>> {
    let tls = Some(tls.acceptor(&[])?);
    Ok(Arc::new(managesieve::Services { directory: engines.directory.clone(), legacy, tls }))
}
