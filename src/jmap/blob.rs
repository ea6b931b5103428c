//! Uploads and downloads (RFC 8620 §6).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, BlobId, UtcMillis};
use bytes::Bytes;
use directory::Account;
use net::{Spool, SpoolSettings, Spooled};
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
/// Largest message or part given as one piece.
const DOWNLOAD_SIZE_MAX: u64 = 256 << 20;

impl Uploads {
    pub fn new() -> Self {
        Self { kept: Mutex::default() }
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

impl Jmap {
    /// For an upload on its way in.
    pub fn spool(&self) -> Spool {
        let settings = &*self.services.spool;
        Spool::new(Arc::new(SpoolSettings { size_max: Self::UPLOAD_SIZE_MAX, ..settings.clone() }))
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
        match parse_blob_id(blob_id).ok_or(BlobError::NotFound)? {
            BlobName::Upload(id) => {
                let (content, media_type) = self.uploads.find(account, id).ok_or(BlobError::NotFound)?;
                let content = content.read().await.map_err(|_gone| BlobError::NotFound)?;
                Ok(Download { content, media_type: Some(media_type) })
            }
            BlobName::Email(email) => {
                let entry = self.entry(account, email).await?.ok_or(BlobError::NotFound)?;
                if entry.size_bytes > DOWNLOAD_SIZE_MAX {
                    return Err(BlobError::TooLarge);
                }
                let content = self.content(&entry).read(0..entry.size_bytes).await?;
                Ok(Download { content, media_type: Some("message/rfc822".to_owned()) })
            }
            BlobName::Part { email, offset, len, encoding } => {
                let entry = self.entry(account, email).await?.ok_or(BlobError::NotFound)?;
                if u64::from(len) > DOWNLOAD_SIZE_MAX {
                    return Err(BlobError::TooLarge);
                }
                let end = u64::from(offset) + u64::from(len);
                let raw = self.content(&entry).read_blob(u64::from(offset)..end).await?;
                Ok(Download { content: Bytes::from(encoding.decode(&raw).into_owned()), media_type: None })
            }
        }
    }

    /// Octets that [`Jmap::download`] gives of a blob at most; 0 if there is no such blob.
    pub(crate) async fn blob_size(&self, account: AccountId, blob_id: &str) -> Result<u64, StoreError> {
        Ok(match parse_blob_id(blob_id) {
            Some(BlobName::Upload(id)) => self.uploads.find(account, id).map_or(0, |(content, _)| content.length()),
            Some(BlobName::Email(email)) => self.entry(account, email).await?.map_or(0, |entry| entry.size_bytes),
            Some(BlobName::Part { len, .. }) => u64::from(len),
            None => 0,
        })
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
    use base::{ByteSize, IdSource};

    use super::*;

    #[tokio::test]
    async fn uploads_are_bounded_private_and_forgotten() {
        let (uploads, ids) = (Uploads::new(), IdSource::fixed());
        let folder = tempfile::tempdir().unwrap();
        let settings = Arc::new(SpoolSettings {
            folder: folder.path().to_path_buf(),
            memory_max: ByteSize::mib(100),
            size_max: ByteSize::mib(100),
            waiting: net::MemoryBudget::new(ByteSize::mib(2000)),
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
