//! Sign-in by IMAP (RFC 3501, RFC 4959, RFC 2971).

use bytes::Bytes;

use crate::gateway::{Client, Failure};
use crate::wire::{Wire, begins, plain, strange};

/// Response codes (RFC 5530) of a NO that says nothing about the password.
const NOT_NOW: [&str; 6] = ["UNAVAILABLE", "SERVERBUG", "INUSE", "LIMIT", "PRIVACYREQUIRED", "CANNOT"];

/// Untagged lines before a tagged one: a server that says more is not signing anybody in.
const UNTAGGED_MAX: usize = 100;

/// The server's tagged answer.
enum Tagged {
    /// With a CAPABILITY that came along.
    Ok(Option<String>),
    No(Bytes),
    Bad(Bytes),
}

/// Gives what the server can do now.
pub(crate) async fn sign_in(wire: &mut Wire<'_>, client: Client<'_>) -> Result<String, Failure> {
    let greeting = wire.line_with_literals().await?;
    if !begins(&greeting, "* OK") {
        return Err(strange("greets strangely", &greeting));
    }
    let mut capability = code_capability(&greeting);
    if wire.wants_starttls() {
        match command(wire, "s", "STARTTLS").await? {
            Tagged::Ok(_) => wire.start_tls().await?,
            Tagged::No(line) | Tagged::Bad(line) => return Err(strange("does not start TLS", &line)),
        }
        capability = None;
    }
    let before = match capability {
        Some(known) => known,
        None => ask_capability(wire).await?,
    };
    let has = |name: &str| before.split(' ').any(|one| one.eq_ignore_ascii_case(name));
    if has("ID") {
        // What Dovecot and others take from networks that they trust; it means nothing to the rest.
        let (ip, port) = (client.address.ip().to_canonical(), client.address.port());
        let id = format!("ID (\"name\" \"Ortler\" \"x-originating-ip\" \"{ip}\" \"x-originating-port\" \"{port}\")");
        command(wire, "i", &id).await?;
    }
    let answer = if has("AUTH=PLAIN") {
        let response = plain(client.name, client.password);
        if has("SASL-IR") {
            command(wire, "a", &format!("AUTHENTICATE PLAIN {}", response.reveal())).await?
        } else {
            wire.say("a AUTHENTICATE PLAIN\r\n").await?;
            match go_on(wire, "a").await? {
                Some(answer) => answer,
                None => {
                    wire.say(format!("{}\r\n", response.reveal())).await?;
                    answer(wire, "a").await?
                }
            }
        }
    } else if has("LOGINDISABLED") {
        return Err(Failure::Unavailable("takes no password on this connection".to_owned()));
    } else {
        login(wire, client).await?
    };
    match answer {
        Tagged::Ok(Some(capability)) => Ok(capability),
        Tagged::Ok(None) => ask_capability(wire).await,
        Tagged::No(line) if NOT_NOW.iter().any(|code| begins(text_of(&line), &format!("[{code}"))) => {
            Err(strange("does not sign in now", &line))
        }
        Tagged::No(_) => Err(Failure::Refused),
        Tagged::Bad(line) => Err(strange("does not understand", &line)),
    }
}

/// LOGIN; each argument quoted if it may be, else as a literal.
async fn login(wire: &mut Wire<'_>, client: Client<'_>) -> Result<Tagged, Failure> {
    let mut line = "a LOGIN".to_owned();
    for text in [client.name, client.password.reveal().as_str()] {
        if text.chars().all(|c| matches!(c, ' '..='~')) {
            line.push_str(&format!(" \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
            continue;
        }
        wire.say(format!("{line} {{{}}}\r\n", text.len())).await?;
        if let Some(answer) = go_on(wire, "a").await? {
            return Ok(answer);
        }
        line = text.to_owned();
    }
    let line = base::Secret::new(format!("{line}\r\n"));
    wire.say(line.reveal()).await?;
    answer(wire, "a").await
}

async fn ask_capability(wire: &mut Wire<'_>) -> Result<String, Failure> {
    match command(wire, "c", "CAPABILITY").await? {
        Tagged::Ok(Some(capability)) => Ok(capability),
        Tagged::Ok(None) => Err(strange("does not say what it can do", b"")),
        Tagged::No(line) | Tagged::Bad(line) => Err(strange("does not say what it can do", &line)),
    }
}

async fn command(wire: &mut Wire<'_>, tag: &str, text: &str) -> Result<Tagged, Failure> {
    wire.say(base::Secret::new(format!("{tag} {text}\r\n")).reveal()).await?;
    answer(wire, tag).await
}

/// `None`: the server wants more. A tagged answer is one already.
async fn go_on(wire: &mut Wire<'_>, tag: &str) -> Result<Option<Tagged>, Failure> {
    read(wire, tag, true).await
}

async fn answer(wire: &mut Wire<'_>, tag: &str) -> Result<Tagged, Failure> {
    read(wire, tag, false).await?.ok_or_else(|| strange("wants more than there is", b""))
}

async fn read(wire: &mut Wire<'_>, tag: &str, may_go_on: bool) -> Result<Option<Tagged>, Failure> {
    let mut capability = None;
    for _ in 0..UNTAGGED_MAX {
        let line = wire.line_with_literals().await?;
        if begins(&line, "* CAPABILITY ") {
            capability = Some(String::from_utf8_lossy(line.get(13..).unwrap_or_default()).trim().to_owned());
        } else if begins(&line, "* BYE") {
            return Err(strange("ends the session", &line));
        } else if begins(&line, "+") {
            return if may_go_on { Ok(None) } else { Err(strange("wants more than there is", &line)) };
        } else if let Some(status) = line.strip_prefix(format!("{tag} ").as_bytes()) {
            return Ok(Some(if begins(status, "OK") {
                Tagged::Ok(code_capability(&line).or(capability))
            } else if begins(status, "NO") {
                Tagged::No(line)
            } else {
                Tagged::Bad(line)
            }));
        }
    }
    Err(strange("says too much", b""))
}

/// What follows tag and status.
fn text_of(line: &[u8]) -> &[u8] {
    line.splitn(3, |octet| *octet == b' ').nth(2).unwrap_or_default()
}

/// Of `* OK [CAPABILITY …] text`.
fn code_capability(line: &[u8]) -> Option<String> {
    let text = text_of(line);
    let code = text.get(..memchr::memchr(b']', text)?)?;
    begins(code, "[CAPABILITY ").then(|| String::from_utf8_lossy(code.get(12..).unwrap_or_default()).trim().to_owned())
}
