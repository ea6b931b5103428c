//! The nodes' rows on the server. Ages are by the server's clock: nodes whose clocks differ agree on who is there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::UtcMillis;
use engine::EngineError;
use engine::postgres::{Migration, PgSettings, Pool, Row, Session, value};

use crate::authority::Authority;
use crate::identity::Identity;
use crate::invitation::Invitation;
use crate::member::{DOWN_AFTER, Member, State, Wish, role_name, roles_of};
use crate::membership::{Beat, Settings};

/// Why something about nodes cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("another node is called {name}: it was heard of {silent:?} ago; each node needs a node.name of its own")]
    NameTaken { name: String, silent: Duration },
    #[error("no node is called {0}; `ortler cluster status` lists them")]
    NoNode(String),
    #[error("{0} is up; stop it first")]
    IsUp(String),
    #[error("this node is alone: nodes share a PostgreSQL server (storage.engine)")]
    Alone,
    #[error("no node is up that has a listener between nodes (protocol `cluster`): a machine that joins asks one")]
    NoneToAsk,
    #[error("{0} does not run")]
    NotRunning(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Where nodes say that they are there.
#[async_trait]
pub(crate) trait Roll: Send + Sync {
    /// All nodes, by name.
    async fn list(&self) -> Result<Vec<Member>, EngineError>;
    /// Enters a node that starts. Its wish stays as it was.
    async fn enter(&self, own: &Settings, id: &Identity, now: UtcMillis) -> Result<(), ClusterError>;
    /// Says that the node is there and hears who else is; `None` if it was removed, or another one has its name.
    async fn beat(&self, own: &Settings, id: &Identity, beat: &Beat) -> Result<Option<Vec<Member>>, EngineError>;
    /// The node stops: nobody need wait until it counts as down.
    async fn leave(&self, own: &Settings, id: &Identity) -> Result<(), EngineError>;
    /// Says what is wanted of a node, which need not be up.
    async fn set_wish(&self, name: &str, wish: Wish) -> Result<(), ClusterError>;
    /// Forgets a node that is down.
    async fn remove(&self, name: &str) -> Result<(), ClusterError>;
}

pub(crate) const COMPONENT: &str = "cluster";
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { text: include_str!("schema-1.sql"), oldest: 1 },
    Migration { text: include_str!("schema-2.sql"), oldest: 1 },
    Migration { text: include_str!("schema-3.sql"), oldest: 1 },
];

/// For one statement: a heartbeat that takes longer is late anyway.
const WAIT: Duration = Duration::from_secs(3);

/// Brings the tables that nodes share to this version, and gives a connection of its own for them: heartbeats must not wait for
/// mail.
///
/// # Errors
/// No server that takes writes, or tables of a release that is too new.
pub async fn open(server: &PgSettings) -> Result<Arc<Pool>, EngineError> {
    let pool = Pool::new(server.clone().with_connections(1).with_waits(WAIT, WAIT));
    engine::postgres::migrate(&pool, COMPONENT, MIGRATIONS).await?;
    Ok(Arc::new(pool))
}

/// A code with which a machine may become a node, once, within `valid`.
///
/// # Errors
/// No node is up that could be asked with it, or the server is away.
pub async fn invite(pool: &Arc<Pool>, valid: Duration) -> Result<Invitation, ClusterError> {
    let members = Nodes { pool: Arc::clone(pool) }.list().await?;
    let up = members.into_iter().filter(|one| one.state() == State::Up);
    let nodes: Vec<(String, String)> = up.filter_map(|one| Some((one.name, one.address?))).collect();
    if nodes.is_empty() {
        return Err(ClusterError::NoneToAsk);
    }
    let authority = Authority::shared(pool).await?;
    Ok(Invitation::write(pool, authority.certificate(), nodes, valid).await?)
}

/// The table of nodes.
pub(crate) struct Nodes {
    pub(crate) pool: Arc<Pool>,
}

const COLUMNS: &str = "name, address, roles, version, started_at, wish, sessions,
    (extract(epoch FROM clock_timestamp() - heard_at) * 1000)::bigint, health";

#[async_trait]
impl Roll for Nodes {
    async fn list(&self) -> Result<Vec<Member>, EngineError> {
        let rows = self.pool.query(&format!("SELECT {COLUMNS} FROM node ORDER BY name"), &[]).await?;
        rows.iter().map(member).collect()
    }

    async fn enter(&self, own: &Settings, id: &Identity, now: UtcMillis) -> Result<(), ClusterError> {
        let sql = self.pool.begin(false).await?;
        let done = enter(&sql, own, id, now).await;
        sql.end(done).await
    }

    async fn beat(&self, own: &Settings, id: &Identity, beat: &Beat) -> Result<Option<Vec<Member>>, EngineError> {
        // The own row is seen as it was before; that it is alive its node knows.
        let text = format!(
            "WITH own AS (
                 UPDATE node SET heard_at = clock_timestamp(), sessions = $3, health = $4
                 WHERE name = $1 AND identity = $2 RETURNING name
             )
             SELECT {COLUMNS}, (SELECT count(*) FROM own) FROM node ORDER BY name"
        );
        let sessions = i64::try_from(beat.sessions).unwrap_or(i64::MAX);
        let rows = self.pool.query(&text, &[&own.name, &id.as_bytes(), &sessions, &beat.health]).await?;
        match rows.first() {
            Some(row) if value::<i64>(row, 9)? > 0 => {}
            _ => return Ok(None),
        }
        let mut members = rows.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        for one in members.iter_mut().filter(|one| one.name == own.name) {
            (one.silent, one.sessions) = (Some(Duration::ZERO), beat.sessions);
            one.health = Some(beat.health.clone());
        }
        Ok(Some(members))
    }

    async fn leave(&self, own: &Settings, id: &Identity) -> Result<(), EngineError> {
        let text = "UPDATE node SET heard_at = NULL, sessions = 0, health = NULL WHERE name = $1 AND identity = $2";
        let sql = self.pool.session().await?;
        sql.execute(text, &[&own.name, &id.as_bytes()]).await?;
        sql.give_back();
        Ok(())
    }

    async fn set_wish(&self, name: &str, wish: Wish) -> Result<(), ClusterError> {
        let sql = self.pool.session().await?;
        let changed = sql.execute("UPDATE node SET wish = $2 WHERE name = $1", &[&name, &wish.as_str()]).await?;
        sql.give_back();
        if changed == 0 { Err(ClusterError::NoNode(name.to_owned())) } else { Ok(()) }
    }

    async fn remove(&self, name: &str) -> Result<(), ClusterError> {
        let sql = self.pool.begin(false).await?;
        let done = async {
            match find(&sql, name).await? {
                None => Err(ClusterError::NoNode(name.to_owned())),
                Some(member) if member.state() != State::Down => Err(ClusterError::IsUp(name.to_owned())),
                Some(_) => Ok(sql.execute("DELETE FROM node WHERE name = $1", &[&name]).await.map(drop)?),
            }
        };
        let done = done.await;
        sql.end(done).await
    }
}

async fn find(sql: &Session, name: &str) -> Result<Option<Member>, EngineError> {
    let text = format!("SELECT {COLUMNS} FROM node WHERE name = $1 FOR UPDATE");
    sql.row_opt(&text, &[&name]).await?.as_ref().map(member).transpose()
}

async fn enter(sql: &Session, own: &Settings, id: &Identity, now: UtcMillis) -> Result<(), ClusterError> {
    let holds = sql.row_opt("SELECT identity FROM node WHERE name = $1 FOR UPDATE", &[&own.name]).await?;
    let is_other = match &holds {
        Some(row) => value::<&[u8]>(row, 0)? != id.as_bytes(),
        None => false,
    };
    if is_other
        && let Some(silent) = find(sql, &own.name).await?.and_then(|other| other.silent)
        && silent < DOWN_AFTER
    {
        return Err(ClusterError::NameTaken { name: own.name.clone(), silent });
    }
    let text = "INSERT INTO node (name, identity, address, roles, version, started_at, heard_at)
         VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
         ON CONFLICT (name) DO UPDATE SET identity = excluded.identity, address = excluded.address,
         roles = excluded.roles, version = excluded.version, started_at = excluded.started_at,
         heard_at = excluded.heard_at, sessions = 0";
    let roles = own.roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>().join(" ");
    sql.execute(text, &[&own.name, &id.as_bytes(), &own.address, &roles, &own.version, &now.0]).await?;
    Ok(())
}

fn member(row: &Row) -> Result<Member, EngineError> {
    let silent: Option<i64> = value(row, 7)?;
    Ok(Member {
        name: value(row, 0)?,
        address: value(row, 1)?,
        roles: roles_of(value(row, 2)?),
        version: value(row, 3)?,
        started_at: UtcMillis(value(row, 4)?),
        wish: Wish::from_name(value(row, 5)?),
        sessions: u64::try_from(value::<i64>(row, 6)?).unwrap_or(0),
        health: value(row, 8)?,
        silent: silent.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
    })
}
