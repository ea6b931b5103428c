//! The description of the JSON API (OpenAPI 3.1).

use axum::Json;
use serde_json::{Map, Value, json};

/// One route: path, method, what it does, names of query parameters.
type Route = (&'static str, &'static str, &'static str, &'static [&'static str]);

const PAGE: &[&str] = &["search", "domain", "after", "limit"];
const QUEUE: &[&str] = &["from", "to", "lane", "state", "status", "subject", "account", "older", "after", "limit"];

pub(crate) const ROUTES: &[Route] = &[
    ("/api/v1/openapi.json", "get", "This description", &[]),
    ("/api/v1/session", "get", "Who is signed in, with the token for X-CSRF-Token", &[]),
    ("/api/v1/node", "get", "Name, version and, for administrators, health of the node", &[]),
    (
        "/api/v1/message/{email}/body",
        "get",
        "An email's text as a sanitised HTML page, for a sandboxed frame; images=remote lets it load pictures",
        &["images"],
    ),
    ("/api/v1/message/{email}/inline/{blob}", "get", "A picture inside an email", &[]),
    ("/api/v1/message/{email}/about", "get", "Proof of its sender, its place in the log, what the filter found", &[]),
    ("/api/v1/recipients/check", "post", "Whether mail to these addresses would be taken: addresses", &[]),
    ("/api/v1/removed", "get", "Removed messages and deleted folders that can be brought back", &["account", "limit"]),
    ("/api/v1/removed/restore", "post", "Brings them back: ids or folder; into, account", &[]),
    ("/api/v1/removed/purge", "post", "Ends that for good: ids or all; account", &[]),
    ("/api/v1/log/messages", "get", "Messages in the log, newest first", &["q", "before", "below", "since", "limit"]),
    ("/api/v1/log/messages/{id}", "get", "One message and its life story", &[]),
    ("/api/v1/log/messages/{id}/events", "get", "A message's life story", &[]),
    ("/api/v1/log/histogram", "get", "Recipients by outcome over time", &["from", "to", "step"]),
    ("/api/v1/log/stream", "get", "New and changed messages as server-sent events", &["after", "q"]),
    ("/api/v1/nodes", "get", "The nodes of the system: who is up, who drains, who is down", &[]),
    ("/api/v1/nodes/{name}", "patch", "Takes a node out or in again: draining", &[]),
    ("/api/v1/nodes/{name}", "delete", "Forgets a node that is down", &[]),
    ("/api/v1/queue", "get", "Recipients whose mail waits, the oldest messages first", QUEUE),
    ("/api/v1/queue/counts", "get", "How many of them wait, are due, are held", QUEUE),
    ("/api/v1/queue/messages/{id}", "get", "All that the queue knows of a message", &[]),
    (
        "/api/v1/queue/actions",
        "post",
        "Does something to messages: action (retry, hold, release, reroute, bounce, delete), ids or where, reason, lane",
        &[],
    ),
    ("/api/v1/queue/lanes", "get", "Where mail waits for, the fullest first", &["all"]),
    ("/api/v1/queue/lanes/{lane}", "patch", "Stops trying a lane, or goes on: suspended, reason", &[]),
    ("/api/v1/keys", "get", "Keys by which domains sign, with the records to publish", &["domain"]),
    ("/api/v1/keys", "post", "Makes two keys, RSA and Ed25519: domain, selector", &[]),
    ("/api/v1/keys/{domain}/check", "get", "What the DNS has of a domain's keys now", &[]),
    (
        "/api/v1/keys/{domain}/{selector}",
        "patch",
        "Signs by a key, or no more: state (active, retired), unchecked",
        &[],
    ),
    ("/api/v1/keys/{domain}/{selector}", "delete", "Forgets a key that signs nothing", &[]),
    (
        "/api/v1/reports",
        "get",
        "Reports that came from other mail systems: dmarc, tls, abuse",
        &["kind", "domain", "days"],
    ),
    ("/api/v1/reports/{kind}/{domain}", "get", "What all reports about a domain say together", &["days"]),
    ("/api/v1/domains", "get", "Domains", PAGE),
    ("/api/v1/domains", "post", "Adds a domain: name, tenant", &[]),
    ("/api/v1/domains/{name}", "patch", "Changes what all its accounts may store: quota, quotaMessages", &[]),
    ("/api/v1/domains/{name}", "delete", "Deletes an empty domain", &[]),
    ("/api/v1/accounts", "get", "Accounts", PAGE),
    ("/api/v1/accounts", "post", "Adds an account: address, name, admin, password, quota, quotaMessages", &[]),
    ("/api/v1/accounts/{address}", "get", "One account and what it uses", &[]),
    (
        "/api/v1/accounts/{address}",
        "patch",
        "Changes name, access, enabled, sending, quota, quotaMessages, password",
        &[],
    ),
    ("/api/v1/accounts/{address}", "delete", "Deletes an account and its mail", &[]),
    ("/api/v1/aliases", "get", "Aliases", PAGE),
    ("/api/v1/aliases/{address}", "put", "Makes an alias or changes it: targets", &[]),
    ("/api/v1/aliases/{address}", "delete", "Deletes an alias", &[]),
];

pub(crate) async fn document() -> Json<Value> {
    let mut paths: Map<String, Value> = Map::new();
    for (path, method, summary, query) in ROUTES {
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = in_path.map(|name| parameter(name, "path", true));
        let parameters: Vec<Value> = in_path.chain(query.iter().map(|name| parameter(name, "query", false))).collect();
        let mut operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": { "2XX": { "description": "done" }, "default": { "$ref": "#/components/responses/Error" } },
        });
        if let (true, Some(fields)) = (matches!(*method, "post" | "put" | "patch"), operation.as_object_mut()) {
            let content = json!({ "content": { "application/json": { "schema": { "type": "object" } } } });
            fields.insert("requestBody".to_owned(), content);
        }
        let of_path = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        if let Some(of_path) = of_path.as_object_mut() {
            of_path.insert((*method).to_owned(), operation);
        }
    }
    let error = json!({
        "type": "object",
        "required": ["error", "message"],
        "properties": { "error": { "type": "string" }, "message": { "type": "string" } },
    });
    Json(json!({
        "openapi": "3.1.0",
        "info": { "title": "Ortler", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "responses": { "Error": {
                "description": "refused or failed",
                "content": { "application/json": { "schema": error } },
            }},
            "securitySchemes": {
                "password": { "type": "http", "scheme": "basic" },
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-ortler" },
            },
        },
        "security": [{ "password": [] }, { "session": [] }],
    }))
}

fn parameter(name: &str, place: &str, required: bool) -> Value {
    json!({ "name": name, "in": place, "required": required, "schema": { "type": "string" } })
}
