//! Sign-in by POP3 (RFC 1939, RFC 2449, RFC 2595, RFC 5034).

use bytes::Bytes;

use crate::gateway::{Client, Failure};
use crate::wire::{Wire, begins, plain, strange};

/// RFC 2449 §4: longer commands are cut.
const COMMAND_MAX: usize = 250;
const CAPABILITIES_MAX: usize = 100;

pub(crate) async fn sign_in(wire: &mut Wire<'_>, client: Client<'_>) -> Result<(), Failure> {
    let greeting = wire.line().await?;
    if !begins(&greeting, "+OK") {
        return Err(strange("greets strangely", &greeting));
    }
    if wire.wants_starttls() {
        let answer = ask(wire, "STLS").await?;
        if !begins(&answer, "+OK") {
            return Err(strange("does not start TLS", &answer));
        }
        wire.start_tls().await?;
    }
    // Dovecot's word to networks that it trusts.
    if begins(&greeting, "+OK [XCLIENT]") {
        let (ip, port) = (client.address.ip().to_canonical(), client.address.port());
        ask(wire, &format!("XCLIENT ADDR={ip} PORT={port}")).await?;
    }
    let answer = if has_plain(wire).await? {
        let response = plain(client.name, client.password);
        let whole = base::Secret::new(format!("AUTH PLAIN {}", response.reveal()));
        if whole.reveal().len() <= COMMAND_MAX {
            ask(wire, whole.reveal()).await?
        } else {
            let challenge = ask(wire, "AUTH PLAIN").await?;
            if begins(&challenge, "+OK") || !begins(&challenge, "+") {
                return Err(strange("does not sign in", &challenge));
            }
            ask(wire, response.reveal()).await?
        }
    } else {
        let answer = ask(wire, &format!("USER {}", client.name)).await?;
        if begins(&answer, "+OK") { ask(wire, &format!("PASS {}", client.password.reveal())).await? } else { answer }
    };
    // RFC 3206 and RFC 2449 §8.1.
    match &*answer {
        line if begins(line, "+OK") => Ok(()),
        line if begins(line, "-ERR [IN-USE]") => Err(Failure::InUse),
        line if begins(line, "-ERR [SYS/") || begins(line, "-ERR [LOGIN-DELAY]") => {
            Err(strange("does not sign in now", line))
        }
        line if begins(line, "-ERR") => Err(Failure::Refused),
        line => Err(strange("answers strangely", line)),
    }
}

async fn ask(wire: &mut Wire<'_>, command: &str) -> Result<Bytes, Failure> {
    wire.say(base::Secret::new(format!("{command}\r\n")).reveal()).await?;
    wire.line().await
}

async fn has_plain(wire: &mut Wire<'_>) -> Result<bool, Failure> {
    if !begins(&ask(wire, "CAPA").await?, "+OK") {
        return Ok(false);
    }
    let mut found = false;
    for _ in 0..CAPABILITIES_MAX {
        let line = wire.line().await?;
        if &*line == b"." {
            return Ok(found);
        }
        let mut words = line.split(|octet| *octet == b' ');
        let is_sasl = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"SASL"));
        found |= is_sasl && words.any(|word| word.eq_ignore_ascii_case(b"PLAIN"));
    }
    Err(strange("says too much", b""))
}
