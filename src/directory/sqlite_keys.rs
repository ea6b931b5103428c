//! Keys of domains in a database file of our own.

use rusqlite::{Connection, params};

use crate::domain_key::{COLUMNS, DomainKey, KeyRow};
use crate::error::RegistryError;
use crate::tables::{KeyListing, exists, missing};

type Changed = rusqlite::Result<Result<(), RegistryError>>;

pub(crate) fn put(sql: &Connection, key: &DomainKey, replace: bool) -> Changed {
    let text = "SELECT 1 FROM domain_key WHERE domain = ?1 AND selector = ?2";
    let is_known = sql.prepare_cached(text)?.exists([&key.domain, &key.selector])?;
    match (is_known, replace) {
        (true, false) => return Ok(Err(exists("the key", &key.name()))),
        (false, true) => return Ok(Err(missing("the key", &key.name()))),
        (true, true) | (false, false) => {}
    }
    sql.execute(
        &format!("INSERT OR REPLACE INTO domain_key ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            key.domain,
            key.selector,
            key.kind,
            key.state.as_str(),
            key.private.reveal(),
            key.public,
            key.created_at.0,
            key.changed_at.0
        ],
    )?;
    Ok(Ok(()))
}

pub(crate) fn delete(sql: &Connection, domain: &str, selector: &str) -> Changed {
    let gone = sql.execute("DELETE FROM domain_key WHERE domain = ?1 AND selector = ?2", [domain, selector])?;
    Ok(if gone == 0 { Err(missing("the key", &format!("{selector}._domainkey.{domain}"))) } else { Ok(()) })
}

pub(crate) fn list(sql: &Connection, which: &KeyListing) -> rusqlite::Result<Vec<DomainKey>> {
    let mut query = sql.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM domain_key WHERE (?1 IS NULL OR domain = ?1) AND (?2 IS NULL OR state = ?2)
         AND (domain, selector) > (?3, ?4) ORDER BY domain, selector LIMIT ?5"
    ))?;
    let state = which.state.map(|state| state.as_str());
    let (domain, selector) = &which.after;
    let rows = query.query_map(params![which.domain, state, domain, selector, which.limit], |row| {
        let read = KeyRow {
            domain: row.get(0)?,
            selector: row.get(1)?,
            kind: row.get(2)?,
            state: row.get(3)?,
            private: row.get(4)?,
            public: row.get(5)?,
            created_at: row.get(6)?,
            changed_at: row.get(7)?,
        };
        Ok(read.read())
    })?;
    rows.collect()
}
