//! The description of the JSON API (OpenAPI 3.1).

use axum::Json;
use serde_json::{Map, Value, json};

/// One route: path, method, what it does, names of query parameters.
type Route = (&'static str, &'static str, &'static str, &'static [&'static str]);

const PAGE: &[&str] = &["search", "domain", "after", "limit"];
const OF: &[&str] = &["system", "tenant", "domain", "account"];
const LISTED: &[&str] = &["system", "tenant", "domain", "account", "word", "search", "after", "below", "limit"];
const HELD: &[&str] = &["account", "domain", "all", "reason", "search", "asked", "after", "limit"];
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
    ("/api/v1/tenants", "get", "Resellers and customers", &[]),
    ("/api/v1/tenants", "post", "Adds one: name, kind (reseller, customer), parent", &[]),
    ("/api/v1/tenants/{name}", "patch", "Changes name, quota, quotaMessages", &[]),
    ("/api/v1/tenants/{name}", "delete", "Deletes one without domains", &[]),
    ("/api/v1/domains/{name}/aliases", "get", "Further names of a domain", &[]),
    ("/api/v1/domains/{name}/aliases/{alias}", "put", "Gives a domain a further name", &[]),
    ("/api/v1/domains/{name}/aliases/{alias}", "delete", "Takes it away", &[]),
    ("/api/v1/policy", "get", "A policy: each option's value, where it comes from, what is allowed", OF),
    ("/api/v1/policy", "patch", "Changes options, with If-Match on what was read: edits, note", OF),
    ("/api/v1/policy/options", "get", "All options with their documentation", &[]),
    ("/api/v1/policy/history", "get", "Changes, the latest first", LISTED),
    ("/api/v1/policy/history/{change}/undo", "post", "Takes a change back", OF),
    ("/api/v1/policy/plans", "get", "Changes to come", OF),
    ("/api/v1/policy/plans", "post", "Plans a change: edits, at, note", OF),
    ("/api/v1/policy/plans/{plan}", "delete", "Drops a planned change", OF),
    ("/api/v1/policy/replay", "post", "What edits would have made of the mail of the last days: edits, days", OF),
    ("/api/v1/senders", "get", "Senders that are let through or kept out", LISTED),
    ("/api/v1/senders", "post", "Adds one: word (allow, block), who, unproven, skips, note, until", OF),
    ("/api/v1/senders/{entry}", "delete", "Takes one off", OF),
    ("/api/v1/quarantine", "get", "Messages that are held, the latest first", HELD),
    ("/api/v1/quarantine/counts", "get", "How many of them there are, by reason", HELD),
    (
        "/api/v1/quarantine/actions",
        "post",
        "Does something to messages: action (release, delete, ask), ids, allow, block, despiteVirus",
        &[],
    ),
    ("/api/v1/quarantine/messages/{id}", "get", "One held message and why it is held", &[]),
    ("/api/v1/quarantine/messages/{id}/body", "get", "Its text as a page without pictures", &[]),
    ("/api/v1/quarantine/messages/{id}/source", "get", "The whole message, as a file", &[]),
    ("/api/v1/me", "get", "The viewer's own account: roles, second factor", &[]),
    ("/api/v1/me/password", "post", "Changes the own password: password, new, code", &[]),
    ("/api/v1/me/second-factor", "post", "Begins with a second factor: password, code", &[]),
    ("/api/v1/me/second-factor", "put", "Confirms it: code; gives codes for recovery", &[]),
    ("/api/v1/me/second-factor", "delete", "Ends it: password, code", &[]),
    ("/api/v1/me/sessions", "get", "Browsers that are signed in", &[]),
    ("/api/v1/me/sessions/{id}", "delete", "Signs one out, or `others`", &[]),
    ("/api/v1/accounts/{address}/second-factor", "delete", "Ends the second factor of somebody who lost it", &[]),
    ("/api/v1/roles", "get", "Who holds which roles", &["account"]),
    ("/api/v1/roles", "post", "Gives a role: account, role, tenant, domain", &[]),
    ("/api/v1/roles", "delete", "Takes a role away", &["account", "role", "tenant", "domain"]),
    ("/api/v1/app-passwords", "get", "Passwords of single programs", &["account"]),
    ("/api/v1/app-passwords", "post", "Makes one: name, protocols, until", &[]),
    ("/api/v1/app-passwords/{id}", "delete", "Ends one", &["account"]),
    ("/api/v1/tokens", "get", "Tokens of the API", &[]),
    ("/api/v1/tokens", "post", "Makes one: name, scopes, until", &[]),
    ("/api/v1/tokens/{id}", "delete", "Ends one", &[]),
    ("/api/v1/forwards", "get", "Where an account's mail goes, too", &["account"]),
    ("/api/v1/forwards", "put", "Sets where it goes: targets, keeps", &["account"]),
    ("/api/v1/audit", "get", "Who did what, and who looked", &["below", "limit"]),
    (
        "/api/v1/domains/{name}/relay",
        "put",
        "Where a domain's mail goes on to: hosts, lmtp, certificates (system, off, sha256:HEX), verify (ask, list, all)",
        &[],
    ),
    ("/api/v1/domains/{name}/relay", "delete", "Its mailboxes are here from now on", &[]),
    ("/api/v1/domains", "get", "Domains", PAGE),
    ("/api/v1/domains", "post", "Adds a domain: name, tenant", &[]),
    ("/api/v1/domains/{name}", "patch", "Changes what all its accounts may store: quota, quotaMessages", &[]),
    ("/api/v1/domains/{name}", "delete", "Deletes an empty domain", &[]),
    ("/api/v1/accounts", "get", "Accounts", PAGE),
    ("/api/v1/accounts", "post", "Adds an account: address, name, admin, password, quota, quotaMessages", &[]),
    (
        "/api/v1/accounts/import",
        "post",
        "Adds accounts from a table (CSV): address, name, password or password_hash, quota, messages, aliases",
        &["dry"],
    ),
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
        let once = (*method == "post").then(|| parameter("Idempotency-Key", "header", false));
        let in_query = query.iter().map(|name| parameter(name, "query", false));
        let parameters: Vec<Value> = in_path.chain(in_query).chain(once).collect();
        let mut operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": { "2XX": { "description": "done" }, "default": { "$ref": "#/components/responses/Error" } },
        });
        if let (true, Some(fields)) = (matches!(*method, "post" | "put" | "patch"), operation.as_object_mut()) {
            let content = match path.ends_with("/import") {
                true => json!({ "content": { "text/csv": { "schema": { "type": "string" } } } }),
                false => json!({ "content": { "application/json": { "schema": { "type": "object" } } } }),
            };
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
                "token": { "type": "http", "scheme": "bearer" },
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-ortler" },
            },
        },
        "security": [{ "password": [] }, { "token": [] }, { "session": [] }],
    }))
}

fn parameter(name: &str, place: &str, required: bool) -> Value {
    json!({ "name": name, "in": place, "required": required, "schema": { "type": "string" } })
}
