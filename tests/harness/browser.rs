//! Headless Chromium, driven over the W3C WebDriver protocol.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::Conversation;

/// The name under which WebDriver gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running driver and its port. It takes a free port of IPv4 and ends where somebody has the same port of IPv6, so
/// it is started again.
fn start_driver() -> (Child, u16) {
    let mut said = Vec::new();
    for _ in 0..10 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().expect("chromedriver runs: install chromium and chromium-driver");
        for line in BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let port = line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').parse());
            if let Some(Ok(port)) = port {
                return (driver, port);
            }
            said.push(line);
        }
        _ = driver.wait();
    }
    panic!("chromedriver does not start: {}", said.join("\n"))
}

/// One window with a profile of its own; closed when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver();
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let mut arguments: Vec<String> = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
            --lang=en --window-size=1280,860"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wishes = json!({
            "browserName": "chrome", "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" },
        });
        let made = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wishes } })).unwrap();
        browser.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (port, session, length) = (self.port, &self.session, body.len());
        let mut connection = Conversation::open(port);
        connection.send(
            format!(
                "{method} {session}{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        // The driver keeps connections open: its answer ends where it says.
        let (status, answer) = connection.http_answer();
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        if status == 200 { Ok(answer["value"].take()) } else { Err(answer["value"]["message"].to_string()) }
    }

    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url })).unwrap();
    }

    /// Repeats `attempt` until it succeeds.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        let deadline = SystemClock.now() + PATIENCE;
        loop {
            match attempt() {
                Ok(found) => return found,
                Err(why) if SystemClock.now() > deadline => {
                    let page = self.run("return document.body.innerText").unwrap_or_default();
                    panic!("{what}: {why}\nconsole: {:?}\npage: {page}", self.console());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The path of the first element that `place` names: an XPath if it begins with `/`, else a CSS selector.
    fn element(&self, place: &str) -> Result<String, String> {
        let using = if place.starts_with('/') { "xpath" } else { "css selector" };
        let found = self.ask("POST", "/element", &json!({ "using": using, "value": place }))?;
        Ok(format!("/element/{}", found[ELEMENT].as_str().unwrap_or_default()))
    }

    #[track_caller]
    pub fn find(&self, place: &str) {
        self.wait(place, || self.element(place));
    }

    #[track_caller]
    pub fn click(&self, place: &str) {
        self.wait(place, || self.ask("POST", &format!("{}/click", self.element(place)?), &json!({})));
    }

    #[track_caller]
    pub fn write(&self, place: &str, text: &str) {
        self.wait(place, || self.ask("POST", &format!("{}/value", self.element(place)?), &json!({ "text": text })));
    }

    /// Keys to whatever has the focus, one after the other.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        self.strokes(&json!(strokes));
    }

    /// Keys that go down and up, as WebDriver writes them.
    pub fn strokes(&self, strokes: &Value) {
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.ask("POST", "/actions", &json!({ "actions": [keyboard] })).unwrap();
    }

    /// The browser no longer knows who is signed in.
    pub fn forget_cookies(&self) {
        self.ask("DELETE", "/cookie", &Value::Null).unwrap();
    }

    /// Shows the page as on a screen of this size.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": size });
        self.ask("POST", "/goog/cdp/execute", &command).unwrap();
    }

    /// Waits until a script gives what is expected.
    #[track_caller]
    pub fn becomes(&self, script: &str, expected: &Value) {
        self.wait(script, || match self.run(script)? {
            found if found == *expected => Ok(()),
            found => Err(found.to_string()),
        });
    }

    /// Waits until the visible text at `place` holds `words`.
    #[track_caller]
    pub fn reads(&self, place: &str, words: &str) {
        self.wait(&format!("{words:?} in {place}"), || {
            let text = self.ask("GET", &format!("{}/text", self.element(place)?), &Value::Null)?;
            if text.as_str().is_some_and(|text| text.contains(words)) { Ok(()) } else { Err(text.to_string()) }
        });
    }

    /// Goes into a frame; `None` leads back to the page.
    #[track_caller]
    pub fn enter(&self, frame: Option<&str>) {
        self.wait(frame.unwrap_or("page"), || {
            let id = match frame {
                Some(place) => json!({ ELEMENT: self.element(place)?.trim_start_matches("/element/") }),
                None => Value::Null,
            };
            self.ask("POST", "/frame", &json!({ "id": id }))
        });
    }

    /// What a script gives back.
    pub fn run(&self, script: &str) -> Result<Value, String> {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Warnings and errors of the page since the last call, violations of its policy among them.
    pub fn console(&self) -> Vec<String> {
        let lines = self.ask("POST", "/se/log", &json!({ "type": "browser" })).unwrap_or_default();
        let lines = lines.as_array().cloned().unwrap_or_default();
        let is_bad = |line: &&Value| ["WARNING", "SEVERE"].contains(&line["level"].as_str().unwrap_or_default());
        lines.iter().filter(is_bad).map(|line| line["message"].to_string()).collect()
    }

    /// For the eyes of a developer: a picture in the folder that `ORTLER_SCREENSHOTS` names.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("ORTLER_SCREENSHOTS") else { return };
        let picture = self.ask("GET", "/screenshot", &Value::Null).unwrap();
        let octets = STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), octets).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A listener that nobody may ask: it counts who does.
pub struct Trap {
    pub port: u16,
    count: Arc<AtomicUsize>,
}

impl Trap {
    pub fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = Self { port: listener.local_addr().unwrap().port(), count: Arc::default() };
        let count = trap.count.clone();
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        trap
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}
