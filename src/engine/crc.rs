//! The check that a row can carry, in a stored generated column: SQLite makes it whenever it writes the row.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;

/// Lets a connection use `row_crc(...)` in its schema and statements: the CRC-32 of its arguments, their types and lengths.
/// [`crate::Database`] does this for its own connections.
pub fn add_row_crc(connection: &Connection) -> rusqlite::Result<()> {
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
        assert_eq!(crc("1, 'a', x'00', NULL"), crc("1, 'a', x'00', NULL"));
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
