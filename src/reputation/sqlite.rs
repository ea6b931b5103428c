//! Subjects in a file of our own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use base::UtcMillis;
use engine::table::Place;
use engine::{Database, EngineError, Settings};

use crate::subject::Subject;
use crate::tables::{Row, Tables};

pub(crate) const MIGRATIONS: &[&str] = &[include_str!("sqlite-1.sql")];

pub(crate) struct SqliteTables {
    database: Arc<Database>,
}

impl SqliteTables {
    pub(crate) fn open(file: &Path) -> Result<Self, EngineError> {
        let settings = Settings { migrations: MIGRATIONS, readers: 2, cache_kib: 4 * 1024 };
        Ok(Self { database: Arc::new(Database::open(file, &settings)?) })
    }
}

#[async_trait]
impl Tables for SqliteTables {
    fn place(&self) -> Place {
        Place::Sqlite(Arc::clone(&self.database))
    }

    async fn read(&self, subjects: &[Subject]) -> Result<Vec<Row>, EngineError> {
        let subjects = subjects.to_vec();
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(
                    "SELECT slot, good, bad, first_at, last_at FROM subject WHERE kind = ?1 AND key = ?2",
                )?;
                let mut out = Vec::new();
                for subject in subjects {
                    let rows = query.query_map((subject.kind.number(), subject.key), |row| {
                        Ok(Row {
                            subject,
                            slot: row.get(0)?,
                            good: row.get(1)?,
                            bad: row.get(2)?,
                            first_at: UtcMillis(row.get(3)?),
                            last_at: UtcMillis(row.get(4)?),
                        })
                    })?;
                    for row in rows {
                        out.push(row?);
                    }
                }
                Ok(out)
            })
            .await
    }

    async fn add(&self, rows: &[Row]) -> Result<(), EngineError> {
        let rows = rows.to_vec();
        self.database
            .write_sql(move |sql| {
                let mut insert = sql.prepare_cached(
                    "INSERT INTO subject (kind, key, slot, good, bad, first_at, last_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                     ON CONFLICT (kind, key, slot) DO UPDATE SET good = good + excluded.good,
                         bad = bad + excluded.bad, first_at = min(first_at, excluded.first_at),
                         last_at = max(last_at, excluded.last_at)",
                )?;
                for row in &rows {
                    let (kind, key) = (row.subject.kind.number(), row.subject.key);
                    insert.execute((kind, key, row.slot, row.good, row.bad, row.first_at.0, row.last_at.0))?;
                }
                Ok(())
            })
            .await
    }

    async fn remove(&self, subjects: &[Subject]) -> Result<(), EngineError> {
        let subjects = subjects.to_vec();
        self.database
            .write_sql(move |sql| {
                let mut delete = sql.prepare_cached("DELETE FROM subject WHERE kind = ?1 AND key = ?2")?;
                subjects.iter().try_for_each(|one| delete.execute((one.kind.number(), one.key)).map(drop))
            })
            .await
    }

    async fn forget(&self, kind: i64, before: i64, limit: usize) -> Result<usize, EngineError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .write_sql(move |sql| {
                sql.execute(
                    "DELETE FROM subject WHERE (kind, key, slot) IN
                     (SELECT kind, key, slot FROM subject WHERE kind = ?1 AND slot < ?2 LIMIT ?3)",
                    (kind, before, limit),
                )
            })
            .await
    }
}
