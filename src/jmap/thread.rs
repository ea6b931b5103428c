//! Thread methods (RFC 8621 §3).

use std::collections::BTreeSet;

use base::AccountId;
use serde_json::{Value, json};

use crate::arguments::{Arguments, check_properties};
use crate::core::Jmap;
use crate::error::MethodError;
use crate::id::{email_id, parse_thread_id, thread_id};

impl Jmap {
    pub(crate) async fn thread_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let properties = arguments.texts("properties")?;
        check_properties(properties.as_deref(), &["id", "emailIds"])?;
        let Some(ids) = arguments.ids()? else {
            return Err(MethodError::new("requestTooLarge", "name the threads you want"));
        };
        let state = self.state(account).await?;
        let (mut list, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            let emails = match parse_thread_id(&id) {
                Some(thread) => self.services.mail.thread(account, thread).await?,
                None => Vec::new(),
            };
            if emails.is_empty() {
                missing.push(id);
            } else {
                let emails: Vec<String> = emails.into_iter().map(email_id).collect();
                list.push(json!({ "id": id, "emailIds": emails }));
            }
        }
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }

    /// Follows the emails. The thread of a destroyed email is no longer known: then the client reads anew.
    pub(crate) async fn thread_changes(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let (since, limit) = (arguments.since()?, arguments.changes_max()?);
        let changes = self.services.mail.email_changes(account, since, limit).await?;
        let Some(changes) = changes.filter(|changes| changes.destroyed.is_empty()) else {
            return Err(MethodError::new("cannotCalculateChanges", ""));
        };
        let ids = [changes.created, changes.updated].concat();
        let threads: BTreeSet<_> =
            self.services.mail.emails(account, ids).await?.into_iter().map(|entry| entry.thread).collect();
        let (mut created, mut updated) = (Vec::new(), Vec::new());
        for thread in threads {
            let emails = self.services.mail.thread(account, thread).await?;
            let entries = self.services.mail.emails(account, emails).await?;
            let is_new = entries.iter().all(|entry| entry.created_modseq > since);
            if is_new { &mut created } else { &mut updated }.push(thread_id(thread));
        }
        Ok(json!({
            "oldState": since.to_string(), "newState": changes.new_state.to_string(),
            "hasMoreChanges": changes.has_more, "created": created, "updated": updated, "destroyed": [],
        }))
    }
}
