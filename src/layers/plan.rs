//! Changes that are made at their time.

use base::UtcMillis;
use engine::EngineError;
use engine::table::{Columns as _, Row, Statement};

use crate::change::Edit;
use crate::layers::{LayerError, Layers};
use crate::owner::Owner;

/// A change to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub id: i64,
    pub owner: Owner,
    pub due_at: UtcMillis,
    pub planned_at: UtcMillis,
    pub by: String,
    pub note: String,
    pub edits: Vec<Edit>,
}

const PLANS_MAX: usize = 100;

impl Layers {
    /// Plans a change; it is checked now, and again when it is made. Gives its number.
    pub async fn plan(
        &self,
        owners: &[Owner],
        edits: &[Edit],
        due_at: UtcMillis,
        (by, note): (&str, &str),
    ) -> Result<i64, LayerError> {
        self.edited(owners, edits).await?;
        let Some(own) = owners.last() else { return Ok(0) };
        if due_at <= self.now() {
            let why = "a change that is planned is made later than now".to_owned();
            return Err(LayerError::Refused { option: None, why });
        }
        if self.plans(*own).await?.len() >= PLANS_MAX {
            return Err(LayerError::Refused { option: None, why: format!("{PLANS_MAX} changes are planned already") });
        }
        let text = "INSERT INTO policy_plan (level, owner, due_at, planned_at, planned_by, note, what)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
        let values = vec![
            own.level.as_str().into(),
            own.id.into(),
            due_at.0.into(),
            self.now().0.into(),
            by.into(),
            note.into(),
            serde_json::to_string(edits).unwrap_or_default().into(),
        ];
        let done = self.place.change(vec![Statement::new(text, values)]).await?.map_err(|_| LayerError::Changed)?;
        Ok(done.first().and_then(|done| done.rows.first()).map_or(Ok(0), |row| row.int(0))?)
    }

    /// Of an owner, the next first.
    pub async fn plans(&self, owner: Owner) -> Result<Vec<Plan>, EngineError> {
        let text = "SELECT id, due_at, planned_at, planned_by, note, what, level, owner FROM policy_plan
            WHERE level = $1 AND owner = $2 ORDER BY due_at, id";
        let rows = self.place.query(text, vec![owner.level.as_str().into(), owner.id.into()]).await?;
        Ok(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    pub async fn delete_plan(&self, owner: Owner, id: i64) -> Result<(), LayerError> {
        let text = "DELETE FROM policy_plan WHERE level = $1 AND owner = $2 AND id = $3";
        let step = Statement::new(text, vec![owner.level.as_str().into(), owner.id.into(), id.into()]).must();
        let gone = self.place.change(vec![step]).await?;
        gone.map(drop).map_err(|_| LayerError::Missing { what: format!("the planned change {id}") })
    }

    /// Takes what is due now off the list. Whoever takes it makes it: of several nodes one does.
    pub async fn take_due(&self) -> Result<Vec<Plan>, EngineError> {
        let text = "DELETE FROM policy_plan WHERE due_at <= $1
            RETURNING id, due_at, planned_at, planned_by, note, what, level, owner";
        let done = self.place.change(vec![Statement::new(text, vec![self.now().0.into()])]).await?;
        let rows = done.map(|done| done.into_iter().flat_map(|done| done.rows).collect::<Vec<_>>()).unwrap_or_default();
        let mut plans: Vec<Plan> =
            rows.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        plans.sort_by_key(|plan| (plan.due_at, plan.id));
        Ok(plans)
    }
}

fn read(row: &Row) -> Result<Option<Plan>, EngineError> {
    let level = policy::Level::from_name(row.text(6)?);
    let (Some(level), Ok(edits)) = (level, serde_json::from_str(row.text(5)?)) else { return Ok(None) };
    Ok(Some(Plan {
        id: row.int(0)?,
        owner: Owner { level, id: row.number(7)? },
        due_at: UtcMillis(row.int(1)?),
        planned_at: UtcMillis(row.int(2)?),
        by: row.text(3)?.to_owned(),
        note: row.text(4)?.to_owned(),
        edits,
    }))
}
