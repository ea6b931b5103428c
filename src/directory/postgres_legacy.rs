//! Legacy servers in PostgreSQL.

use engine::EngineError;
use engine::postgres::{Params, Row, Session, value};
use mail::Domain;

use crate::error::RegistryError;
use crate::legacy::{COLUMNS, LegacyRow, LegacyServer, Placement, in_use};
use crate::tables::{exists, missing};

pub(crate) async fn put(sql: &Session, server: &LegacyServer, replace: bool) -> Result<(), RegistryError> {
    let row = LegacyRow::of(server);
    match (id(sql, &row.name).await?, replace) {
        (Some(_), false) => return Err(exists("the legacy server", &row.name)),
        (None, true) => return Err(missing("the legacy server", &row.name)),
        (Some(_), true) | (None, false) => {}
    }
    let text = format!(
        "INSERT INTO directory_legacy_server ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (name) DO UPDATE SET imap = $2, pop3 = $3, submission = $4, sieve = $5, delivery = $6, trust = $7,
             proxy_protocol = $8, capture_passwords = $9"
    );
    let params: Params<'_> = &[
        &row.name,
        &row.imap,
        &row.pop3,
        &row.submission,
        &row.sieve,
        &row.delivery,
        &row.trust,
        &row.proxy_protocol,
        &row.capture_passwords,
        &row.created_at,
    ];
    sql.execute(&text, params).await?;
    Ok(())
}

pub(crate) async fn delete(sql: &Session, name: &str) -> Result<(), RegistryError> {
    let id = id(sql, name).await?.ok_or_else(|| missing("the legacy server", name))?;
    let text = "SELECT EXISTS (SELECT 1 FROM directory_account_legacy WHERE server = $1)
                OR EXISTS (SELECT 1 FROM directory_domain_legacy WHERE server = $1)";
    if value(&sql.row(text, &[&id]).await?, 0)? {
        return Err(in_use(name));
    }
    sql.execute("DELETE FROM directory_legacy_server WHERE id = $1", &[&id]).await?;
    Ok(())
}

pub(crate) fn select_all() -> String {
    format!(
        "SELECT {COLUMNS}, (SELECT count(*) FROM directory_account_legacy l WHERE l.server = directory_legacy_server.id)
         FROM directory_legacy_server ORDER BY name"
    )
}

pub(crate) fn read(row: &Row) -> Result<LegacyServer, EngineError> {
    let read = LegacyRow {
        name: value(row, 0)?,
        imap: value(row, 1)?,
        pop3: value(row, 2)?,
        submission: value(row, 3)?,
        sieve: value(row, 4)?,
        delivery: value(row, 5)?,
        trust: value(row, 6)?,
        proxy_protocol: value(row, 7)?,
        capture_passwords: value(row, 8)?,
        created_at: value(row, 9)?,
    };
    let accounts = u64::try_from(value::<i64>(row, 10)?).unwrap_or_default();
    read.read(accounts).ok_or_else(|| EngineError::damaged("a legacy server that makes no sense"))
}

/// Puts an account on a server, or takes it off.
pub(crate) async fn place_account(sql: &Session, account: i64, server: Option<&str>) -> Result<(), RegistryError> {
    place(sql, ("directory_account_legacy", "account"), account, server).await
}

pub(crate) async fn place_domain(sql: &Session, domain: &Domain, server: Option<&str>) -> Result<(), RegistryError> {
    let found = sql.row_opt("SELECT id FROM directory_domain WHERE name = $1", &[&domain.as_str()]).await?;
    let id = value(&found.ok_or_else(|| missing("the domain", domain))?, 0)?;
    place(sql, ("directory_domain_legacy", "domain"), id, server).await
}

pub(crate) async fn place_new(
    sql: &Session,
    account: i64,
    domain: i64,
    placement: &Placement,
) -> Result<(), RegistryError> {
    match placement {
        Placement::Here => Ok(()),
        Placement::Legacy(server) => place_account(sql, account, Some(server)).await,
        Placement::OfDomain => {
            let text = "INSERT INTO directory_account_legacy (account, server)
                        SELECT $1, server FROM directory_domain_legacy WHERE domain = $2";
            sql.execute(text, &[&account, &domain]).await?;
            Ok(())
        }
    }
}

async fn place(sql: &Session, (table, key): (&str, &str), of: i64, server: Option<&str>) -> Result<(), RegistryError> {
    let Some(server) = server else {
        sql.execute(&format!("DELETE FROM {table} WHERE {key} = $1"), &[&of]).await?;
        return Ok(());
    };
    let server = id(sql, server).await?.ok_or_else(|| missing("the legacy server", server))?;
    let text =
        format!("INSERT INTO {table} ({key}, server) VALUES ($1, $2) ON CONFLICT ({key}) DO UPDATE SET server = $2");
    sql.execute(&text, &[&of, &server]).await?;
    Ok(())
}

async fn id(sql: &Session, name: &str) -> Result<Option<i64>, EngineError> {
    let found = sql.row_opt("SELECT id FROM directory_legacy_server WHERE name = $1", &[&name]).await?;
    found.map(|row| value(&row, 0)).transpose()
}
