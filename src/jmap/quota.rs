//! Quota/get (RFC 9425).

use base::AccountId;
use serde_json::{Value, json};

use crate::arguments::{Arguments, select};
use crate::core::Jmap;
use crate::error::MethodError;

const STORAGE: &str = "storage";
const MESSAGES: &str = "messages";

impl Jmap {
    pub(crate) async fn quota_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let (ids, properties) = (arguments.ids()?, arguments.texts("properties")?);
        let state = self.state(account).await?;
        let usage = self.services.mail.usage(account).await?;
        let storage = (STORAGE, "octets", "Storage", usage.size.0, usage.quota.size.map(|limit| limit.0));
        let messages = (MESSAGES, "count", "Messages", usage.messages, usage.quota.messages);
        let mut list = Vec::new();
        let mut known = Vec::new();
        for (id, resource, name, used, limit) in [storage, messages] {
            let Some(limit) = limit else { continue };
            known.push(id);
            let quota = json!({
                "id": id, "resourceType": resource, "used": used, "hardLimit": limit,
                "scope": "account", "name": name, "types": ["Mail"],
                "warnLimit": limit - limit / 10, "softLimit": null, "description": null,
            });
            let is_wanted = ids.as_ref().is_none_or(|ids| ids.iter().any(|wanted| wanted == id));
            if let (true, Value::Object(fields)) = (is_wanted, quota) {
                list.push(select(fields, properties.as_deref()));
            }
        }
        let missing: Vec<&String> = ids.iter().flatten().filter(|id| !known.contains(&id.as_str())).collect();
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }
}
