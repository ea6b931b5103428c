//! Rows that the disk changed: their check (`crc`, a generated column) does not fit.

use rusqlite::{Connection, Result};

use crate::audit::{AuditReport, PROBLEMS_MAX};

pub(super) const WRONG_CRC: &str =
    "the disk changed the row: its check does not fit; a repair keeps it as it reads now";

/// A table whose rows carry a check.
struct Table {
    name: String,
    /// What the check is of, in its order.
    columns: String,
    key: Vec<String>,
}

impl Table {
    fn all(sql: &Connection) -> Result<Vec<Self>> {
        let text = "
            SELECT t.name, group_concat(c.name, ', ' ORDER BY c.cid) FILTER (WHERE c.hidden = 0),
                group_concat(c.name, ' ' ORDER BY c.pk) FILTER (WHERE c.pk > 0)
            FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c WHERE t.type = 'table'
            GROUP BY t.name HAVING max(c.name = 'crc')";
        let table = |row: &rusqlite::Row<'_>| {
            let key: String = row.get(2)?;
            Ok(Self { name: row.get(0)?, columns: row.get(1)?, key: key.split(' ').map(str::to_owned).collect() })
        };
        sql.prepare(text)?.query_map([], table)?.collect()
    }

    fn is_wrong(&self) -> String {
        format!("crc IS NOT row_crc({})", self.columns)
    }

    /// Names the rows among which `condition` is to be asked that do not fit.
    fn look(&self, sql: &Connection, condition: &str, bounds: (i64, i64), report: &mut AuditReport) -> Result<()> {
        let shown = self.key.iter().map(|one| format!("' {one} ' || iif(typeof({one}) = 'blob', hex({one}), {one})"));
        let (shown, name, wrong) = (shown.collect::<Vec<_>>().join(" || ','|| "), &self.name, self.is_wrong());
        // The bounds are named in every text, for every text takes both.
        let text = format!("SELECT '{name}' || {shown} FROM {name} WHERE {condition} AND {wrong} AND ?1 <= ?2");
        for location in sql.prepare(&text)?.query_map(bounds, |row| row.get::<_, String>(0))?.take(PROBLEMS_MAX) {
            report.add(WRONG_CRC, location?, false);
        }
        Ok(())
    }
}

/// Looks at the rows of the accounts; with `is_deep` at their content rows too, which hold most of the file.
pub(super) fn look_at_accounts(
    sql: &Connection,
    bounds: (i64, i64),
    is_deep: bool,
    report: &mut AuditReport,
) -> Result<()> {
    for table in Table::all(sql)? {
        let condition = match table.key.first().map(String::as_str) {
            Some("account_id") => "account_id BETWEEN ?1 AND ?2",
            Some("content_id") if is_deep => {
                "content_id IN (SELECT content_id FROM entry WHERE account_id BETWEEN ?1 AND ?2
                 UNION SELECT content_id FROM removed WHERE account_id BETWEEN ?1 AND ?2)"
            }
            _ => continue,
        };
        let looked = table.look(sql, condition, bounds, report);
        contain(sql, &table.name, looked, report)?;
    }
    Ok(())
}

/// Looks at the rows that are of no account.
pub(super) fn look_at_rest(sql: &Connection, report: &mut AuditReport) -> Result<()> {
    for table in Table::all(sql)? {
        if !matches!(table.key.first().map(String::as_str), Some("account_id" | "content_id")) {
            let looked = table.look(sql, "TRUE", (0, i64::MAX), report);
            contain(sql, &table.name, looked, report)?;
        }
    }
    Ok(())
}

/// Takes rows that do not fit for what they read now.
pub(super) fn accept(sql: &Connection) -> Result<()> {
    for table in Table::all(sql)? {
        let (name, wrong) = (&table.name, table.is_wrong());
        let Some(column) = table.key.first() else { continue };
        sql.execute(&format!("UPDATE {name} SET {column} = {column} WHERE {wrong}"), [])?;
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
