//! Lessons in PostgreSQL, shared by all nodes.

use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, UtcMillis};
use engine::EngineError;
use engine::postgres::{Migration, Pool, Row, Session, value};
use engine::table::Place;

use crate::lesson::{Class, Key, Known, Owner, Step};
use crate::numbers;
use crate::tables::{Change, Numbered, Stand, Tables, count};

pub(crate) const COMPONENT: &str = "classifier";
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { text: include_str!("postgres-1.sql"), oldest: 1 }];

pub(crate) struct PgTables {
    pool: Arc<Pool>,
}

impl PgTables {
    pub(crate) async fn open(pool: Arc<Pool>) -> Result<Self, EngineError> {
        engine::postgres::migrate(&pool, COMPONENT, MIGRATIONS).await?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl Tables for PgTables {
    fn place(&self) -> Place {
        Place::Postgres(Arc::clone(&self.pool))
    }

    async fn stand(&self) -> Result<Stand, EngineError> {
        let text = "SELECT last, coalesce((SELECT seq FROM classifier_snapshot WHERE owner = 0), 0)
            FROM classifier_state";
        let rows = self.pool.query(text, &[]).await?;
        let row = rows.first().ok_or_else(|| EngineError::damaged("classifier_state is empty"))?;
        Ok(Stand { last: value(row, 0)?, snapshot: value(row, 1)? })
    }

    async fn since(&self, owner: Option<Owner>, seq: i64, limit: usize) -> Result<Vec<Numbered>, EngineError> {
        let limit = count(limit);
        let rows = match owner {
            None => {
                let text = "SELECT seq, owner, key, class, version, amount, is_new, numbers FROM classifier_step
                    WHERE seq > $1 ORDER BY seq LIMIT $2";
                self.pool.query(text, &[&seq, &limit]).await?
            }
            Some(owner) => {
                let text = "SELECT seq, owner, key, class, version, amount, is_new, numbers FROM classifier_step
                    WHERE seq > $1 AND owner = $2 ORDER BY seq LIMIT $3";
                self.pool.query(text, &[&seq, &owner.number(), &limit]).await?
            }
        };
        rows.iter().map(numbered).collect()
    }

    async fn known(&self, owner: Owner, key: Key) -> Result<Option<Known>, EngineError> {
        let text = "SELECT class, version, amount FROM classifier_known WHERE owner = $1 AND key = $2";
        let rows = self.pool.query(text, &[&owner.number(), &key.0.as_slice()]).await?;
        rows.first().map(|row| known(row, 0)).transpose()
    }

    async fn add(&self, steps: Vec<Step>, changes: Vec<Change>, now: UtcMillis) -> Result<bool, EngineError> {
        let sql = self.pool.begin(false).await?;
        // Nothing is written before all changes are looked at.
        let done = add(&sql, &steps, &changes, now).await;
        sql.end(done).await
    }

    async fn snapshot(&self, owner: Owner) -> Result<Option<(i64, Vec<u8>)>, EngineError> {
        let text = "SELECT seq, weights FROM classifier_snapshot WHERE owner = $1";
        let rows = self.pool.query(text, &[&owner.number()]).await?;
        rows.first().map(|row| Ok((value(row, 0)?, value(row, 1)?))).transpose()
    }

    async fn put_snapshot(&self, owner: Owner, seq: i64, weights: Vec<u8>) -> Result<(), EngineError> {
        let sql = self.pool.begin(false).await?;
        let done = async {
            let text = "INSERT INTO classifier_snapshot AS s (owner, seq, weights) VALUES ($1, $2, $3)
                ON CONFLICT (owner) DO UPDATE SET seq = excluded.seq, weights = excluded.weights
                WHERE excluded.seq > s.seq";
            sql.execute(text, &[&owner.number(), &seq, &weights]).await?;
            let text = "DELETE FROM classifier_step WHERE owner = $1 AND seq <= $2";
            sql.execute(text, &[&owner.number(), &seq]).await?;
            Ok(())
        };
        let done: Result<(), EngineError> = done.await;
        sql.end(done).await
    }

    async fn teachers(&self) -> Result<Vec<AccountId>, EngineError> {
        let text = "SELECT owner FROM classifier_snapshot WHERE owner > 0
            UNION SELECT owner FROM classifier_step WHERE owner > 0";
        let rows = self.pool.query(text, &[]).await?;
        rows.iter().map(|row| small::<u64>(value(row, 0)?).map(AccountId)).collect()
    }

    async fn owners_above(&self, steps: usize) -> Result<Vec<Owner>, EngineError> {
        let text = "SELECT owner FROM classifier_step GROUP BY owner HAVING count(*) > $1 ORDER BY owner";
        let rows = self.pool.query(text, &[&count(steps)]).await?;
        rows.iter().map(|row| value(row, 0).map(Owner::from_number)).collect()
    }

    async fn forget(&self, account: AccountId) -> Result<(), EngineError> {
        let sql = self.pool.begin(false).await?;
        let owner = Owner::Account(account).number();
        let done = async {
            for table in ["classifier_step", "classifier_known", "classifier_snapshot"] {
                sql.execute(&format!("DELETE FROM {table} WHERE owner = $1"), &[&owner]).await?;
            }
            Ok(())
        };
        let done: Result<(), EngineError> = done.await;
        sql.end(done).await
    }

    async fn forget_known(&self, before: UtcMillis, limit: usize) -> Result<usize, EngineError> {
        let text = "DELETE FROM classifier_known WHERE (owner, key) IN
            (SELECT owner, key FROM classifier_known WHERE learned_at < $1 LIMIT $2)";
        let sql = self.pool.session().await?;
        let gone = sql.execute(text, &[&before.0, &count(limit)]).await?;
        sql.give_back();
        Ok(usize::try_from(gone).unwrap_or(usize::MAX))
    }
}

async fn add(sql: &Session, steps: &[Step], changes: &[Change], now: UtcMillis) -> Result<bool, EngineError> {
    // Its lock: others wait, and read what this one has written.
    let row = sql.row("SELECT last FROM classifier_state FOR UPDATE", &[]).await?;
    let last: i64 = value(&row, 0)?;
    for change in changes {
        let text = "SELECT class, version, amount FROM classifier_known WHERE owner = $1 AND key = $2";
        let found = sql.row_opt(text, &[&change.owner.number(), &change.key.0.as_slice()]).await?;
        if found.map(|row| known(&row, 0)).transpose()? != change.was {
            return Ok(false);
        }
    }
    sql.execute("UPDATE classifier_state SET last = last + $1", &[&count(steps.len())]).await?;
    for (seq, step) in (last + 1..).zip(steps) {
        let text = "INSERT INTO classifier_step (seq, owner, key, class, version, amount, is_new, numbers)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let packed = numbers::pack(&step.numbers);
        let (owner, class) = (step.owner.number(), step.class.number());
        let (version, amount) = (i64::from(step.version), i64::from(step.amount));
        sql.execute(text, &[&seq, &owner, &step.key.0.as_slice(), &class, &version, &amount, &step.is_new, &packed])
            .await?;
    }
    for change in changes {
        let (owner, key) = (change.owner.number(), change.key.0.as_slice());
        match change.is {
            None => {
                let text = "DELETE FROM classifier_known WHERE owner = $1 AND key = $2";
                sql.execute(text, &[&owner, &key]).await?;
            }
            Some(known) => {
                let text = "INSERT INTO classifier_known (owner, key, class, version, amount, learned_at)
                    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (owner, key) DO UPDATE
                    SET class = $3, version = $4, amount = $5, learned_at = $6";
                let (version, amount) = (i64::from(known.version), i64::from(known.amount));
                sql.execute(text, &[&owner, &key, &known.class.number(), &version, &amount, &now.0]).await?;
            }
        }
    }
    Ok(true)
}

fn numbered(row: &Row) -> Result<Numbered, EngineError> {
    let packed: Vec<u8> = value(row, 7)?;
    let step = Step {
        owner: Owner::from_number(value(row, 1)?),
        key: Key(octets(value(row, 2)?)?),
        class: Class::from_number(value(row, 3)?),
        version: small(value(row, 4)?)?,
        amount: small(value(row, 5)?)?,
        is_new: value(row, 6)?,
        numbers: numbers::unpack(&packed)?,
    };
    Ok(Numbered { seq: value(row, 0)?, step })
}

fn known(row: &Row, at: usize) -> Result<Known, EngineError> {
    Ok(Known {
        class: Class::from_number(value(row, at)?),
        version: small(value(row, at + 1)?)?,
        amount: small(value(row, at + 2)?)?,
    })
}

fn octets(raw: Vec<u8>) -> Result<[u8; 16], EngineError> {
    raw.try_into().map_err(|_| EngineError::damaged("a lesson's key is not of 16 octets"))
}

fn small<T: TryFrom<i64>>(number: i64) -> Result<T, EngineError> {
    T::try_from(number).map_err(|_| EngineError::damaged("a number of the classifier is out of range"))
}
