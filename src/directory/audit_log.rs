//! Who did what to whom, and who looked: kept beside what it is about, so that whom it concerns can see it.

use access::{Position, Reach};
use base::{AccountId, DomainId, TenantId, UtcMillis};
use engine::EngineError;
use engine::table::{Columns as _, Row, Statement};

use crate::registry::Registry;

/// One thing that was done, or looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    pub id: i64,
    pub at: UtcMillis,
    pub by: String,
    /// A stable word, such as `set-account`.
    pub action: String,
    /// To what: an address, a domain, a name.
    pub object: String,
    /// Where that is.
    pub position: Position,
}

const TEXT_MAX: usize = 300;

impl Registry {
    /// Puts something on record.
    pub async fn note_audit(
        &self,
        by: &str,
        action: &str,
        object: &str,
        position: Position,
    ) -> Result<(), EngineError> {
        let text = "INSERT INTO audit (noted_at, noted_by, action, object, reseller, customer, domain, account)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let object: String = object.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
        let values = vec![
            self.clock.utc().0.into(),
            by.into(),
            action.into(),
            object.into(),
            position.reseller.map(|id| id.0).into(),
            position.customer.map(|id| id.0).into(),
            position.domain.map(|id| id.0).into(),
            position.account.map(|id| id.0).into(),
        ];
        let _ = self.place().change(vec![Statement::new(text, values)]).await?;
        Ok(())
    }

    /// What is on record of these places and of an account's own, the latest first, from before `below`.
    pub async fn audit_log(
        &self,
        within: &[Reach],
        own: Option<AccountId>,
        below: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, EngineError> {
        // Numbers alone.
        let mut parts: Vec<String> = within
            .iter()
            .map(|reach| match reach {
                Reach::System => "1 = 1".to_owned(),
                Reach::Tenant(id) => format!("reseller = {0} OR customer = {0}", id.0),
                Reach::Domain(id) => format!("domain = {}", id.0),
            })
            .collect();
        parts.extend(own.map(|id| format!("account = {}", id.0)));
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let text = format!(
            "SELECT id, noted_at, noted_by, action, object, reseller, customer, domain, account FROM audit
             WHERE id < $1 AND ({}) ORDER BY id DESC LIMIT {limit}",
            parts.join(" OR ")
        );
        self.ask_both(&text, vec![below.unwrap_or(i64::MAX).into()]).await?.iter().map(read).collect()
    }

    /// Forgets what is older.
    pub async fn tidy_audit(&self, before: UtcMillis) -> Result<(), EngineError> {
        let step = Statement::new("DELETE FROM audit WHERE noted_at < $1", vec![before.0.into()]);
        let _ = self.place().change(vec![step]).await?;
        Ok(())
    }
}

fn read(row: &Row) -> Result<AuditEntry, EngineError> {
    let number = |at| Ok::<_, EngineError>(row.int_opt(at)?.and_then(|id| u64::try_from(id).ok()));
    Ok(AuditEntry {
        id: row.int(0)?,
        at: UtcMillis(row.int(1)?),
        by: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        object: row.text(4)?.to_owned(),
        position: Position {
            reseller: number(5)?.map(TenantId),
            customer: number(6)?.map(TenantId),
            domain: number(7)?.map(DomainId),
            account: number(8)?.map(AccountId),
        },
    })
}
