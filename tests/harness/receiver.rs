//! A mail server that behaves as a test wants: takes, refuses, stalls, hangs up, at each step.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Clock as _, SystemClock};

/// What the client has just said.
#[derive(Clone, Debug)]
pub struct Step {
    /// `CONNECT`, the command's first word, or `CONTENT` for the whole message.
    pub verb: String,
    pub line: String,
    /// Recipients so far.
    pub to: Vec<String>,
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub enum Reaction {
    Take,
    Say(&'static str),
    /// After the words, if any, and the message is taken if it was whole.
    HangUp(&'static str),
    /// Says nothing for so long.
    Stall(Duration),
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub mail: String,
    pub rcpt: Vec<String>,
    pub content: String,
}

type Script = dyn Fn(&Step) -> Reaction + Send + Sync;

/// Takes connections until the process ends.
pub struct Receiver {
    port: u16,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Receiver {
    /// `offers`: further lines of the answer to EHLO.
    pub fn start(offers: &'static [&'static str], script: impl Fn(&Step) -> Reaction + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", offers, script)
    }

    /// At an address of its own.
    pub fn start_at(
        address: &str,
        offers: &'static [&'static str],
        script: impl Fn(&Step) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let (script, into) = (Arc::new(script) as Arc<Script>, Arc::clone(&taken));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (script, taken) = (Arc::clone(&script), Arc::clone(&into));
                std::thread::spawn(move || {
                    let _ = Session { stream, script, taken, offers }.serve();
                });
            }
        });
        Self { port, taken }
    }

    /// Takes everything.
    pub fn kind() -> Self {
        Self::start(&["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "CHUNKING"], |_| Reaction::Take)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits until so many messages were taken; gives them.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Taken> {
        let deadline = SystemClock.now() + Duration::from_secs(60);
        loop {
            let taken = self.taken();
            if taken.len() >= count {
                return taken;
            }
            assert!(SystemClock.now() < deadline, "{} of {count} messages came: {taken:?}", taken.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Session {
    stream: TcpStream,
    script: Arc<Script>,
    taken: Arc<Mutex<Vec<Taken>>>,
    offers: &'static [&'static str],
}

impl Session {
    fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{text}\r\n").as_bytes())
    }

    fn serve(mut self) -> std::io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        let mut step = Step { verb: "CONNECT".to_owned(), line: String::new(), to: Vec::new() };
        let reaction = (self.script)(&step);
        if !self.answer(&reaction, "220 receiver.test ESMTP")? {
            return Ok(());
        }
        let (mut mail, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let said = line.trim_end().to_owned();
            step.verb = said.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            step.line.clone_from(&said);
            let usual = match step.verb.as_str() {
                "EHLO" => {
                    let mut lines = vec!["250-receiver.test".to_owned()];
                    lines.extend(self.offers.iter().map(|offer| format!("250-{offer}")));
                    lines.push("250 HELP".to_owned());
                    lines.join("\r\n")
                }
                "DATA" => "354 go on".to_owned(),
                "QUIT" => "221 bye".to_owned(),
                _ => "250 2.0.0 ok".to_owned(),
            };
            if step.verb == "BDAT" {
                let size = said.split(' ').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
                let mut content = vec![0; size];
                reader.read_exact(&mut content)?;
                if !self.take(&mut step, &mail, &content)? {
                    return Ok(());
                }
                continue;
            }
            let reaction = match step.verb.as_str() {
                "RCPT" if mail.is_empty() => Reaction::Say("503 5.5.1 MAIL first"),
                _ => (self.script)(&step),
            };
            if !self.answer(&reaction, &usual)? {
                return Ok(());
            }
            let is_taken = matches!(reaction, Reaction::Take | Reaction::Stall(_));
            match step.verb.as_str() {
                "MAIL" => (mail, step.to) = (if is_taken { said } else { String::new() }, Vec::new()),
                "RCPT" if is_taken => step.to.push(said),
                "RSET" => step.to.clear(),
                "QUIT" => return Ok(()),
                "DATA" if is_taken => {
                    let mut content = Vec::new();
                    while !content.ends_with(b"\r\n.\r\n") && content != b".\r\n" {
                        if reader.read_until(b'\n', &mut content)? == 0 {
                            return Ok(());
                        }
                    }
                    content.truncate(content.len() - 3);
                    if !self.take(&mut step, &mail, &content)? {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// False if the connection is over.
    fn take(&mut self, step: &mut Step, mail: &str, content: &[u8]) -> std::io::Result<bool> {
        step.verb = "CONTENT".to_owned();
        let is_wanted = !step.to.is_empty();
        let reaction = if is_wanted { (self.script)(step) } else { Reaction::Say("503 5.5.1 nobody") };
        if !matches!(reaction, Reaction::Say(_)) {
            self.taken.lock().unwrap().push(Taken {
                mail: mail.to_owned(),
                rcpt: step.to.clone(),
                content: String::from_utf8_lossy(content).into_owned(),
            });
        }
        let goes_on = self.answer(&reaction, "250 2.0.0 taken");
        step.to.clear();
        goes_on
    }

    fn answer(&mut self, reaction: &Reaction, usual: &str) -> std::io::Result<bool> {
        match reaction {
            Reaction::Take => self.say(usual).map(|()| true),
            Reaction::Say(text) => self.say(text).map(|()| true),
            Reaction::HangUp("") => Ok(false),
            Reaction::HangUp(text) => self.say(text).map(|()| false),
            Reaction::Stall(wait) => {
                std::thread::sleep(*wait);
                self.say(usual).map(|()| true)
            }
        }
    }
}
