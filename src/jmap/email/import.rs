//! Email/import (RFC 8621 §4.8).

use serde_json::{Map, Value, json};
use store::Flags;

use super::keywords;
use super::set::{only_mailbox, received_at};
use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::blob::BlobError;
use crate::core::{Context, Jmap};
use crate::error::{MethodError, SetError};

impl Jmap {
    pub(crate) async fn email_import(
        &self,
        context: &mut Context<'_>,
        arguments: &Arguments,
    ) -> Result<Value, MethodError> {
        let before = self.check_state(context.account.id, arguments).await?;
        let emails = arguments.object("emails")?.ok_or_else(|| MethodError::invalid("emails is missing"))?;
        if emails.len() > OBJECTS_MAX {
            return Err(MethodError::new("requestTooLarge", "at most 500 objects in one call"));
        }
        let (mut created, mut not_created) = (Map::new(), Map::new());
        for (name, email) in emails {
            match self.import_one(context, email).await {
                Ok(email) => {
                    let id = email.get("id").and_then(Value::as_str).unwrap_or_default();
                    context.created.insert(name.clone(), id.to_owned());
                    created.insert(name.clone(), email);
                }
                Err(error) => {
                    not_created.insert(name.clone(), error.to_json());
                }
            }
        }
        Ok(json!({
            "oldState": before.to_string(), "newState": self.state(context.account.id).await?,
            "created": created, "notCreated": not_created,
        }))
    }

    async fn import_one(&self, context: &Context<'_>, email: &Value) -> Result<Value, SetError> {
        let mailbox = only_mailbox(context, email.get("mailboxIds"))?;
        let flags = email.get("keywords").map_or(Ok(Flags::default()), keywords::parse_all)?;
        let received_at = received_at(email.get("receivedAt"), self.services.clock.utc())?;
        let blob_id = email.get("blobId").and_then(Value::as_str).unwrap_or_default();
        let no_blob = || SetError::property("blobId", "no such blob");
        let size = self.blob_size(context.account.id, blob_id).await?.ok_or_else(no_blob)?;
        if size > Self::UPLOAD_SIZE_MAX.0 {
            return Err(SetError::new("tooLarge", ""));
        }
        // As it is stored and, of a part, as it is encoded.
        let _share = self.services.budget.take(size * 2).await;
        let blob = match self.download(context.account.id, blob_id).await {
            Ok(blob) => blob.content,
            Err(BlobError::Store(error)) => return Err(error.into()),
            Err(BlobError::NotFound | BlobError::TooLarge | BlobError::Busy) => return Err(no_blob()),
        };
        if mail::HeaderFields::of(&blob).next().is_none_or(|field| field.name.is_empty()) {
            return Err(SetError::new("invalidEmail", "the blob does not begin with a header field"));
        }
        self.add_email(context, mailbox, blob, flags, received_at).await
    }
}
