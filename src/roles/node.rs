//! A node from start to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use base::event;
use cluster::{Affinity, Beat, Links};
use config::{Config, Listener, Way};
use jmap::{Jmap, JmapServices};
use legacy::Gateway;
use metrics_exporter_prometheus::PrometheusBuilder;
use net::{Tasks, Tls};
use reception::{Intake, IntakeParts, Judged, SendingLimits};
use relay::CallAhead;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};

use super::engines::{Engines, explain};
use super::listeners::{self, Services};
use super::{control, hints, judge, machine, relayed, reports, sign_ins};

/// Garbage collection starts so often.
const GC_EVERY: Duration = Duration::from_secs(3600);
/// A node that dies at it is followed by another one after so long.
const GC_LEASE: Duration = Duration::from_secs(300);
/// So soon a change of another node's counts here.
const DIRECTORY_EVERY: Duration = Duration::from_secs(1);
/// Messages that wait to be learned unasked.
const UNASKED_MAX: usize = 64;
const METRICS_UPKEEP: Duration = Duration::from_secs(10);

fn list_health(state: filter::ListState) -> web::ListHealth {
    let filter::ListState { zone, is_asked, trouble, asked_today } = state;
    web::ListHealth { zone, is_asked, trouble, asked_today }
}

fn scanner_health(state: filter::ScannerState) -> web::ScannerHealth {
    web::ScannerHealth {
        server: state.server,
        is_up: state.is_up,
        signatures_age_s: state.signatures_age.map(|age| age.as_secs()),
        version: state.version.map(|version| version.line),
    }
}

/// What other nodes show of this one.
fn health_of(filter: &filter::Filter) -> serde_json::Value {
    let scanner = |state: filter::ScannerState| {
        serde_json::json!({
            "server": state.server,
            "up": state.is_up,
            "signatures_age_s": state.signatures_age.map(|age| age.as_secs()),
            "version": state.version.map(|version| version.line),
        })
    };
    serde_json::json!({ "scanners": filter.scanners().into_iter().map(scanner).collect::<Vec<_>>() })
}

/// Runs a node until it is told to stop. `ready` is called once everything listens.
pub async fn run(
    config: Config,
    prepare: impl AsyncFnOnce(&Engines) -> anyhow::Result<()>,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let places = Arc::new(Semaphore::new(machine::raise_open_files(&config)?));
    // Ports first: a busy one is found before anything is touched.
    let mut sockets: Vec<(Listener, TcpListener)> = Vec::new();
    for listener in &config.listeners {
        let serves = listeners::role(listener.service).is_none_or(|role| config.roles.contains(&role));
        if serves {
            let socket = net::bind(listener.address).await;
            let name = || format!("cannot listen for {}", listener.service.as_str());
            sockets.push((*listener, socket.with_context(name)?));
        }
    }
    std::fs::create_dir_all(config.data.join("spool")).with_context(|| config.data.display().to_string())?;
    let tls = match &config.tls {
        Some(files) => Tls::from_files(&files.certificate, &files.key)?,
        None => Tls::self_signed_in(&config.data, vec![config.node_name.clone(), "localhost".to_owned()])?,
    };
    machine::drop_privileges(&config)?;
    let mut engines = Engines::open(&config).await?;
    prepare(&engines).await?;
    engines.membership.enter().await?;
    let control_socket = bind_control(&config)?;
    let metrics = PrometheusBuilder::new().install_recorder().context("cannot start metrics")?;
    let draining = Arc::new(AtomicBool::new(false));

    let own_domains = Arc::new(filter::OwnDomains::default());
    let current = engines.classifier.current();
    let resolver = engines.resolver.clone();
    let filter = judge::build_filter(
        &config,
        resolver.clone(),
        current,
        &engines.reputation,
        Arc::clone(&own_domains),
        &engines.clock,
    )?;
    let (lessons, unasked) = mpsc::channel(UNASKED_MAX);
    let (to_read, reports) = mpsc::channel(reports::WAITING_MAX);
    let (spool, budget) = listeners::spool(&config);
    let legacy = Arc::new(Gateway::new(&config.node_name));
    let intake = Arc::new(Intake::new(IntakeParts {
        host_name: config.node_name.clone(),
        directory: engines.directory.clone(),
        storage: Arc::clone(&engines.storage),
        legacy: Arc::clone(&legacy),
        filter: Arc::clone(&filter),
        layers: Arc::clone(&engines.layers),
        srs: relay::Srs::new(&engines.directory.system_secret("srs").await?),
        classifier: Arc::clone(&engines.classifier),
        reputation: Arc::clone(&engines.reputation),
        limits: SendingLimits {
            account_hour: config.sending.account_hour,
            account_day: config.sending.account_day,
            domain_hour: config.sending.domain_hour,
        },
        peers: Arc::clone(&engines.peers),
        reports: (!config.reports.read.is_empty()).then_some(to_read),
        report_addresses: config.reports.read.iter().map(|address| address.to_lowercase()).collect(),
        outgoing: Arc::clone(&engines.outgoing),
        call_ahead: CallAhead::new(Arc::clone(&engines.outgoing), &config.node_name),
        resolver: resolver.clone(),
        lessons: config.autolearn.then_some(lessons),
        judged: Judged {
            lmtp: config.judged.contains(&Way::Lmtp),
            smtp: config.judged.contains(&Way::Smtp),
            submission: config.judged.contains(&Way::Submission),
        },
        trail: Arc::clone(&engines.trail),
        spool: Arc::clone(&spool),
        budget: budget.clone(),
        clock: Arc::clone(&engines.clock),
        ids: Arc::clone(&engines.ids),
    }));
    let jmap = Arc::new(Jmap::new(JmapServices {
        mail: Arc::clone(&engines.storage.mail),
        blobs: Arc::clone(&engines.storage.blobs),
        signals: Arc::clone(&engines.storage.signals),
        search: Arc::clone(&engines.storage.search),
        directory: engines.directory.clone(),
        submitter: intake.clone(),
        mime: Arc::new(super::mime::Mime),
        uploads: spool.folder.clone(),
        budget: budget.clone(),
        clock: Arc::clone(&engines.clock),
        ids: Arc::clone(&engines.ids),
    }));
    let links = match &engines.shared {
        Some(pool) => Some(Arc::new(Links::open(Arc::clone(pool), &config.node_name, &*engines.clock).await?)),
        None => None,
    };
    let affinity =
        links.as_ref().map(|links| Arc::new(Affinity::new(Arc::clone(&engines.membership), Arc::clone(links))));
    let web = Arc::new(web::Web::new(
        web::WebServices {
            layers: Arc::clone(&engines.layers),
            links: web::links::Links::new(&engines.directory.system_secret("links").await?),
            storage: Arc::clone(&engines.storage),
            directory: engines.directory.clone(),
            registry: Arc::clone(&engines.directory),
            trail: Arc::clone(&engines.trail),
            jmap,
            legacy: Arc::clone(&legacy),
            membership: Arc::clone(&engines.membership),
            affinity: affinity.clone(),
            clock: Arc::clone(&engines.clock),
            ids: Arc::clone(&engines.ids),
        },
        web::WebSettings {
            node_name: config.node_name.clone(),
            plain_login_on_loopback: config.plaintext_on_loopback,
            staff_needs_second_factor: config.staff_second_factor,
        },
    ));
    let health = {
        let (metrics, draining, storage) = (metrics.clone(), Arc::clone(&draining), Arc::clone(&engines.storage));
        let membership = Arc::clone(&engines.membership);
        let is_draining = move || draining.load(Ordering::Relaxed) || membership.is_draining();
        let render = move || {
            let health = storage.health();
            let free_mib = u32::try_from(health.free_bytes >> 20).unwrap_or(u32::MAX);
            metrics::gauge!("ortler_store_free_bytes").set(f64::from(free_mib) * 1_048_576.0);
            metrics::gauge!("ortler_store_has_room").set(if health.has_room { 1.0 } else { 0.0 });
            if let Some(reached) = health.reaches_objects {
                metrics::gauge!("ortler_object_store_reachable").set(if reached { 1.0 } else { 0.0 });
            }
            metrics.render()
        };
        let protocols = sockets.iter().map(|(listener, _)| listener.service.as_str()).collect();
        let scanning = Arc::clone(&filter);
        let asking = Arc::clone(&filter);
        let scanners = move || scanning.scanners().into_iter().map(scanner_health).collect();
        let lists = move || asking.lists().into_iter().map(list_health).collect();
        web::Health::new(protocols, Arc::clone(&engines.storage), render, is_draining, scanners, lists)
    };
    let services = Services {
        config: Arc::clone(&config),
        imap: listeners::imap_services(&engines, &tls, &spool, &budget, affinity.clone(), Arc::clone(&legacy))?,
        pop3: listeners::pop3_services(&engines, &tls, affinity, Arc::clone(&legacy))?,
        managesieve: listeners::managesieve_services(&engines, &tls, legacy)?,
        tls,
        intake,
        web: Arc::clone(&web),
        health: Arc::new(health),
        links: links.clone(),
        membership: Arc::clone(&engines.membership),
        filter,
        ids: Arc::clone(&engines.ids),
        clock: Arc::clone(&engines.clock),
        places,
    };

    // Three owners, stopped one after the other: accepting, sessions, and what serves them.
    let (accepting, sessions, background) = (Tasks::new(), Tasks::new(), Tasks::new());
    let trail_stop = background.stopping();
    if let Some(worker) = engines.take_worker() {
        background.spawn("trail", worker.run(async move { trail_stop.cancelled().await }));
    }
    let engines = Arc::new(engines);
    services.web.set_operations(super::operations::Operator::new(&engines));
    spawn_gc(&engines, &accepting);
    spawn_sharing(&engines, &background);
    let (membership, counted, stop) = (Arc::clone(&engines.membership), sessions.clone(), accepting.stopping());
    let watched = Arc::clone(&services.filter);
    let beat = move || Beat { sessions: counted.running() as u64, health: health_of(&watched).to_string() };
    accepting.spawn("cluster", async move { membership.run(beat, stop).await });
    let (listener, sign_ins) = mpsc::channel(sign_ins::WAITING_MAX);
    engines.directory.tell_sign_ins(listener);
    let (watched, reputation) = (Arc::clone(&services.filter), Arc::clone(&engines.reputation));
    background.spawn("sign-ins", sign_ins::run(sign_ins, watched, reputation, background.stopping()));
    let (audited, stop) = (Arc::clone(&engines), accepting.stopping());
    accepting.spawn("audit", super::auditor::run(audited, config.audit_every, stop));
    let policies = super::queue::spawn(&config, &engines, services.intake.clone(), (&accepting, &sessions))?;
    let (peers, stop) = (Arc::clone(&engines.peers), background.stopping());
    background.spawn("peers", async move { peers.run(stop).await });
    let _ = engines.intake.set(services.intake.clone());
    accepting.spawn("quarantine", super::quarantine::run(Arc::clone(&engines), accepting.stopping()));
    accepting.spawn("policy plans", super::policies::run(Arc::clone(&engines), accepting.stopping()));
    accepting.spawn("digests", super::digests::run(Arc::clone(&engines), accepting.stopping()));
    let reporter = reports::Reporter::new(&config, &engines, services.intake.clone(), policies);
    let _ = engines.reporter.set(Arc::clone(&reporter));
    accepting.spawn("reports", reporter.run(Arc::clone(&engines), accepting.stopping()));
    accepting.spawn("reading reports", reports::read_all(Arc::clone(&engines), reports, accepting.stopping()));
    accepting.spawn("signing keys", super::keys::run(Arc::clone(&engines), accepting.stopping()));
    accepting.spawn("learning", super::trainer::run(Arc::clone(&engines), unasked, accepting.stopping()));
    let (reputation, stop) = (Arc::clone(&engines.reputation), background.stopping());
    background.spawn("reputation", async move { reputation.run(stop).await });
    accepting.spawn("relayed domains", relayed::run(Arc::clone(&engines), accepting.stopping()));
    accepting.spawn("own domains", super::own_domains::run(Arc::clone(&engines), own_domains, accepting.stopping()));
    if let Some(links) = links {
        let (clock, stop) = (Arc::clone(&engines.clock), accepting.stopping());
        accepting.spawn("certificate", async move { links.renew(&*clock, stop).await });
    }
    let (watched, watch_stop) = (Arc::clone(&services.filter), background.stopping());
    background.spawn("dns", async move {
        tokio::select! {
            () = watched.watch_name_servers() => {}
            () = watch_stop.cancelled() => {}
        }
    });
    let (watched, watch_stop) = (Arc::clone(&services.filter), background.stopping());
    background.spawn("dns lists", async move {
        tokio::select! {
            () = watched.watch_lists() => {}
            () = watch_stop.cancelled() => {}
        }
    });
    let (watched, watch_stop) = (Arc::clone(&services.filter), background.stopping());
    background.spawn("scanners", async move {
        tokio::select! {
            () = watched.watch_scanners() => {}
            () = watch_stop.cancelled() => {}
        }
    });
    let (watched, watch_stop) = (Arc::clone(&services.filter), background.stopping());
    background.spawn("countries", async move {
        tokio::select! {
            () = watched.watch_countries() => {}
            () = watch_stop.cancelled() => {}
        }
    });
    let metrics_stop = accepting.stopping();
    accepting.spawn("metrics", async move {
        while tokio::time::timeout(METRICS_UPKEEP, metrics_stop.cancelled()).await.is_err() {
            metrics.run_upkeep();
        }
    });
    serve_control(control_socket, &engines, &accepting, &sessions);
    for (listener, socket) in sockets {
        listeners::serve(listener, socket, &services, &accepting, &sessions)?;
    }
    // Whoever hears that the node is ready may ask it to stop.
    let mut stop = machine::StopSignals::listen()?;
    // Not under systemd: nobody listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(event = event::NODE_READY, node = %config.node_name, listeners = config.listeners.len());
    ready();

    let signal = stop.next().await;
    tracing::info!(event = event::NODE_STOPPING, signal);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    draining.store(true, Ordering::Relaxed);
    accepting.shutdown(Duration::from_secs(5)).await;
    web.close();
    let left = sessions.shutdown(config.shutdown_wait).await;
    background.shutdown(Duration::from_secs(10)).await;
    let _ = std::fs::remove_file(control::socket(&config.data));
    drop((services, web));
    match Arc::try_unwrap(engines) {
        Ok(engines) => engines.close().await,
        // A session that would not end still holds them; the store is safe to leave at any moment.
        Err(engines) => drop(engines),
    }
    tracing::info!(event = event::NODE_STOPPED, sessions_cut = left);
    Ok(())
}

fn spawn_gc(engines: &Arc<Engines>, tasks: &Tasks) {
    let (engines, stop) = (Arc::clone(engines), tasks.stopping());
    tasks.spawn("gc", async move {
        while tokio::time::timeout(GC_EVERY, stop.cancelled()).await.is_err() {
            // One node is enough; that two run at once, as one that was taken for dead, does no harm.
            if let Ok(Some(mut turn)) = engines.leases.take("gc", GC_LEASE).await {
                loop {
                    match engines.storage.gc().await {
                        Ok(round) if round.has_more && !stop.is_cancelled() && turn.keep().await => {}
                        Ok(_) => break,
                        Err(error) => {
                            tracing::warn!(event = event::STORE_FAILED, what = "gc", error = %explain(&error));
                            break;
                        }
                    }
                }
                turn.give_up().await;
            }
            if let Err(error) = engines.classifier.tidy().await {
                tracing::warn!(event = event::STORE_FAILED, what = "classifier", %error);
            }
            if let Err(error) = engines.reputation.tidy().await {
                tracing::warn!(event = event::STORE_FAILED, what = "reputation", %error);
            }
            if let Err(error) = engines.peers.tidy().await {
                tracing::warn!(event = event::STORE_FAILED, what = "peers", %error);
            }
            if let Err(error) = super::queue::tidy(&engines).await {
                tracing::warn!(event = event::STORE_FAILED, what = "queue", error = %explain(&error));
            }
            if let Err(error) = engines.directory.tidy().await {
                tracing::warn!(event = event::STORE_FAILED, what = "directory", %error);
            }
        }
    });
}

/// What keeps a node in step with the others on its server.
fn spawn_sharing(engines: &Arc<Engines>, tasks: &Tasks) {
    let Some(pool) = &engines.postgres else { return };
    let (server, own) = (pool.settings().clone(), engines.storage.signals.subscribe_all());
    let sessions = hints::StoreSessions(Arc::clone(&engines.storage));
    tasks.spawn("hints", cluster::share(server, own, sessions, tasks.stopping()));
    if let Some(counters) = &engines.counters {
        let (counters, stop) = (Arc::clone(counters), tasks.stopping());
        tasks.spawn("counters", async move { counters.run(stop).await });
    }
    let (shared, stop) = (Arc::clone(engines), tasks.stopping());
    tasks.spawn("directory", async move {
        while tokio::time::timeout(DIRECTORY_EVERY, stop.cancelled()).await.is_err() {
            // Who asks the directory hears of a server that is gone; the next look finds what was missed.
            let _ = shared.directory.refresh().await;
            let _ = shared.layers.refresh().await;
            let _ = shared.classifier.refresh().await;
        }
    });
}

/// The socket is its owner's alone. What a crash left behind is removed: the lock proves that nobody uses it.
fn bind_control(config: &Config) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = control::socket(&config.data);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve_control(listener: UnixListener, engines: &Arc<Engines>, accepting: &Tasks, sessions: &Tasks) {
    let (engines, stop, sessions) = (Arc::clone(engines), accepting.stopping(), sessions.clone());
    accepting.spawn("control", async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = stream else { continue };
            let (engines, stop) = (Arc::clone(&engines), stop.clone());
            sessions.spawn("control", async move {
                if let Err(error) = control::serve(stream, &engines, stop).await {
                    tracing::debug!(event = event::SESSION_CLOSED, protocol = "control", %error);
                }
            });
        }
    });
}
