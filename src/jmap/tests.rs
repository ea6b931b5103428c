//! Methods against the embedded store, as a client calls them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base::{AccountId, Clock, FakeClock, IdSource, MessageId, Secret, UtcMillis};
use bytes::Bytes;
use directory::{
    Access, Account, Directory, DirectoryError, Elsewhere, LegacyServer, Login, LoginError, PasswordHash, Recipient,
    Resolution,
};
use mail::{Address, Enhanced, Envelope, ForwardPath, Status};
use serde_json::{Value, json};
use store::{NewEntry, Storage, StorageSettings, StoreError};

use crate::plain_mime::PlainMime;
use crate::{Jmap, JmapServices, Submitted, Submitter};

const NOW: UtcMillis = UtcMillis(1_793_443_327_000); // 2026-10-31 10:42:07 UTC

fn account() -> Account {
    Account {
        id: AccountId(1),
        address: "anna@a.test".parse().unwrap(),
        name: "Anna".to_owned(),
        access: Access::User,
        grants: Vec::new(),
        position: access::Position::default(),
        has_second_factor: false,
        is_relayed: false,
        enabled: true,
        legacy: None,
        sending_lock: None,
        quota: base::Quota::UNLIMITED,
        created_at: UtcMillis(0),
        rights: directory::Rights::default(),
    }
}

/// A directory of one.
struct OnlyAnna;

#[async_trait]
impl Directory for OnlyAnna {
    async fn resolve(&self, _: &ForwardPath) -> Result<Resolution, DirectoryError> {
        let recipient = Recipient {
            account: AccountId(1),
            address: account().address,
            detail: None,
            legacy: None,
            position: access::Position::default(),
            forwards: Vec::new(),
            keeps: true,
        };
        Ok(Resolution::Local(vec![recipient]))
    }
    async fn account(&self, _: AccountId) -> Result<Option<Account>, DirectoryError> {
        Ok(Some(account()))
    }
    async fn sender_addresses(&self, _: AccountId) -> Result<Vec<Address>, DirectoryError> {
        Ok(vec![account().address, "sales@a.test".parse().unwrap()])
    }
    async fn authenticate(&self, _: Login<'_>) -> Result<Account, LoginError> {
        let _ = PasswordHash::make(&Secret::new(String::new()));
        Ok(account())
    }
    async fn hold(&self, account: AccountId, _: Option<directory::Rights>) -> directory::Hold {
        std::sync::Arc::<directory::Holds>::default().hold(account, directory::Rights::default())
    }
    async fn accepted_elsewhere(&self, _: &Elsewhere, _: &Secret<String>) -> Result<(), DirectoryError> {
        Ok(())
    }
    fn refused_elsewhere(&self, _: std::net::IpAddr) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    async fn lock_sending(&self, _: &Account, _: &str) -> Result<bool, DirectoryError> {
        Ok(false)
    }

    async fn signing_keys(&self, _: &str) -> Result<Arc<[directory::DomainKey]>, DirectoryError> {
        Ok(Arc::new([]))
    }

    async fn legacy(&self, _: &str) -> Result<Option<Arc<LegacyServer>>, DirectoryError> {
        Ok(None)
    }
}

/// Keeps what is submitted; knows nobody called nobody.
#[derive(Default)]
struct Outbox(Mutex<Vec<(Envelope, Bytes)>>);

#[async_trait]
impl Submitter for Outbox {
    async fn submit(&self, _: &Account, envelope: Envelope, message: Bytes) -> Submitted {
        let status = |path: &ForwardPath| {
            if path.to_string().starts_with("nobody@") {
                Status::fixed(550, Enhanced(5, 1, 1), "no such user")
            } else {
                Status::fixed(250, Enhanced(2, 0, 0), "queued")
            }
        };
        let statuses = envelope.forward_paths.iter().map(status).collect();
        self.0.lock().unwrap().push((envelope, message));
        Submitted { message: IdSource::system().message(NOW), statuses }
    }

    async fn pending(&self, _: AccountId, _: MessageId) -> Result<Option<UtcMillis>, StoreError> {
        let known = self.0.lock().unwrap();
        Ok(known.last().filter(|(envelope, _)| envelope.wishes.hold.is_some()).map(|_| NOW))
    }

    async fn cancel(&self, _: AccountId, _: MessageId) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().pop().is_some_and(|(envelope, _)| envelope.wishes.hold.is_some()))
    }
}

struct Fixture {
    jmap: Jmap,
    outbox: Arc<Outbox>,
    clock: Arc<FakeClock>,
    mail: Arc<dyn store::MailStore>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
        let storage =
            Storage::open(folder.path(), StorageSettings::default(), clock.clone(), Arc::clone(&ids)).unwrap();
        let outbox = Arc::new(Outbox::default());
        let services = JmapServices {
            mail: storage.mail.clone(),
            blobs: storage.blobs.clone(),
            signals: storage.signals.clone(),
            search: storage.search.clone(),
            directory: Arc::new(OnlyAnna),
            submitter: outbox.clone(),
            mime: Arc::new(PlainMime),
            uploads: folder.path().to_path_buf(),
            budget: net::MemoryBudget::new(base::ByteSize::mib(64)),
            clock: clock.clone(),
            ids,
        };
        Self { jmap: Jmap::new(services), outbox, clock, mail: storage.mail.clone(), _folder: folder }
    }

    /// Calls methods in one request; gives their answers.
    async fn calls(&self, calls: Value) -> Vec<(String, Value)> {
        let using = ["core", "mail", "submission", "quota"].map(|name| format!("urn:ietf:params:jmap:{name}"));
        let request = json!({ "using": using, "methodCalls": calls }).to_string();
        let answer = self.jmap.handle(&account(), request.as_bytes()).await.unwrap();
        let answers = answer["methodResponses"].as_array().unwrap().clone();
        answers.into_iter().map(|a| (a[0].as_str().unwrap().to_owned(), a[1].clone())).collect()
    }

    async fn call(&self, name: &str, mut arguments: Value) -> Value {
        arguments["accountId"] = json!("a1");
        let (answered, answer) = self.calls(json!([[name, arguments, "0"]])).await.remove(0);
        assert!(answered == name || answered == "error", "{answered}");
        answer
    }

    async fn mailbox(&self, role: &str) -> String {
        let found = self.call("Mailbox/query", json!({ "filter": { "role": role } })).await;
        found["ids"][0].as_str().unwrap().to_owned()
    }

    async fn upload(&self, media_type: &str, content: &[u8]) -> Value {
        let mut spool = self.jmap.spool();
        spool.write(content).await.unwrap();
        self.jmap.upload(&account(), media_type, spool.finish()).unwrap()
    }

    async fn import(&self, mailbox: &str, message: &str) -> String {
        let blob = self.upload("message/rfc822", message.as_bytes()).await;
        let email = json!({ "blobId": blob["blobId"], "mailboxIds": { mailbox: true } });
        let answer = self.call("Email/import", json!({ "emails": { "x": email } })).await;
        self.clock.advance(std::time::Duration::from_secs(60));
        answer["created"]["x"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn query(&self, filter: Value, sort: Value) -> Value {
        let answer = self.call("Email/query", json!({ "filter": filter, "sort": sort })).await;
        assert!(answer["ids"].is_array(), "{answer}");
        answer["ids"].clone()
    }
}

const PLAIN: &str = "From: Bert <bert@b.test>\r\nTo: anna@a.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
    Message-ID: <1@b.test>\r\nX-Colour: red\r\n\r\nHello Anna, the Bridge is open.\r\n";
const REPLY: &str = "From: carl@c.test\r\nTo: anna@a.test\r\nCc: dora@d.test\r\nSubject: Re: hello\r\n\
    Message-ID: <2@c.test>\r\n\r\nA longer text, which says that it agrees.\r\n";
const MIXED: &str = "From: x@x.test\r\nSubject: parts\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
    --a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n\
    --a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<b>html</b>\r\n--a--\r\n\
    --m\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8=\r\n--m--\r\n";

#[tokio::test]
async fn requests_are_checked_before_anything_is_done() {
    let fixture = Fixture::new();
    for (request, kind) in [
        ("{", "notJSON"),
        ("[]", "notRequest"),
        ("{\"using\":[]}", "notRequest"),
        ("{\"using\":[\"urn:x\"],\"methodCalls\":[]}", "unknownCapability"),
        ("{\"using\":[],\"methodCalls\":[[\"Core/echo\",{}]]}", "notRequest"),
    ] {
        let error = fixture.jmap.handle(&account(), request.as_bytes()).await.unwrap_err().to_json();
        assert_eq!(error["type"], format!("urn:ietf:params:jmap:error:{kind}"), "{request}");
    }
    let many: Vec<Value> = (0..65).map(|n| json!(["Core/echo", {}, n.to_string()])).collect();
    let request = json!({ "using": [], "methodCalls": many }).to_string();
    let error = fixture.jmap.handle(&account(), request.as_bytes()).await.unwrap_err().to_json();
    assert_eq!(error["limit"], "maxCallsInRequest");
}

#[tokio::test]
async fn methods_fail_one_by_one() {
    let fixture = Fixture::new();
    for (name, arguments, kind) in [
        ("Foo/get", json!({ "accountId": "a1" }), "unknownMethod"),
        ("Email/get", json!({ "accountId": "a2", "ids": [] }), "accountNotFound"),
        ("Email/get", json!({ "accountId": "a1", "ids": [], "properties": ["colour"] }), "invalidArguments"),
        ("Email/get", json!({ "accountId": "a1", "ids": "x" }), "invalidArguments"),
        ("Email/get", json!({ "accountId": "a1", "#ids": {} }), "invalidResultReference"),
        ("Email/query", json!({ "accountId": "a1", "sort": [{ "property": "colour" }] }), "unsupportedSort"),
        ("Email/query", json!({ "accountId": "a1", "anchor": "M99" }), "anchorNotFound"),
        ("Email/changes", json!({ "accountId": "a1", "sinceState": "x" }), "cannotCalculateChanges"),
        ("Email/queryChanges", json!({ "accountId": "a1" }), "cannotCalculateChanges"),
        ("Email/set", json!({ "accountId": "a1", "ifInState": "0" }), "stateMismatch"),
        ("Mailbox/changes", json!({ "accountId": "a1", "sinceState": "1", "maxChanges": 0 }), "invalidArguments"),
    ] {
        let answers = fixture.calls(json!([[name, arguments, "0"], ["Core/echo", { "a": 1 }, "1"]])).await;
        assert_eq!((answers[0].0.as_str(), &answers[0].1["type"]), ("error", &json!(kind)), "{name} {}", answers[0].1);
        assert_eq!(answers[1], ("Core/echo".to_owned(), json!({ "a": 1 })));
    }
}

#[tokio::test]
async fn a_message_can_wait_and_be_taken_back() {
    let fixture = Fixture::new();
    let drafts = fixture.mailbox("drafts").await;
    let email = fixture.import(&drafts, &PLAIN.replace("Bert <bert@b.test>", "anna@a.test")).await;
    let identities = fixture.call("Identity/get", json!({})).await;
    let identity = identities["list"][0]["id"].clone();
    let submission = |parameters: Value| {
        let envelope = json!({ "mailFrom": { "email": "anna@a.test", "parameters": parameters }, "rcptTo": [{ "email": "x@b.test" }] });
        json!({ "create": { "s": { "emailId": email, "identityId": identity, "envelope": envelope } } })
    };
    for (parameters, expected) in [
        (json!({ "HOLDFOR": "soon" }), "HOLDFOR is a number"),
        (json!({ "HOLDFOR": "99999999" }), "maxDelayedSend"),
        (json!({ "HOLDFOR": "1", "holduntil": "2026-12-01T00:00:00Z" }), "exclude each other"),
        (json!({ "MT-PRIORITY": "3" }), "not known"),
    ] {
        let answer = fixture.call("EmailSubmission/set", submission(parameters)).await;
        let said = answer["notCreated"]["s"]["description"].as_str().unwrap().to_owned();
        assert!(said.contains(expected), "{answer}");
    }
    let at_once = fixture.call("EmailSubmission/set", submission(Value::Null)).await;
    assert_eq!(at_once["created"]["s"]["undoStatus"], "final", "{at_once}");
    let id = at_once["created"]["s"]["id"].clone();
    let undo = |id: &Value| json!({ "update": { id.as_str().unwrap(): { "undoStatus": "canceled" } } });
    let late = fixture.call("EmailSubmission/set", undo(&id)).await;
    assert_eq!(late["notUpdated"][id.as_str().unwrap()]["type"], "cannotUnsend");
    let waits = fixture.call("EmailSubmission/set", submission(json!({ "HOLDFOR": "60" }))).await;
    let made = &waits["created"]["s"];
    assert_eq!(made["undoStatus"], "pending", "{waits}");
    let now = mail::date::format_utc(fixture.clock.utc());
    assert!(made["sendAt"].as_str().unwrap() > now.as_str());
    let got = fixture.call("EmailSubmission/get", json!({ "ids": [made["id"], "Sx", "y"] })).await;
    assert_eq!((&got["list"][0]["undoStatus"], &got["notFound"]), (&json!("pending"), &json!(["Sx", "y"])));
    let patched = json!({ "update": { made["id"].as_str().unwrap(): { "undoStatus": "final" } } });
    let refused = fixture.call("EmailSubmission/set", patched).await;
    assert_eq!(refused["notUpdated"][made["id"].as_str().unwrap()]["type"], "invalidProperties");
    let undone = fixture.call("EmailSubmission/set", undo(&made["id"])).await;
    assert!(undone["updated"].as_object().unwrap().contains_key(made["id"].as_str().unwrap()), "{undone}");
    assert_eq!(undone["notUpdated"], json!({}));
}

#[tokio::test]
async fn mailboxes_are_made_renamed_and_destroyed() {
    let fixture = Fixture::new();
    let roles = fixture.call("Mailbox/get", json!({ "properties": ["role", "totalThreads"] })).await;
    assert_eq!(roles["list"].as_array().unwrap().len(), 6);
    let state = roles["state"].clone();
    let create = json!({ "b": { "name": "2026", "parentId": "#a" }, "a": { "name": "Work" }, "c": { "name": "x/y" } });
    let made = fixture.call("Mailbox/set", json!({ "create": create })).await;
    let (a, b) = (made["created"]["a"]["id"].clone(), made["created"]["b"]["id"].clone());
    assert_eq!(made["notCreated"]["c"]["type"], "invalidProperties");
    let got = fixture.call("Mailbox/get", json!({ "ids": [b, "F99"], "properties": ["name", "parentId"] })).await;
    assert_eq!(got["list"], json!([{ "id": b, "name": "2026", "parentId": a }]));
    assert_eq!(got["notFound"], json!(["F99"]));
    let changes = fixture.call("Mailbox/changes", json!({ "sinceState": state })).await;
    assert_eq!(changes["created"].as_array().unwrap().len(), 2);
    let (a, b) = (a.as_str().unwrap(), b.as_str().unwrap());
    let inbox = fixture.mailbox("inbox").await;
    let update = json!({ b: { "parentId": null, "name": "Old" }, &inbox: { "name": "No" }, "F99": {} });
    let set = fixture.call("Mailbox/set", json!({ "update": update, "destroy": [a, "F98"] })).await;
    assert_eq!((&set["updated"][b], &set["destroyed"]), (&Value::Null, &json!([a])));
    assert!(set["notUpdated"][&inbox]["type"] == "forbidden" && set["notUpdated"]["F99"]["type"] == "notFound");
    let gone = fixture.call("Mailbox/changes", json!({ "sinceState": changes["newState"] })).await;
    assert_eq!((&gone["updated"], &gone["destroyed"]), (&json!([b]), &json!([a])));
    fixture.import(b, PLAIN).await;
    let set = fixture.call("Mailbox/set", json!({ "destroy": [b] })).await;
    assert_eq!(set["notDestroyed"][b]["type"], "mailboxHasEmail");
    let set = fixture.call("Mailbox/set", json!({ "destroy": [b], "onDestroyRemoveEmails": true })).await;
    assert_eq!(set["destroyed"], json!([b]));
}

#[tokio::test]
async fn an_email_shows_its_parts_and_header_forms() {
    let fixture = Fixture::new();
    let inbox = fixture.mailbox("inbox").await;
    let plain = fixture.import(&inbox, PLAIN).await;
    let properties =
        ["subject", "from", "messageId", "mailboxIds", "size", "receivedAt", "header:X-Colour", "header:x-none:all"];
    let got = fixture.call("Email/get", json!({ "ids": [plain, "M99"], "properties": properties })).await;
    let expected = json!({
        "id": plain, "subject": "Gr\u{fc}\u{df}e", "from": [{ "name": "Bert", "email": "bert@b.test" }],
        "messageId": ["1@b.test"], "mailboxIds": { inbox.as_str(): true }, "size": PLAIN.len(),
        "receivedAt": "2026-10-31T10:42:07Z", "header:X-Colour": " red", "header:x-none:all": [],
    });
    assert_eq!((&got["list"][0], &got["notFound"]), (&expected, &json!(["M99"])));
    let mixed = fixture.import(&inbox, MIXED).await;
    let wanted = json!({
        "ids": [mixed], "properties": ["bodyStructure", "textBody", "htmlBody", "attachments", "bodyValues"],
        "bodyProperties": ["partId", "type", "size", "name"], "fetchTextBodyValues": true, "fetchHTMLBodyValues": true,
        "maxBodyValueBytes": 4,
    });
    let email = fixture.call("Email/get", wanted).await["list"][0].clone();
    let text = json!({ "partId": "1.1", "type": "text/plain", "size": 5, "name": null });
    let html = json!({ "partId": "1.2", "type": "text/html", "size": 11, "name": null });
    let pdf = json!({ "partId": "2", "type": "application/pdf", "size": 5, "name": "a.pdf" });
    assert_eq!(email["textBody"], json!([text]));
    assert_eq!(email["htmlBody"], json!([html]));
    assert_eq!(email["attachments"], json!([pdf]));
    assert_eq!(email["bodyStructure"]["subParts"][0]["subParts"], json!([text, html]));
    // Four octets would cut the second umlaut in half.
    let value = |value: &str| json!({ "value": value, "isEncodingProblem": false, "isTruncated": true });
    assert_eq!(email["bodyValues"], json!({ "1.1": value("Gr\u{fc}"), "1.2": value("<b>h") }));
    let blobs = json!({ "ids": [mixed], "properties": ["attachments", "blobId"], "bodyProperties": ["blobId"] });
    let email = fixture.call("Email/get", blobs).await["list"][0].clone();
    let part = fixture.jmap.download(AccountId(1), email["attachments"][0]["blobId"].as_str().unwrap()).await.unwrap();
    assert_eq!(part.content, "Hello");
    let whole = fixture.jmap.download(AccountId(1), email["blobId"].as_str().unwrap()).await.unwrap();
    assert_eq!(whole.content, MIXED);
    assert!(fixture.jmap.download(AccountId(2), email["blobId"].as_str().unwrap()).await.is_err());
}

#[tokio::test]
async fn queries_filter_sort_and_page() {
    let fixture = Fixture::new();
    let (inbox, archive) = (fixture.mailbox("inbox").await, fixture.mailbox("archive").await);
    let a = fixture.import(&inbox, PLAIN).await;
    let b = fixture.import(&inbox, REPLY).await;
    let c = fixture.import(&archive, MIXED).await;
    let seen = json!({ "update": { &a: { "keywords/$seen": true } } });
    fixture.call("Email/set", seen).await;
    let newest = json!(null);
    for (filter, expected) in [
        (json!(null), vec![&c, &b, &a]),
        (json!({ "inMailbox": inbox }), vec![&b, &a]),
        (json!({ "inMailboxOtherThan": [inbox] }), vec![&c]),
        (json!({ "inMailbox": "F99" }), vec![]),
        (json!({ "hasKeyword": "$seen" }), vec![&a]),
        (json!({ "notKeyword": "$seen", "inMailbox": inbox }), vec![&b]),
        (json!({ "from": "BERT" }), vec![&a]),
        (json!({ "subject": "gr\u{dc}\u{df}e" }), vec![&a]),
        (json!({ "cc": "dora" }), vec![&b]),
        (json!({ "body": "bridge open" }), vec![&a]),
        (json!({ "body": "\"bridge open\"" }), vec![]),
        (json!({ "text": "anna agrees" }), vec![&b]),
        (json!({ "header": ["x-colour", "RED"] }), vec![&a]),
        (json!({ "header": ["cc"] }), vec![&b]),
        (json!({ "minSize": MIXED.len() }), vec![&c]),
        (json!({ "maxSize": PLAIN.len() }), vec![&b]),
        (json!({ "before": "2026-10-31T10:43:00Z" }), vec![&a]),
        (json!({ "after": "2026-10-31T10:44:00Z" }), vec![&c]),
        (json!({ "someInThreadHaveKeyword": "$seen" }), vec![&a]),
        (json!({ "allInThreadHaveKeyword": "$seen" }), vec![&a]),
        (json!({ "noneInThreadHaveKeyword": "$seen" }), vec![&c, &b]),
        (json!({ "operator": "OR", "conditions": [{ "from": "bert" }, { "inMailbox": archive }] }), vec![&c, &a]),
        (json!({ "operator": "NOT", "conditions": [{ "from": "bert" }, { "body": "agrees" }] }), vec![&c]),
    ] {
        assert_eq!(fixture.query(filter.clone(), newest.clone()).await, json!(expected), "{filter}");
    }
    for (sort, expected) in [
        (json!([{ "property": "receivedAt" }]), [&a, &b, &c]),
        (json!([{ "property": "size", "isAscending": false }]), [&c, &a, &b]),
        (json!([{ "property": "from" }]), [&a, &b, &c]),
        (json!([{ "property": "subject" }]), [&a, &b, &c]),
        (json!([{ "property": "hasKeyword", "keyword": "$seen", "isAscending": false }]), [&a, &c, &b]),
    ] {
        assert_eq!(fixture.query(Value::Null, sort.clone()).await, json!(expected), "{sort}");
    }
    for (arguments, expected, position) in [
        (json!({ "position": 1, "limit": 1 }), vec![&b], 1),
        (json!({ "position": -1 }), vec![&a], 2),
        (json!({ "anchor": b, "anchorOffset": -1, "limit": 2 }), vec![&c, &b], 0),
        (json!({ "collapseThreads": true }), vec![&c, &b, &a], 0),
        (json!({ "position": 9 }), vec![], 9),
    ] {
        let found = fixture.call("Email/query", arguments.clone()).await;
        assert_eq!((&found["ids"], &found["position"]), (&json!(expected), &json!(position)), "{arguments}");
    }
    let total = fixture.call("Email/query", json!({ "calculateTotal": true, "limit": 0 })).await;
    assert_eq!((&total["total"], &total["ids"]), (&json!(3), &json!([])));
}

/// RFC 8620 §3.7: one request that follows its own results.
#[tokio::test]
async fn calls_refer_to_earlier_calls() {
    let fixture = Fixture::new();
    let inbox = fixture.mailbox("inbox").await;
    let (a, b) = (fixture.import(&inbox, PLAIN).await, fixture.import(&inbox, REPLY).await);
    let of = |call: &str, name: &str, path: &str| json!({ "resultOf": call, "name": name, "path": path });
    let answers = fixture
        .calls(json!([
            ["Email/query", { "accountId": "a1", "collapseThreads": true }, "0"],
            ["Email/get", { "accountId": "a1", "#ids": of("0", "Email/query", "/ids"), "properties": ["threadId"] }, "1"],
            ["Thread/get", { "accountId": "a1", "#ids": of("1", "Email/get", "/list/*/threadId") }, "2"],
        ]))
        .await;
    assert_eq!(answers[2].1["list"][0]["emailIds"], json!([b]));
    let snippet = json!({ "filter": { "text": "open" }, "emailIds": [a, "M99"] });
    let snippet = fixture.call("SearchSnippet/get", snippet).await;
    assert_eq!(snippet["list"][0]["preview"], "Hello Anna, the Bridge is <mark>open</mark>.");
    assert_eq!((&snippet["list"][0]["subject"], &snippet["notFound"]), (&Value::Null, &json!(["M99"])));
}

#[tokio::test]
async fn emails_change_move_and_go() {
    let fixture = Fixture::new();
    let (inbox, trash) = (fixture.mailbox("inbox").await, fixture.mailbox("trash").await);
    let id = fixture.import(&inbox, PLAIN).await;
    let state = fixture.call("Email/get", json!({ "ids": [] })).await["state"].clone();
    let show = async || {
        let got = fixture.call("Email/get", json!({ "ids": [id], "properties": ["keywords", "mailboxIds"] })).await;
        (got["list"][0]["keywords"].clone(), got["list"][0]["mailboxIds"].clone())
    };
    for (patch, keywords, mailbox) in [
        (json!({ "keywords/$seen": true, "keywords/Work": true }), json!({ "$seen": true, "work": true }), &inbox),
        (json!({ "keywords/$seen": null }), json!({ "work": true }), &inbox),
        (json!({ "keywords": { "$flagged": true } }), json!({ "$flagged": true }), &inbox),
        (json!({ "mailboxIds": { trash.as_str(): true } }), json!({ "$flagged": true }), &trash),
        (
            json!({ format!("mailboxIds/{trash}"): null, format!("mailboxIds/{inbox}"): true }),
            json!({ "$flagged": true }),
            &inbox,
        ),
    ] {
        let set = fixture.call("Email/set", json!({ "update": { &id: patch } })).await;
        assert_eq!(set["notUpdated"], json!({}), "{patch}");
        assert_eq!(show().await, (keywords, json!({ mailbox.as_str(): true })), "{patch}");
    }
    for patch in [
        json!({ "subject": "x" }),
        json!({ "keywords/a b": true }),
        json!({ "keywords/$seen": false }),
        json!({ format!("mailboxIds/{trash}"): true }),
        json!({ format!("mailboxIds/{inbox}"): null }),
        json!({ "mailboxIds": { "F99": true } }),
    ] {
        let set = fixture.call("Email/set", json!({ "update": { &id: patch } })).await;
        assert_eq!(set["notUpdated"][&id]["type"], "invalidProperties", "{patch}");
    }
    let changes = fixture.call("Email/changes", json!({ "sinceState": state })).await;
    assert_eq!((&changes["updated"], &changes["created"]), (&json!([id]), &json!([])));
    let set = fixture.call("Email/set", json!({ "destroy": [id, "M99"] })).await;
    assert_eq!((&set["destroyed"], &set["notDestroyed"]["M99"]["type"]), (&json!([id]), &json!("notFound")));
    let changes = fixture.call("Email/changes", json!({ "sinceState": changes["newState"] })).await;
    assert_eq!(changes["destroyed"], json!([id]));
}

/// Each save of a draft takes the place of the last, files and all.
#[tokio::test]
async fn what_a_newer_draft_replaced_is_not_kept_for_recovery() {
    let fixture = Fixture::new();
    let (inbox, drafts) = (fixture.mailbox("inbox").await, fixture.mailbox("drafts").await);
    let upload = fixture.upload("image/png", b"\x89PNG").await;
    let mut blob = upload["blobId"].clone();
    let mut ids = Vec::new();
    for text in ["first", "second"] {
        let draft = json!({
            "mailboxIds": { drafts.as_str(): true }, "keywords": { "$draft": true }, "subject": text,
            "attachments": [{ "blobId": blob, "type": "image/png", "name": "u.png", "disposition": "attachment" }],
        });
        let made = fixture.call("Email/set", json!({ "create": { "d": draft } })).await;
        let id = made["created"]["d"]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        let got = fixture.call("Email/get", json!({ "ids": [id], "properties": ["attachments"] })).await;
        blob = got["list"][0]["attachments"][0]["blobId"].clone();
        ids.push(id);
    }
    let letter = fixture.import(&inbox, PLAIN).await;
    let set = fixture.call("Email/set", json!({ "destroy": [ids[0], letter] })).await;
    assert_eq!(set["destroyed"], json!([ids[0], letter]));
    let part = fixture.jmap.download(AccountId(1), blob.as_str().unwrap()).await.unwrap();
    assert_eq!(part.content, b"\x89PNG".as_slice());
    let removed = fixture.mail.removed(AccountId(1), 10).await.unwrap();
    assert_eq!(removed.iter().map(|one| crate::email_id(one.email)).collect::<Vec<_>>(), [letter]);
}

#[tokio::test]
async fn a_draft_is_written_sent_and_filed() {
    let fixture = Fixture::new();
    let (drafts, sent) = (fixture.mailbox("drafts").await, fixture.mailbox("sent").await);
    let upload = fixture.upload("image/png", b"\x89PNG").await;
    let draft = json!({
        "mailboxIds": { drafts.as_str(): true }, "keywords": { "$draft": true, "$seen": true },
        "from": [{ "name": "Anna M\u{fc}ller", "email": "anna@a.test" }],
        "to": [{ "email": "bert@b.test" }, { "name": null, "email": "nobody@b.test" }],
        "bcc": [{ "email": "secret@b.test" }], "subject": "Gr\u{fc}\u{df}e\r\nX-Injected: 1",
        "inReplyTo": ["1@b.test"], "header:X-Own:asText": "own",
        "textBody": [{ "partId": "t" }], "htmlBody": [{ "partId": "h", "type": "text/html" }],
        "bodyValues": { "t": { "value": "Hello\n" }, "h": { "value": "<b>Hello</b>" } },
        "attachments": [{ "blobId": upload["blobId"], "type": "image/png", "name": "u.png" }],
    });
    let identities = fixture.call("Identity/get", json!({})).await;
    let identity = identities["list"][0]["id"].as_str().unwrap();
    assert_eq!(identities["list"][1]["email"], "sales@a.test");
    let answers = fixture
        .calls(json!([
            ["Email/set", { "accountId": "a1", "create": { "d": draft } }, "0"],
            ["EmailSubmission/set", {
                "accountId": "a1", "create": { "s": { "emailId": "#d", "identityId": identity } },
                "onSuccessUpdateEmail": { "#s": {
                    "keywords/$draft": null, format!("mailboxIds/{drafts}"): null, format!("mailboxIds/{sent}"): true,
                } },
            }, "1"],
        ]))
        .await;
    let names: Vec<&str> = answers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Email/set", "EmailSubmission/set", "Email/set"], "{answers:?}");
    let status = &answers[1].1["created"]["s"]["deliveryStatus"];
    assert_eq!(
        (&status["bert@b.test"]["delivered"], &status["nobody@b.test"]["delivered"]),
        (&json!("queued"), &json!("no"))
    );
    let id = answers[0].1["created"]["d"]["id"].as_str().unwrap();
    let wanted = json!({
        "ids": [id], "properties": ["mailboxIds", "keywords", "from", "bcc", "subject", "textBody", "attachments", "header:X-Own", "header:X-Injected"],
        "bodyProperties": ["type", "name", "size"],
    });
    let got = fixture.call("Email/get", wanted).await["list"][0].clone();
    let expected = json!({
        "id": id, "mailboxIds": { sent.as_str(): true }, "keywords": { "$seen": true },
        "from": [{ "name": "Anna M\u{fc}ller", "email": "anna@a.test" }],
        "bcc": [{ "name": null, "email": "secret@b.test" }], "subject": "Gr\u{fc}\u{df}e  X-Injected: 1",
        "textBody": [{ "type": "text/plain", "name": null, "size": 7 }],
        "attachments": [{ "type": "image/png", "name": "u.png", "size": 4 }],
        "header:X-Own": " own", "header:X-Injected": null,
    });
    assert_eq!(got, expected);
    let outbox = fixture.outbox.0.lock().unwrap();
    let (envelope, message) = &outbox[0];
    assert_eq!(envelope.forward_paths.len(), 3);
    let text = String::from_utf8_lossy(message);
    assert!(
        !text.contains("secret@b.test") && text.contains("Message-ID: <") && text.contains("Date: Sat, 31 Oct 2026")
    );
}

#[tokio::test]
async fn nobody_sends_in_anothers_name() {
    let fixture = Fixture::new();
    let drafts = fixture.mailbox("drafts").await;
    let identity = fixture.call("Identity/get", json!({})).await["list"][0]["id"].clone();
    let own = "From: Sales@a.test\r\nTo: bert@b.test\r\n\r\nx";
    for (message, submission, kind) in [
        ("From: bert@b.test\r\nTo: x@b.test\r\n\r\nx", json!({}), "forbiddenFrom"),
        ("From: anna@a.test, bert@b.test\r\nTo: x@b.test\r\n\r\nx", json!({}), "forbiddenFrom"),
        ("To: x@b.test\r\n\r\nx", json!({}), "invalidEmail"),
        ("From: anna@a.test\r\n\r\nx", json!({}), "noRecipients"),
        (own, json!({ "identityId": "I0" }), "invalidProperties"),
        (own, json!({ "emailId": "M99" }), "invalidProperties"),
        (
            own,
            json!({ "envelope": { "mailFrom": { "email": "bert@b.test" }, "rcptTo": [{ "email": "x@b.test" }] } }),
            "forbiddenMailFrom",
        ),
        (
            own,
            json!({ "envelope": { "mailFrom": { "email": "anna@a.test" }, "rcptTo": [{ "email": "x" }] } }),
            "invalidRecipients",
        ),
        (
            own,
            json!({ "envelope": { "mailFrom": { "email": "anna@a.test" }, "rcptTo": [{ "email": "nobody@b.test" }] } }),
            "forbiddenToSend",
        ),
    ] {
        let email = fixture.import(&drafts, message).await;
        let mut create = json!({ "emailId": email, "identityId": identity });
        create.as_object_mut().unwrap().extend(submission.as_object().unwrap().clone());
        let set = fixture.call("EmailSubmission/set", json!({ "create": { "s": create } })).await;
        assert_eq!(set["notCreated"]["s"]["type"], kind, "{message} {submission}");
    }
    let sent = fixture.outbox.0.lock().unwrap().len();
    assert_eq!(sent, 1, "only the one with an unknown recipient got as far as the submitter");
}

#[tokio::test]
async fn what_is_too_large_takes_no_memory() {
    let fixture = Fixture::new();
    let inbox = fixture.mailbox("inbox").await;
    let own = fixture.import(&inbox, PLAIN).await.replace('M', "e");
    let large = NewEntry {
        blob: fixture.jmap.services.blobs.put(vec![Bytes::from("A: 1\r\n".repeat(9 << 20))]).await.unwrap(),
        summary: PLAIN.as_bytes().into(),
        flags: store::Flags::default(),
        internal_date: NOW,
    };
    let mailbox = crate::id::parse_mailbox_id(&inbox).unwrap();
    let large = fixture.mail.append(AccountId(1), mailbox, vec![large]).await.unwrap().remove(0).email;
    let upload = fixture.upload("text/plain", &[b'x'; 40 << 20]).await["blobId"].clone();
    // Somebody else has all but a little of the node's memory for messages: who asks for all of it waits.
    let _share = fixture.jmap.services.budget.take(60 << 20).await;
    let patience = std::time::Duration::from_secs(20);
    for (blob, kind) in [
        (format!("e{}", large.0), "tooLarge"),
        (format!("{own}-0-4000000000-0"), "invalidProperties"),
        (format!("{own}-4000000000-4000000000-2"), "invalidProperties"),
    ] {
        let email = json!({ "blobId": blob, "mailboxIds": { &inbox: true } });
        let imported = fixture.call("Email/import", json!({ "emails": { "x": email } }));
        let answer = tokio::time::timeout(patience, imported).await.unwrap_or_else(|_| panic!("{blob} waits"));
        assert_eq!(answer["notCreated"]["x"]["type"], kind, "{blob}: {answer}");
    }
    let part = |blob: &Value| json!({ "blobId": blob, "type": "text/plain" });
    let invented = json!(format!("{own}-0-4000000000-0"));
    for (attachments, kind) in
        [(json!([part(&upload), part(&upload), part(&upload)]), "tooLarge"), (json!([part(&invented)]), "blobNotFound")]
    {
        let draft = json!({ "mailboxIds": { &inbox: true }, "attachments": attachments });
        let created = fixture.call("Email/set", json!({ "create": { "d": draft } }));
        let answer = tokio::time::timeout(patience, created).await.unwrap_or_else(|_| panic!("{kind} waits"));
        assert_eq!(answer["notCreated"]["d"]["type"], kind, "{answer}");
    }
}

#[tokio::test]
async fn drafts_that_make_no_sense_are_refused() {
    let fixture = Fixture::new();
    let drafts = fixture.mailbox("drafts").await;
    for (draft, kind) in [
        (json!({ "mailboxIds": {} }), "invalidProperties"),
        (json!({ "mailboxIds": { "F99": true } }), "invalidProperties"),
        (json!({ "headers": [] }), "invalidProperties"),
        (json!({ "from": "anna" }), "invalidProperties"),
        (json!({ "from": [{ "email": "a b@x" }] }), "invalidProperties"),
        (json!({ "subject": "a", "header:Subject:asText": "b" }), "invalidProperties"),
        (json!({ "header:Content-Type": "x/y" }), "invalidProperties"),
        (json!({ "textBody": [{ "partId": "1" }] }), "invalidProperties"),
        (json!({ "textBody": [], "bodyStructure": {} }), "invalidProperties"),
        (json!({ "attachments": [{ "blobId": "e99-1-2-0" }] }), "blobNotFound"),
        (json!({ "messageId": ["a> b"] }), "invalidProperties"),
    ] {
        let mut full = json!({ "mailboxIds": { drafts.as_str(): true } });
        full.as_object_mut().unwrap().extend(draft.as_object().unwrap().clone());
        let set = fixture.call("Email/set", json!({ "create": { "d": full } })).await;
        assert_eq!(set["notCreated"]["d"]["type"], kind, "{draft} {set}");
    }
}

#[tokio::test]
async fn a_change_is_pushed() {
    let fixture = Fixture::new();
    let inbox = fixture.mailbox("inbox").await;
    let mut watch = fixture.jmap.watch(AccountId(1));
    fixture.import(&inbox, PLAIN).await;
    let (id, change) = watch.next(&["Email".to_owned()]).await.unwrap();
    let state = fixture.call("Email/get", json!({ "ids": [] })).await["state"].clone();
    assert_eq!(change, json!({ "@type": "StateChange", "changed": { "a1": { "Email": state } } }));
    assert_eq!(json!(id), state);
    assert!(fixture.clock.utc() > NOW);
}
