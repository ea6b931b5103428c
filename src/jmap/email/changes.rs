//! Email/changes (RFC 8621 §4.3).

use base::AccountId;
use serde_json::{Value, json};
use store::EmailId;

use crate::arguments::Arguments;
use crate::core::Jmap;
use crate::error::MethodError;
use crate::id::email_id;

impl Jmap {
    pub(crate) async fn email_changes(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let (since, limit) = (arguments.since()?, arguments.changes_max()?);
        let Some(changes) = self.services.mail.email_changes(account, since, limit).await? else {
            return Err(MethodError::new("cannotCalculateChanges", "the state is too old"));
        };
        let ids = |emails: Vec<EmailId>| emails.into_iter().map(email_id).collect::<Vec<_>>();
        Ok(json!({
            "oldState": since.to_string(), "newState": changes.new_state.to_string(),
            "hasMoreChanges": changes.has_more, "created": ids(changes.created), "updated": ids(changes.updated),
            "destroyed": ids(changes.destroyed),
        }))
    }
}
