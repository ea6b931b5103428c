//! The rows of both engines, described once.

use engine::postgres::Migration;
use engine::table::Kind::{Bytes, Int, Text};
use engine::table::{Kind, Table};

pub(crate) const COMPONENT: &str = "peers";
pub(crate) const SQLITE: &[&str] = &[include_str!("sqlite-1.sql")];
pub(crate) const POSTGRES: &[Migration] = &[Migration { text: include_str!("postgres-1.sql"), oldest: 1 }];

type Columns = &'static [(&'static str, Kind)];

const STS_POLICY: Columns =
    &[("domain", Text), ("policy_id", Text), ("text", Text), ("fetched_at", Int), ("expires_at", Int)];
const SEEN: Columns =
    &[("day", Int), ("kind", Text), ("domain", Text), ("key", Bytes), ("facts", Text), ("count", Int)];
const SENT: Columns = &[("day", Int), ("kind", Text), ("domain", Text), ("sent_at", Int)];
const RECEIVED: Columns = &[
    ("domain", Text),
    ("kind", Text),
    ("begin_at", Int),
    ("id", Bytes),
    ("submitter", Text),
    ("end_at", Int),
    ("received_at", Int),
    ("report", Text),
];

pub(crate) fn all() -> [Table; 4] {
    [
        Table::plain("sts_policy", ("sts_policy", "peers_sts_policy"), STS_POLICY, 1, false),
        Table::plain("seen", ("seen", "peers_seen"), SEEN, 4, true),
        Table::plain("sent", ("sent", "peers_sent"), SENT, 3, true),
        Table::plain("received", ("received", "peers_received"), RECEIVED, 4, false),
    ]
}

/// A table whose rows replace those that have their key.
fn replacing(mut table: Table) -> Table {
    let key: Vec<&str> = table.columns.iter().take(table.key).map(|(name, _)| *name).collect();
    let rest = table.columns.iter().skip(table.key);
    let set: Vec<String> = rest.map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    let conflict = format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), set.join(", "));
    for insert in table.sqlite.insert.iter_mut().chain(&mut table.postgres.insert) {
        insert.push_str(&conflict);
    }
    table
}

pub(crate) fn sts_policy() -> Table {
    let [table, ..] = all();
    replacing(table)
}

/// Its rows add to those that have their key.
pub(crate) fn seen() -> Table {
    let [_, mut table, ..] = all();
    let conflict = " ON CONFLICT (day, kind, domain, key) DO UPDATE SET count =";
    table.sqlite.insert.iter_mut().for_each(|text| *text += &format!("{conflict} count + excluded.count"));
    let of_server = &mut table.postgres.insert;
    of_server.iter_mut().for_each(|text| *text += &format!("{conflict} peers_seen.count + excluded.count"));
    table
}

pub(crate) fn sent() -> Table {
    let [_, _, table, _] = all();
    replacing(table)
}

pub(crate) fn received() -> Table {
    let [_, _, _, table] = all();
    replacing(table)
}
