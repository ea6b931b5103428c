//! Tables in a database file.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Row, Table, Value};
use crate::database::Database;
use crate::error::EngineError;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn read(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Row> {
    let value = |column| {
        Ok(match row.get::<_, SqlValue>(column)? {
            SqlValue::Null => Value::Null,
            SqlValue::Integer(number) => Value::Int(number),
            SqlValue::Real(_) => return Err(rusqlite::Error::InvalidQuery),
            // The other engine's text has no octet zero.
            SqlValue::Text(text) => Value::Text(if text.contains('\0') { text.replace('\0', "") } else { text }),
            SqlValue::Blob(bytes) => Value::Bytes(bytes),
        })
    };
    (0..columns).map(value).collect()
}

fn collect(sql: &Connection, text: &str, values: &[Value], columns: usize) -> rusqlite::Result<Vec<Row>> {
    let mut query = sql.prepare_cached(text)?;
    query.query_map(params_from_iter(values), |row| read(row, columns))?.collect()
}

pub(super) async fn ask(database: &Database, text: String, columns: usize) -> Result<Vec<Row>, EngineError> {
    database.read(move |sql| collect(sql, &text, &[], columns)).await
}

pub(super) async fn rows(
    database: &Database,
    table: &Table,
    owner: Option<i64>,
    after: Option<&[Value]>,
    limit: usize,
) -> Result<Vec<Row>, EngineError> {
    let plain = |name: &str, _| name.to_owned();
    let (text, values) = table.page((&table.sqlite.from, '?'), plain, owner, after, limit);
    let values: Vec<Value> = values.into_iter().map(|(_, value)| value).collect();
    let columns = table.columns.len();
    database.read(move |sql| collect(sql, &text, &values, columns)).await
}

pub(super) async fn row(database: &Database, table: &Table, key: &[Value]) -> Result<Vec<Row>, EngineError> {
    let text = table.one((&table.sqlite.from, '?'));
    let (key, columns) = (key.to_vec(), table.columns.len());
    database.read(move |sql| collect(sql, &text, &key, columns)).await
}

/// What the writer thread is asked to do next.
enum Op {
    Each { statements: Vec<String>, rows: Vec<Row> },
    Commit,
}

/// A transaction on the writer thread, which waits for what comes next.
pub struct Writing {
    ops: mpsc::Sender<Op>,
    done: JoinSet<Result<(), EngineError>>,
}

/// Steps that may wait for the writer thread.
const OPS_MAX: usize = 2;

enum Undone {
    Sql(rusqlite::Error),
    /// Nobody wants it any more.
    Left,
}

impl From<rusqlite::Error> for Undone {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Writing {
    pub(super) fn begin(database: Arc<Database>) -> Self {
        let (ops, mut inbox) = mpsc::channel(OPS_MAX);
        let mut done = JoinSet::new();
        done.spawn(async move {
            let work = move |sql: &Connection| loop {
                match inbox.blocking_recv() {
                    Some(Op::Each { statements, rows }) => each(sql, &statements, &rows)?,
                    Some(Op::Commit) => return Ok(()),
                    None => return Err(Undone::Left),
                }
            };
            database.write(work).await?.map_err(|undone| match undone {
                Undone::Sql(error) => database.error(error),
                Undone::Left => EngineError::Closing,
            })
        });
        Self { ops, done }
    }

    async fn ask(&mut self, op: Op) -> Result<(), EngineError> {
        if self.ops.send(op).await.is_ok() {
            return Ok(());
        }
        // It has failed already: this is why.
        self.end().await.and(Err(EngineError::Closing))
    }

    async fn end(&mut self) -> Result<(), EngineError> {
        self.done.join_next().await.and_then(Result::ok).unwrap_or(Err(EngineError::Closing))
    }

    pub(super) async fn each(&mut self, statements: &[String], rows: Vec<Row>) -> Result<(), EngineError> {
        self.ask(Op::Each { statements: statements.to_vec(), rows }).await
    }

    pub(super) async fn commit(mut self) -> Result<(), EngineError> {
        self.ask(Op::Commit).await?;
        self.end().await
    }
}

fn each(sql: &Connection, statements: &[String], rows: &[Row]) -> rusqlite::Result<()> {
    let mut prepared = statements.iter().map(|text| sql.prepare_cached(text)).collect::<Result<Vec<_>, _>>()?;
    for row in rows {
        for statement in &mut prepared {
            let values = row.iter().take(statement.parameter_count());
            statement.execute(params_from_iter(values))?;
        }
    }
    Ok(())
}
