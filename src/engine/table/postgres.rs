//! Tables on a PostgreSQL server.

use tokio_postgres::types::ToSql;

use super::{Kind, Row, Table, Value};
use crate::error::EngineError;
use crate::postgres::{Pool, Session, value};

type Param = Box<dyn ToSql + Sync + Send>;

fn read(row: &tokio_postgres::Row, kinds: impl Iterator<Item = Kind>) -> Result<Row, EngineError> {
    let one = |(column, kind)| {
        let found = match kind {
            Kind::Int => value::<Option<i64>>(row, column)?.map(Value::Int),
            Kind::Small => value::<Option<i16>>(row, column)?.map(|small| Value::Int(i64::from(small))),
            Kind::Bool => value::<Option<bool>>(row, column)?.map(|truth| Value::Int(i64::from(truth))),
            Kind::Text => value::<Option<String>>(row, column)?.map(Value::Text),
            Kind::Bytes => value::<Option<Vec<u8>>>(row, column)?.map(Value::Bytes),
        };
        Ok(found.unwrap_or(Value::Null))
    };
    (0..).zip(kinds).map(one).collect()
}

pub(super) async fn ask(pool: &Pool, text: &str, columns: &[Kind]) -> Result<Vec<Row>, EngineError> {
    pool.query(text, &[]).await?.iter().map(|row| read(row, columns.iter().copied())).collect()
}

pub(super) async fn rows(
    pool: &Pool,
    table: &Table,
    owner: Option<i64>,
    after: Option<&[Value]>,
    limit: usize,
) -> Result<Vec<Row>, EngineError> {
    let (text, values) = table.page((&table.postgres.from, '$'), sorted, owner, after, limit);
    let values: Vec<Param> =
        values.iter().filter_map(|(kind, value)| column(*kind, std::iter::once(value), false)).collect();
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value.as_ref() as _).collect();
    let found = pool.query(&text, &values).await?;
    found.iter().map(|row| read(row, table.columns.iter().map(|(_, kind)| *kind))).collect()
}

pub(super) async fn row(pool: &Pool, table: &Table, key: &[Value]) -> Result<Vec<Row>, EngineError> {
    let text = table.one((&table.postgres.from, '$'));
    let kinds = table.columns.iter().map(|(_, kind)| *kind);
    let values: Vec<Param> =
        kinds.clone().zip(key).filter_map(|(kind, value)| column(kind, std::iter::once(value), false)).collect();
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value.as_ref() as _).collect();
    pool.query(&text, &values).await?.iter().map(|row| read(row, kinds.clone())).collect()
}

/// Text sorts by its octets, whatever the database's language.
fn sorted(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Text => format!("{name} COLLATE \"C\""),
        Kind::Int | Kind::Small | Kind::Bool | Kind::Bytes => name.to_owned(),
    }
}

/// Values as one parameter: an array of them, or the first.
fn column<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>, is_array: bool) -> Option<Param> {
    fn pack<T: ToSql + Sync + Send + 'static>(mut all: Vec<Option<T>>, is_array: bool) -> Option<Param>
    where
        Vec<Option<T>>: ToSql,
    {
        if is_array { Some(Box::new(all)) } else { all.pop().map(|one| Box::new(one) as Param) }
    }
    let int = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
    match kind {
        Kind::Int => pack(values.map(int).collect(), is_array),
        Kind::Small => {
            let small = |value: &Value| int(value).and_then(|number| i16::try_from(number).ok());
            pack(values.map(small).collect(), is_array)
        }
        Kind::Bool => pack(values.map(|value| int(value).map(|number| number != 0)).collect(), is_array),
        Kind::Text => {
            let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
            pack(values.map(text).collect(), is_array)
        }
        Kind::Bytes => {
            let bytes = |value: &Value| if let Value::Bytes(bytes) = value { Some(bytes.clone()) } else { None };
            pack(values.map(bytes).collect(), is_array)
        }
    }
}

fn array_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint[]",
        Kind::Small => "smallint[]",
        Kind::Bool => "boolean[]",
        Kind::Text => "text[]",
        Kind::Bytes => "bytea[]",
    }
}

/// Statements over all `rows` at once.
pub(super) async fn each(
    session: &Session,
    statements: &[String],
    columns: &[(&'static str, Kind)],
    rows: &[Row],
) -> Result<(), EngineError> {
    let params: Vec<Param> = (0..)
        .zip(columns)
        .filter_map(|(at, (_, kind))| column(*kind, rows.iter().map(|row| row.get(at).unwrap_or(&Value::Null)), true))
        .collect();
    let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param.as_ref() as _).collect();
    let arrays: Vec<String> =
        (1..).zip(columns).map(|(nth, (_, kind))| format!("${nth}::{}", array_of(*kind))).collect();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let head = format!("WITH n AS (SELECT * FROM unnest({}) AS n ({}))", arrays.join(", "), names.join(", "));
    for statement in statements {
        session.execute(&format!("{head} {statement}"), &params).await?;
    }
    Ok(())
}
