//! The web role: sign-in, JMAP over HTTP, the JSON API, the four faces, health and metrics.
//!
//! Floor: 4. It must never know how anything is stored: it asks the store, the directory, the trail and JMAP.
//! Main types: [`Web`], which serves connections; [`WebServices`], what it is built from; [`Health`], the other listener.
//! Surprise: a message's HTML is a page of its own with its own policy, never part of the application's page; the
//! sanitiser is the first wall and that policy the second.

mod about;
mod admin;
mod api;
mod assets;
mod auth;
mod confirm;
mod error;
mod events;
mod health;
mod jmap_http;
mod leading;
pub mod links;
mod log;
mod login;
mod message;
mod nodes;
mod once;
mod openapi;
mod operations;
mod people;
mod permission;
mod policies;
mod quarantine;
mod recipients;
mod removed;
mod sanitize;
mod security;
mod server;
mod session_table;
#[cfg(test)]
mod tests;
mod words;

pub use auth::AREAS;
pub use health::{Health, ListHealth, ScannerHealth};
pub use operations::{Desk, Operations, Refusal};
pub use sanitize::{Remote, html_page};
pub use server::{Peer, Web, WebServices, WebSettings};
pub use words::{Language, Words};
