//! The web role over loopback, as browsers and other clients use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use base::{AccountId, Clock as _, IdSource, MessageId, Secret, SystemClock, UtcMillis};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use directory::{Access, Account, LoginGuard, NewAccount, PasswordHash, Registry};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use jmap::{Jmap, JmapServices, Mime, Submitted, Submitter};
use mail::mime::summary::{COMMON_FIELDS, EnvelopeFields};
use mail::mime::{Part, PartBody, Summary};
use mail::{Enhanced, Envelope, HeaderFields, Status};
use serde_json::{Value, json};
use store::{Storage, StorageSettings, StoreError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use trail::{Event, Kind, Outcome, Party, Settings, Trail, Worker};

use crate::openapi::ROUTES;
use crate::{Health, Peer, Web, WebServices, WebSettings};

struct NoSubmitter;

#[async_trait]
impl Submitter for NoSubmitter {
    async fn submit(&self, _: &Account, envelope: Envelope, _: Bytes) -> Submitted {
        let statuses = envelope.forward_paths.iter().map(|_| Status::fixed(550, Enhanced(5, 0, 0), "no")).collect();
        Submitted { message: IdSource::system().message(SystemClock.utc()), statuses }
    }

    async fn pending(&self, _: AccountId, _: MessageId) -> Result<Option<UtcMillis>, StoreError> {
        Ok(None)
    }

    async fn cancel(&self, _: AccountId, _: MessageId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// Messages of one part; the summary is the message itself.
struct OnePart;

impl Mime for OnePart {
    fn summarise(&self, message: &[u8]) -> Arc<[u8]> {
        message.into()
    }

    fn read_summary(&self, message: &[u8]) -> Option<Summary> {
        let body = u32::try_from(mail::header::body_offset(message)).ok()?;
        let is_html = message.windows(9).any(|text| text == b"text/html");
        let is_common = |field: &mail::HeaderField<'_>| COMMON_FIELDS.iter().any(|name| field.is(name));
        let root = Part {
            media_type: "text".to_owned(),
            media_subtype: if is_html { "html" } else { "plain" }.to_owned(),
            parameters: Vec::new(),
            content_id: None,
            description: None,
            encoding: "7BIT".to_owned(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            header: 0..body,
            content: body..u32::try_from(message.len()).ok()?,
            body: PartBody::Leaf { lines: 1 },
        };
        Some(Summary {
            envelope: EnvelopeFields::default(),
            root,
            sent_at: None,
            preview: String::new(),
            has_attachment: false,
            common_fields: HeaderFields::of(message).filter(is_common).flat_map(|f| f.raw.to_vec()).collect(),
        })
    }
}

struct Fixture {
    web: Arc<Web>,
    address: SocketAddr,
    trail: Arc<Trail>,
    ids: Arc<IdSource>,
    health: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests own their tasks in the fixture, which ends them")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(IdSource::system()));
        let storage = Arc::new(
            Storage::open(&folder.path().join("store"), StorageSettings::default(), clock.clone(), Arc::clone(&ids))
                .unwrap(),
        );
        let guard = LoginGuard::new(true);
        let registry =
            Arc::new(Registry::open(&folder.path().join("directory.sqlite"), clock.clone(), None, guard).unwrap());
        registry.add_domain("a.test".parse().unwrap(), None).await.unwrap();
        for (name, access) in [("anna", Access::User), ("bert", Access::User), ("admin", Access::Admin)] {
            let account = NewAccount {
                address: format!("{name}@a.test").parse().unwrap(),
                name: name.to_owned(),
                access,
                password: PasswordHash::make(&Secret::new("demo".to_owned())),
                quota: base::Quota::UNLIMITED,
                placement: directory::Placement::OfDomain,
            };
            registry.add_account(account).await.unwrap();
        }
        let mut settings = Settings::in_folder(folder.path().join("trail"));
        settings.batch_wait = Duration::from_millis(1);
        let (trail, worker): (Arc<Trail>, Worker) = Trail::open(settings, clock.clone()).unwrap();
        let jmap = Arc::new(Jmap::new(JmapServices {
            mail: storage.mail.clone(),
            blobs: storage.blobs.clone(),
            signals: storage.signals.clone(),
            search: storage.search.clone(),
            directory: registry.clone(),
            submitter: Arc::new(NoSubmitter),
            mime: Arc::new(OnePart),
            uploads: folder.path().to_path_buf(),
            budget: net::MemoryBudget::new(base::ByteSize::mib(64)),
            clock: clock.clone(),
            ids: Arc::clone(&ids),
        }));
        let of_node =
            cluster::Settings { name: "test".to_owned(), address: None, roles: Vec::new(), version: String::new() };
        let membership = Arc::new(cluster::Membership::alone(of_node, &*clock));
        membership.enter().await.unwrap();
        let system = policy::Layer::parse(policy::Level::System, "policy.toml", "").unwrap();
        let layers = layers::Layers::open(&folder.path().join("policy.sqlite"), clock.clone(), system);
        let layers = Arc::new(layers.unwrap());
        let services = WebServices {
            storage: Arc::clone(&storage),
            directory: registry.clone(),
            registry,
            trail: Arc::clone(&trail),
            jmap,
            legacy: Arc::new(legacy::Gateway::new("test")),
            membership,
            affinity: None,
            layers,
            links: crate::links::Links::new(b"test"),
            clock,
            ids: Arc::clone(&ids),
        };
        let settings = WebSettings {
            node_name: "test".to_owned(),
            plain_login_on_loopback: true,
            staff_needs_second_factor: false,
        };
        let web = Arc::new(Web::new(services, settings));
        let (listener, health_listener) = (local().await, local().await);
        let (address, health) = (listener.local_addr().unwrap(), health_listener.local_addr().unwrap());
        let served = Arc::clone(&web);
        let probes =
            Arc::new(Health::new(vec!["imap"], storage, || "ortler_up 1\n".to_owned(), || false, Vec::new, Vec::new));
        let tasks = vec![
            spawn(worker.run(std::future::pending())),
            spawn(accept(listener, move |stream, peer| {
                let web = Arc::clone(&served);
                async move { web.serve(stream, peer).await }
            })),
            spawn(accept(health_listener, move |stream, _| {
                let probes = Arc::clone(&probes);
                async move { probes.serve(stream).await }
            })),
        ];
        Self { web, address, trail, ids, health, tasks, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        send(self.address, request).await
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.send(request(Method::GET, path).header("cookie", cookie).body(Body::empty()).unwrap()).await
    }

    /// Signs in by the form; gives the cookie and the token.
    async fn sign_in(&self, name: &str) -> (String, String) {
        let form = format!("name={name}%40a.test&password=demo");
        let answer = self.login(&form).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/mail"));
        let cookie = answer.header("set-cookie");
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let session = self.get("/api/v1/session", &cookie).await.json();
        (cookie, session["csrf"].as_str().unwrap().to_owned())
    }

    async fn login(&self, form: &str) -> Answer {
        let request = request(Method::POST, "/login").header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    async fn jmap(&self, cookie: &str, csrf: &str, calls: Value) -> Value {
        let body = json!({ "using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"], "methodCalls": calls });
        let request = request(Method::POST, "/jmap/").header("cookie", cookie).header("x-csrf-token", csrf);
        let answer = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()["methodResponses"].clone()
    }

    /// Stores a message in the account's inbox; gives its id.
    async fn import(&self, cookie: &str, csrf: &str, account: &str, message: &str) -> String {
        let upload = request(Method::POST, &format!("/jmap/upload/{account}/"))
            .header("cookie", cookie)
            .header("x-csrf-token", csrf)
            .header("content-type", "message/rfc822");
        let uploaded = self.send(upload.body(Body::from(message.to_owned())).unwrap()).await;
        assert_eq!(uploaded.status, StatusCode::CREATED);
        let query = json!(["Mailbox/query", { "accountId": account, "filter": { "role": "inbox" } }, "0"]);
        let inbox = self.jmap(cookie, csrf, json!([query])).await[0][1]["ids"][0].as_str().unwrap().to_owned();
        let email = json!({ "blobId": uploaded.json()["blobId"], "mailboxIds": { inbox: true } });
        let import = json!(["Email/import", { "accountId": account, "emails": { "x": email } }, "0"]);
        let answer = self.jmap(cookie, csrf, json!([import])).await;
        answer[0][1]["created"]["x"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

async fn local() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn accept<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, serve: impl Fn(TcpStream, Peer) -> F) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, address)) = listener.accept().await {
        connections.spawn(serve(stream, Peer { address: address.ip(), is_tls: false }));
    }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "mail.test:10080")
}

fn basic(name: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}@a.test:demo")))
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.text()))
    }
}

async fn open(address: SocketAddr, request: Request<Body>) -> axum::http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    spawn(async move { drop(connection.await) });
    sender.send_request(request).await.unwrap()
}

async fn send(address: SocketAddr, request: Request<Body>) -> Answer {
    let (parts, body) = open(address, request).await.into_parts();
    let body = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.unwrap().unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

#[tokio::test]
async fn people_sign_in_and_out_without_scripts() {
    let web = Fixture::new().await;
    let page = web.get("/login", "").await;
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"));
    assert!(!page.text().contains("<script") && page.text().contains("lang=\"en\""));
    for (language, word) in [("de-AT,de;q=0.9", "Anmelden"), ("it", "Accedi"), ("fr, en", "Sign in")] {
        let asked = request(Method::GET, "/login").header("accept-language", language);
        assert!(web.send(asked.body(Body::empty()).unwrap()).await.text().contains(word), "{language}");
    }
    let known = web.login("name=anna%40a.test&password=wrong").await;
    let unknown = web.login("name=nobody%40a.test&password=wrong").await;
    assert_eq!((known.status, unknown.status), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    assert_eq!(known.text().replace("anna", "nobody"), unknown.text(), "the page does not tell who exists");
    let hostile = web.login("name=%22%3E%3Cscript%3E&password=x").await.text();
    assert!(!hostile.contains("<script>"), "{hostile}");
    assert_eq!(web.get("/mail", "").await.header("location"), "/login");
    let (cookie, _) = web.sign_in("anna").await;
    assert_eq!(web.get("/login", &cookie).await.header("location"), "/mail");
    let out = request(Method::POST, "/logout").header("cookie", &cookie).body(Body::empty()).unwrap();
    assert!(web.send(out).await.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(web.get("/api/v1/session", &cookie).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn other_sites_cannot_act_for_a_signed_in_browser() {
    let web = Fixture::new().await;
    let (cookie, csrf) = web.sign_in("admin").await;
    for (fields, expected) in [
        (vec![], StatusCode::FORBIDDEN),
        (vec![("x-csrf-token", "wrong")], StatusCode::FORBIDDEN),
        (vec![("x-csrf-token", csrf.as_str()), ("origin", "https://evil.test")], StatusCode::FORBIDDEN),
        (vec![("x-csrf-token", csrf.as_str()), ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (vec![("x-csrf-token", csrf.as_str()), ("origin", "http://mail.test:10080")], StatusCode::OK),
    ] {
        for (method, path, body) in [
            (Method::POST, "/jmap/", "{\"using\":[],\"methodCalls\":[]}"),
            (Method::PATCH, "/api/v1/accounts/anna@a.test", "{\"name\":\"A\"}"),
        ] {
            let mut asked = request(method, path).header("cookie", &cookie).header("content-type", "application/json");
            for (name, value) in &fields {
                asked = asked.header(*name, *value);
            }
            let answer = web.send(asked.body(Body::from(body)).unwrap()).await;
            assert_eq!(answer.status, expected, "{path} {fields:?}");
        }
    }
    for (path, fields) in
        [("/login", vec![("origin", "https://evil.test")]), ("/logout", vec![("sec-fetch-site", "cross-site")])]
    {
        let mut asked = request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in fields {
            asked = asked.header(name, value);
        }
        let form = Body::from("name=anna%40a.test&password=demo");
        assert_eq!(web.send(asked.body(form).unwrap()).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    // A client with a password repeats no cookie and needs no token; a browser elsewhere is refused all the same.
    for (origin, expected) in [("", StatusCode::OK), ("https://evil.test", StatusCode::FORBIDDEN)] {
        let mut asked = request(Method::POST, "/jmap/").header("authorization", basic("anna"));
        if !origin.is_empty() {
            asked = asked.header("origin", origin);
        }
        let body = Body::from("{\"using\":[],\"methodCalls\":[]}");
        assert_eq!(web.send(asked.body(body).unwrap()).await.status, expected, "{origin}");
    }
}

#[tokio::test]
async fn nothing_is_told_to_strangers_and_administration_not_to_users() {
    let web = Fixture::new().await;
    let (anna, token) = web.sign_in("anna").await;
    let named = |path: &str| {
        let path = path.replace("{address}", "bert@a.test").replace("{alias}", "b.test").replace("{domain}", "a.test");
        let path = if path.contains("/nodes/") { path } else { path.replace("{name}", "a.test") };
        path.replace(['{', '}'], "")
    };
    let mut paths: Vec<(Method, String)> =
        ROUTES.iter().map(|(path, method, ..)| (method.to_uppercase().parse().unwrap(), named(path))).collect();
    for path in ["/jmap/session", "/.well-known/jmap", "/jmap/download/a1/e1/x", "/jmap/eventsource/"] {
        paths.push((Method::GET, path.to_owned()));
    }
    paths.extend([(Method::POST, "/jmap/".to_owned()), (Method::POST, "/jmap/upload/a1/".to_owned())]);
    for (method, path) in paths {
        if path == "/api/v1/openapi.json" {
            continue;
        }
        let asked = |cookie: &str| {
            let asked = request(method.clone(), &path).header("cookie", cookie).header("x-csrf-token", &token);
            asked.header("content-type", "application/json").body(Body::from("{}")).unwrap()
        };
        let stranger = web.send(asked("ortler=guess")).await;
        // A query without its parameters is refused before anybody looks who asks.
        let is_refused = matches!(stranger.status, StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST);
        assert!(is_refused, "{method} {path} {}", stranger.status);
        if ["tenants", "domains", "accounts", "aliases", "queue", "keys", "reports"]
            .iter()
            .any(|part| path.contains(part))
        {
            // What somebody may know nothing of does not exist.
            let status = web.send(asked(&anna)).await.status;
            assert!(matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND), "{method} {path} {status}");
        }
    }
    let challenge = web.get("/jmap/session", "").await;
    assert!(challenge.header("www-authenticate").starts_with("Basic"));
}

#[tokio::test]
async fn the_description_names_every_route() {
    let web = Fixture::new().await;
    let document = web.get("/api/v1/openapi.json", "").await.json();
    let source = include_str!("server.rs");
    let table = source.split("fn api_router").nth(1).unwrap();
    let routes: Vec<&str> = table.split('"').filter(|text| text.starts_with("/api/v1/")).collect();
    assert!(routes.len() > 10);
    for route in &routes {
        assert!(document["paths"].get(route).is_some(), "{route} is not described");
    }
    for (path, method, ..) in ROUTES {
        assert!(routes.contains(path), "{path} is described but not served");
        let asked = request(method.to_uppercase().parse().unwrap(), &path.replace(['{', '}'], ""));
        let answer = web.send(asked.body(Body::empty()).unwrap()).await;
        assert!(
            answer.status != StatusCode::NOT_FOUND && answer.status != StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_message_is_a_page_of_its_own_and_its_owners_alone() {
    let web = Fixture::new().await;
    let (cookie, csrf) = web.sign_in("anna").await;
    let hostile = "From: x@x.test\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>\
        <img src=https://tracker.test/x><b onclick=alert(1)>bold</b>";
    let html = web.import(&cookie, &csrf, "a1", hostile).await;
    let plain = web.import(&cookie, &csrf, "a1", "From: x@x.test\r\n\r\n<b>not bold</b>\r\n").await;
    let page = web.get(&format!("/api/v1/message/{html}/body"), &cookie).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        page.header("content-security-policy"),
        format!(
            "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src \
             'unsafe-inline'; img-src http://mail.test:10080/api/v1/message/{html}/inline/ data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'self'"
        )
    );
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let text = page.text();
    assert!(text.contains("<b>bold</b>") && !text.contains("script") && !text.contains("tracker"), "{text}");
    let page = web.get(&format!("/api/v1/message/{plain}/body"), &cookie).await.text();
    assert!(page.contains("&lt;b&gt;not bold&lt;/b&gt;"), "{page}");
    let number = html.trim_start_matches('M');
    let download = web.get(&format!("/jmap/download/a1/e{number}/mail.html?accept=text/html"), &cookie).await;
    assert_eq!(download.body, hostile);
    assert_eq!(download.header("content-security-policy"), "sandbox; default-src 'none'; frame-ancestors 'none'");
    assert!(download.header("content-disposition").starts_with("attachment;"));
    let inline = web.get(&format!("/api/v1/message/{html}/inline/e{number}-0-20-0"), &cookie).await;
    assert_eq!(inline.status, StatusCode::NOT_FOUND, "only pictures are shown");
    let (other, _) = web.sign_in("bert").await;
    for path in [
        format!("/api/v1/message/{html}/body"),
        format!("/jmap/download/a1/e{number}/x"),
        format!("/jmap/download/a2/e{number}/x"),
        format!("/api/v1/message/{html}/inline/e{number}-0-20-0"),
    ] {
        assert_eq!(web.get(&path, &other).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_log_is_seen_in_scope_and_live() {
    let web = Fixture::new().await;
    let (anna, _) = web.sign_in("anna").await;
    let (admin, _) = web.sign_in("admin").await;
    let deliver = |subject: &str, account: u64, address: &str| {
        let now = base::Clock::utc(&SystemClock);
        let id = web.ids.message(now);
        let party = Party {
            address: address.to_owned(),
            account: Some(AccountId(account)),
            is_recipient: true,
            outcome: Some(Outcome::Delivered),
        };
        web.trail.record(Event::new(now, Kind::Judged).message(id).field("subject", subject).field("score", 1500));
        web.trail.record(Event::new(now, Kind::Delivered).message(id).party(party));
        id
    };
    let stream = request(Method::GET, "/api/v1/log/stream").header("cookie", &anna).body(Body::empty()).unwrap();
    let mut stream = open(web.address, stream).await.into_body();
    let berts = deliver("berts", 2, "bert@a.test");
    let annas = deliver("annas", 1, "anna@a.test");
    let mut seen = String::new();
    while !seen.contains("annas") {
        let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    assert!(!seen.contains("berts") && seen.contains("event: message"), "{seen}");
    let last: u64 = seen.rsplit("id: ").next().unwrap().lines().next().unwrap().parse().unwrap();
    drop(stream);
    let third = deliver("third", 1, "anna@a.test");
    let resumed = request(Method::GET, "/api/v1/log/stream").header("cookie", &anna).header("last-event-id", last);
    let mut stream = open(web.address, resumed.body(Body::empty()).unwrap()).await.into_body();
    let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await.unwrap().unwrap().unwrap();
    let frame = String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned();
    assert!(frame.contains(&third.to_string()), "{frame}");
    let list = web.get("/api/v1/log/messages?q=annas", &anna).await.json();
    assert_eq!((&list["messages"][0]["subject"], &list["messages"][0]["score"]), (&json!("annas"), &json!(1.5)));
    assert_eq!(web.get(&format!("/api/v1/log/messages/{annas}"), &anna).await.json()["events"][0]["kind"], "judged");
    for path in [format!("/api/v1/log/messages/{berts}"), format!("/api/v1/log/messages/{berts}/events")] {
        assert_eq!(web.get(&path, &anna).await.status, StatusCode::NOT_FOUND);
        assert_eq!(web.get(&path, &admin).await.status, StatusCode::OK);
    }
    let all = |list: Value| list["messages"].as_array().unwrap().len();
    assert_eq!(all(web.get("/api/v1/log/messages", &anna).await.json()), 2);
    assert_eq!(all(web.get("/api/v1/log/messages", &admin).await.json()), 3);
    assert_eq!(web.get("/api/v1/log/messages?q=colour:red", &anna).await.status, StatusCode::BAD_REQUEST);
    let now = base::Clock::utc(&SystemClock);
    let date = |minutes: i64| mail::date::format_utc(base::UtcMillis(now.0 + minutes * 60_000));
    let span = format!("/api/v1/log/histogram?from={}&to={}&step=60", date(-120), date(60));
    let counts = |buckets: Value| -> u64 {
        buckets["buckets"].as_array().unwrap().iter().map(|b| b["counts"]["delivered"].as_u64().unwrap()).sum()
    };
    assert_eq!(counts(web.get(&span, &anna).await.json()), 2);
    assert_eq!(counts(web.get(&span, &admin).await.json()), 3);
    assert_eq!(
        web.get("/api/v1/log/histogram?from=2000-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&step=1", &anna).await.status,
        StatusCode::BAD_REQUEST
    );
    // A node that stops ends the streams, and what is under way finishes.
    web.web.close();
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.collect()).await;
    assert!(rest.is_ok(), "the stream ends");
}

#[tokio::test]
async fn administrators_keep_accounts_domains_and_aliases() {
    let web = Fixture::new().await;
    let (cookie, csrf) = web.sign_in("admin").await;
    let call = async |method: Method, path: &str, body: Value| {
        let asked = request(method, path).header("cookie", &cookie).header("x-csrf-token", &csrf);
        let asked = asked.header("content-type", "application/json");
        web.send(asked.body(Body::from(body.to_string())).unwrap()).await
    };
    let carl = json!({ "address": "carl@b.test", "password": "long enough", "quota": 1000 });
    for (method, path, body, expected) in [
        (Method::POST, "/api/v1/domains", json!({ "name": "b.test" }), StatusCode::CREATED),
        (Method::POST, "/api/v1/domains", json!({ "name": "b.test" }), StatusCode::CONFLICT),
        (Method::POST, "/api/v1/domains", json!({ "name": "b test" }), StatusCode::BAD_REQUEST),
        (
            Method::POST,
            "/api/v1/accounts",
            json!({ "address": "carl@b.test", "password": "short" }),
            StatusCode::BAD_REQUEST,
        ),
        (Method::POST, "/api/v1/accounts", carl, StatusCode::CREATED),
        (Method::PATCH, "/api/v1/domains/b.test", json!({ "quota": 500, "quotaMessages": 2 }), StatusCode::NO_CONTENT),
        (Method::PATCH, "/api/v1/domains/nowhere.test", json!({ "quota": 500 }), StatusCode::NOT_FOUND),
        (Method::PATCH, "/api/v1/accounts/carl@b.test", json!({ "access": "king" }), StatusCode::BAD_REQUEST),
        (Method::PATCH, "/api/v1/accounts/carl@b.test", json!({ "colour": 1 }), StatusCode::BAD_REQUEST),
        (Method::PATCH, "/api/v1/accounts/carl@b.test", json!({ "name": "Carl", "quota": 0 }), StatusCode::OK),
        (Method::PATCH, "/api/v1/accounts/dora@b.test", json!({}), StatusCode::NOT_FOUND),
        (Method::PUT, "/api/v1/aliases/info@b.test", json!({ "targets": ["carl@b.test"] }), StatusCode::OK),
        (Method::DELETE, "/api/v1/aliases/info@b.test", json!(null), StatusCode::NO_CONTENT),
        (Method::DELETE, "/api/v1/accounts/admin@a.test", json!(null), StatusCode::BAD_REQUEST),
        (Method::DELETE, "/api/v1/accounts/carl@b.test", json!(null), StatusCode::NO_CONTENT),
        (Method::DELETE, "/api/v1/domains/b.test", json!(null), StatusCode::NO_CONTENT),
    ] {
        let answer = call(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, expected, "{method} {path} {body} {}", answer.text());
        if path.ends_with("carl@b.test") && answer.status == StatusCode::OK {
            let account = answer.json();
            assert_eq!((&account["name"], &account["quota"]), (&json!("Carl"), &Value::Null));
        }
    }
    let list = web.get("/api/v1/accounts?search=ann", &cookie).await.json();
    assert_eq!(
        (list["accounts"].as_array().unwrap().len(), &list["accounts"][0]["address"]),
        (1, &json!("anna@a.test"))
    );
}

#[tokio::test]
async fn jmap_tells_a_browser_of_new_mail() {
    let web = Fixture::new().await;
    let (cookie, csrf) = web.sign_in("anna").await;
    let session = web.get("/.well-known/jmap", &cookie).await.json();
    assert_eq!((&session["username"], &session["apiUrl"]), (&json!("anna@a.test"), &json!("/jmap/")));
    let events =
        request(Method::GET, "/jmap/eventsource/?types=Email&closeafter=state&ping=0").header("cookie", &cookie);
    let stream = open(web.address, events.body(Body::empty()).unwrap()).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    web.import(&cookie, &csrf, "a1", "From: x@x.test\r\n\r\nhello").await;
    let told = tokio::time::timeout(Duration::from_secs(10), stream.into_body().collect()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&told.to_bytes()).into_owned();
    assert!(told.contains("event: state") && told.contains("\"a1\":{\"Email\""), "{told}");
    let broken = request(Method::POST, "/jmap/").header("authorization", basic("anna")).body(Body::from("{"));
    let broken = web.send(broken.unwrap()).await;
    assert_eq!((broken.status, broken.header("content-type")), (StatusCode::BAD_REQUEST, "application/problem+json"));
    let foreign =
        request(Method::POST, "/jmap/upload/a2/").header("authorization", basic("anna")).body(Body::from("x"));
    assert_eq!(web.send(foreign.unwrap()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn passwords_do_not_travel_in_the_clear() {
    let web = Fixture::new().await;
    let listener = local().await;
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&web.web);
    // As if the client came from elsewhere.
    let _task = spawn(accept(listener, move |stream, _| {
        let web = Arc::clone(&served);
        async move { web.serve(stream, Peer { address: "192.0.2.1".parse().unwrap(), is_tls: false }).await }
    }));
    let form = request(Method::POST, "/login").header("content-type", "application/x-www-form-urlencoded");
    let answer = send(address, form.body(Body::from("name=anna%40a.test&password=demo")).unwrap()).await;
    assert!(answer.status == StatusCode::FORBIDDEN && answer.text().contains("https"));
    let call =
        request(Method::GET, "/jmap/session").header("authorization", basic("anna")).body(Body::empty()).unwrap();
    assert_eq!(send(address, call).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_application_page_is_strict_and_tls_is_remembered() {
    let web = Fixture::new().await;
    let listener = local().await;
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&web.web);
    let _task = spawn(accept(listener, move |stream, peer| {
        let web = Arc::clone(&served);
        async move { web.serve(stream, Peer { is_tls: true, ..peer }).await }
    }));
    let form = request(Method::POST, "/login").header("content-type", "application/x-www-form-urlencoded");
    let answer = send(address, form.body(Body::from("name=anna%40a.test&password=demo")).unwrap()).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-ortler=") && cookie.contains("; Secure"), "{cookie}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    assert_eq!(answer.header("referrer-policy"), "same-origin");
    assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(
        crate::security::APP_POLICY.contains("script-src 'self';") && !crate::security::APP_POLICY.contains("unsafe")
    );
    let missing = web.get("/assets/../Cargo.toml", "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn probes_and_metrics_have_a_listener_of_their_own() {
    let web = Fixture::new().await;
    let probe = |path: &str| send(web.health, request(Method::GET, path).body(Body::empty()).unwrap());
    assert_eq!(probe("/healthz").await.text(), "ok\n");
    assert_eq!(probe("/readyz").await.json()["ready"], true);
    assert_eq!(probe("/metrics").await.text(), "ortler_up 1\n");
    assert_eq!(probe("/api/v1/node").await.status, StatusCode::NOT_FOUND);
    assert_eq!(web.get("/metrics", "").await.status, StatusCode::NOT_FOUND);
}
