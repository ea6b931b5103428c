//! The nodes of the system: for administrators.

use std::sync::Arc;

use access::{Position, Right};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cluster::{Member, Wish};
use mail::date::format_utc;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Parsed, read, record};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePatch {
    draining: bool,
}

pub(crate) async fn list(State(web): State<Arc<Inner>>, viewer: Viewer) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewNodes, Position::SYSTEM)?;
    let members = web.services.membership.list().await?;
    Ok(Json(json!({ "nodes": members.iter().map(to_json).collect::<Vec<_>>() })))
}

pub(crate) async fn set(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
    body: Parsed<NodePatch>,
) -> Result<StatusCode, ApiError> {
    viewer.require(Right::ChangeNodes, Position::SYSTEM)?;
    let wish = if read(body)?.draining { Wish::Drain } else { Wish::Serve };
    web.services.membership.set_wish(&name, wish).await?;
    record(&web, &viewer, if wish == Wish::Drain { "drain-node" } else { "resume-node" }, &name, Position::SYSTEM)
        .await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn remove(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    viewer.require(Right::ChangeNodes, Position::SYSTEM)?;
    web.services.membership.remove(&name).await?;
    record(&web, &viewer, "remove-node", &name, Position::SYSTEM).await;
    Ok(StatusCode::NO_CONTENT)
}

fn to_json(member: &Member) -> Value {
    json!({
        "name": member.name,
        "state": member.state().as_str(),
        "roles": member.role_names(),
        "address": member.address,
        "version": member.version,
        "sessions": member.sessions,
        "silentMillis": member.silent.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        "startedAt": format_utc(member.started_at),
    })
}
