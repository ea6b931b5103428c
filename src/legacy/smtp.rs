//! Sign-in by SMTP (RFC 6409, RFC 4954), and the greeting that delivery shares with it.

use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::reply::{Offers, REPLY_LINES_MAX, Reply, reply_line};

use crate::gateway::{Client, Failure};
use crate::wire::{Wire, plain, strange};

pub(crate) async fn reply(wire: &mut Wire<'_>) -> Result<Reply, Failure> {
    let mut lines = Vec::new();
    while lines.len() < REPLY_LINES_MAX {
        let line = wire.line().await?;
        let Some((code, is_last, text)) = reply_line(&line) else {
            return Err(strange("answers strangely", &line));
        };
        lines.push(text);
        if is_last {
            return Ok(Reply { code, lines });
        }
    }
    Err(strange("says too much", b""))
}

pub(crate) async fn ask(wire: &mut Wire<'_>, command: &str) -> Result<Reply, Failure> {
    wire.say(Secret::new(format!("{command}\r\n")).reveal()).await?;
    reply(wire).await
}

/// Who is said to stand behind us, where the server takes that.
#[derive(Clone, Copy)]
pub(crate) struct Behind<'a> {
    pub address: std::net::SocketAddr,
    pub helo: &'a str,
}

/// From the greeting to the offers that count, under TLS if wanted.
pub(crate) async fn hello(
    wire: &mut Wire<'_>,
    verb: &str,
    host_name: &str,
    behind: Option<Behind<'_>>,
) -> Result<Offers, Failure> {
    let greeting = reply(wire).await?;
    if greeting.code != 220 {
        return Err(Failure::Unavailable(format!("greets with {}", greeting.describe())));
    }
    let mut offers = greet(wire, verb, host_name).await?;
    if wire.wants_starttls() {
        let answer = ask(wire, "STARTTLS").await?;
        if answer.code != 220 {
            return Err(Failure::Unavailable(format!("does not start TLS: {}", answer.describe())));
        }
        wire.start_tls().await?;
        offers = greet(wire, verb, host_name).await?;
    }
    if let (Some(attributes), Some(behind)) = (offers.of("XCLIENT"), behind) {
        let command = xclient(attributes, behind);
        // Whoever offers it and then does not take it still has the mail.
        if attributes.iter().any(|one| one == "ADDR") && ask(wire, &command).await?.code == 220 {
            offers = greet(wire, verb, host_name).await?;
        }
    }
    Ok(offers)
}

/// Postfix's XCLIENT_README: values are xtext.
fn xclient(offered: &[String], behind: Behind<'_>) -> String {
    let ip = match behind.address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("IPV6:{ip}"),
    };
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '+' | '=');
    let helo = if behind.helo.is_empty() || !behind.helo.chars().all(is_plain) { "[UNAVAILABLE]" } else { behind.helo };
    let values = [
        ("ADDR", ip),
        ("PORT", behind.address.port().to_string()),
        ("HELO", helo.to_owned()),
        ("PROTO", "ESMTP".to_owned()),
    ];
    let mut command = "XCLIENT".to_owned();
    for (name, value) in values.iter().filter(|(name, _)| offered.iter().any(|one| one == name)) {
        command.push_str(&format!(" {name}={value}"));
    }
    command
}

async fn greet(wire: &mut Wire<'_>, verb: &str, host_name: &str) -> Result<Offers, Failure> {
    let answer = ask(wire, &format!("{verb} {host_name}")).await?;
    if !answer.is_success() {
        return Err(Failure::Unavailable(format!("does not take {verb}: {}", answer.describe())));
    }
    Ok(Offers::new(&answer))
}

pub(crate) async fn sign_in(wire: &mut Wire<'_>, client: Client<'_>, host_name: &str) -> Result<(), Failure> {
    let behind = Behind { address: client.address, helo: client.helo };
    let offers = hello(wire, "EHLO", host_name, Some(behind)).await?;
    let mechanisms = offers.of("AUTH").unwrap_or_default();
    let has = |name: &str| mechanisms.iter().any(|one| one == name);
    let answer = if has("PLAIN") {
        ask(wire, &format!("AUTH PLAIN {}", plain(client.name, client.password).reveal())).await?
    } else if has("LOGIN") {
        let mut answer = ask(wire, "AUTH LOGIN").await?;
        for text in [client.name, client.password.reveal().as_str()] {
            if answer.code == 334 {
                answer = ask(wire, Secret::new(STANDARD.encode(text)).reveal()).await?;
            }
        }
        answer
    } else {
        return Err(Failure::Unavailable("offers neither PLAIN nor LOGIN".to_owned()));
    };
    match answer.code {
        235 => Ok(()),
        // RFC 4954 §6: a stronger mechanism or TLS is wanted, whatever the password.
        534 | 538 => Err(Failure::Unavailable(answer.describe())),
        _ if answer.is_permanent() => Err(Failure::Refused),
        _ => Err(Failure::Unavailable(answer.describe())),
    }
}
