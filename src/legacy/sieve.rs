//! Sign-in by ManageSieve (RFC 5804).

use bytes::Bytes;

use crate::gateway::{Client, Failure};
use crate::wire::{Wire, begins, plain, strange};

const CAPABILITIES_MAX: usize = 100;

pub(crate) async fn sign_in(wire: &mut Wire<'_>, client: Client<'_>) -> Result<(), Failure> {
    ready(wire).await?;
    if wire.wants_starttls() {
        wire.say("STARTTLS\r\n").await?;
        let answer = wire.line_with_literals().await?;
        if !begins(&answer, "OK") {
            return Err(strange("does not start TLS", &answer));
        }
        wire.start_tls().await?;
        // §2.2: it says anew what it can do.
        ready(wire).await?;
    }
    let response = plain(client.name, client.password);
    let command = base::Secret::new(format!("AUTHENTICATE \"PLAIN\" \"{}\"\r\n", response.reveal()));
    wire.say(command.reveal()).await?;
    let answer = wire.line_with_literals().await?;
    match &*answer {
        line if begins(line, "OK") => Ok(()),
        line if begins(line, "NO (TRYLATER") || begins(line, "NO (ENCRYPT-NEEDED") || begins(line, "BYE") => {
            Err(strange("does not sign in now", line))
        }
        line if begins(line, "NO") => Err(Failure::Refused),
        line => Err(strange("answers strangely", line)),
    }
}

/// What it can do, to the OK at the end.
async fn ready(wire: &mut Wire<'_>) -> Result<(), Failure> {
    for _ in 0..CAPABILITIES_MAX {
        let line: Bytes = wire.line_with_literals().await?;
        if begins(&line, "OK") {
            return Ok(());
        }
        if !begins(&line, "\"") && !begins(&line, "{") {
            return Err(strange("greets strangely", &line));
        }
    }
    Err(strange("says too much", b""))
}
