//! Lessons in a file of our own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, UtcMillis};
use engine::table::Place;
use engine::{Database, EngineError, Settings};
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::lesson::{Class, Key, Known, Owner, Step};
use crate::numbers;
use crate::tables::{Change, Numbered, Stand, Tables, count};

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

    async fn stand(&self) -> Result<Stand, EngineError> {
        self.database
            .read(|sql| {
                sql.prepare_cached(
                    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'step'), 0),
                            coalesce((SELECT seq FROM snapshot WHERE owner = 0), 0)",
                )?
                .query_row((), |row| Ok(Stand { last: row.get(0)?, snapshot: row.get(1)? }))
            })
            .await
    }

    async fn since(&self, owner: Option<Owner>, seq: i64, limit: usize) -> Result<Vec<Numbered>, EngineError> {
        let (owner, limit) = (owner.map(Owner::number), count(limit));
        let rows = self.database.read(move |sql| {
            let text = match owner {
                None => {
                    "SELECT seq, owner, key, class, version, amount, is_new, numbers FROM step
                         WHERE seq > ?1 AND ?2 IS NULL ORDER BY seq LIMIT ?3"
                }
                Some(_) => {
                    "SELECT seq, owner, key, class, version, amount, is_new, numbers FROM step
                            WHERE seq > ?1 AND owner = ?2 ORDER BY seq LIMIT ?3"
                }
            };
            let mut query = sql.prepare_cached(text)?;
            query.query_map((seq, owner, limit), numbered)?.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.await?.into_iter().collect()
    }

    async fn known(&self, owner: Owner, key: Key) -> Result<Option<Known>, EngineError> {
        self.database.read(move |sql| known(sql, owner, key)).await
    }

    async fn add(&self, steps: Vec<Step>, changes: Vec<Change>, now: UtcMillis) -> Result<bool, EngineError> {
        self.database
            .write_sql(move |sql| {
                for change in &changes {
                    if known(sql, change.owner, change.key)? != change.was {
                        return Ok(false);
                    }
                }
                let mut insert = sql.prepare_cached(
                    "INSERT INTO step (owner, key, class, version, amount, is_new, numbers)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?;
                for step in &steps {
                    let packed = numbers::pack(&step.numbers);
                    let (class, owner) = (step.class.number(), step.owner.number());
                    let row = (owner, step.key.0, class, step.version, step.amount, step.is_new, packed);
                    insert.execute(row)?;
                }
                for change in &changes {
                    put_known(sql, change, now)?;
                }
                Ok(true)
            })
            .await
    }

    async fn snapshot(&self, owner: Owner) -> Result<Option<(i64, Vec<u8>)>, EngineError> {
        self.database
            .read(move |sql| {
                sql.prepare_cached("SELECT seq, weights FROM snapshot WHERE owner = ?1")?
                    .query_row([owner.number()], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .await
    }

    async fn put_snapshot(&self, owner: Owner, seq: i64, weights: Vec<u8>) -> Result<(), EngineError> {
        self.database
            .write_sql(move |sql| {
                sql.execute(
                    "INSERT INTO snapshot (owner, seq, weights) VALUES (?1, ?2, ?3)
                     ON CONFLICT (owner) DO UPDATE SET seq = excluded.seq, weights = excluded.weights
                     WHERE excluded.seq > seq",
                    (owner.number(), seq, weights),
                )?;
                sql.execute("DELETE FROM step WHERE owner = ?1 AND seq <= ?2", (owner.number(), seq)).map(drop)
            })
            .await
    }

    async fn teachers(&self) -> Result<Vec<AccountId>, EngineError> {
        self.database
            .read(|sql| {
                let mut query = sql.prepare_cached(
                    "SELECT owner FROM snapshot WHERE owner > 0 UNION SELECT owner FROM step WHERE owner > 0",
                )?;
                query.query_map((), |row| row.get(0).map(AccountId))?.collect()
            })
            .await
    }

    async fn owners_above(&self, steps: usize) -> Result<Vec<Owner>, EngineError> {
        self.database
            .read(move |sql| {
                let mut query =
                    sql.prepare_cached("SELECT owner FROM step GROUP BY owner HAVING count(*) > ?1 ORDER BY owner")?;
                query.query_map([count(steps)], |row| row.get(0).map(Owner::from_number))?.collect()
            })
            .await
    }

    async fn forget(&self, account: AccountId) -> Result<(), EngineError> {
        let owner = Owner::Account(account).number();
        self.database
            .write_sql(move |sql| {
                for table in ["step", "known", "snapshot"] {
                    sql.execute(&format!("DELETE FROM {table} WHERE owner = ?1"), [owner])?;
                }
                Ok(())
            })
            .await
    }

    async fn forget_known(&self, before: UtcMillis, limit: usize) -> Result<usize, EngineError> {
        self.database
            .write_sql(move |sql| {
                sql.execute(
                    "DELETE FROM known WHERE (owner, key) IN
                     (SELECT owner, key FROM known WHERE learned_at < ?1 LIMIT ?2)",
                    (before.0, count(limit)),
                )
            })
            .await
    }
}

fn numbered(row: &Row<'_>) -> rusqlite::Result<Result<Numbered, EngineError>> {
    let packed: Vec<u8> = row.get(7)?;
    let step = Step {
        owner: Owner::from_number(row.get(1)?),
        key: Key(row.get(2)?),
        class: Class::from_number(row.get(3)?),
        version: row.get(4)?,
        amount: row.get(5)?,
        is_new: row.get(6)?,
        numbers: Vec::new(),
    };
    let seq = row.get(0)?;
    Ok(numbers::unpack(&packed).map(|numbers| Numbered { seq, step: Step { numbers, ..step } }))
}

fn known(sql: &Connection, owner: Owner, key: Key) -> rusqlite::Result<Option<Known>> {
    sql.prepare_cached("SELECT class, version, amount FROM known WHERE owner = ?1 AND key = ?2")?
        .query_row((owner.number(), key.0), |row| {
            Ok(Known { class: Class::from_number(row.get(0)?), version: row.get(1)?, amount: row.get(2)? })
        })
        .optional()
}

fn put_known(sql: &Connection, change: &Change, now: UtcMillis) -> rusqlite::Result<()> {
    let (owner, key) = (change.owner.number(), change.key.0);
    match change.is {
        None => sql.prepare_cached("DELETE FROM known WHERE owner = ?1 AND key = ?2")?.execute((owner, key)),
        Some(known) => sql
            .prepare_cached(
                "INSERT OR REPLACE INTO known (owner, key, class, version, amount, learned_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((owner, key, known.class.number(), known.version, known.amount, now.0)),
    }
    .map(drop)
}
