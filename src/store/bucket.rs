//! An S3-compatible object store: one bucket, reached by any of several endpoints. Nothing here relies on locks or on
//! conditional writes: an object is written once under a name of its own, read, and deleted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::{BlobId, Secret, UtcMillis};
use bytes::Bytes;
use engine::EngineError;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::StoreError;

/// How the object store is reached.
#[derive(Clone)]
pub struct S3Settings {
    /// URLs of the endpoints that all lead to the same bucket; after a failure the next one is asked.
    pub endpoints: Vec<String>,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret: Secret<String>,
    /// `https://endpoint/bucket/…` instead of `https://bucket.endpoint/…`.
    pub path_style: bool,
    /// Blobs of this size or more become objects; smaller ones stay in the database.
    pub from_bytes: u64,
}

pub(crate) struct Bucket {
    endpoints: Vec<Arc<dyn ObjectStore>>,
    /// The one to ask first.
    preferred: AtomicUsize,
    /// Objects being written at a time: each holds up to a part in memory.
    writers: Arc<Semaphore>,
    is_reachable: AtomicBool,
    pub from_bytes: u64,
}

/// An object found by listing.
pub(crate) struct Listed {
    pub key: String,
    /// `None` if it is none of ours.
    pub blob: Option<BlobId>,
    pub modified_at: UtcMillis,
}

/// An object longer than this is written in parts of this size. The protocol wants 5 MiB at least.
const PART: usize = 8 << 20;
const WRITERS_MAX: usize = 16;
/// Objects being deleted at a time.
const DELETIONS_MAX: usize = 16;
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// For one request with its answer: a part on a slow line.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// Tries of one endpoint go on for so long; then the next one is asked.
const RETRY_WAIT: Duration = Duration::from_secs(5);
const RETRIES: usize = 3;
/// Names begin so; the next two characters spread them.
const PREFIX: &str = "blob";

impl Bucket {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: &S3Settings) -> Result<Self, StoreError> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_WAIT,
        };
        let client = ClientOptions::new().with_connect_timeout(CONNECT_WAIT).with_timeout(REQUEST_WAIT);
        let endpoints = settings.endpoints.iter().map(|endpoint| {
            let built = AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_bucket_name(&settings.bucket)
                .with_region(&settings.region)
                .with_access_key_id(&settings.access_key)
                .with_secret_access_key(settings.secret.reveal())
                .with_virtual_hosted_style_request(!settings.path_style)
                .with_allow_http(endpoint.starts_with("http://"))
                .with_conditional_put(S3ConditionalPut::Disabled)
                .with_client_options(client.clone().with_allow_http(endpoint.starts_with("http://")))
                .with_retry(retry.clone())
                .build();
            built.map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(|error| unavailable(&error))
        });
        let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(unavailable(&"no endpoint is named"));
        }
        let writers = Arc::new(Semaphore::new(WRITERS_MAX));
        Ok(Self {
            endpoints,
            preferred: AtomicUsize::new(0),
            writers,
            is_reachable: AtomicBool::new(true),
            from_bytes: settings.from_bytes,
        })
    }

    /// False after no endpoint answered, until one does.
    pub(crate) fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    fn note<T>(&self, asked: object_store::Result<T>) -> object_store::Result<T> {
        self.is_reachable.store(asked.as_ref().err().is_none_or(is_answer), Ordering::Relaxed);
        asked
    }

    /// The endpoint to ask, and its number.
    fn endpoint(&self) -> (usize, &Arc<dyn ObjectStore>) {
        let at = self.preferred.load(Ordering::Relaxed) % self.endpoints.len();
        self.endpoints.get(at).map_or_else(|| unreachable!("a bucket has an endpoint"), |endpoint| (at, endpoint))
    }

    /// Endpoint number `at` failed: the next one is asked from now on.
    fn turn_from(&self, at: usize) {
        let next = (at + 1) % self.endpoints.len();
        let _ = self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks one endpoint after the other until one answers.
    async fn ask<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        work: impl Fn(Arc<dyn ObjectStore>) -> F,
    ) -> object_store::Result<T> {
        let mut tries = 0;
        loop {
            let (at, endpoint) = self.endpoint();
            let asked = work(Arc::clone(endpoint)).await;
            tries += 1;
            match asked {
                Err(error) if !is_answer(&error) && tries < self.endpoints.len() => {
                    tracing::warn!(event = base::event::STORE_FAILED, what = "object store", endpoint = at, %error);
                    self.turn_from(at);
                }
                other => return self.note(other),
            }
        }
    }

    /// Begins an object; waits while many are being written.
    pub(crate) async fn create(&self, blob: BlobId) -> Result<Writing<'_>, StoreError> {
        let permit = Arc::clone(&self.writers).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Unavailable(EngineError::Closing))?;
        Ok(Writing { bucket: self, key: key(blob), waiting: Vec::new(), upload: None, _permit: permit })
    }

    /// Octets `range` of the blob's object.
    pub(crate) async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (key, wanted) = (key(blob), range.clone());
        let read = self.ask(|endpoint| {
            let (key, range) = (key.clone(), wanted.clone());
            async move { endpoint.get_range(&key, range).await }
        });
        match read.await {
            Ok(content) if content.len() as u64 == range.end - range.start => Ok(content),
            Ok(_) => Err(StoreError::Damaged { what: format!("object {key}: it is too short") }),
            Err(error) if is_missing(&error) => {
                Err(StoreError::Damaged { what: format!("object {key}: it is not there") })
            }
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Deletes objects; those that are not there are no failure.
    pub(crate) async fn delete(&self, keys: Vec<Path>) -> Result<(), StoreError> {
        let deleted = keys.into_iter().map(|key| async move {
            let deleted = self.ask(|endpoint| {
                let key = key.clone();
                async move { endpoint.delete(&key).await }
            });
            match deleted.await {
                Ok(()) => Ok(()),
                Err(error) if is_missing(&error) => Ok(()),
                Err(error) => Err(unavailable(&error)),
            }
        });
        futures_util::stream::iter(deleted).buffer_unordered(DELETIONS_MAX).try_collect().await
    }

    /// Up to `limit` objects whose names come after `after`.
    pub(crate) async fn list(&self, after: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let (prefix, after) = (Path::from(PREFIX), Path::from(after));
        let listed = self.ask(|endpoint| {
            let (prefix, after) = (prefix.clone(), after.clone());
            async move {
                let all = match after.as_ref() {
                    "" => endpoint.list(Some(&prefix)),
                    _ => endpoint.list_with_offset(Some(&prefix), &after),
                };
                all.take(limit).try_collect::<Vec<_>>().await
            }
        });
        let mut found: Vec<Listed> = listed
            .await
            .map_err(|error| unavailable(&error))?
            .into_iter()
            .map(|object| Listed {
                key: object.location.to_string(),
                blob: object
                    .location
                    .filename()
                    .and_then(|name| name.parse().ok())
                    .filter(|id| key(*id) == object.location),
                modified_at: UtcMillis(object.last_modified.timestamp_millis()),
            })
            .collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }
}

/// An object on its way. Dropped before its end, a part of it may stay in the bucket for its own rules to clear away
/// (incomplete multipart uploads), never an object.
pub(crate) struct Writing<'a> {
    bucket: &'a Bucket,
    key: Path,
    waiting: Vec<u8>,
    upload: Option<(usize, Box<dyn MultipartUpload>)>,
    _permit: OwnedSemaphorePermit,
}

impl Writing<'_> {
    /// Where content goes; [`Writing::flow`] sends what has gathered.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Sends a part once there is one.
    pub(crate) async fn flow(&mut self) -> Result<(), StoreError> {
        if self.waiting.len() < PART {
            return Ok(());
        }
        let sent = self.send_part().await;
        self.checked(sent).await
    }

    async fn send_part(&mut self) -> object_store::Result<()> {
        let part = std::mem::take(&mut self.waiting);
        let (_, upload) = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let key = self.key.clone();
                let begun = self.bucket.ask(|endpoint| {
                    let key = key.clone();
                    async move { endpoint.put_multipart(&key).await }
                });
                let begun = begun.await?;
                self.upload.insert((self.bucket.endpoint().0, begun))
            }
        };
        upload.put_part(part.into()).await
    }

    /// The object is there, and durable as the object store understands it, on return.
    pub(crate) async fn finish(mut self) -> Result<(), StoreError> {
        if self.upload.is_none() {
            let (key, content) = (self.key.clone(), Bytes::from(std::mem::take(&mut self.waiting)));
            let put = self.bucket.ask(|endpoint| {
                let (key, content) = (key.clone(), content.clone());
                async move { endpoint.put(&key, content.into()).await }
            });
            return put.await.map(drop).map_err(|error| unavailable(&error));
        }
        let sent = if self.waiting.is_empty() { Ok(()) } else { self.send_part().await };
        self.checked(sent).await?;
        let Some((_, upload)) = &mut self.upload else { return Ok(()) };
        let completed = upload.complete().await.map(drop);
        self.checked(completed).await
    }

    async fn checked(&mut self, done: object_store::Result<()>) -> Result<(), StoreError> {
        let Err(error) = self.bucket.note(done) else { return Ok(()) };
        if let Some((at, mut upload)) = self.upload.take() {
            // It comes again as a whole, elsewhere.
            self.bucket.turn_from(at);
            let _ = upload.abort().await;
        }
        Err(unavailable(&error))
    }
}

/// Where a blob's object lies.
pub(crate) fn key(blob: BlobId) -> Path {
    let name = blob.to_string();
    // The end of an id is random, its beginning is its time.
    let spread = name.len().checked_sub(2).and_then(|at| name.get(at..)).unwrap_or_default();
    Path::from(format!("{PREFIX}/{spread}/{name}"))
}

/// True if the endpoint works and this is its answer.
fn is_answer(error: &object_store::Error) -> bool {
    is_missing(error) || matches!(error, object_store::Error::PermissionDenied { .. })
}

/// True if the bucket does not have the object. A bucket that is not there, or a proxy that knows of none, answers 404 too:
/// that says nothing about what lies in it.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if source.to_string().contains("NoSuchKey"))
}

pub(crate) fn unavailable(error: &dyn std::fmt::Display) -> StoreError {
    let source = Arc::new(std::io::Error::other(error.to_string()));
    StoreError::Unavailable(EngineError::Io { file: "object store".into(), source })
}
