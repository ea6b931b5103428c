//! Uploads and downloads (RFC 8620 §6).

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, BlobId, ByteSize, UtcMillis};
use bytes::Bytes;
use directory::Account;
use mail_parser::Encoding;
use net::{MemoryBudget, Spool, SpoolSettings, Spooled};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{EmailId, Entry, EntryContent, StoreError};

use crate::core::Jmap;
use crate::id::{BlobName, account_id, parse_blob_id, upload_blob_id};

/// Why a blob was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("no such blob")]
    NotFound,
    #[error("the blob is too large")]
    TooLarge,
    /// Uploads of all accounts together fill their memory: try again later.
    #[error("too many uploads at the moment")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A blob's octets and what is known of them.
#[derive(Debug)]
pub struct Download {
    pub content: Bytes,
    /// Media type as uploaded; `None` for stored mail: the client says what it wants.
    pub media_type: Option<String>,
}

/// What clients uploaded and did not use yet, large ones in files without names: an upload lives until it is used, an hour or the end of the
/// process, whichever comes first. RFC 8620 §6 lets a server forget them.
pub(crate) struct Uploads {
    /// Of their own: what lies idle for an hour takes no memory from messages that come and go.
    spool: Arc<SpoolSettings>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    accounts: HashMap<AccountId, VecDeque<Upload>>,
    size: u64,
}

struct Upload {
    id: BlobId,
    media_type: String,
    content: Arc<Spooled>,
    at: UtcMillis,
}

const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Of one account: the oldest goes first.
const ACCOUNT_SIZE_MAX: u64 = 100 << 20;
const ACCOUNT_UPLOADS_MAX: usize = 200;
/// Of all accounts.
const SIZE_MAX: u64 = 512 << 20;
/// Of it in memory; the rest is in files.
const MEMORY_MAX: ByteSize = ByteSize::mib(32);
/// Largest message or part given as one piece.
const DOWNLOAD_SIZE_MAX: u64 = 256 << 20;

impl Uploads {
    pub fn new(folder: PathBuf) -> Self {
        let (size_max, waiting) = (Jmap::UPLOAD_SIZE_MAX, MemoryBudget::new(MEMORY_MAX));
        let spool = SpoolSettings { size_max, waiting, ..SpoolSettings::in_folder(folder) };
        Self { spool: Arc::new(spool), kept: Mutex::default() }
    }

    fn put(&self, account: AccountId, upload: Upload) -> Result<(), BlobError> {
        let mut kept = self.kept.lock();
        let now = upload.at;
        let Kept { accounts, size } = &mut *kept;
        accounts.retain(|_, own| {
            while own.front().is_some_and(|oldest| now.since(oldest.at) > KEPT_FOR) {
                *size -= own.pop_front().map_or(0, |gone| size_of(&gone));
            }
            !own.is_empty()
        });
        if *size + size_of(&upload) > SIZE_MAX {
            return Err(BlobError::Busy);
        }
        let own = accounts.entry(account).or_default();
        *size += size_of(&upload);
        own.push_back(upload);
        while own.len() > ACCOUNT_UPLOADS_MAX || own.iter().map(size_of).sum::<u64>() > ACCOUNT_SIZE_MAX {
            *size -= own.pop_front().map_or(0, |gone| size_of(&gone));
        }
        Ok(())
    }

    fn find(&self, account: AccountId, id: BlobId) -> Option<(Arc<Spooled>, String)> {
        let kept = self.kept.lock();
        let upload = kept.accounts.get(&account)?.iter().find(|upload| upload.id == id)?;
        Some((Arc::clone(&upload.content), upload.media_type.clone()))
    }
}

fn size_of(upload: &Upload) -> u64 {
    upload.content.length()
}

/// What a blob id leads to.
enum Found {
    Upload(Arc<Spooled>, String),
    Email(Entry),
    /// Octets of the stored blob.
    Part(Entry, Range<u64>, Encoding),
}

impl Found {
    /// Octets that are read for it; decoded they are no more.
    fn size(&self) -> u64 {
        match self {
            Self::Upload(content, _) => content.length(),
            Self::Email(entry) => entry.size_bytes,
            Self::Part(_, range, _) => range.end - range.start,
        }
    }
}

impl Jmap {
    /// For an upload on its way in.
    pub fn spool(&self) -> Spool {
        Spool::new(Arc::clone(&self.uploads.spool))
    }

    /// Keeps an upload; gives the answer for the client.
    pub fn upload(&self, account: &Account, media_type: &str, content: Spooled) -> Result<Value, BlobError> {
        let (at, size) = (self.services.clock.utc(), content.length());
        let id = self.services.ids.blob(at);
        let content = Arc::new(content);
        self.uploads.put(account.id, Upload { id, media_type: media_type.to_owned(), content, at })?;
        Ok(json!({
            "accountId": account_id(account.id), "blobId": upload_blob_id(id), "type": media_type, "size": size,
        }))
    }

    /// A blob of this account by its id.
    ///
    /// Cancel safe.
    pub async fn download(&self, account: AccountId, blob_id: &str) -> Result<Download, BlobError> {
        let found = self.find(account, blob_id).await?.ok_or(BlobError::NotFound)?;
        if found.size() > DOWNLOAD_SIZE_MAX {
            return Err(BlobError::TooLarge);
        }
        match found {
            Found::Upload(content, media_type) => {
                let content = content.read().await.map_err(|_gone| BlobError::NotFound)?;
                Ok(Download { content, media_type: Some(media_type) })
            }
            Found::Email(entry) => {
                let content = self.content(&entry).read(0..entry.size_bytes).await?;
                Ok(Download { content, media_type: Some("message/rfc822".to_owned()) })
            }
            Found::Part(entry, range, encoding) => {
                let raw = self.content(&entry).read_blob(range).await?;
                Ok(Download { content: Bytes::from(encoding.decode(&raw).into_owned()), media_type: None })
            }
        }
    }

    /// Octets that [`Jmap::download`] reads for a blob, and gives at most; `None` if there is no such blob.
    pub(crate) async fn blob_size(&self, account: AccountId, blob_id: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.find(account, blob_id).await?.map(|found| found.size()))
    }

    async fn find(&self, account: AccountId, blob_id: &str) -> Result<Option<Found>, StoreError> {
        let Some(name) = parse_blob_id(blob_id) else { return Ok(None) };
        let email = match name {
            BlobName::Upload(id) => {
                return Ok(self.uploads.find(account, id).map(|(content, kind)| Found::Upload(content, kind)));
            }
            BlobName::Email(email) | BlobName::Part { email, .. } => email,
        };
        let Some(entry) = self.entry(account, email).await? else { return Ok(None) };
        let BlobName::Part { offset, len, encoding, .. } = name else { return Ok(Some(Found::Email(entry))) };
        let range = u64::from(offset)..u64::from(offset) + u64::from(len);
        // An id that says more than the email holds was made by nobody here.
        Ok((range.end <= entry.size_bytes).then_some(Found::Part(entry, range, encoding)))
    }

    pub(crate) async fn entry(&self, account: AccountId, email: EmailId) -> Result<Option<Entry>, StoreError> {
        Ok(self.services.mail.emails(account, vec![email]).await?.pop())
    }

    pub(crate) fn content(&self, entry: &Entry) -> EntryContent {
        EntryContent::new(self.services.blobs.clone(), entry)
    }
}

#[cfg(test)]
mod tests {
    use base::IdSource;

    use super::*;

    #[tokio::test]
    async fn uploads_are_bounded_private_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (uploads, ids) = (Uploads::new(folder.path().to_path_buf()), IdSource::fixed());
        let settings = Arc::new(SpoolSettings {
            folder: folder.path().to_path_buf(),
            memory_max: ByteSize::mib(100),
            size_max: ByteSize::mib(100),
            waiting: MemoryBudget::new(ByteSize::mib(2000)),
        });
        let put = async |account: u64, size: usize, at: i64| {
            let id = ids.blob(UtcMillis(at));
            let mut spool = Spool::new(Arc::clone(&settings));
            spool.write(&vec![0; size]).await.unwrap();
            let content = Arc::new(spool.finish());
            let upload = Upload { id, media_type: String::new(), content, at: UtcMillis(at) };
            uploads.put(AccountId(account), upload).map(|()| id)
        };
        let first = put(1, 60 << 20, 0).await.unwrap();
        assert!(uploads.find(AccountId(1), first).is_some() && uploads.find(AccountId(2), first).is_none());
        put(1, 60 << 20, 1).await.unwrap();
        assert!(uploads.find(AccountId(1), first).is_none(), "the oldest makes room");
        for account in 2..9 {
            put(account, 60 << 20, 2).await.unwrap();
        }
        assert!(matches!(put(9, 60 << 20, 3).await, Err(BlobError::Busy)));
        assert!(put(9, 60 << 20, 4_000_000).await.is_ok(), "an hour later there is room");
    }
}
