//! Tables that both engines have, row by row: read in the order of their keys, compared, and made equal. What moves an
//! installation from one engine to the other is built on this.

mod merge;
mod postgres;
mod sqlite;
mod statement;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::database::Database;
use crate::error::EngineError;
use crate::postgres::{Pool, Session};

pub use merge::{Between, DIFFERENCES_MAX, Merge, Side, Step, Tally, all_differences, differences, sync};
pub use statement::{Columns, Done, Statement, Undone, having};

/// What a column holds. The embedded engine keeps truths and small numbers as integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Int,
    Small,
    Bool,
    Text,
    Bytes,
}

/// A value; truths are 0 and 1. Keys sort as both engines sort them: text by its octets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("-"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

pub type Row = Vec<Value>;

/// How one engine keeps the rows of a [`Table`].
#[derive(Clone, Debug)]
pub struct Form {
    /// What follows FROM; it has all columns by their names.
    pub from: String,
    /// Statements that add a row. Embedded: for each row, `?1` is its first column. PostgreSQL: for all rows at once, which
    /// go before it as `WITH n AS (…)`.
    pub insert: Vec<String>,
    /// Statements that remove a row by its key, likewise.
    pub delete: Vec<String>,
}

/// Rows that both engines keep, perhaps each in its own way.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: Vec<(&'static str, Kind)>,
    /// So many of the first columns are the key.
    pub key: usize,
    /// The first column is an owner's number, and an index leads with it: rows can be read owner by owner.
    pub is_owned: bool,
    pub sqlite: Form,
    pub postgres: Form,
}

impl Table {
    /// A table that is one in either engine, perhaps under another name.
    pub fn plain(
        name: &'static str,
        (sqlite, postgres): (&str, &str),
        columns: &[(&'static str, Kind)],
        key: usize,
        is_owned: bool,
    ) -> Self {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let list = names.join(", ");
        let marks: Vec<String> = (1..=names.len()).map(|nth| format!("?{nth}")).collect();
        let of_key: Vec<&str> = names.iter().copied().take(key).collect();
        let by_mark: Vec<String> = of_key.iter().zip(1..).map(|(name, nth)| format!("{name} = ?{nth}")).collect();
        let by_row: Vec<String> = of_key.iter().map(|name| format!("t.{name} = n.{name}")).collect();
        Self {
            name,
            columns: columns.to_vec(),
            key,
            is_owned,
            sqlite: Form {
                from: sqlite.to_owned(),
                insert: vec![format!("INSERT INTO {sqlite} ({list}) VALUES ({})", marks.join(", "))],
                delete: vec![format!("DELETE FROM {sqlite} WHERE {}", by_mark.join(" AND "))],
            },
            postgres: Form {
                from: postgres.to_owned(),
                insert: vec![format!("INSERT INTO {postgres} ({list}) SELECT {list} FROM n")],
                delete: vec![format!("DELETE FROM {postgres} t USING n WHERE {}", by_row.join(" AND "))],
            },
        }
    }

    /// The columns' names.
    pub fn list(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Asks for the next rows as [`Place::rows`] gives them: the text and its values, marked `mark` and a number each.
    /// `sorted` is a column as keys sort by it.
    fn page(
        &self,
        (from, mark): (&str, char),
        sorted: impl Fn(&str, Kind) -> String,
        owner: Option<i64>,
        after: Option<&[Value]>,
        limit: usize,
    ) -> (String, Vec<(Kind, Value)>) {
        let key: Vec<String> = self.columns.iter().take(self.key).map(|(name, kind)| sorted(name, *kind)).collect();
        let (mut bounds, mut values) = (Vec::new(), Vec::new());
        let (of_owner, rest) = key.split_at(usize::from(owner.is_some()).min(key.len()));
        for (name, owner) in of_owner.iter().zip(owner) {
            bounds.push(format!("{name} = {mark}1"));
            values.push((Kind::Int, Value::Int(owner)));
        }
        if let Some(after) = after.filter(|_| !rest.is_empty()) {
            let marks: Vec<String> = (values.len() + 1..).take(rest.len()).map(|nth| format!("{mark}{nth}")).collect();
            bounds.push(format!("({}) > ({})", rest.join(", "), marks.join(", ")));
            let kinds = self.columns.iter().map(|(_, kind)| *kind);
            values.extend(kinds.zip(after.iter().cloned()).take(self.key).skip(of_owner.len()));
        }
        let bounds = if bounds.is_empty() { String::new() } else { format!("WHERE {}", bounds.join(" AND ")) };
        let text = format!("SELECT {} FROM {from} {bounds} ORDER BY {} LIMIT {limit}", self.list(), key.join(", "));
        (text, values)
    }

    /// Asks for the row with a key, whose values are marked `mark` and a number each.
    fn one(&self, (from, mark): (&str, char)) -> String {
        let names = self.columns.iter().take(self.key).map(|(name, _)| name);
        let bounds: Vec<String> = names.zip(1..).map(|(name, nth)| format!("{name} = {mark}{nth}")).collect();
        format!("SELECT {} FROM {from} WHERE {}", self.list(), bounds.join(" AND "))
    }

    fn compare_keys(&self, a: &Row, b: &Row) -> Ordering {
        a.iter().take(self.key).cmp(b.iter().take(self.key))
    }

    /// The key in words, but for the owner.
    fn key_of(&self, row: &Row) -> String {
        let parts: Vec<String> =
            row.iter().take(self.key).skip(usize::from(self.is_owned)).map(Value::to_string).collect();
        parts.join("/")
    }
}

/// Rows written at a time where whole tables go.
const BATCH: usize = 500;

/// Where tables lie.
#[derive(Clone)]
pub enum Place {
    Sqlite(Arc<Database>),
    Postgres(Arc<Pool>),
}

impl Place {
    /// The next rows after this key, in its order; those of one owner, if there is an `owner`.
    pub async fn rows(
        &self,
        table: &Table,
        owner: Option<i64>,
        after: Option<&[Value]>,
        limit: usize,
    ) -> Result<Vec<Row>, EngineError> {
        match self {
            Self::Sqlite(database) => sqlite::rows(database, table, owner, after, limit).await,
            Self::Postgres(pool) => postgres::rows(pool, table, owner, after, limit).await,
        }
    }

    /// The row with this key.
    pub async fn row(&self, table: &Table, key: &[Value]) -> Result<Option<Row>, EngineError> {
        let found = match self {
            Self::Sqlite(database) => sqlite::row(database, table, key).await?,
            Self::Postgres(pool) => postgres::row(pool, table, key).await?,
        };
        Ok(found.into_iter().next())
    }

    /// Rows of a query that both engines understand; it has these columns.
    pub async fn ask(&self, text: &str, columns: &[Kind]) -> Result<Vec<Row>, EngineError> {
        match self {
            Self::Sqlite(database) => sqlite::ask(database, text.to_owned(), columns.len()).await,
            Self::Postgres(pool) => postgres::ask(pool, text, columns).await,
        }
    }

    /// Has a server look at what is in these tables now: until it does, it plans as if they were empty. One that cannot
    /// do it now does by itself some minutes later.
    pub async fn take_stock(&self, tables: &[&str]) -> Result<(), EngineError> {
        let Self::Postgres(pool) = self else { return Ok(()) };
        for table in tables {
            let session = pool.session().await?;
            if session.batch(&format!("ANALYZE {table}")).await.is_ok() {
                session.give_back();
            }
        }
        Ok(())
    }

    /// Begins a transaction. It is undone unless it comes to [`Change::commit`].
    pub async fn begin(&self) -> Result<Change, EngineError> {
        Ok(match self {
            Self::Sqlite(database) => Change::Sqlite(sqlite::Writing::begin(Arc::clone(database))),
            Self::Postgres(pool) => {
                let session = pool.begin(false).await?;
                session.batch("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
                Change::Postgres(Box::new(session))
            }
        })
    }
}

/// A transaction under way. On the embedded engine it holds up all other changes of the file.
pub enum Change {
    Sqlite(sqlite::Writing),
    Postgres(Box<Session>),
}

impl Change {
    pub async fn insert(&mut self, table: &Table, rows: Vec<Row>) -> Result<(), EngineError> {
        match self {
            Self::Sqlite(writing) => writing.each(&table.sqlite.insert, rows).await,
            Self::Postgres(session) => postgres::each(session, &table.postgres.insert, &table.columns, &rows).await,
        }
    }

    /// Removes the rows that have these keys; further columns do not matter.
    pub async fn delete(&mut self, table: &Table, mut keys: Vec<Row>) -> Result<(), EngineError> {
        for key in &mut keys {
            key.truncate(table.key);
        }
        let columns = table.columns.get(..table.key).unwrap_or_default();
        match self {
            Self::Sqlite(writing) => writing.each(&table.sqlite.delete, keys).await,
            Self::Postgres(session) => postgres::each(session, &table.postgres.delete, columns, &keys).await,
        }
    }

    /// Puts the rows of `from` in the place of all that these tables hold; each table after those that it refers to.
    pub async fn replace_all(&mut self, tables: &[Table], from: &Place) -> Result<(), EngineError> {
        for table in tables.iter().rev() {
            let (sqlite, postgres) = (&table.sqlite.from, &table.postgres.from);
            self.run(&format!("DELETE FROM {sqlite}"), &format!("DELETE FROM {postgres}")).await?;
        }
        for table in tables {
            let mut after: Option<Row> = None;
            loop {
                let rows = from.rows(table, None, after.as_deref(), BATCH).await?;
                let Some(last) = rows.last().cloned() else { break };
                self.insert(table, rows).await?;
                after = last.get(..table.key).map(<[Value]>::to_vec);
            }
        }
        Ok(())
    }

    /// A statement of one engine; nothing where it is empty.
    pub async fn run(&mut self, sqlite: &str, postgres: &str) -> Result<(), EngineError> {
        match self {
            Self::Sqlite(_) if sqlite.is_empty() => Ok(()),
            Self::Postgres(_) if postgres.is_empty() => Ok(()),
            Self::Sqlite(writing) => writing.each(&[sqlite.to_owned()], vec![Row::new()]).await,
            Self::Postgres(session) => session.batch(postgres).await,
        }
    }

    /// On return it is on disk.
    pub async fn commit(self) -> Result<(), EngineError> {
        match self {
            Self::Sqlite(writing) => writing.commit().await,
            Self::Postgres(session) => (*session).end(Ok::<(), EngineError>(())).await,
        }
    }
}
