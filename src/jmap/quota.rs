//! Quota/get (RFC 9425).

use base::AccountId;
use serde_json::{Value, json};

use crate::arguments::{Arguments, select};
use crate::core::Jmap;
use crate::error::MethodError;

const STORAGE: &str = "storage";

impl Jmap {
    pub(crate) async fn quota_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let (ids, properties) = (arguments.ids()?, arguments.texts("properties")?);
        let state = self.state(account).await?;
        let usage = self.services.mail.usage(account).await?;
        let mut list = Vec::new();
        if let Some(limit) = usage.quota {
            let quota = json!({
                "id": STORAGE, "resourceType": "octets", "used": usage.size.0, "hardLimit": limit.0,
                "scope": "account", "name": "Storage", "types": ["Mail"],
                "warnLimit": limit.0 - limit.0 / 10, "softLimit": null, "description": null,
            });
            if let Value::Object(fields) = quota {
                list.push(select(fields, properties.as_deref()));
            }
        }
        let exists = |id: &String| id == STORAGE && usage.quota.is_some();
        let missing: Vec<String> = ids.iter().flatten().filter(|id| !exists(id)).cloned().collect();
        if ids.is_some_and(|ids| !ids.iter().any(|id| id == STORAGE)) {
            list.clear();
        }
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }
}
