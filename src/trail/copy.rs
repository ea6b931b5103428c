//! Moves the log from one installation to another, day by day. Events keep their numbers. Counters are not copied: they
//! are counted again from who was concerned.

use engine::EngineError;
use engine::table::Kind::{Bool, Bytes, Int, Small, Text};
use engine::table::{Between, DIFFERENCES_MAX, Kind, Place, Row, Table, Value, differences, sync};
use jiff::civil::{Date, date};

use crate::trail::{Trail, TrailError};

/// What a copy of the log did.
#[derive(Clone, Default, Debug)]
pub struct TrailCopy {
    pub days: u64,
    /// Equal on both sides before.
    pub days_skipped: u64,
    pub events: u64,
    /// What is not the same on both sides, the first hundred.
    pub differences: Vec<String>,
}

type Columns = &'static [(&'static str, Kind)];

const EVENT: Columns = &[
    ("seq", Int),
    ("at", Int),
    ("session", Bytes),
    ("message", Bytes),
    ("kind", Text),
    ("party", Text),
    ("account", Int),
    ("is_recipient", Bool),
    ("outcome", Small),
    ("fields", Text),
];

/// When it was made is in its id.
const MESSAGE: Columns = &[
    ("id", Bytes),
    ("seq", Int),
    ("reverse_path", Text),
    ("subject", Text),
    ("size_bytes", Int),
    ("score", Int),
    ("client", Text),
    ("reason", Text),
    ("took_ms", Int),
    ("outcome", Small),
];

const PARTY: Columns = &[
    ("message", Bytes),
    ("is_recipient", Bool),
    ("address", Text),
    ("domain", Text),
    ("account", Int),
    ("outcome", Small),
    ("counted", Int),
    ("mailbox", Text),
    ("reason", Text),
];

/// Days since 1970 in UTC.
fn number_of(day: Date) -> i64 {
    day.duration_since(date(1970, 1, 1)).as_hours().div_euclid(24)
}

fn partition(table: &str, day: Date) -> String {
    format!("trail_{table}_{}", day.strftime("%Y%m%d"))
}

/// Rows of a day, in its file or its partitions.
pub(crate) fn tables(day: Date) -> [Table; 3] {
    let table = |name, columns, key| Table::plain(name, (name, &partition(name, day)), columns, key, false);
    let (mut event, mut message) = (table("event", EVENT, 1), table("message", MESSAGE, 1));
    let (list, to, number) = (event.list(), &event.postgres.from, number_of(day));
    event.postgres.insert = vec![format!("INSERT INTO {to} (day, {list}) SELECT {number}, {list} FROM n")];
    // The first six octets are milliseconds since 1970.
    let digits: Vec<String> = (1..=12)
        .map(|nth| {
            let digit = format!("instr('0123456789ABCDEF', substr(hex(?1), {nth}, 1)) - 1");
            format!("(({digit}) << {})", 4 * (12 - nth))
        })
        .collect();
    let marks: Vec<String> = (1..=MESSAGE.len()).map(|nth| format!("?{nth}")).collect();
    message.sqlite.insert = vec![format!(
        "INSERT INTO message ({}, at) VALUES ({}, {})",
        message.list(),
        marks.join(", "),
        digits.join(" + ")
    )];
    [event, message, table("party", PARTY, 3)]
}

/// Who counts when: the outcome of each recipient, in its domain and in all together.
const COUNTED: &str = "is_recipient AND outcome IS NOT NULL AND counted IS NOT NULL";

/// A file has the counters of its own messages.
fn count_sqlite() -> String {
    format!(
        "INSERT INTO minute (domain, minute, outcome, count) SELECT name, counted, outcome, count(*) FROM (
             SELECT domain AS name, counted, outcome FROM party WHERE {COUNTED}
             UNION ALL SELECT '', counted, outcome FROM party WHERE {COUNTED}) GROUP BY name, counted, outcome"
    )
}

/// A partition has its own minutes, whenever the messages were made: on that day or, around midnight, on the day before.
fn count_postgres(day: Date) -> String {
    let (to, from, below) = (partition("minute", day), number_of(day) * 1440, (number_of(day) + 1) * 1440);
    let of = |day: Date| {
        format!(
            "SELECT domain, counted, outcome FROM {} WHERE {COUNTED} AND counted >= {from} AND counted < {below}",
            partition("party", day)
        )
    };
    let before = day.yesterday().map(|day| format!("UNION ALL {}", of(day))).unwrap_or_default();
    format!(
        "DELETE FROM {to}; INSERT INTO {to} (domain, minute, outcome, count)
         SELECT names.name, p.counted, p.outcome, count(*) FROM ({} {before}) AS p
         CROSS JOIN LATERAL (VALUES (p.domain), ('')) AS names (name) GROUP BY names.name, p.counted, p.outcome",
        of(day)
    )
}

/// Whether a day has changed: whatever changes its rows is an event. The number of events, and the last one.
async fn state(place: &Place, tables: &[Table; 3]) -> Result<(Row, i64, i64), EngineError> {
    let name = |table: &Table| match place {
        Place::Sqlite(_) => table.sqlite.from.clone(),
        Place::Postgres(_) => table.postgres.from.clone(),
    };
    let [event, message, party] = tables;
    let text = format!(
        "SELECT (SELECT count(*) FROM {0}), (SELECT coalesce(max(seq), 0) FROM {0}), (SELECT count(*) FROM {1}),
         (SELECT count(*) FROM {2})",
        name(event),
        name(message),
        name(party)
    );
    let row = place.ask(&text, &[Int; 4]).await?.pop().unwrap_or_default();
    let number = |at| if let Some(Value::Int(number)) = row.get(at) { *number } else { 0 };
    let (count, last) = (number(0), number(1));
    Ok((row, count, last))
}

impl Trail {
    /// Makes the days in `to` what they are here, and compares what was written. Days that are only there stay. Nobody may
    /// use either meanwhile.
    pub async fn copy_to(&self, to: &Self) -> Result<TrailCopy, TrailError> {
        let mut report = TrailCopy::default();
        let (mut last, mut changed) = (self.store.last_seq().await?, std::collections::BTreeSet::new());
        for day in self.store.days().await? {
            let tables = tables(day);
            let from = self.store.place_of(day).await?;
            let (is, count, newest) = state(&from, &tables).await?;
            last = last.max(u64::try_from(newest).unwrap_or(0));
            if count == 0 {
                continue;
            }
            let place = to.store.place_of(day).await?;
            let between = Between { from: &from, to: &place, owner: None };
            report.events += u64::try_from(count).unwrap_or(0);
            if state(&place, &tables).await?.0 == is {
                report.days_skipped += 1;
                continue;
            }
            let mut change = place.begin().await?;
            for table in &tables {
                sync(between, table, &mut change).await?;
            }
            change.run("DELETE FROM minute", "").await?;
            change.run(&count_sqlite(), "").await?;
            change.commit().await?;
            compare(day, between, &tables, &mut report).await?;
            if matches!(place, Place::Postgres(_)) {
                changed.extend([Some(day), day.tomorrow().ok()].into_iter().flatten());
            }
            report.days += 1;
        }
        for day in changed {
            if let Ok(before) = day.yesterday() {
                to.store.place_of(before).await?;
            }
            let mut change = to.store.place_of(day).await?.begin().await?;
            change.run("", &count_postgres(day)).await?;
            change.commit().await?;
        }
        to.store.go_on_after(last).await?;
        Ok(report)
    }

    /// Compares the days that are here with those in `to`.
    pub async fn compare_with(&self, to: &Self) -> Result<TrailCopy, TrailError> {
        let mut report = TrailCopy::default();
        let there = to.store.days().await?;
        for day in self.store.days().await? {
            let tables = tables(day);
            let from = self.store.place_of(day).await?;
            let (_, count, _) = state(&from, &tables).await?;
            if count == 0 {
                continue;
            }
            report.days += 1;
            report.events += u64::try_from(count).unwrap_or(0);
            if !there.contains(&day) {
                report.differences.push(format!("log of {day}: is missing"));
                continue;
            }
            let place = to.store.place_of(day).await?;
            compare(day, Between { from: &from, to: &place, owner: None }, &tables, &mut report).await?;
        }
        Ok(report)
    }
}

async fn compare(
    day: Date,
    between: Between<'_>,
    tables: &[Table; 3],
    report: &mut TrailCopy,
) -> Result<(), EngineError> {
    for table in tables {
        let left = DIFFERENCES_MAX.saturating_sub(report.differences.len());
        let found = differences(between, table, left).await?;
        report.differences.extend(found.into_iter().map(|what| format!("log of {day}, {what}")));
    }
    Ok(())
}
