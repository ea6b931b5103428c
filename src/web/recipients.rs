//! Whether mail to an address would be taken, asked before it is sent.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use directory::Resolution;
use mail::{Address, ForwardPath};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Parsed, read};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    addresses: Vec<String>,
}

const ASKED_MAX: usize = 1000;

/// One word for each address: `ok`, `invalid`, `unknown` (a domain of ours without it) or `foreign`. Tells a signed-in
/// sender no more than submission does.
pub(crate) async fn check(
    State(web): State<Arc<Inner>>,
    _viewer: Viewer,
    body: Parsed<Asked>,
) -> Result<Json<Value>, ApiError> {
    let asked = read(body)?;
    if asked.addresses.len() > ASKED_MAX {
        return Err(ApiError::Invalid("at most 1000 addresses".to_owned()));
    }
    let mut list = Vec::with_capacity(asked.addresses.len());
    for address in asked.addresses {
        let state = match address.parse::<Address>() {
            Err(_) => "invalid",
            Ok(parsed) => match web.services.directory.resolve(&ForwardPath::Address(parsed)).await? {
                Resolution::Local(_) => "ok",
                Resolution::UnknownAddress => "unknown",
                Resolution::ForeignDomain => "foreign",
            },
        };
        list.push(json!({ "address": address, "state": state }));
    }
    Ok(Json(json!({ "recipients": list })))
}
