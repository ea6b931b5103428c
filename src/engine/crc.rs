//! The check that a row can carry, in a stored generated column: SQLite makes it whenever it writes the row.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Result, Row};

use crate::error::tells_of_damage;

/// What is wrong with a row whose check does not fit.
pub const WRONG_CRC: &str = "the disk changed the row: its check does not fit; a repair keeps it as it reads now";

/// Lets a connection use `row_crc(...)` in its schema and statements: the CRC-32 of its arguments, their types and lengths.
/// [`crate::Database`] does this for its own connections.
pub fn add_row_crc(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("row_crc", -1, flags, |row| {
        let mut crc = crc32fast::Hasher::new();
        for nth in 0..row.len() {
            match row.get_raw(nth) {
                ValueRef::Null => crc.update(b"n"),
                ValueRef::Integer(number) => add(&mut crc, b'i', &number.to_le_bytes()),
                ValueRef::Real(number) => add(&mut crc, b'r', &number.to_le_bytes()),
                ValueRef::Text(text) => add(&mut crc, b't', text),
                ValueRef::Blob(bytes) => add(&mut crc, b'b', bytes),
            }
        }
        Ok(i64::from(crc.finalize()))
    })
}

/// A table whose rows carry a check, in a column `crc`.
pub struct Checked {
    pub name: String,
    /// Its primary key.
    pub key: Vec<String>,
    /// What the check is of, in its order.
    columns: String,
}

impl Checked {
    pub fn all(sql: &Connection) -> Result<Vec<Self>> {
        let text = "
            SELECT t.name, group_concat(c.name, ', ' ORDER BY c.cid) FILTER (WHERE c.hidden = 0),
                group_concat(c.name, ' ' ORDER BY c.pk) FILTER (WHERE c.pk > 0)
            FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c WHERE t.type = 'table'
            GROUP BY t.name HAVING max(c.name = 'crc')";
        let table = |row: &Row<'_>| {
            let key: String = row.get(2)?;
            Ok(Self { name: row.get(0)?, columns: row.get(1)?, key: key.split(' ').map(str::to_owned).collect() })
        };
        sql.prepare(text)?.query_map([], table)?.collect()
    }

    fn is_wrong(&self) -> String {
        format!("crc IS NOT row_crc({})", self.columns)
    }

    /// Tells `each` of the rows whose check does not fit, among those for which `condition` holds, but of no more than
    /// `limit`. `bounds` are its parameters `?1` and `?2`.
    pub fn look(
        &self,
        sql: &Connection,
        condition: &str,
        bounds: (i64, i64),
        limit: usize,
        mut each: impl FnMut(String),
    ) -> Result<()> {
        let shown = self.key.iter().map(|one| format!("' {one} ' || iif(typeof({one}) = 'blob', hex({one}), {one})"));
        let (shown, name, wrong) = (shown.collect::<Vec<_>>().join(" || ','|| "), &self.name, self.is_wrong());
        // The bounds are named in every text, for every text takes both.
        let text = format!("SELECT '{name}' || {shown} FROM {name} WHERE {condition} AND {wrong} AND ?1 <= ?2");
        for row in sql.prepare(&text)?.query_map(bounds, |row| row.get(0))?.take(limit) {
            each(row?);
        }
        Ok(())
    }

    /// Takes rows that do not fit for what they read now, and makes the table's indexes say the same. What the file does
    /// not let be written stays as it is.
    pub fn accept(&self, sql: &Connection) -> Result<()> {
        let (name, wrong) = (&self.name, self.is_wrong());
        let Some(column) = self.key.first() else { return Ok(()) };
        if !sql.prepare(&format!("SELECT 1 FROM {name} WHERE {wrong}"))?.exists([])? {
            return Ok(());
        }
        sql.execute_batch("SAVEPOINT accept")?;
        // An index still has what the row was, and SQLite does not change a row that an index does not know.
        let text = format!("REINDEX {name}; UPDATE {name} SET {column} = {column} WHERE {wrong}");
        let accepted = sql.execute_batch(&text);
        match accepted {
            Ok(()) => sql.execute_batch("RELEASE accept"),
            Err(error) if is_of_the_file(&error) => sql.execute_batch("ROLLBACK TO accept; RELEASE accept"),
            Err(error) => Err(error),
        }
    }
}

/// A file that contradicts itself, or a row that reads now as another one does.
fn is_of_the_file(error: &rusqlite::Error) -> bool {
    tells_of_damage(error) || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

fn add(crc: &mut crc32fast::Hasher, kind: u8, bytes: &[u8]) {
    let mut head = [kind; 9];
    head[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    crc.update(&head);
    crc.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rows_apart_that_look_alike() {
        let sql = Connection::open_in_memory().unwrap();
        add_row_crc(&sql).unwrap();
        let crc = |arguments: &str| -> i64 {
            sql.query_row(&format!("SELECT row_crc({arguments})"), [], |row| row.get(0)).unwrap()
        };
        // Rows on disk carry it: it never changes.
        assert_eq!(crc("1, 'a', x'00', NULL"), 3_072_959_158);
        for (one, other) in [("1", "2"), ("1, 2", "2, 1"), ("'a'", "x'61'"), ("'ab', 'c'", "'a', 'bc'"), ("NULL", "''")]
        {
            assert_ne!(crc(one), crc(other), "{one} {other}");
        }
    }

    #[test]
    fn a_row_that_the_disk_changed_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        let open = || {
            let sql = Connection::open(&file).unwrap();
            add_row_crc(&sql).unwrap();
            sql
        };
        let wrong = |sql: &Connection| -> u32 {
            sql.query_row("SELECT count(*) FROM t WHERE crc IS NOT row_crc(a, b)", [], |row| row.get(0)).unwrap()
        };
        let sql = open();
        sql.execute_batch(
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, crc INTEGER NOT NULL AS (row_crc(a, b)) STORED) STRICT;
             INSERT INTO t VALUES (1, 'one'), (2, 'two');
             UPDATE t SET b = 'more' WHERE a = 2;",
        )
        .unwrap();
        assert_eq!(wrong(&sql), 0);
        drop(sql);
        let mut image = std::fs::read(&file).unwrap();
        let at = image.windows(3).rposition(|three| three == b"one").unwrap();
        image[at] ^= 1;
        std::fs::write(&file, image).unwrap();
        assert_eq!(wrong(&open()), 1);
    }
}
