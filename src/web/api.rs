//! Who am I, and how is this node.

use std::collections::BTreeSet;
use std::sync::Arc;

use access::{Position, Right};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::auth::Viewer;
use crate::server::Inner;

pub(crate) async fn session(viewer: Viewer) -> Json<Value> {
    let account = &viewer.account;
    let roles: BTreeSet<&str> = viewer.grants().iter().map(|grant| grant.role.as_str()).collect();
    let mut faces = vec!["mail", "filter", "log"];
    if !roles.is_empty() {
        faces.push("admin");
    }
    let rights: Vec<&str> = [
        ("nodes", Right::ViewNodes),
        ("tenants", Right::ViewTenants),
        ("domains", Right::ViewDomains),
        ("accounts", Right::ViewAccounts),
        ("queue", Right::ViewQueue),
        ("policy", Right::ViewPolicy),
        ("quarantine", Right::ViewQuarantine),
        ("audit", Right::ViewAudit),
    ]
    .into_iter()
    .filter_map(|(name, right)| (!access::reach(viewer.grants(), right).is_empty()).then_some(name))
    .collect();
    Json(json!({
        "address": account.address.to_string(),
        "name": account.name,
        "accountId": jmap::account_id(account.id),
        "access": account.access.as_str(),
        "roles": roles,
        "sees": rights,
        "secondFactor": account.has_second_factor,
        "lacksSecondFactor": viewer.lacks_second_factor(),
        "faces": faces,
        "csrf": viewer.session.as_ref().map(|session| &session.csrf),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

pub(crate) async fn node(State(web): State<Arc<Inner>>, viewer: Viewer) -> Json<Value> {
    let mut node = json!({ "name": web.settings.node_name, "version": env!("CARGO_PKG_VERSION") });
    if let (true, Some(fields)) = (viewer.may(Right::ViewNodes, Position::SYSTEM), node.as_object_mut()) {
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
