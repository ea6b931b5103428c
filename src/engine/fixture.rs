//! Contents of a component's tables in every version of its schema that was ever shipped, for tests.
//!
//! A text of SQL, in sections: `-- version 3, step 1a2b3c4d` begins what a store of version 3 holds beyond one of version 2,
//! in the shape of that version. The number after `step` is a check of the schema's step itself: a step that was shipped is
//! not edited.

use std::path::Path;

use rusqlite::Connection;

use crate::crc::add_row_crc;
use crate::postgres::{Migration, Pool, migrate};

/// One engine's fixture of a component.
#[derive(Debug)]
pub struct Fixture {
    steps: Vec<&'static str>,
    sections: Vec<String>,
}

impl Fixture {
    /// # Panics
    /// If a step of the schema has no section, or is not what it was when its section was written.
    pub fn new(text: &str, steps: impl IntoIterator<Item = &'static str>) -> Self {
        let steps: Vec<&str> = steps.into_iter().collect();
        let mut sections: Vec<String> = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("-- version ") {
                None => sections.last_mut().into_iter().for_each(|section| *section += &format!("{line}\n")),
                Some(head) => {
                    let step = steps.get(sections.len()).copied().unwrap_or_default();
                    let number = sections.len() + 1;
                    let wanted = format!("{number}, step {:08x}", crc32fast::hash(step.as_bytes()));
                    assert_eq!(head, wanted, "a step of the schema that was shipped is not edited; append another one");
                    sections.push(String::new());
                }
            }
        }
        let (known, last) = (sections.len(), steps.len());
        let check = crc32fast::hash(steps.last().copied().unwrap_or_default().as_bytes());
        assert_eq!(
            known, last,
            "the fixture lacks a section: `-- version {last}, step {check:08x}`, with rows of what is new in this version"
        );
        Self { steps, sections }
    }

    pub fn versions(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.steps.len()
    }

    fn rows(&self, version: usize) -> String {
        self.sections.iter().take(version).map(String::as_str).collect()
    }

    /// Makes `file` as that version left it.
    pub fn make_sqlite(&self, file: &Path, version: usize) -> rusqlite::Result<()> {
        let sql = Connection::open(file)?;
        add_row_crc(&sql)?;
        sql.pragma_update(None, "foreign_keys", "ON")?;
        let steps: String = self.steps.iter().take(version).map(|step| format!("{step}\n")).collect();
        sql.execute_batch(&format!("BEGIN;\n{steps}{}PRAGMA user_version = {version};\nCOMMIT;", self.rows(version)))?;
        Ok(())
    }

    /// Makes the tables of `component` as that version left them.
    pub async fn make_postgres(&self, pool: &Pool, component: &str, version: usize) {
        let steps: Vec<Migration> = self.steps.iter().map(|text| Migration { text, oldest: 1 }).collect();
        let steps = steps.get(..version).expect("a version that there was");
        migrate(pool, component, steps).await.expect("the tables are made");
        let sql = pool.begin(false).await.expect("a connection");
        let filled = sql.batch(&self.rows(version)).await;
        sql.end(filled).await.expect("the rows fit the version");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 2] = ["CREATE TABLE t (a);", "CREATE TABLE u (b);"];

    fn text(sections: usize) -> String {
        let section = |(number, step): (usize, &str)| {
            format!(
                "-- version {}, step {:08x}\nINSERT INTO t VALUES ({number});\n",
                number + 1,
                crc32fast::hash(step.as_bytes())
            )
        };
        STEPS.into_iter().take(sections).enumerate().map(section).collect()
    }

    #[test]
    fn each_version_has_its_rows() {
        let fixture = Fixture::new(&text(2), STEPS);
        for version in fixture.versions() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("a.sqlite");
            fixture.make_sqlite(&file, version).unwrap();
            let sql = Connection::open(file).unwrap();
            let found: (usize, usize) = sql
                .query_row("SELECT (SELECT count(*) FROM t), user_version FROM pragma_user_version", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(found, (version, version));
        }
    }

    #[test]
    #[should_panic(expected = "the fixture lacks a section: `-- version 2")]
    fn a_step_without_rows_is_told() {
        Fixture::new(&text(1), STEPS);
    }

    #[test]
    #[should_panic(expected = "is not edited")]
    fn a_step_that_was_edited_is_told() {
        Fixture::new(&text(2), ["CREATE TABLE t (a, b);", STEPS[1]]);
    }
}
