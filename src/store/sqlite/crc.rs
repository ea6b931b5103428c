//! Rows that the disk changed: their check (`crc`, a generated column) does not fit.

use engine::{Checked, WRONG_CRC};
use rusqlite::{Connection, Result};

use crate::audit::{AuditReport, PROBLEMS_MAX};

fn look(
    table: &Checked,
    sql: &Connection,
    condition: &str,
    bounds: (i64, i64),
    report: &mut AuditReport,
) -> Result<()> {
    table.look(sql, condition, bounds, PROBLEMS_MAX, |row| report.add(WRONG_CRC, row, false))
}

/// Looks at the rows of the accounts; with `is_deep` at their content rows too, which hold most of the file.
pub(super) fn look_at_accounts(
    sql: &Connection,
    bounds: (i64, i64),
    is_deep: bool,
    report: &mut AuditReport,
) -> Result<()> {
    for table in Checked::all(sql)? {
        let condition = match table.key.first().map(String::as_str) {
            Some("account_id") => "account_id BETWEEN ?1 AND ?2",
            Some("content_id") if is_deep => {
                "content_id IN (SELECT content_id FROM entry WHERE account_id BETWEEN ?1 AND ?2
                 UNION SELECT content_id FROM removed WHERE account_id BETWEEN ?1 AND ?2
                 UNION SELECT content_id FROM held WHERE account_id BETWEEN ?1 AND ?2)"
            }
            _ => continue,
        };
        let looked = look(&table, sql, condition, bounds, report);
        contain(sql, &table.name, looked, report)?;
    }
    Ok(())
}

/// Looks at the rows that are of no account.
pub(super) fn look_at_rest(sql: &Connection, report: &mut AuditReport) -> Result<()> {
    for table in Checked::all(sql)? {
        if !matches!(table.key.first().map(String::as_str), Some("account_id" | "content_id")) {
            let looked = look(&table, sql, "TRUE", (0, i64::MAX), report);
            contain(sql, &table.name, looked, report)?;
        }
    }
    Ok(())
}

/// Takes rows that do not fit for what they read now.
pub(super) fn accept(sql: &Connection) -> Result<()> {
    for table in Checked::all(sql)? {
        table.accept(sql)?;
    }
    Ok(())
}

/// Lets an audit go on where the file contradicts itself: what could not be asked is a problem like others.
pub(super) fn contain(sql: &Connection, asked: &str, outcome: Result<()>, report: &mut AuditReport) -> Result<()> {
    let Err(error) = outcome else { return Ok(()) };
    if !engine::tells_of_damage(&error) {
        return Err(error);
    }
    report.add_damage(format!("SQLite: {error}"), format!("{}, asked for: {asked}", sql.path().unwrap_or_default()));
    Ok(())
}
