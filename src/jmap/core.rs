//! The session object and the loop over a request's method calls (RFC 8620 §2, §3).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use base::{ByteSize, Clock, IdSource, ModSeq};
use directory::{Account, Directory};
use serde_json::{Map, Value, json};
use store::{BlobStore, MailStore, Searcher, Signals};

use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::blob::Uploads;
use crate::error::{MethodError, RequestError};
use crate::id::account_id;
use crate::mime::Mime;
use crate::reference::{Invocation, resolve};
use crate::submission::{DELAY_MAX, Submitter};

/// What JMAP is built from.
pub struct JmapServices {
    pub mail: Arc<dyn MailStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub signals: Arc<Signals>,
    pub search: Arc<Searcher>,
    pub directory: Arc<dyn Directory>,
    pub submitter: Arc<dyn Submitter>,
    pub mime: Arc<dyn Mime>,
    /// Folder for large uploads. Its files have no names.
    pub uploads: PathBuf,
    /// For messages being composed and stored.
    pub budget: net::MemoryBudget,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<IdSource>,
}

/// Answers JMAP requests of signed-in accounts.
pub struct Jmap {
    pub(crate) services: JmapServices,
    pub(crate) uploads: Uploads,
}

/// State of one request.
pub(crate) struct Context<'a> {
    pub account: &'a Account,
    /// Ids of objects made in this request, by their creation id.
    pub created: HashMap<String, String>,
}

const CORE: &str = "urn:ietf:params:jmap:core";
const MAIL: &str = "urn:ietf:params:jmap:mail";
const SUBMISSION: &str = "urn:ietf:params:jmap:submission";
const QUOTA: &str = "urn:ietf:params:jmap:quota";
const CAPABILITIES: [&str; 4] = [CORE, MAIL, SUBMISSION, QUOTA];

const CALLS_MAX: usize = 64;

impl Jmap {
    pub const REQUEST_SIZE_MAX: ByteSize = ByteSize::mib(10);
    pub const UPLOAD_SIZE_MAX: ByteSize = ByteSize::mib(50);

    pub fn new(services: JmapServices) -> Self {
        let uploads = Uploads::new(services.uploads.clone());
        Self { services, uploads }
    }

    /// The session object (RFC 8620 §2). `base` is what its URLs begin with: empty, or `https://host`.
    pub fn session(&self, account: &Account, base: &str) -> Value {
        let id = account_id(account.id);
        let address = account.address.to_string();
        json!({
            "capabilities": {
                CORE: {
                    "maxSizeUpload": Self::UPLOAD_SIZE_MAX.0,
                    "maxConcurrentUpload": 4,
                    "maxSizeRequest": Self::REQUEST_SIZE_MAX.0,
                    "maxConcurrentRequests": 8,
                    "maxCallsInRequest": CALLS_MAX,
                    "maxObjectsInGet": OBJECTS_MAX,
                    "maxObjectsInSet": OBJECTS_MAX,
                    "collationAlgorithms": ["i;unicode-casemap"],
                },
                MAIL: {}, SUBMISSION: {}, QUOTA: {},
            },
            "accounts": { &id: {
                "name": &address,
                "isPersonal": true,
                "isReadOnly": false,
                "accountCapabilities": {
                    CORE: {},
                    MAIL: {
                        "maxMailboxesPerEmail": 1,
                        "maxMailboxDepth": 32,
                        "maxSizeMailboxName": 255,
                        "maxSizeAttachmentsPerEmail": Self::UPLOAD_SIZE_MAX.0,
                        "emailQuerySortOptions":
                            ["receivedAt", "sentAt", "from", "to", "subject", "size", "hasKeyword"],
                        "mayCreateTopLevelMailbox": true,
                    },
                    SUBMISSION: { "maxDelayedSend": DELAY_MAX.as_secs(), "submissionExtensions": { "FUTURERELEASE": [] } },
                    QUOTA: {},
                },
            }},
            "primaryAccounts": { CORE: &id, MAIL: &id, SUBMISSION: &id, QUOTA: &id },
            "username": address,
            "apiUrl": format!("{base}/jmap/"),
            "downloadUrl": format!("{base}/jmap/download/{{accountId}}/{{blobId}}/{{name}}?accept={{type}}"),
            "uploadUrl": format!("{base}/jmap/upload/{{accountId}}/"),
            "eventSourceUrl":
                format!("{base}/jmap/eventsource/?types={{types}}&closeafter={{closeafter}}&ping={{ping}}"),
            "state": session_state(account),
        })
    }

    /// Answers one request: JSON in, JSON out. Not cancel safe: what a call changed stays changed.
    ///
    /// # Errors
    /// When nothing of the request was done.
    pub async fn handle(&self, account: &Account, request: &[u8]) -> Result<Value, RequestError> {
        if request.len() as u64 > Self::REQUEST_SIZE_MAX.0 {
            return Err(RequestError::Limit("maxSizeRequest"));
        }
        let Value::Object(mut request) = serde_json::from_slice(request).map_err(|_| RequestError::NotJson)? else {
            return Err(RequestError::NotRequest("it must be an object"));
        };
        check_using(request.get("using"))?;
        let calls = read_calls(request.remove("methodCalls"))?;
        let tells_created = request.contains_key("createdIds");
        let created = match request.remove("createdIds") {
            None | Some(Value::Null) => HashMap::new(),
            Some(Value::Object(ids)) => ids
                .into_iter()
                .map(|(name, id)| Some((name, id.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or(RequestError::NotRequest("createdIds must hold ids"))?,
            Some(_) => return Err(RequestError::NotRequest("createdIds must be an object")),
        };
        let mut context = Context { account, created };
        let mut done: Vec<Invocation> = Vec::new();
        for (name, arguments, id) in calls {
            let outcome = match resolve(arguments, &done) {
                Ok(arguments) => self.call(&mut context, &name, Arguments(arguments)).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answers) => done.extend(answers.into_iter().map(|(name, answer)| (name, answer, id.clone()))),
                Err(error) => done.push(("error".to_owned(), error.to_json(), id)),
            }
        }
        let responses: Vec<Value> = done.into_iter().map(|(name, answer, id)| json!([name, answer, id])).collect();
        let mut answer = json!({ "methodResponses": responses, "sessionState": session_state(account) });
        if let (true, Some(fields)) = (tells_created, answer.as_object_mut()) {
            fields.insert("createdIds".to_owned(), json!(context.created));
        }
        Ok(answer)
    }

    /// One call; some answer twice (a submission that also changes the email).
    async fn call(
        &self,
        context: &mut Context<'_>,
        name: &str,
        arguments: Arguments,
    ) -> Result<Vec<(String, Value)>, MethodError> {
        if name == "Core/echo" {
            return Ok(vec![(name.to_owned(), Value::Object(arguments.0))]);
        }
        if !METHODS.contains(&name) {
            return Err(MethodError::new("unknownMethod", ""));
        }
        let own = account_id(context.account.id);
        if arguments.text("accountId")?.is_none_or(|id| id != own) {
            return Err(MethodError::new("accountNotFound", ""));
        }
        let account = context.account.id;
        let answer = match name {
            "Mailbox/get" => self.mailbox_get(account, &arguments).await?,
            "Mailbox/changes" => self.mailbox_changes(account, &arguments).await?,
            "Mailbox/query" => self.mailbox_query(account, &arguments).await?,
            "Mailbox/set" => self.mailbox_set(context, &arguments).await?,
            "Thread/get" => self.thread_get(account, &arguments).await?,
            "Thread/changes" => self.thread_changes(account, &arguments).await?,
            "Email/get" => self.email_get(account, &arguments).await?,
            "Email/query" => self.email_query(account, &arguments).await?,
            "Email/changes" => self.email_changes(account, &arguments).await?,
            "Email/set" => self.email_set(context, &arguments).await?,
            "Email/import" => self.email_import(context, &arguments).await?,
            "SearchSnippet/get" => self.snippet_get(account, &arguments).await?,
            "Identity/get" => self.identity_get(context.account, &arguments).await?,
            "EmailSubmission/set" => return self.submission_set(context, &arguments).await,
            "Quota/get" => self.quota_get(account, &arguments).await?,
            // Nothing of these is kept or can change here.
            "Identity/changes" | "EmailSubmission/changes" | "Quota/changes" => {
                self.no_changes(account, &arguments).await?
            }
            "EmailSubmission/get" => self.submission_get(account, &arguments).await?,
            "EmailSubmission/query" => json!({
                "queryState": self.state(account).await?, "canCalculateChanges": false, "position": 0, "ids": [],
            }),
            // Email/queryChanges, Mailbox/queryChanges
            _ => return Err(MethodError::new("cannotCalculateChanges", "")),
        };
        let Value::Object(mut fields) = answer else {
            return Err(MethodError::new("serverFail", "a method answered no object"));
        };
        fields.insert("accountId".to_owned(), json!(own));
        Ok(vec![(name.to_owned(), Value::Object(fields))])
    }

    /// The account's state as every type tells it.
    pub(crate) async fn state(&self, account: base::AccountId) -> Result<String, MethodError> {
        Ok(self.modseq(account).await?.to_string())
    }

    pub(crate) async fn modseq(&self, account: base::AccountId) -> Result<ModSeq, MethodError> {
        // Makes a new account's mailboxes first: their creation must not look like a change a moment later.
        match self.services.mail.modseq(account).await? {
            ModSeq::MIN => {
                self.services.mail.mailboxes(account).await?;
                Ok(self.services.mail.modseq(account).await?)
            }
            modseq => Ok(modseq),
        }
    }

    /// `ifInState` (RFC 8620 §5.3); gives the state before the change.
    pub(crate) async fn check_state(
        &self,
        account: base::AccountId,
        arguments: &Arguments,
    ) -> Result<ModSeq, MethodError> {
        let now = self.modseq(account).await?;
        match arguments.text("ifInState")? {
            Some(expected) if expected != now.to_string() => Err(MethodError::new("stateMismatch", "")),
            _ => Ok(now),
        }
    }

    async fn no_changes(&self, account: base::AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let since = arguments.since()?;
        Ok(json!({
            "oldState": since.to_string(), "newState": self.state(account).await?, "hasMoreChanges": false,
            "created": [], "updated": [], "destroyed": [],
        }))
    }
}

const METHODS: &[&str] = &[
    "Mailbox/get",
    "Mailbox/changes",
    "Mailbox/query",
    "Mailbox/queryChanges",
    "Mailbox/set",
    "Thread/get",
    "Thread/changes",
    "Email/get",
    "Email/query",
    "Email/queryChanges",
    "Email/changes",
    "Email/set",
    "Email/import",
    "SearchSnippet/get",
    "Identity/get",
    "Identity/changes",
    "EmailSubmission/get",
    "EmailSubmission/changes",
    "EmailSubmission/query",
    "EmailSubmission/set",
    "Quota/get",
    "Quota/changes",
];

impl Context<'_> {
    /// An id, or what `#name` was created as in this request.
    pub fn id(&self, text: &str) -> Option<String> {
        match text.strip_prefix('#') {
            None => Some(text.to_owned()),
            Some(name) => self.created.get(name).cloned(),
        }
    }
}

/// Changes when what the session object says changes.
fn session_state(account: &Account) -> String {
    format!("{}-{}", account.id, account.created_at.0)
}

fn check_using(using: Option<&Value>) -> Result<(), RequestError> {
    let Some(names) = using.and_then(Value::as_array) else {
        return Err(RequestError::NotRequest("using must be an array"));
    };
    for name in names {
        let name = name.as_str().ok_or(RequestError::NotRequest("using must hold strings"))?;
        if !CAPABILITIES.contains(&name) {
            return Err(RequestError::UnknownCapability(name.to_owned()));
        }
    }
    Ok(())
}

/// Method name, arguments, call id.
type Call = (String, Map<String, Value>, String);

fn read_calls(calls: Option<Value>) -> Result<Vec<Call>, RequestError> {
    let Some(Value::Array(calls)) = calls else {
        return Err(RequestError::NotRequest("methodCalls must be an array"));
    };
    if calls.len() > CALLS_MAX {
        return Err(RequestError::Limit("maxCallsInRequest"));
    }
    let read = |call| match call {
        Value::Array(parts) => match <[Value; 3]>::try_from(parts) {
            Ok([Value::String(name), Value::Object(arguments), Value::String(id)]) => Some((name, arguments, id)),
            _ => None,
        },
        _ => None,
    };
    let calls = calls.into_iter().map(read).collect::<Option<_>>();
    calls.ok_or(RequestError::NotRequest("a method call is [name, arguments, id]"))
}
