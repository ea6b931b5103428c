//! Numbers that all nodes count together: failed sign-ins of a network, messages of an account. Each node counts at once
//! what it sees itself, and knows what the others saw within about a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, UtcMillis, event};
use engine::EngineError;
use engine::postgres::{Pool, value};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What is counted, over a window that slides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Counted {
    /// As nodes of all releases call it.
    pub name: &'static str,
    pub window: Duration,
}

impl Counted {
    pub const LOGIN_FAILURES: Self = Self { name: "login-failure", window: Duration::from_secs(15 * 60) };
    const ALL: [Self; 1] = [Self::LOGIN_FAILURES];

    fn millis(self) -> i64 {
        i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    fn slot(self, now: UtcMillis) -> i64 {
        now.0.div_euclid(self.millis())
    }
}

/// So often nodes tell each other.
const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
/// So often what is over is forgotten on the server.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// Of others' changes, those of so long before the last exchange are asked for again: a change shows when it is committed.
const OVERLAP: Duration = Duration::from_secs(10);
/// Numbers known at once; beyond, new ones are not counted.
const CELLS_MAX: usize = 200_000;

/// A number in one slot of time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct CellKey {
    pub kind: &'static str,
    pub key: String,
    pub slot: i64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Cell {
    /// Of all nodes, as last heard.
    known: u64,
    /// Told, and not yet heard of.
    sent: u64,
    /// Not yet told.
    pending: u64,
}

/// What this node knows; without I/O.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    cells: HashMap<CellKey, Cell>,
}

impl Tally {
    pub(crate) fn add(&mut self, counted: Counted, key: &str, now: UtcMillis) {
        let key = CellKey { kind: counted.name, key: key.to_owned(), slot: counted.slot(now) };
        let has_room = self.cells.len() < CELLS_MAX;
        match self.cells.get_mut(&key) {
            Some(cell) => cell.pending += 1,
            None if has_room => drop(self.cells.insert(key, Cell { pending: 1, ..Cell::default() })),
            None => metrics::counter!("ortler_cluster_uncounted_total").increment(1),
        }
    }

    /// How many within the window that ends now: of the slot before, the share that the window still holds.
    pub(crate) fn count(&self, counted: Counted, key: &str, now: UtcMillis) -> u64 {
        let slot = counted.slot(now);
        let of = |slot| {
            let cell = self.cells.get(&CellKey { kind: counted.name, key: key.to_owned(), slot });
            cell.map_or(0, |cell| cell.known + cell.sent + cell.pending)
        };
        let left = u64::try_from(counted.millis() - now.0.rem_euclid(counted.millis())).unwrap_or(0);
        of(slot) + of(slot - 1) * left / u64::try_from(counted.millis()).unwrap_or(1)
    }

    /// What is to be told, in one order on all nodes. What was told before and not heard of is told again.
    pub(crate) fn send(&mut self) -> Vec<(CellKey, u64)> {
        let mut adds = Vec::new();
        for (key, cell) in &mut self.cells {
            cell.sent += std::mem::take(&mut cell.pending);
            if cell.sent > 0 {
                adds.push((key.clone(), cell.sent));
            }
        }
        adds.sort_unstable();
        adds
    }

    /// What was sent is counted in `sums`, or in what was known before.
    pub(crate) fn absorb(&mut self, sent: &[(CellKey, u64)], sums: Vec<(CellKey, u64)>) {
        for (key, count) in sent {
            if let Some(cell) = self.cells.get_mut(key) {
                cell.sent = cell.sent.saturating_sub(*count);
            }
        }
        for (key, count) in sums {
            if self.cells.len() < CELLS_MAX || self.cells.contains_key(&key) {
                let cell = self.cells.entry(key).or_default();
                // A server that lost its numbers does not make ours smaller.
                cell.known = cell.known.max(count);
            }
        }
    }

    pub(crate) fn forget_old(&mut self, now: UtcMillis) {
        self.cells.retain(|key, _| {
            let counted = Counted::ALL.into_iter().find(|counted| counted.name == key.kind);
            counted.is_some_and(|counted| key.slot >= counted.slot(now) - 1)
        });
    }
}

/// What the server says.
pub(crate) struct Exchanged {
    /// By its clock.
    pub now: UtcMillis,
    /// Numbers that changed, of all nodes together.
    pub sums: Vec<(CellKey, u64)>,
}

/// Where nodes meet.
#[async_trait]
pub(crate) trait Sums: Send + Sync {
    /// Adds, and gives what was changed by anybody since then.
    async fn exchange(&self, adds: &[(CellKey, u64)], since: UtcMillis) -> Result<Exchanged, EngineError>;
    async fn tidy(&self) -> Result<(), EngineError>;
}

/// This node's part in counting.
pub struct Counters {
    tally: Mutex<Tally>,
    sums: Box<dyn Sums>,
    clock: Arc<dyn Clock>,
    /// Milliseconds by which the server's clock is ahead of ours: slots are by the server's.
    ahead: AtomicI64,
}

impl Counters {
    /// Together with the other nodes on the server; see [`crate::open`].
    pub fn on(pool: Arc<Pool>, clock: Arc<dyn Clock>) -> Self {
        Self::with(Box::new(PgSums { pool }), clock)
    }

    pub(crate) fn with(sums: Box<dyn Sums>, clock: Arc<dyn Clock>) -> Self {
        Self { tally: Mutex::default(), sums, clock, ahead: AtomicI64::new(0) }
    }

    fn now(&self) -> UtcMillis {
        UtcMillis(self.clock.utc().0.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    pub fn add(&self, counted: Counted, key: &str) {
        self.tally.lock().add(counted, key, self.now());
    }

    /// How many within the window, by all nodes.
    pub fn count(&self, counted: Counted, key: &str) -> u64 {
        self.tally.lock().count(counted, key, self.now())
    }

    /// Tells the others and hears of them until `stop`. While the server is away, each node counts what it sees.
    pub async fn run(&self, stop: CancellationToken) {
        let (mut since, mut was_lost) = (UtcMillis(0), false);
        let mut tidied_at = self.clock.now();
        while tokio::time::timeout(EXCHANGE_EVERY, stop.cancelled()).await.is_err() {
            match self.exchange(since).await {
                Ok(now) => (since, was_lost) = (now.minus(OVERLAP), false),
                Err(error) if !was_lost => {
                    was_lost = true;
                    tracing::warn!(event = event::CLUSTER_LOST, what = "counters", %error);
                }
                Err(_) => {}
            }
            if self.clock.now().duration_since(tidied_at) >= TIDY_EVERY && self.sums.tidy().await.is_ok() {
                tidied_at = self.clock.now();
            }
        }
        // What this node saw last counts for the others.
        let _ = self.exchange(since).await;
    }

    async fn exchange(&self, since: UtcMillis) -> Result<UtcMillis, EngineError> {
        let adds = self.tally.lock().send();
        let before = self.clock.utc();
        let Exchanged { now, sums } = self.sums.exchange(&adds, since).await?;
        let mut tally = self.tally.lock();
        tally.absorb(&adds, sums);
        self.ahead.store(now.0.saturating_sub(before.0), Ordering::Relaxed);
        tally.forget_old(now);
        Ok(now)
    }
}

pub(crate) struct PgSums {
    pub(crate) pool: Arc<Pool>,
}

#[async_trait]
impl Sums for PgSums {
    async fn exchange(&self, adds: &[(CellKey, u64)], since: UtcMillis) -> Result<Exchanged, EngineError> {
        let text = "WITH own AS (
                 INSERT INTO cluster_counter AS c (kind, key, slot, count)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
                 ON CONFLICT (kind, key, slot) DO UPDATE
                     SET count = c.count + excluded.count, changed_at = clock_timestamp()
                 RETURNING kind, key, slot, count
             ), moment AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now)
             SELECT now, kind, key, slot, count FROM moment LEFT JOIN (
                 SELECT kind, key, slot, count FROM own
                 UNION ALL SELECT kind, key, slot, count FROM cluster_counter
                     WHERE changed_at > to_timestamp($5::float8 / 1000)
             ) AS c ON true";
        let kinds: Vec<&str> = adds.iter().map(|(key, _)| key.kind).collect();
        let keys: Vec<&str> = adds.iter().map(|(key, _)| key.key.as_str()).collect();
        let slots: Vec<i64> = adds.iter().map(|(key, _)| key.slot).collect();
        let counts: Vec<i64> = adds.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX)).collect();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit")]
        let since = since.0 as f64;
        let sql = self.pool.session().await?;
        let rows = sql.rows(text, &[&kinds, &keys, &slots, &counts, &since]).await?;
        sql.give_back();
        let mut found = Exchanged { now: UtcMillis(0), sums: Vec::with_capacity(rows.len()) };
        for row in &rows {
            found.now = UtcMillis(value(row, 0)?);
            let kind: Option<&str> = value(row, 1)?;
            // What only another release counts is passed over.
            let Some(counted) = Counted::ALL.into_iter().find(|counted| Some(counted.name) == kind) else { continue };
            let key = CellKey { kind: counted.name, key: value(row, 2)?, slot: value(row, 3)? };
            found.sums.push((key, u64::try_from(value::<i64>(row, 4)?).unwrap_or(0)));
        }
        Ok(found)
    }

    async fn tidy(&self) -> Result<(), EngineError> {
        let sql = self.pool.session().await?;
        // The longest window is shorter than half of it.
        sql.execute("DELETE FROM cluster_counter WHERE changed_at < clock_timestamp() - interval '1 day'", &[]).await?;
        sql.give_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Counted = Counted { name: "login-failure", window: Duration::from_secs(10) };

    #[test]
    fn a_window_slides() {
        let (mut tally, at) = (Tally::default(), |millis: i64| UtcMillis(1_000_000 + millis));
        (0..100).for_each(|_| tally.add(FEW, "a", at(0)));
        tally.add(FEW, "b", at(0));
        assert_eq!(
            (tally.count(FEW, "a", at(0)), tally.count(FEW, "b", at(9_999)), tally.count(FEW, "c", at(0))),
            (100, 1, 0)
        );
        tally.add(FEW, "a", at(10_000));
        assert_eq!(tally.count(FEW, "a", at(10_000)), 101);
        assert_eq!(tally.count(FEW, "a", at(15_000)), 51);
        assert_eq!(tally.count(FEW, "a", at(19_999)), 1);
        assert_eq!(tally.count(FEW, "a", at(20_000)), 1);
        assert_eq!(tally.count(FEW, "a", at(30_000)), 0);
    }

    #[test]
    fn what_is_sent_counts_once_and_what_others_saw_too() {
        let (mut tally, now) = (Tally::default(), UtcMillis(1_000_000));
        let cell = |count| (CellKey { kind: FEW.name, key: "a".to_owned(), slot: 100 }, count);
        (0..3).for_each(|_| tally.add(FEW, "a", now));
        let sent = tally.send();
        assert_eq!(sent, [cell(3)]);
        tally.add(FEW, "a", now);
        assert_eq!(tally.count(FEW, "a", now), 4);
        // No answer came: it is told again, with what came since.
        let sent = tally.send();
        assert_eq!(sent, [cell(4)]);
        tally.add(FEW, "a", now);
        tally.absorb(&sent, vec![cell(14)]);
        assert_eq!((tally.count(FEW, "a", now), tally.send()), (15, vec![cell(1)]));
        // A server that lost everything.
        tally.absorb(&[cell(1)], vec![cell(1)]);
        assert_eq!((tally.count(FEW, "a", now), tally.send()), (14, vec![]));
        // Bounded, whatever comes.
        for n in 0..CELLS_MAX + 10 {
            tally.add(FEW, &n.to_string(), now);
        }
        assert_eq!((tally.cells.len(), tally.count(FEW, "a", now)), (CELLS_MAX, 14));
    }
}
