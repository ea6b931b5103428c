//! The reference page, made from the definitions.

use crate::load::{describe, protocols};
use crate::option::{Kind, OPTIONS};

/// Every option with type, limits, default and documentation, as a commented TOML file that loads when its required
/// lines are filled in.
pub fn reference() -> String {
    let mut out = String::from("# Configuration of an Ortler node: every option with its type and default.\n");
    let mut section = "";
    for option in OPTIONS {
        let (own, key) = option.path.split_once('.').unwrap_or(("", option.path));
        if own != section {
            section = own;
            out.push_str(&format!("\n[{section}]\n"));
        }
        out.push_str(&format!("# {}\n# Type: {}.", option.doc, describe(option.kind)));
        match option.default {
            Some(default) => out.push_str(&format!(" Default:\n# {key} = {default}\n")),
            None if option.required => out.push_str(&format!(" Required.\n{key} = \"\"\n")),
            None => out.push_str(&format!(" No default.\n# {key} = {}\n", blank(option.kind))),
        }
    }
    out.push_str(&format!(
        "\n# One section for each address to listen on. `protocol` is one of {}.\n# [[listener]]\n# protocol = \"smtp\"\n# address = \"0.0.0.0:25\"\n",
        protocols()
    ));
    out
}

/// A value of this kind to put one's own over.
const fn blank(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "false",
        Kind::Count { .. } => "0",
        Kind::Choices(_) | Kind::AnyOf(_) | Kind::Texts | Kind::Paths | Kind::SocketAddresses | Kind::Networks => "[]",
        Kind::Path => "\"/path/to/it\"",
        Kind::MailAddress => "\"postmaster@example.org\"",
        Kind::Text | Kind::Size { .. } | Kind::Span { .. } | Kind::Choice(_) => "\"...\"",
    }
}
