//! What the disk did to the embedded directory's file. PostgreSQL has checksums of its own.

use engine::table::Place;
use engine::{Checked, EngineError, WRONG_CRC};
use rusqlite::{Connection, Result};

use crate::registry::Registry;

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// In words for an operator.
    pub what: String,
    /// File and row.
    pub location: String,
    pub repaired: bool,
}

/// Damages told; a file with more needs its backup, not a longer list.
const DAMAGES_MAX: usize = 1000;

impl Registry {
    /// Looks at every row; with `is_whole`, at the file as such too. With `repair`, rows that do not fit their check are
    /// taken for what they read now.
    pub async fn audit(&self, is_whole: bool, repair: bool) -> std::result::Result<Vec<Damage>, EngineError> {
        let Place::Sqlite(database) = self.place() else { return Ok(Vec::new()) };
        let mut found = database.read(move |sql| look(sql, is_whole)).await?;
        if repair && !found.is_empty() {
            // What a damaged file does not let be written stays as it is, and is told again.
            let _ = database.write_sql(|sql| Checked::all(sql)?.iter().try_for_each(|table| table.accept(sql))).await;
            self.forget();
            let left = database.read(move |sql| look(sql, is_whole)).await?;
            for damage in &mut found {
                damage.repaired = !left.contains(damage);
            }
        }
        Ok(found)
    }
}

fn look(sql: &Connection, is_whole: bool) -> Result<Vec<Damage>> {
    let sql = &sql.unchecked_transaction()?;
    let mut found = Vec::new();
    let file = sql.path().unwrap_or_default().to_owned();
    if is_whole {
        let looked = look_at_file(sql, &file, &mut found);
        contain(looked, &file, &mut found)?;
    }
    let mut tables = Vec::new();
    let listed = Checked::all(sql).map(|all| tables = all);
    contain(listed, &file, &mut found)?;
    for table in &tables {
        let add = |row| {
            found.push(Damage { what: WRONG_CRC.to_owned(), location: format!("{file}: {row}"), repaired: false })
        };
        let looked = table.look(sql, "TRUE", (0, i64::MAX), DAMAGES_MAX, add);
        contain(looked, &format!("{file}: {}", table.name), &mut found)?;
    }
    found.truncate(DAMAGES_MAX);
    Ok(found)
}

fn look_at_file(sql: &Connection, file: &str, found: &mut Vec<Damage>) -> Result<()> {
    let mut integrity = sql.prepare("PRAGMA integrity_check(100)")?;
    for line in integrity.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            found.push(Damage { what: format!("SQLite: {line}"), location: file.to_owned(), repaired: false });
        }
    }
    Ok(())
}

/// Lets an audit go on where the file contradicts itself.
fn contain(outcome: Result<()>, location: &str, found: &mut Vec<Damage>) -> Result<()> {
    match outcome {
        Err(error) if engine::tells_of_damage(&error) => {
            found.push(Damage { what: format!("SQLite: {error}"), location: location.to_owned(), repaired: false });
            Ok(())
        }
        other => other,
    }
}
