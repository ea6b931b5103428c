//! The trace field we add (RFC 5321 §4.4).

use base::{MessageId, UtcMillis};
use mail::ForwardPath;
use smtp::{Protocol, SessionFacts};

/// How the message came to us.
pub enum Way<'a> {
    Session(&'a SessionFacts),
    /// From our own webmail or another JMAP client.
    Web,
}

/// The whole field with its line end.
pub fn field(way: &Way<'_>, host_name: &str, id: MessageId, to: &[ForwardPath], at: UtcMillis) -> String {
    let mut out = String::from("Received: ");
    match way {
        Way::Session(facts) => {
            // A submitter's address is nobody's business but ours: the trail has it.
            let hidden = facts.identity.is_some() && facts.protocol == Protocol::Submission;
            if !hidden {
                let helo = clean(&facts.helo);
                let name = facts.client_name.as_deref().map(clean).unwrap_or_default();
                let space = if name.is_empty() { "" } else { " " };
                out.push_str(&format!("from {helo} ({name}{space}[{}])\r\n\t", literal(facts.client.ip())));
            }
            out.push_str(&format!("by {host_name} (Ortler) with {} id {id}", facts.with_protocol()));
            if let Some(tls) = &facts.tls {
                out.push_str(&format!("\r\n\t({} {})", clean(&tls.version), clean(&tls.cipher)));
            }
        }
        Way::Web => out.push_str(&format!("by {host_name} (Ortler) with HTTPS id {id}")),
    }
    // With several recipients, naming one would tell it to the others (RFC 5321 §7.2).
    if let [ForwardPath::Address(address)] = to {
        out.push_str(&format!("\r\n\tfor <{address}>"));
    }
    out.push_str(&format!(";\r\n\t{}\r\n", mail::date::format_rfc5322(at)));
    out
}

fn literal(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("IPv6:{address}"),
    }
}

/// What a stranger said, made harmless inside a header field.
fn clean(text: &str) -> String {
    let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\' | ';' | '"' | '<' | '>');
    text.chars().filter(fits).take(255).collect()
}
