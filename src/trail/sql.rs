//! SQL text that both engines understand, but for the few words in which they differ.

use rusqlite::ToSql as SqliteValue;
use rusqlite::types::{ToSqlOutput, Value as SqliteOwned};
use std::fmt::Write as _;

/// Whose SQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// A value beside the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
    Bytes([u8; 16]),
}

/// Text that is being put together; each value gets the next number.
pub(crate) struct Sql {
    pub(crate) dialect: Dialect,
    pub(crate) values: Vec<Value>,
}

impl Sql {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, values: Vec::new() }
    }

    /// Takes the value and gives what stands for it in the text.
    pub(crate) fn mark(&mut self, value: Value) -> String {
        let kind = match value {
            Value::Int(_) => "bigint",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytea",
        };
        self.values.push(value);
        let mut mark = String::new();
        // Writing to a string does not fail.
        let _ = match self.dialect {
            Dialect::Sqlite => write!(mark, "?{}", self.values.len()),
            Dialect::Postgres => write!(mark, "${}::{kind}", self.values.len()),
        };
        mark
    }

    /// The recipients and senders of messages.
    pub(crate) fn party(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "party",
            Dialect::Postgres => "trail_party",
        }
    }

    /// Text with its ASCII letters in lower case, whatever the server's own idea of letters is.
    pub(crate) fn folded(&self, text: &str) -> String {
        match self.dialect {
            Dialect::Sqlite => format!("lower({text})"),
            Dialect::Postgres => format!("lower({text} COLLATE \"C\")"),
        }
    }

    /// A condition: the folded word `mark` is part of `text`, case aside. Missing text is empty.
    pub(crate) fn contains(&self, text: &str, mark: &str) -> String {
        let find = match self.dialect {
            Dialect::Sqlite => "instr",
            Dialect::Postgres => "strpos",
        };
        format!("{find}({}, {mark}) > 0", self.folded(&format!("coalesce({text}, '')")))
    }

    /// All values of a column as one text.
    pub(crate) fn joined(&self, column: &str) -> String {
        let join = match self.dialect {
            Dialect::Sqlite => "group_concat",
            Dialect::Postgres => "string_agg",
        };
        format!("{join}({column}, ' ')")
    }

    pub(crate) const fn yes(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "1",
            Dialect::Postgres => "true",
        }
    }
}

impl SqliteValue for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(match self {
            Self::Int(number) => SqliteOwned::Integer(*number),
            Self::Text(text) => SqliteOwned::Text(text.clone()),
            Self::Bytes(bytes) => SqliteOwned::Blob(bytes.to_vec()),
        }))
    }
}
