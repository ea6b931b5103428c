//! Who am I, and how is this node.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use directory::Access;
use serde_json::{Value, json};

use crate::auth::Viewer;
use crate::server::Inner;

pub(crate) async fn session(viewer: Viewer) -> Json<Value> {
    let Viewer { account, session } = viewer;
    let is_admin = account.access == Access::Admin;
    let faces: &[&str] = if is_admin { &["mail", "log", "admin"] } else { &["mail", "log"] };
    Json(json!({
        "address": account.address.to_string(),
        "name": account.name,
        "accountId": jmap::account_id(account.id),
        "access": account.access.as_str(),
        "faces": faces,
        "csrf": session.map(|session| session.csrf),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

pub(crate) async fn node(State(web): State<Arc<Inner>>, viewer: Viewer) -> Json<Value> {
    let mut node = json!({ "name": web.settings.node_name, "version": env!("CARGO_PKG_VERSION") });
    if let (Access::Admin, Some(fields)) = (viewer.account.access, node.as_object_mut()) {
        let health = web.services.storage.health();
        let store = json!({
            "writable": health.is_writable, "freeBytes": health.free_bytes, "openViews": health.open_views,
            "viewEntries": health.view_entries,
        });
        fields.insert("store".to_owned(), store);
        fields.insert("time".to_owned(), json!(mail::date::format_utc(web.services.clock.utc())));
    }
    Json(node)
}
