//! Versions of what a component keeps on the server, brought up to date while older nodes serve.

use super::pool::{Pool, Session, value};
use crate::error::EngineError;

/// A step of a component's schema. Steps are appended, never edited. A step is an *expansion* (it leaves what older nodes
/// use in its place) or a *contraction* (it takes away what nodes before `oldest` use); a contraction comes at least one
/// release after the expansion that replaced what it removes, so that nodes can be upgraded one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Statements without parameters; they run in one transaction.
    pub text: &'static str,
    /// The oldest version of the component's schema whose nodes still work after this step: the first step makes version 1.
    pub oldest: u32,
}

/// The oldest server that has what we use.
const SERVER_OLDEST: i32 = 150_000;
/// Taken with the component's number: nodes that start together take turns.
const LOCK: i32 = 0x6f72_746c;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS ortler_component (
    component text PRIMARY KEY, version bigint NOT NULL, oldest bigint NOT NULL)";

/// Brings the tables of `component` to the newest version known here, in one transaction.
///
/// # Errors
/// [`EngineError::TooNew`] if a newer node made a version that this one cannot work with; one that it can is left as it
/// is. A server before version 15.
pub async fn migrate(pool: &Pool, component: &str, steps: &[Migration]) -> Result<(), EngineError> {
    let sql = pool.begin(false).await?;
    let done = run(pool, &sql, component, steps).await;
    sql.end(done).await
}

async fn run(pool: &Pool, sql: &Session, component: &str, steps: &[Migration]) -> Result<(), EngineError> {
    let server = sql.row("SELECT current_setting('server_version_num')::int", &[]).await?;
    let server: i32 = value(&server, 0)?;
    if server < SERVER_OLDEST {
        let reason = format!("the server has version {}; 15 or later is needed", server / 10_000);
        return Err(EngineError::Postgres { reason });
    }
    // A step may take long; whoever waits for it waits as long. What holds a lock that a step needs does not stop all
    // nodes for ever.
    sql.batch("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    let number: i32 = value(&sql.row("SELECT hashtext($1)", &[&component]).await?, 0)?;
    sql.batch_unbounded(&format!("SELECT pg_advisory_xact_lock({LOCK}, {number})")).await?;
    sql.batch("SET LOCAL lock_timeout = '30s'").await?;
    let known = sql.row("SELECT to_regclass('ortler_component') IS NOT NULL", &[]).await?;
    if !value::<bool>(&known, 0)? {
        sql.rows("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCK]).await?;
        sql.batch(TABLE).await?;
    }
    let query = "SELECT version, oldest FROM ortler_component WHERE component = $1";
    let (found, oldest) = match sql.row_opt(query, &[&component]).await? {
        Some(row) => (unsigned(&row, 0)?, unsigned(&row, 1)?),
        None => (0, 0),
    };
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        let file = format!("postgresql ({component})").into();
        return if oldest <= known { Ok(()) } else { Err(EngineError::TooNew { file, found, known }) };
    }
    for (version, step) in (1i64..).zip(steps).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        pool.waypoints().pass("migrate.step");
        sql.batch_unbounded(step.text).await?;
        pool.waypoints().pass("migrate.changed");
        let text = "INSERT INTO ortler_component (component, version, oldest) VALUES ($1, $2, $3)
                    ON CONFLICT (component) DO UPDATE SET version = $2, oldest = $3";
        sql.execute(text, &[&component, &version, &i64::from(step.oldest)]).await?;
    }
    Ok(())
}

fn unsigned(row: &tokio_postgres::Row, at: usize) -> Result<u32, EngineError> {
    u32::try_from(value::<i64>(row, at)?).map_err(|_| EngineError::damaged("a schema version out of range"))
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::*;

    const FIRST: Migration = Migration { text: "CREATE TABLE one (a bigint)", oldest: 1 };
    const EXPAND: Migration = Migration { text: "ALTER TABLE one ADD COLUMN b bigint", oldest: 1 };
    const CONTRACT: Migration = Migration { text: "ALTER TABLE one DROP COLUMN a", oldest: 2 };

    #[tokio::test]
    async fn nodes_of_two_releases_work_together() {
        let Some(server) = Server::start() else { return };
        let pool = Pool::new(server.settings(2));
        let go = async |steps: &'static [Migration]| migrate(&pool, "mail", steps).await;
        go(&[FIRST]).await.unwrap();
        go(&[FIRST, EXPAND]).await.unwrap();
        // A node of the release before starts again: nothing that it needs is gone.
        go(&[FIRST]).await.unwrap();
        go(&[FIRST, EXPAND, CONTRACT]).await.unwrap();
        go(&[FIRST, EXPAND]).await.unwrap();
        assert!(matches!(go(&[FIRST]).await, Err(EngineError::TooNew { found: 3, known: 1, .. })));
        // Another component is another matter; a step that fails leaves nothing behind.
        migrate(&pool, "trail", &[Migration { text: "CREATE TABLE two (a bigint)", oldest: 1 }]).await.unwrap();
        let broken = [FIRST, Migration { text: "CREATE TABLE three (a bigint); nonsense", oldest: 1 }];
        assert!(matches!(migrate(&pool, "directory", &broken).await, Err(EngineError::Postgres { .. })));
        let sql = pool.session().await.unwrap();
        assert!(sql.rows("SELECT * FROM three", &[]).await.is_err());
    }

    #[tokio::test]
    async fn a_step_may_take_longer_than_a_statement() {
        let Some(server) = Server::start() else { return };
        let short = |connections| server.settings(connections).with_waits(SECOND, SECOND / 10);
        let slow = Migration { text: "SELECT pg_sleep(0.5); CREATE TABLE one (a bigint)", oldest: 1 };
        let pools = [Pool::new(short(1)), Pool::new(short(1))];
        let [first, second] = pools.each_ref().map(|pool| migrate(pool, "mail", std::slice::from_ref(&slow)));
        // Whoever comes second waits for the first.
        let (first, second) = tokio::join!(first, second);
        first.unwrap();
        second.unwrap();
        // Other statements are bounded as before.
        let sql = pools[0].session().await.unwrap();
        assert!(sql.batch("SELECT pg_sleep(0.5)").await.is_err());
    }

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nodes_that_start_together_take_turns() {
        let Some(server) = Server::start() else { return };
        let mut starts = tokio::task::JoinSet::new();
        for nth in 0..8 {
            let pool = Pool::new(server.settings(1));
            let (name, steps): (_, &[Migration]) = if nth % 2 == 0 {
                ("mail", &[FIRST, EXPAND])
            } else {
                ("trail", &[Migration { text: "CREATE TABLE two (a bigint)", oldest: 1 }])
            };
            starts.spawn(async move { migrate(&pool, name, steps).await });
        }
        for done in starts.join_all().await {
            done.unwrap();
        }
    }
}
