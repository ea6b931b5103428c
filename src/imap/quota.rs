//! QUOTA (RFC 9208): one root for all mailboxes of an account. Limits are set by administrators.

use base::AccountId;
use store::{MailStore, Usage};

use crate::proto::{RawName, Reply, write};

/// The account's one quota root.
const ROOT: &str = "account";

pub async fn get(store: &dyn MailStore, account: AccountId, root: &[u8], out: &mut Vec<u8>) -> Result<Reply, Reply> {
    if root != ROOT.as_bytes() {
        return Err(Reply::no("NONEXISTENT", "No such quota root"));
    }
    line(out, &store.usage(account).await?);
    Ok(Reply::ok("GETQUOTA completed"))
}

/// The mailbox need not exist (RFC 9208 §4.1.2).
pub async fn roots(
    store: &dyn MailStore,
    account: AccountId,
    mailbox: &RawName,
    out: &mut Vec<u8>,
) -> Result<Reply, Reply> {
    let name = mailbox.decode().ok_or(Reply::bad_name())?;
    let usage = store.usage(account).await?;
    out.extend_from_slice(b"* QUOTAROOT ");
    write::mailbox(out, &name);
    out.extend_from_slice(format!(" \"{ROOT}\"\r\n").as_bytes());
    line(out, &usage);
    Ok(Reply::ok("GETQUOTAROOT completed"))
}

/// STORAGE counts in units of 1024 octets; what has no limit is not listed (RFC 9208 §5).
fn line(out: &mut Vec<u8>, usage: &Usage) {
    let storage = usage.quota.size.map(|limit| format!("STORAGE {} {}", usage.size.0.div_ceil(1024), limit.0 / 1024));
    let messages = usage.quota.messages.map(|limit| format!("MESSAGE {} {limit}", usage.messages));
    let listed: Vec<String> = storage.into_iter().chain(messages).collect();
    out.extend_from_slice(format!("* QUOTA \"{ROOT}\" ({})\r\n", listed.join(" ")).as_bytes());
}
