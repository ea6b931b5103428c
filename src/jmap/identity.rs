//! Identity/get (RFC 8621 §6): one for each address the account may send from.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use directory::Account;
use mail::Address;
use serde_json::{Value, json};

use crate::arguments::{Arguments, select};
use crate::core::Jmap;
use crate::error::MethodError;

impl Jmap {
    pub(crate) async fn identity_get(&self, account: &Account, arguments: &Arguments) -> Result<Value, MethodError> {
        let (ids, properties) = (arguments.ids()?, arguments.texts("properties")?);
        let state = self.state(account.id).await?;
        let (mut list, mut known) = (Vec::new(), Vec::new());
        for address in self.services.directory.sender_addresses(account.id).await? {
            let id = identity_id(&address);
            if ids.as_ref().is_none_or(|ids| ids.contains(&id)) {
                let identity = json!({
                    "id": id, "name": account.name, "email": address.to_string(), "replyTo": null, "bcc": null,
                    "textSignature": "", "htmlSignature": "", "mayDelete": false,
                });
                if let Value::Object(fields) = identity {
                    list.push(select(fields, properties.as_deref()));
                }
            }
            known.push(id);
        }
        let missing: Vec<String> = ids.into_iter().flatten().filter(|id| !known.contains(id)).collect();
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }

    /// The address of an identity of this account.
    pub(crate) async fn identity(&self, account: &Account, id: &str) -> Result<Option<Address>, MethodError> {
        let addresses = self.services.directory.sender_addresses(account.id).await?;
        Ok(addresses.into_iter().find(|address| identity_id(address) == id))
    }
}

/// Derived from the address, so that it needs no table.
fn identity_id(address: &Address) -> String {
    format!("I{}", BASE64_URL_SAFE_NO_PAD.encode(address.to_folded()))
}
