//! Moves all policies from one installation to another, as a whole, in one transaction.

use engine::EngineError;
use engine::table::Kind::{Int, Text};
use engine::table::{Between, Kind, Table, all_differences};

use crate::layers::Layers;

type Columns = &'static [(&'static str, Kind)];

const LAYER: Columns =
    &[("level", Text), ("owner", Int), ("text", Text), ("version", Int), ("changed_at", Int), ("changed_by", Text)];
const CHANGE: Columns = &[
    ("id", Int),
    ("level", Text),
    ("owner", Int),
    ("changed_at", Int),
    ("changed_by", Text),
    ("note", Text),
    ("what", Text),
];
const PLAN: Columns = &[
    ("id", Int),
    ("level", Text),
    ("owner", Int),
    ("due_at", Int),
    ("planned_at", Int),
    ("planned_by", Text),
    ("note", Text),
    ("what", Text),
];
const ENTRY: Columns = &[
    ("id", Int),
    ("level", Text),
    ("owner", Int),
    ("word", Text),
    ("who", Text),
    ("unproven", Int),
    ("skips", Text),
    ("note", Text),
    ("until", Int),
    ("added_at", Int),
    ("added_by", Text),
    ("hit_at", Int),
];

fn tables() -> [Table; 4] {
    let same = |name, columns, key| Table::plain(name, (name, name), columns, key, false);
    [
        same("policy_layer", LAYER, 2),
        same("policy_change", CHANGE, 1),
        same("policy_plan", PLAN, 1),
        same("sender_entry", ENTRY, 1),
    ]
}

/// Tables whose rows are numbered.
const NUMBERED: [&str; 3] = ["policy_change", "policy_plan", "sender_entry"];

impl Layers {
    /// Makes the policies in `to` what they are here; gives whether something was written. Whatever the error, `to` is as it
    /// was. Nobody may change either meanwhile.
    pub async fn copy_to(&self, to: &Self) -> Result<bool, EngineError> {
        if self.compare_with(to).await?.is_empty() {
            return Ok(false);
        }
        let mut change = to.place.begin().await?;
        change.replace_all(&tables(), &self.place).await?;
        for name in NUMBERED {
            // The embedded engine counts on from the highest by itself.
            let text = format!(
                "SELECT setval(pg_get_serial_sequence('{name}', 'id'), coalesce((SELECT max(id) FROM {name}), 0) + 1, false)"
            );
            change.run("", &text).await?;
        }
        let counted = "UPDATE policy_version SET changes = changes + 1";
        change.run(counted, counted).await?;
        change.commit().await?;
        to.forget();
        Ok(true)
    }

    /// Where the policies in `to` differ, in words.
    pub async fn compare_with(&self, to: &Self) -> Result<Vec<String>, EngineError> {
        let between = Between { from: &self.place, to: &to.place, owner: None };
        all_differences(between, &tables(), "policy").await
    }
}
