//! Versions of the schema. Steps are appended, never edited, and each leaves what older nodes need in its place: a column
//! goes only in a release after the one that stopped to use it.

use super::pool::{Pool, Session};
use crate::error::StoreError;

const MIGRATIONS: &[&str] = &[include_str!("schema-1.sql")];

/// Nodes that start together take turns.
const LOCK: i64 = 0x6f72_746c_6572;

/// Brings the database to this version. One that is newer is left as it is: it still serves older nodes.
pub(super) async fn migrate(pool: &Pool) -> Result<(), StoreError> {
    let session = pool.session().await?;
    let sql = session.begin(false).await?;
    let done = steps(&sql).await;
    sql.end(done).await
}

async fn steps(sql: &Session) -> Result<(), StoreError> {
    sql.rows("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    sql.batch("CREATE TABLE IF NOT EXISTS ortler_schema (version bigint PRIMARY KEY)").await?;
    let row = sql.row("SELECT count(*) FROM ortler_schema", &[]).await?;
    let have = usize::try_from(super::rows::int(&row, 0)?).unwrap_or(usize::MAX);
    for (nth, text) in (1i64..).zip(MIGRATIONS).skip(have) {
        sql.batch(text).await?;
        sql.execute("INSERT INTO ortler_schema (version) VALUES ($1)", &[&nth]).await?;
    }
    Ok(())
}
