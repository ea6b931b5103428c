//! Keys of domains in PostgreSQL.

use engine::EngineError;
use engine::postgres::{Params, Row, Session, value};

use crate::domain_key::{COLUMNS, DomainKey, KeyRow};
use crate::error::RegistryError;
use crate::tables::{exists, missing};

pub(crate) async fn put(sql: &Session, key: &DomainKey, replace: bool) -> Result<(), RegistryError> {
    let text = "SELECT 1 FROM directory_domain_key WHERE domain = $1 AND selector = $2";
    let is_known = sql.row_opt(text, &[&key.domain, &key.selector]).await?.is_some();
    match (is_known, replace) {
        (true, false) => return Err(exists("the key", &key.name())),
        (false, true) => return Err(missing("the key", &key.name())),
        (true, true) | (false, false) => {}
    }
    let text = format!(
        "INSERT INTO directory_domain_key ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (domain, selector) DO UPDATE SET kind = $3, state = $4, private_key = $5, public_key = $6,
             created_at = $7, changed_at = $8"
    );
    let params: Params<'_> = &[
        &key.domain,
        &key.selector,
        &key.kind,
        &key.state.as_str(),
        key.private.reveal(),
        &key.public,
        &key.created_at.0,
        &key.changed_at.0,
    ];
    sql.execute(&text, params).await?;
    Ok(())
}

pub(crate) async fn delete(sql: &Session, domain: &str, selector: &str) -> Result<(), RegistryError> {
    let text = "DELETE FROM directory_domain_key WHERE domain = $1 AND selector = $2";
    match sql.execute(text, &[&domain, &selector]).await? {
        0 => Err(missing("the key", &format!("{selector}._domainkey.{domain}"))),
        _ => Ok(()),
    }
}

/// `$1` and `$2` may be null: of any domain, in any state. After the key of domain `$3` and selector `$4`, at most `$5`.
pub(crate) fn select() -> String {
    format!(
        "SELECT {COLUMNS} FROM directory_domain_key WHERE ($1::text IS NULL OR domain = $1)
         AND ($2::text IS NULL OR state = $2) AND (domain, selector) > ($3, $4) ORDER BY domain, selector LIMIT $5"
    )
}

pub(crate) fn read(row: &Row) -> Result<DomainKey, EngineError> {
    let read = KeyRow {
        domain: value(row, 0)?,
        selector: value(row, 1)?,
        kind: value(row, 2)?,
        state: value(row, 3)?,
        private: value(row, 4)?,
        public: value(row, 5)?,
        created_at: value(row, 6)?,
        changed_at: value(row, 7)?,
    };
    Ok(read.read())
}
