//! Changes of tables that both engines name alike.

use base::AccountId;
use engine::EngineError;
use engine::table::{Done, Place, Row, Statement, Undone, Value};

use crate::registry::Registry;

impl Registry {
    pub(crate) async fn ask_both(&self, text: &str, values: Vec<Value>) -> Result<Vec<Row>, EngineError> {
        self.place().query(text, values).await
    }

    /// All steps or none; every node hears of it. With `of`, what that account's rights opened is looked at anew.
    pub(crate) async fn change_both(
        &self,
        steps: Vec<Statement>,
        of: Option<AccountId>,
    ) -> Result<Result<Vec<Done>, Undone>, EngineError> {
        let mut all = Vec::new();
        let place = self.place();
        if let Place::Postgres(_) = place {
            all.push(Statement::new("UPDATE directory_version SET changes = changes + 1", Vec::new()));
            if let Some(account) = of {
                let text = "INSERT INTO directory_revocation (version, account)
                    SELECT changes, CAST($1 AS bigint) FROM directory_version";
                all.push(Statement::new(text, vec![account.0.into()]));
            }
        }
        let before = all.len();
        all.extend(steps);
        let done = place.change(all).await;
        self.forget();
        if let Some(account) = of {
            self.revoked(account).await;
        }
        Ok(match done? {
            Ok(mut done) => Ok(done.split_off(before.min(done.len()))),
            Err(Undone(step)) => Err(Undone(step.saturating_sub(before))),
        })
    }
}
