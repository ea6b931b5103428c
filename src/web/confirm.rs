//! Pages that a link in a mail opens, for who is not signed in: they ask once more before anything is done, as programs that
//! look at mail follow links by themselves.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, html};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::links::Action;
use crate::login::language;
use crate::operations::Desk;
use crate::security::{PLAIN_POLICY, set_policy};
use crate::server::Inner;

/// German, Italian, English.
type Text = [&'static str; 3];

const RELEASE: Text = ["Nachricht zustellen", "Consegnare il messaggio", "Deliver the message"];
const DELETE: Text = ["Nachricht löschen", "Eliminare il messaggio", "Delete the message"];
const FORWARD: Text = ["Weiterleitung annehmen", "Accettare l'inoltro", "Accept forwarded mail"];
const FROM: Text = ["Von", "Da", "From"];
const SUBJECT: Text = ["Betreff", "Oggetto", "Subject"];
const RELEASED: Text = [
    "Die Nachricht liegt jetzt in Ihrem Posteingang.",
    "Il messaggio è ora nella Sua posta in arrivo.",
    "The message is in your inbox now.",
];
const DELETED: Text = ["Die Nachricht ist gelöscht.", "Il messaggio è stato eliminato.", "The message is deleted."];
const FORWARDED: Text = [
    "Danke. Die Post kommt von jetzt an auch hierher.",
    "Grazie. D'ora in poi la posta arriva anche qui.",
    "Thank you. From now on the mail comes here, too.",
];
const GONE: Text = [
    "Dieser Verweis gilt nicht mehr: Die Sache ist erledigt, oder er ist zu alt.",
    "Questo collegamento non è più valido: è già stato usato, oppure è troppo vecchio.",
    "This link does not count any more: the matter is done, or it is too old.",
];
const KEPT: Text = [
    "Diese Nachricht lässt sich so nicht zustellen. Bitte fragen Sie Ihren Administrator.",
    "Questo messaggio non può essere consegnato così. Si rivolga al Suo amministratore.",
    "This message cannot be delivered that way. Please ask your administrator.",
];
const LATER: Text = [
    "Das geht gerade nicht. Bitte versuchen Sie es gleich noch einmal.",
    "Al momento non è possibile. Riprovi tra poco.",
    "This is not possible right now. Please try again in a moment.",
];
const ASKED: Text = [
    "Jemand möchte seine Post an Ihre Adresse weiterleiten und hat Ihnen diesen Verweis geschickt.",
    "Qualcuno desidera inoltrare la propria posta al Suo indirizzo e Le ha inviato questo collegamento.",
    "Somebody wishes to forward mail to your address, and sent you this link.",
];

fn index(headers: &HeaderMap) -> usize {
    match language(headers) {
        "de" => 0,
        "it" => 1,
        _ => 2,
    }
}

/// A page with facts, and a button where there is still something to do.
fn page(
    headers: &HeaderMap,
    status: StatusCode,
    title: Text,
    text: Option<Text>,
    facts: &[(Text, &str)],
    ask: bool,
) -> Response {
    let of = index(headers);
    let page = html! {
        (DOCTYPE)
        html lang=(["de", "it", "en"][of]) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title[of]) " · Ortler" }
                link rel="stylesheet" href="/login.css";
            }
            body {
                main {
                    h1 { (title[of]) }
                    @if let Some(text) = text { p role="status" { (text[of]) } }
                    @for (name, value) in facts { p { strong { (name[of]) ": " } (value) } }
                    @if ask { form method="post" { button type="submit" { (title[of]) } } }
                }
            }
        }
    };
    let mut response = (status, page).into_response();
    set_policy(response.headers_mut(), PLAIN_POLICY);
    response
}

const fn title(action: Action) -> Text {
    match action {
        Action::Release => RELEASE,
        Action::Delete => DELETE,
    }
}

pub(crate) async fn held(State(web): State<Arc<Inner>>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    let Some((id, action)) = web.services.links.read(&token, web.services.clock.utc()) else {
        return page(&headers, StatusCode::NOT_FOUND, ["Ortler"; 3], Some(GONE), &[], false);
    };
    match web.services.storage.held.held_message(id).await {
        Ok(Some(message)) => {
            let facts = &message.held.facts;
            let from = if facts.author.is_empty() { &facts.sender } else { &facts.author };
            page(&headers, StatusCode::OK, title(action), None, &[(FROM, from), (SUBJECT, &facts.subject)], true)
        }
        Ok(None) => page(&headers, StatusCode::NOT_FOUND, title(action), Some(GONE), &[], false),
        Err(_) => page(&headers, StatusCode::SERVICE_UNAVAILABLE, title(action), Some(LATER), &[], false),
    }
}

pub(crate) async fn act_on_held(
    State(web): State<Arc<Inner>>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some((id, action)) = web.services.links.read(&token, web.services.clock.utc()) else {
        return page(&headers, StatusCode::NOT_FOUND, ["Ortler"; 3], Some(GONE), &[], false);
    };
    let by = "a link in a mail";
    let (request, done) = match action {
        Action::Release => (json!({ "release": { "ids": [id.to_string()], "by": by, "teaches": true } }), RELEASED),
        Action::Delete => (json!({ "delete": { "ids": [id.to_string()], "by": by } }), DELETED),
    };
    let (status, text) = match web.operate(Desk::Quarantine, request).await {
        Ok(answer) => outcome(&answer, done),
        Err(ApiError::NotFound) => (StatusCode::NOT_FOUND, GONE),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, LATER),
    };
    page(&headers, status, title(action), Some(text), &[], false)
}

fn outcome(answer: &Value, done: Text) -> (StatusCode, Text) {
    let code = answer.pointer("/done/0/code").and_then(Value::as_str);
    match (code, answer.get("deleted").and_then(Value::as_u64)) {
        (Some("gone"), _) | (None, Some(0)) => (StatusCode::NOT_FOUND, GONE),
        (Some("virus"), _) => (StatusCode::FORBIDDEN, KEPT),
        (Some(_), _) => (StatusCode::SERVICE_UNAVAILABLE, LATER),
        (None, _) => (StatusCode::OK, done),
    }
}

pub(crate) async fn forward(headers: HeaderMap) -> Response {
    page(&headers, StatusCode::OK, FORWARD, Some(ASKED), &[], true)
}

pub(crate) async fn accept_forward(
    State(web): State<Arc<Inner>>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Response {
    let (status, text) = match web.services.registry.confirm_forward(&token).await {
        Ok(Some(_)) => (StatusCode::OK, FORWARDED),
        Ok(None) => (StatusCode::NOT_FOUND, GONE),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, LATER),
    };
    page(&headers, status, FORWARD, Some(text), &[], false)
}
