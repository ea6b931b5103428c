//! Who am I, and how is this node.

use std::collections::BTreeSet;
use std::sync::Arc;

use access::{Position, Reach, Right, Role};
use axum::Json;
use axum::extract::State;
use base::DomainId;
use serde_json::{Value, json};

use crate::admin;
use crate::auth::Viewer;
use crate::server::Inner;

/// Pages, by the right to see what is on them.
const SEES: &[(&str, Right)] = &[
    ("nodes", Right::ViewNodes),
    ("tenants", Right::ViewTenants),
    ("domains", Right::ViewDomains),
    ("accounts", Right::ViewAccounts),
    ("queue", Right::ViewQueue),
    ("policy", Right::ViewPolicy),
    ("quarantine", Right::ViewQuarantine),
    ("audit", Right::ViewAudit),
];
/// What pages offer to somebody who has it anywhere.
const MAY: &[(&str, Right)] = &[
    ("tenants", Right::ChangeTenants),
    ("accounts", Right::ChangeAccounts),
    ("passwords", Right::ResetPassword),
    ("policy", Right::ChangePolicy),
    ("systempolicy", Right::ChangeSystemPolicy),
    ("seesystempolicy", Right::ViewSystemPolicy),
    ("release", Right::ReleaseSpam),
    ("harm", Right::ReleaseHarm),
];

pub(crate) async fn session(viewer: Viewer) -> Json<Value> {
    let account = &viewer.account;
    let roles: BTreeSet<&str> = viewer.grants().iter().map(|grant| grant.role.as_str()).collect();
    // Whose mail goes on to another server reads it there.
    let mut faces = if account.is_relayed { vec!["filter", "log"] } else { vec!["mail", "filter", "log"] };
    if !roles.is_empty() {
        faces.push("admin");
    }
    let held = |named: &[(&'static str, Right)]| -> Vec<&'static str> {
        let is_held = |right| !access::reach(viewer.grants(), right).is_empty();
        named.iter().filter(|(_, right)| is_held(*right)).map(|(name, _)| *name).collect()
    };
    let mut may = held(MAY);
    if admin::sells(&viewer) {
        may.push("domains");
    }
    if admin::require_admin(&viewer).is_ok() {
        may.push("makeadmins");
    }
    let place = |role: &Role| match role {
        role if role.fits(Reach::System) => "system",
        role if role.fits(Reach::Domain(DomainId(0))) => "domain",
        _ => "tenant",
    };
    let gives = access::gives(viewer.grants());
    let gives: Vec<Value> = gives.iter().map(|role| json!({ "role": role.as_str(), "for": place(role) })).collect();
    Json(json!({
        "address": account.address.to_string(),
        "name": account.name,
        "accountId": jmap::account_id(account.id),
        "access": account.access.as_str(),
        "roles": roles,
        "sees": held(SEES),
        "may": may,
        "gives": gives,
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
