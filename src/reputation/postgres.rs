//! Subjects in PostgreSQL, shared by all nodes.

use std::sync::Arc;

use async_trait::async_trait;
use base::UtcMillis;
use engine::EngineError;
use engine::postgres::{Migration, Pool, value};
use engine::table::Place;

use crate::subject::Subject;
use crate::tables::{Row, Tables};

pub(crate) const COMPONENT: &str = "reputation";
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

    async fn read(&self, subjects: &[Subject]) -> Result<Vec<Row>, EngineError> {
        let text = "SELECT q.nth, s.slot, s.good, s.bad, s.first_at, s.last_at
            FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS q (kind, key, nth)
            JOIN reputation_subject AS s ON s.kind = q.kind AND s.key = q.key";
        let kinds: Vec<i64> = subjects.iter().map(|subject| subject.kind.number()).collect();
        let keys: Vec<&[u8]> = subjects.iter().map(|subject| subject.key.as_slice()).collect();
        let mut out = Vec::new();
        for row in &self.pool.query(text, &[&kinds, &keys]).await? {
            let nth: i64 = value(row, 0)?;
            let at = usize::try_from(nth - 1).ok();
            let Some(subject) = at.and_then(|at| subjects.get(at)) else { continue };
            out.push(Row {
                subject: *subject,
                slot: value(row, 1)?,
                good: value(row, 2)?,
                bad: value(row, 3)?,
                first_at: UtcMillis(value(row, 4)?),
                last_at: UtcMillis(value(row, 5)?),
            });
        }
        Ok(out)
    }

    async fn add(&self, rows: &[Row]) -> Result<(), EngineError> {
        // In one order on all nodes: none waits for one that waits for it.
        let mut rows = rows.to_vec();
        rows.sort_unstable_by_key(|row| (row.subject, row.slot));
        let text = "INSERT INTO reputation_subject AS s (kind, key, slot, good, bad, first_at, last_at)
            SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                $7::bigint[])
            ON CONFLICT (kind, key, slot) DO UPDATE SET good = s.good + excluded.good, bad = s.bad + excluded.bad,
                first_at = least(s.first_at, excluded.first_at), last_at = greatest(s.last_at, excluded.last_at)";
        let keys: Vec<&[u8]> = rows.iter().map(|row| row.subject.key.as_slice()).collect();
        let of = |number: fn(&Row) -> i64| rows.iter().map(number).collect::<Vec<i64>>();
        let (kinds, slots) = (of(|row| row.subject.kind.number()), of(|row| row.slot));
        let (good, bad) = (of(|row| row.good), of(|row| row.bad));
        let (first, last) = (of(|row| row.first_at.0), of(|row| row.last_at.0));
        let sql = self.pool.session().await?;
        sql.execute(text, &[&kinds, &keys, &slots, &good, &bad, &first, &last]).await?;
        sql.give_back();
        Ok(())
    }

    async fn remove(&self, subjects: &[Subject]) -> Result<(), EngineError> {
        let text = "DELETE FROM reputation_subject WHERE (kind, key) IN
            (SELECT * FROM unnest($1::bigint[], $2::bytea[]))";
        let kinds: Vec<i64> = subjects.iter().map(|subject| subject.kind.number()).collect();
        let keys: Vec<&[u8]> = subjects.iter().map(|subject| subject.key.as_slice()).collect();
        let sql = self.pool.session().await?;
        sql.execute(text, &[&kinds, &keys]).await?;
        sql.give_back();
        Ok(())
    }

    async fn forget(&self, kind: i64, before: i64, limit: usize) -> Result<usize, EngineError> {
        let text = "DELETE FROM reputation_subject WHERE (kind, key, slot) IN
            (SELECT kind, key, slot FROM reputation_subject WHERE kind = $1 AND slot < $2 LIMIT $3)";
        let sql = self.pool.session().await?;
        let gone = sql.execute(text, &[&kind, &before, &i64::try_from(limit).unwrap_or(i64::MAX)]).await?;
        sql.give_back();
        Ok(usize::try_from(gone).unwrap_or(usize::MAX))
    }
}
