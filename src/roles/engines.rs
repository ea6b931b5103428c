//! The engines of a node: what a command needs even when the node does not run.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use base::{AccountId, ByteSize, Clock, IdSource, Secret, SystemClock};
use classifier::Classifier;
use cluster::{Counted, Counters, Leases, Membership};
use config::{Config, ObjectStore, Postgres, PostgresTls};
use directory::{Failures, LoginGuard, Registry};
use engine::postgres::{PgSettings, PgTls, Pool};
use layers::Layers;
use mailauth::Resolver;
use peers::Peers;
use relay::Outgoing;
use reputation::Reputation;
use serde_json::{Value, json};
use store::{AuditOptions, AuditReport, S3Settings, Storage, StorageSettings};
use trail::{Trail, Worker};

use super::reports::Reporter;

/// Store, directory and trail of one node: in its data folder, opened by this process alone, or on a PostgreSQL server
/// that other nodes share; then the folder holds only what is this node's own.
pub struct Engines {
    pub storage: Arc<Storage>,
    pub directory: Arc<Registry>,
    pub trail: Arc<Trail>,
    pub classifier: Arc<Classifier>,
    /// What each level of a policy says.
    pub layers: Arc<Layers>,
    pub reputation: Arc<Reputation>,
    /// What is known of other mail systems.
    pub peers: Arc<Peers>,
    /// This node's place among those that share the server; a running node takes it.
    pub membership: Arc<Membership>,
    /// What nodes count together; `None` on a node that is alone.
    pub counters: Option<Arc<Counters>>,
    /// A connection of its own for what nodes tell each other; `None` on a node that is alone.
    pub shared: Option<Arc<Pool>>,
    /// Sends reports, once the node runs.
    pub reporter: OnceLock<Arc<Reporter>>,
    /// Takes messages out of quarantine, once the node runs.
    pub intake: OnceLock<Arc<reception::Intake>>,
    /// Work of one node at a time.
    pub leases: Leases,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<IdSource>,
    /// The way out.
    pub outgoing: Arc<Outgoing>,
    /// What asks name servers; `None` where none are known.
    pub resolver: Option<Resolver>,
    /// Where people reach the web interface, without a slash at its end.
    pub web_url: String,
    /// No message is larger.
    pub message_size_max: ByteSize,
    /// The server that other nodes share; `None` if everything is in `data`.
    pub postgres: Option<Arc<Pool>>,
    data: PathBuf,
    worker: Option<Worker>,
    /// Held as long as the engines are open, but by those that are opened beside others.
    _lock: Option<File>,
}

/// What was learned, on the embedded engine.
pub(super) const CLASSIFIER: &str = "classifier.sqlite";
/// What was seen of senders and accounts, on the embedded engine.
const REPUTATION: &str = "reputation.sqlite";
/// What each level of a policy says, on the embedded engine.
const POLICY: &str = "policy.sqlite";
/// What is known of other mail systems, on the embedded engine.
const PEERS: &str = "peers.sqlite";
/// Rounds of garbage collection in one command.
const GC_ROUNDS_MAX: usize = 10_000;

impl Engines {
    /// Opens what lies in the configuration's data folder or on its server, or makes it.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let folder = config.data.clone();
        let lock = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            lock(&folder)
        });
        let lock = lock.await??;
        Self::open_with(config, Some(lock)).await
    }

    /// For a folder that other engines of this process hold, which keep their data elsewhere in it.
    pub(super) async fn open_beside(config: &Config) -> anyhow::Result<Self> {
        Self::open_with(config, None).await
    }

    async fn open_with(config: &Config, lock: Option<File>) -> anyhow::Result<Self> {
        let at = config.data.clone();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids = Arc::new(IdSource::system());
        let postgres = config.postgres.as_ref().map(server).transpose()?.map(|server| Arc::new(Pool::new(server)));
        let shared = match &postgres {
            Some(pool) => Some(cluster::open(pool.settings()).await?),
            None => None,
        };
        let counters = shared.as_ref().map(|shared| Arc::new(Counters::on(Arc::clone(shared), Arc::clone(&clock))));
        let (storage, directory) = match (&postgres, &counters) {
            (Some(pool), Some(counters)) => {
                let guard = LoginGuard::shared(config.plaintext_on_loopback, Arc::new(Together(Arc::clone(counters))));
                open_postgres(config, pool, guard, &clock, &ids).await?
            }
            _ => {
                let (config, clock, ids) = (config.clone(), Arc::clone(&clock), Arc::clone(&ids));
                tokio::task::spawn_blocking(move || open_embedded(&config, &clock, ids)).await??
            }
        };
        let mut settings = trail::Settings::in_folder(at.join("trail"));
        settings.retention = config.trail_retention;
        let trail_clock = Arc::clone(&clock);
        let (trail, worker) = match &config.postgres {
            Some(postgres) => Trail::open_postgres(settings, trail_server(postgres)?, trail_clock, &ids).await?,
            None => tokio::task::spawn_blocking(move || Trail::open(settings, trail_clock)).await??,
        };
        let classifier = match &postgres {
            Some(pool) => Classifier::open_postgres(Arc::clone(pool), Arc::clone(&clock)).await?,
            None => Classifier::open(&at.join(CLASSIFIER), Arc::clone(&clock)).await?,
        };
        let reputation = match &postgres {
            Some(pool) => Reputation::open_postgres(Arc::clone(pool), Arc::clone(&clock)).await?,
            None => Reputation::open(&at.join(REPUTATION), Arc::clone(&clock))?,
        };
        let peers = match &postgres {
            Some(pool) => Peers::open_postgres(Arc::clone(pool), Arc::clone(&clock)).await?,
            None => Peers::open(&at.join(PEERS), Arc::clone(&clock))?,
        };
        let system = super::judge::policy_file(config)?;
        let layers = match &postgres {
            Some(pool) => Layers::open_postgres(Arc::clone(pool), Arc::clone(&clock), system).await?,
            None => Layers::open(&at.join(POLICY), Arc::clone(&clock), system)?,
        };
        let leases = match &shared {
            Some(shared) => Leases::on(Arc::clone(shared), &config.node_name, Arc::clone(&clock)),
            None => Leases::alone(Arc::clone(&clock)),
        };
        let membership = match &shared {
            Some(shared) => Membership::on(Arc::clone(shared), &at, member(config), &*clock).await?,
            None => Membership::alone(member(config), &*clock),
        };
        let directory = Arc::new(directory);
        let outgoing = super::queue::outgoing(config, directory.clone())?;
        // Before anything listens: what is not known yet would be refused.
        super::relayed::look(&directory, &outgoing).await?;
        Ok(Self {
            storage: Arc::new(storage),
            directory,
            trail,
            classifier: Arc::new(classifier),
            layers: Arc::new(layers),
            reputation: Arc::new(reputation),
            peers: Arc::new(peers),
            membership: Arc::new(membership),
            counters,
            shared,
            reporter: OnceLock::new(),
            intake: OnceLock::new(),
            leases,
            clock,
            ids,
            outgoing,
            resolver: super::judge::resolver(config),
            web_url: config.web_url.clone().unwrap_or_else(|| format!("https://{}", config.node_name)),
            message_size_max: config.message_size_max,
            postgres,
            data: at,
            worker: Some(worker),
            _lock: lock,
        })
    }

    /// The trail's writing half: the running node takes it.
    pub fn take_worker(&mut self) -> Option<Worker> {
        self.worker.take()
    }

    /// Writes out what is left and closes.
    pub async fn close(mut self) {
        if let Some(worker) = self.take_worker() {
            worker.run(std::future::ready(())).await;
        }
        // Closing joins writer threads: not on an async thread.
        let closed = tokio::task::spawn_blocking(move || drop(self));
        let _ = tokio::time::timeout(Duration::from_secs(60), closed).await;
    }

    /// The directory's accounts.
    pub(super) async fn known_accounts(&self) -> anyhow::Result<Arc<BTreeSet<AccountId>>> {
        Ok(Arc::new(self.directory.account_ids().await?.into_iter().collect()))
    }

    pub async fn audit(&self, deep: bool, repair: bool) -> anyhow::Result<Value> {
        let mut of_directory = AuditReport::default();
        self.audit_directory(true, repair, &mut of_directory).await?;
        let accounts = Some(self.known_accounts().await?);
        let mut report = self
            .storage
            .audit(AuditOptions { deep, repair, accounts, ..AuditOptions::default() })
            .await
            .map_err(|e| explain(&e))?;
        report.absorb(of_directory);
        Ok(self.audit_value(&report).await)
    }

    /// Adds what the disk did to the directory's file; with `is_whole`, all of it is read for that.
    pub(super) async fn audit_directory(
        &self,
        is_whole: bool,
        repair: bool,
        report: &mut AuditReport,
    ) -> anyhow::Result<()> {
        for damage in self.directory.audit(is_whole, repair).await? {
            report.add(damage.what, damage.location, damage.repaired);
        }
        Ok(())
    }

    pub(super) async fn audit_value(&self, report: &AuditReport) -> Value {
        let mut problems = Vec::with_capacity(report.problems.len());
        for problem in &report.problems {
            let location = super::auditor::with_address(self, &problem.location).await;
            problems.push(json!({ "what": problem.what, "where": location, "repaired": problem.repaired }));
        }
        json!({
            "clean": report.is_clean(),
            "accounts": report.checked.accounts,
            "mailboxes": report.checked.mailboxes,
            "messages": report.checked.entries,
            "blobs": report.checked.blobs,
            "problems": problems,
        })
    }

    /// The node's folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Copies everything that a node needs into the new folder `to`, while it runs. The folder appears when it is whole.
    pub async fn snapshot(&self, to: &Path) -> anyhow::Result<Value> {
        anyhow::ensure!(to.is_absolute(), "{}: not an absolute path", to.display());
        anyhow::ensure!(!to.exists(), "{}: exists already; name a new folder", to.display());
        anyhow::ensure!(self.postgres.is_none(), "{}", store::Storage::NO_SNAPSHOT);
        let name = to.file_name().with_context(|| format!("{}: names no folder", to.display()))?;
        let draft = to.with_file_name(format!("{}.part", name.to_string_lossy()));
        let at = || draft.display().to_string();
        if draft.exists() {
            std::fs::remove_dir_all(&draft).with_context(at)?;
        }
        std::fs::create_dir_all(draft.join("trail")).with_context(at)?;
        let segments = self.storage.snapshot(&draft).await.map_err(|error| explain(&error))?;
        // The directory after the mail: an account without mail is no damage, mail without an account is.
        let (data, draft_here) = (self.data.clone(), draft.clone());
        let copied = tokio::task::spawn_blocking(move || copy_rest(&data, &draft_here)).await?;
        let files = copied.with_context(at)?;
        for folder in [&draft.join("trail"), &draft] {
            File::open(folder)?.sync_all().with_context(at)?;
        }
        std::fs::rename(&draft, to).with_context(at)?;
        if let Some(parent) = to.parent() {
            File::open(parent)?.sync_all().with_context(|| parent.display().to_string())?;
        }
        Ok(json!({ "snapshot": to.display().to_string(), "segments": segments, "other_files": files }))
    }

    /// With `wipe`, the tables are written anew, too.
    pub async fn gc(&self, wipe: bool) -> anyhow::Result<Value> {
        let (mut forgotten, mut erased) = (0u64, 0u64);
        let (mut released, mut freed, mut segments, mut moved) = (0u64, 0u64, 0u64, 0u64);
        let mut objects = 0u64;
        for _ in 0..GC_ROUNDS_MAX {
            let round = self.storage.gc().await.map_err(|error| explain(&error))?;
            forgotten += round.forgotten;
            released += round.released;
            freed += round.freed_bytes;
            segments += round.segments_removed;
            moved += round.moved;
            objects += round.objects_removed;
            erased += round.erased;
            if !round.has_more {
                break;
            }
        }
        if wipe {
            self.storage.wipe().await.map_err(|error| explain(&error))?;
        }
        Ok(json!({
            "expired_messages": forgotten,
            "released_messages": released,
            "overwritten_messages": erased,
            "freed_bytes": freed,
            "removed_segments": segments,
            "removed_objects": objects,
            "moved_messages": moved,
        }))
    }
}

/// What the node says of itself to the others.
fn member(config: &Config) -> cluster::Settings {
    cluster::Settings {
        name: config.node_name.clone(),
        address: config.cluster_address.clone(),
        roles: config.roles.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn settings(config: &Config) -> StorageSettings {
    let mut settings = StorageSettings::default();
    settings.gc.undelete = config.undelete;
    settings.segments.free_space_min = config.free_space_min;
    settings
}

/// Blocks.
fn open_embedded(config: &Config, clock: &Arc<dyn Clock>, ids: Arc<IdSource>) -> anyhow::Result<(Storage, Registry)> {
    let storage = Storage::open(&config.data, settings(config), Arc::clone(clock), ids);
    let storage = storage.map_err(|error| explain(&error))?;
    let guard = LoginGuard::new(config.plaintext_on_loopback);
    let file = config.data.join("directory.sqlite");
    Ok((storage, Registry::open(&file, Arc::clone(clock), config.postmaster.clone(), guard)?))
}

async fn open_postgres(
    config: &Config,
    pool: &Arc<Pool>,
    guard: LoginGuard,
    clock: &Arc<dyn Clock>,
    ids: &Arc<IdSource>,
) -> anyhow::Result<(Storage, Registry)> {
    let (data, clock, ids) = (&config.data, Arc::clone(clock), Arc::clone(ids));
    let objects = config.object_store.as_ref().map(objects).transpose()?;
    let pool_here = Arc::clone(pool);
    let storage = Storage::open_postgres_with(data, pool_here, objects, settings(config), Arc::clone(&clock), ids);
    let storage = storage.await.map_err(|error| explain(&error))?;
    Ok((storage, Registry::open_postgres(Arc::clone(pool), clock, config.postmaster.clone(), guard).await?))
}

/// Failed sign-ins, counted by all nodes.
struct Together(Arc<Counters>);

impl Failures for Together {
    fn add(&self, network: IpAddr) {
        self.0.add(Counted::LOGIN_FAILURES, &network.to_string());
    }

    fn count(&self, network: IpAddr) -> u32 {
        u32::try_from(self.0.count(Counted::LOGIN_FAILURES, &network.to_string())).unwrap_or(u32::MAX)
    }
}

/// How the configured object store is reached. Reads the secret's file.
pub fn objects(store: &ObjectStore) -> anyhow::Result<S3Settings> {
    Ok(S3Settings {
        endpoints: store.endpoints.clone(),
        bucket: store.bucket.clone(),
        region: store.region.clone(),
        access_key: store.access_key.clone(),
        secret: first_line("storage.object_store_secret_file", &store.secret_file)?,
        path_style: store.path_style,
        from_bytes: store.from.0,
    })
}

/// How the configured server is reached. Reads the files that the configuration names.
pub fn server(postgres: &Postgres) -> anyhow::Result<PgSettings> {
    let settings = PgSettings::parse(postgres.url.reveal(), postgres.connections).context("`storage.postgresql`")?;
    with_options(settings, postgres)
}

/// Connections of nodes and commands to the server's database, but for the one that asks.
pub(super) async fn others_connected(postgres: &Postgres) -> anyhow::Result<i64> {
    let pool = Pool::new(server(postgres)?);
    let text = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'ortler' AND pid <> pg_backend_pid()";
    let found = pool.query(text, &[]).await?;
    let row = found.first().context("PostgreSQL does not say who is connected")?;
    Ok(engine::postgres::value(row, 0)?)
}

/// Whether both lead to one database: a lock that one holds is seen by the other.
pub(super) async fn is_same_database(one: &Pool, other: &Pool) -> anyhow::Result<bool> {
    const COPYING: i64 = 0x6f72_746c_6370;
    let holder = one.begin(false).await?;
    let taken = holder.row("SELECT pg_try_advisory_xact_lock($1)", &[&COPYING]).await?;
    let seen = other.query("SELECT pg_try_advisory_xact_lock($1)", &[&COPYING]).await?;
    let is_taken = engine::postgres::value::<bool>(&taken, 0)?;
    let is_free = seen.first().map(|row| engine::postgres::value::<bool>(row, 0)).transpose()?.unwrap_or(false);
    Ok(holder.end(Ok::<bool, engine::EngineError>(!(is_taken && is_free))).await?)
}

/// The log has connections of its own, so that it never waits for mail nor mail for it; perhaps on a server of its own.
pub fn trail_server(postgres: &Postgres) -> anyhow::Result<PgSettings> {
    let url = postgres.trail_url.as_ref().unwrap_or(&postgres.url);
    with_options(PgSettings::parse(url.reveal(), TRAIL_CONNECTIONS).context("`trail.postgresql`")?, postgres)
}

/// For readers of the log; one more writes and one listens.
const TRAIL_CONNECTIONS: usize = 4;

/// Password, TLS and waits of `storage.postgresql_…`.
fn with_options(settings: PgSettings, postgres: &Postgres) -> anyhow::Result<PgSettings> {
    let tls = match &postgres.tls {
        PostgresTls::Off => PgTls::Off,
        PostgresTls::Require => PgTls::Require,
        PostgresTls::VerifyFull(ca) => PgTls::VerifyFull { ca },
    };
    let settings = settings.with_waits(postgres.connect_wait, postgres.statement_wait);
    let settings = settings.with_tls(tls).context("`storage.postgresql_ca`")?;
    let Some(file) = &postgres.password_file else { return Ok(settings) };
    Ok(settings.with_password(first_line("storage.postgresql_password_file", file)?.reveal()))
}

/// The secret in the file that `option` names.
fn first_line(option: &str, file: &Path) -> anyhow::Result<Secret<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("`{option}`: {}", file.display()))?;
    let text = Secret::new(text);
    Ok(Secret::new(text.reveal().lines().next().unwrap_or_default().to_owned()))
}

/// Directory, classifier, trail, certificate and a demonstration's configuration; gives the number of files.
fn copy_rest(data: &Path, to: &Path) -> anyhow::Result<usize> {
    let mut files = 5;
    for name in ["directory.sqlite", CLASSIFIER, REPUTATION, PEERS, POLICY] {
        engine::copy(&data.join(name), &to.join(name))?;
    }
    for entry in std::fs::read_dir(data.join("trail"))? {
        let day = entry?.path();
        if day.extension().is_some_and(|extension| extension == "sqlite")
            && let Some(name) = day.file_name()
        {
            engine::copy(&day, &to.join("trail").join(name))?;
            files += 1;
        }
    }
    for name in ["certificate.pem", "key.pem", super::DEMO_CONFIG] {
        if data.join(name).is_file() {
            std::fs::copy(data.join(name), to.join(name))?;
            File::open(to.join(name))?.sync_all()?;
            files += 1;
        }
    }
    Ok(files)
}

/// The store's error with its cause, on one line.
pub fn explain(error: &store::StoreError) -> anyhow::Error {
    match std::error::Error::source(error) {
        Some(source) => anyhow::anyhow!("{source}"),
        None => anyhow::anyhow!("{error}"),
    }
}

/// One process for each data folder.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("node.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            anyhow::bail!("{}: in use by a running node; stop it first or use another folder", data.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}
