//! Statements that both engines understand, for tables that have the same names and the same columns in both.
//!
//! Such a statement marks its values `$1`, `$2`; gives NULL a type (`CAST($1 AS bigint)`) where nothing else says what a value
//! is; keeps truths and times in whole numbers; and needs no function that only one engine has.

use std::error::Error;

use rusqlite::{Connection, params_from_iter};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{Place, Row, Value, sqlite};
use crate::error::EngineError;
use crate::postgres::{Pool, Session};

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// As both engines keep numbers: those beyond an `i64` are none of ours.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(if text.contains('\0') { text.replace('\0', "") } else { text.to_owned() })
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a row has in a column. A column that is not of the kind asked for is damage.
pub trait Columns {
    fn int(&self, at: usize) -> Result<i64, EngineError>;
    fn int_opt(&self, at: usize) -> Result<Option<i64>, EngineError>;
    fn text(&self, at: usize) -> Result<&str, EngineError>;
    fn text_opt(&self, at: usize) -> Result<Option<&str>, EngineError>;
    fn bytes(&self, at: usize) -> Result<&[u8], EngineError>;

    fn number(&self, at: usize) -> Result<u64, EngineError> {
        u64::try_from(self.int(at)?).map_err(|_| strange(at, "a number below zero"))
    }
    fn is(&self, at: usize) -> Result<bool, EngineError> {
        Ok(self.int(at)? != 0)
    }
}

fn strange(at: usize, what: &str) -> EngineError {
    EngineError::damaged(format!("column {at} holds {what}"))
}

impl Columns for Row {
    fn int(&self, at: usize) -> Result<i64, EngineError> {
        self.int_opt(at)?.ok_or_else(|| strange(at, "nothing"))
    }

    fn int_opt(&self, at: usize) -> Result<Option<i64>, EngineError> {
        match self.get(at) {
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(Value::Null) => Ok(None),
            Some(Value::Text(_) | Value::Bytes(_)) | None => Err(strange(at, "no number")),
        }
    }

    fn text(&self, at: usize) -> Result<&str, EngineError> {
        self.text_opt(at)?.ok_or_else(|| strange(at, "nothing"))
    }

    fn text_opt(&self, at: usize) -> Result<Option<&str>, EngineError> {
        match self.get(at) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            Some(Value::Int(_) | Value::Bytes(_)) | None => Err(strange(at, "no text")),
        }
    }

    fn bytes(&self, at: usize) -> Result<&[u8], EngineError> {
        match self.get(at) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            Some(Value::Int(_) | Value::Text(_) | Value::Null) | None => Err(strange(at, "no octets")),
        }
    }
}

/// One step of a change.
#[derive(Clone, Debug)]
pub struct Statement {
    text: String,
    values: Vec<Value>,
    /// Without a row changed, or given, nothing of the whole change is done.
    must: bool,
}

impl Statement {
    pub fn new(text: impl Into<String>, values: Vec<Value>) -> Self {
        Self { text: text.into(), values, must: false }
    }

    /// The change is undone if this changes nothing.
    #[must_use]
    pub fn must(mut self) -> Self {
        self.must = true;
        self
    }
}

/// What a statement came to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Done {
    /// Rows changed, or given.
    pub count: u64,
    /// Of a statement with RETURNING, or of a SELECT.
    pub rows: Vec<Row>,
}

/// A change that was undone, for this step, by its number from 0, changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undone(pub usize);

impl Place {
    /// Rows of a query, as they are now.
    pub async fn query(&self, text: &str, values: Vec<Value>) -> Result<Vec<Row>, EngineError> {
        match self {
            Self::Sqlite(database) => {
                let text = marked(text);
                database.read(move |sql| run(sql, &text, &values).map(|done| done.rows)).await
            }
            Self::Postgres(pool) => {
                let values = params(&values);
                pool.query(text, &values).await?.iter().map(read).collect()
            }
        }
    }

    /// All steps, in one transaction: on return it is on disk, or undone.
    ///
    /// # Errors
    /// Of PostgreSQL also those that leave open whether it was done.
    pub async fn change(&self, steps: Vec<Statement>) -> Result<Result<Vec<Done>, Undone>, EngineError> {
        match self {
            Self::Sqlite(database) => {
                let written = database.write(move |sql| {
                    let mut all = Vec::with_capacity(steps.len());
                    for (at, step) in steps.iter().enumerate() {
                        let done = run(sql, &marked(&step.text), &step.values).map_err(Failed::Sql)?;
                        if step.must && done.count == 0 {
                            return Err(Failed::Undone(Undone(at)));
                        }
                        all.push(done);
                    }
                    Ok(all)
                });
                match written.await? {
                    Ok(done) => Ok(Ok(done)),
                    Err(Failed::Undone(undone)) => Ok(Err(undone)),
                    Err(Failed::Sql(error)) => Err(database.error(error)),
                }
            }
            Self::Postgres(pool) => change_there(pool, &steps).await,
        }
    }
}

enum Failed {
    Sql(rusqlite::Error),
    Undone(Undone),
}

enum FailedThere {
    Engine(EngineError),
    Undone(Undone),
}

impl From<EngineError> for FailedThere {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

async fn change_there(pool: &Pool, steps: &[Statement]) -> Result<Result<Vec<Done>, Undone>, EngineError> {
    let session = pool.begin(false).await?;
    let work = async {
        let mut all = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let done = run_there(&session, step).await?;
            if step.must && done.count == 0 {
                return Err(FailedThere::Undone(Undone(at)));
            }
            all.push(done);
        }
        Ok(all)
    };
    let done = work.await;
    match session.end(done).await {
        Ok(done) => Ok(Ok(done)),
        Err(FailedThere::Undone(undone)) => Ok(Err(undone)),
        Err(FailedThere::Engine(error)) => Err(error),
    }
}

async fn run_there(session: &Session, step: &Statement) -> Result<Done, EngineError> {
    let values = params(&step.values);
    if !gives_rows(&step.text) {
        return Ok(Done { count: session.execute(&step.text, &values).await?, rows: Vec::new() });
    }
    let found = session.rows(&step.text, &values).await?;
    let rows = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Done { count: rows.len() as u64, rows })
}

fn run(sql: &Connection, text: &str, values: &[Value]) -> rusqlite::Result<Done> {
    let mut statement = sql.prepare_cached(text)?;
    let columns = statement.column_count();
    if columns == 0 {
        let count = statement.execute(params_from_iter(values))?;
        return Ok(Done { count: count as u64, rows: Vec::new() });
    }
    let rows = statement.query_map(params_from_iter(values), |row| sqlite::read(row, columns))?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Done { count: rows.len() as u64, rows })
}

fn gives_rows(text: &str) -> bool {
    text.trim_start().starts_with("SELECT") || text.trim_start().starts_with("WITH") || text.contains("RETURNING")
}

/// As the embedded engine marks values: there, `$1` would be a name.
fn marked(text: &str) -> String {
    text.replace('$', "?")
}

fn params(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as _).collect()
}

fn read(row: &tokio_postgres::Row) -> Result<Row, EngineError> {
    use crate::postgres::value;
    let one = |(at, column): (usize, &tokio_postgres::Column)| {
        let found = match *column.type_() {
            Type::INT8 => value::<Option<i64>>(row, at)?.map(Value::Int),
            Type::INT4 => value::<Option<i32>>(row, at)?.map(|number| Value::Int(i64::from(number))),
            Type::BOOL => value::<Option<bool>>(row, at)?.map(Value::from),
            Type::BYTEA => value::<Option<Vec<u8>>>(row, at)?.map(Value::Bytes),
            _ => value::<Option<String>>(row, at)?.map(Value::Text),
        };
        Ok(found.unwrap_or(Value::Null))
    };
    row.columns().iter().enumerate().map(one).collect()
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *ty == Type::BOOL => (*number != 0).to_sql(ty, out),
            Self::Int(number) if *ty == Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
            Self::Int(number) => number.to_sql(ty, out),
            Self::Text(text) => text.to_sql(ty, out),
            Self::Bytes(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::BOOL, Type::TEXT, Type::VARCHAR, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}

/// For `LIKE … ESCAPE '\'`: what has `part` somewhere in it.
pub fn having(part: &str) -> String {
    let mut out = String::from("%");
    for character in part.chars() {
        if matches!(character, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('%');
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::database::{Database, Settings};
    use crate::postgres::Server;

    const TABLE: &str = "CREATE TABLE pet (id bigint PRIMARY KEY, name text NOT NULL, tag text, octets bytea)";
    const OF_SQLITE: &str =
        "CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT NOT NULL, tag TEXT, octets BLOB) STRICT;";

    async fn check(place: &Place) {
        let insert = "INSERT INTO pet (id, name, tag, octets) VALUES ($1, $2, $3, $4)";
        let pet = |id: i64, name: &str, tag: Option<&str>| {
            Statement::new(insert, vec![id.into(), name.into(), tag.into(), vec![0u8, 255].into()])
        };
        let done = place.change(vec![pet(1, "Rex", None), pet(2, "100%_", Some("b\\"))]).await.unwrap().unwrap();
        assert_eq!(done.iter().map(|one| one.count).collect::<Vec<_>>(), [1, 1]);
        // What must change something undoes all that went before it.
        let none = Statement::new("UPDATE pet SET name = $2 WHERE id = $1", vec![9i64.into(), "x".into()]).must();
        assert_eq!(place.change(vec![pet(3, "Tom", None), none]).await.unwrap(), Err(Undone(1)));
        let found = place.query("SELECT id, name, tag, octets FROM pet ORDER BY id", vec![]).await.unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].int(0).unwrap(), found[0].text(1).unwrap()), (1, "Rex"));
        assert_eq!((found[0].text_opt(2).unwrap(), found[1].text_opt(2).unwrap()), (None, Some("b\\")));
        assert_eq!(found[0].bytes(3).unwrap(), [0, 255]);
        assert!(found[0].int(1).is_err() && found[0].text(2).is_err() && found[0].int(7).is_err());
        let like = "SELECT id FROM pet WHERE name LIKE $1 ESCAPE '\\' AND (CAST($2 AS bigint) IS NULL OR id = $2)";
        for (part, id, expected) in [("0%_", None, 1), ("e", None, 1), ("e", Some(2i64), 0), ("_e", None, 0)] {
            let found = place.query(like, vec![having(part).into(), id.into()]).await.unwrap();
            assert_eq!(found.len(), expected, "{part}");
        }
        let gone = Statement::new("DELETE FROM pet WHERE id = $1 RETURNING name", vec![2i64.into()]).must();
        let gone = place.change(vec![gone]).await.unwrap().unwrap();
        assert_eq!(gone[0].rows, [vec![Value::from("100%_")]]);
    }

    #[tokio::test]
    async fn one_text_serves_both_engines() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { migrations: &[OF_SQLITE], readers: 1, cache_kib: 512 };
        let database = Database::open(&folder.path().join("a.sqlite"), &settings).unwrap();
        check(&Place::Sqlite(Arc::new(database))).await;
        let Some(server) = Server::start() else { return };
        let pool = Arc::new(Pool::new(server.settings(2)));
        let session = pool.session().await.unwrap();
        session.batch(TABLE).await.unwrap();
        session.give_back();
        check(&Place::Postgres(pool)).await;
    }
}
