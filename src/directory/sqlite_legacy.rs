//! Legacy servers in a database file of our own.

use mail::Domain;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::RegistryError;
use crate::legacy::{COLUMNS, LegacyRow, LegacyServer, Placement, in_use};
use crate::tables::{exists, missing};

type Changed = rusqlite::Result<Result<(), RegistryError>>;

pub(crate) fn put(sql: &Connection, server: &LegacyServer, replace: bool) -> Changed {
    let row = LegacyRow::of(server);
    match (id(sql, &row.name)?, replace) {
        (Some(_), false) => return Ok(Err(exists("the legacy server", &row.name))),
        (None, true) => return Ok(Err(missing("the legacy server", &row.name))),
        (Some(_), true) | (None, false) => {}
    }
    sql.execute(
        &format!(
            "INSERT INTO legacy_server ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (name) DO UPDATE SET imap = ?2, pop3 = ?3, submission = ?4, sieve = ?5, delivery = ?6, trust = ?7,
                 proxy_protocol = ?8, capture_passwords = ?9"
        ),
        params![
            row.name,
            row.imap,
            row.pop3,
            row.submission,
            row.sieve,
            row.delivery,
            row.trust,
            row.proxy_protocol,
            row.capture_passwords,
            row.created_at
        ],
    )?;
    Ok(Ok(()))
}

pub(crate) fn delete(sql: &Connection, name: &str) -> Changed {
    let Some(id) = id(sql, name)? else { return Ok(Err(missing("the legacy server", name))) };
    let is_used: bool = sql.query_row(
        "SELECT EXISTS (SELECT 1 FROM account_legacy WHERE server = ?1) OR EXISTS (SELECT 1 FROM domain_legacy WHERE server = ?1)",
        [id],
        |row| row.get(0),
    )?;
    if is_used {
        return Ok(Err(in_use(name)));
    }
    sql.execute("DELETE FROM legacy_server WHERE id = ?1", [id])?;
    Ok(Ok(()))
}

pub(crate) fn all(sql: &Connection) -> rusqlite::Result<Vec<LegacyServer>> {
    let mut query = sql.prepare_cached(&format!(
        "SELECT {COLUMNS}, (SELECT count(*) FROM account_legacy l WHERE l.server = legacy_server.id) FROM legacy_server
         ORDER BY name"
    ))?;
    let rows = query.query_map([], |row| {
        let read = LegacyRow {
            name: row.get(0)?,
            imap: row.get(1)?,
            pop3: row.get(2)?,
            submission: row.get(3)?,
            sieve: row.get(4)?,
            delivery: row.get(5)?,
            trust: row.get(6)?,
            proxy_protocol: row.get(7)?,
            capture_passwords: row.get(8)?,
            created_at: row.get(9)?,
        };
        read.read(row.get(10)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, 0))
    })?;
    rows.collect()
}

/// Puts an account on a server, or takes it off.
pub(crate) fn place_account(sql: &Connection, account: i64, server: Option<&str>) -> Changed {
    place(sql, ("account_legacy", "account"), account, server)
}

pub(crate) fn place_domain(sql: &Connection, domain: &Domain, server: Option<&str>) -> Changed {
    let found = sql.query_row("SELECT id FROM domain WHERE name = ?1", [domain.as_str()], |row| row.get(0));
    let Some(id) = found.optional()? else { return Ok(Err(missing("the domain", domain))) };
    place(sql, ("domain_legacy", "domain"), id, server)
}

pub(crate) fn place_new(sql: &Connection, account: i64, domain: i64, placement: &Placement) -> Changed {
    match placement {
        Placement::Here => Ok(Ok(())),
        Placement::Legacy(server) => place_account(sql, account, Some(server)),
        Placement::OfDomain => {
            let text =
                "INSERT INTO account_legacy (account, server) SELECT ?1, server FROM domain_legacy WHERE domain = ?2";
            sql.execute(text, [account, domain])?;
            Ok(Ok(()))
        }
    }
}

fn place(sql: &Connection, (table, key): (&str, &str), of: i64, server: Option<&str>) -> Changed {
    let Some(server) = server else {
        sql.execute(&format!("DELETE FROM {table} WHERE {key} = ?1"), [of])?;
        return Ok(Ok(()));
    };
    let Some(server) = id(sql, server)? else { return Ok(Err(missing("the legacy server", server))) };
    let text =
        format!("INSERT INTO {table} ({key}, server) VALUES (?1, ?2) ON CONFLICT ({key}) DO UPDATE SET server = ?2");
    sql.execute(&text, [of, server])?;
    Ok(Ok(()))
}

fn id(sql: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    sql.query_row("SELECT id FROM legacy_server WHERE name = ?1", [name], |row| row.get(0)).optional()
}
