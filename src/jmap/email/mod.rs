//! Email methods (RFC 8621 §4).

mod body;
mod build;
mod changes;
mod filter;
mod get;
mod header;
mod import;
mod keywords;
mod query;
mod set;

pub(crate) use body::{tree, views};
pub(crate) use filter::{Filter, Place};
pub(crate) use header::{Form, own_fields, show as show_header};
