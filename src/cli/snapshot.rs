//! `ortler mailbox restore --from-snapshot`: what an account had in a snapshot and lacks now.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base::{Quota, UtcMillis};
use bytes::Bytes;
use config::Config;
use store::{MailboxName, Role};

use super::node::Node;
use super::transfer::{Mail, MailboxRow, Tally};
use super::{Where, print};
use crate::roles::Engines;
use crate::roles::control::{Connection, Request};
use crate::roles::mailboxes::{MailRequest, MessageRow};

pub struct FromSnapshot {
    pub account: String,
    /// A snapshot, or the folder of a stopped node. It is only read.
    pub dir: PathBuf,
    /// Only this folder of it and those below.
    pub folder: Option<String>,
    /// As of this time, which lies before the snapshot.
    pub at: Option<UtcMillis>,
    pub into: Option<String>,
}

/// Messages of the account now, by time of arrival (in seconds) and size.
type There = HashMap<(i64, u64), Vec<(String, MessageRow)>>;

impl FromSnapshot {
    pub fn run(self, node: &Where, json: bool) -> anyhow::Result<ExitCode> {
        let tally = node.talk(async |target, config| {
            let (_staged, engines) = Staged::open(&self.dir, &config.data).await?;
            let mut source = Node::Stopped(Box::new(engines));
            let outcome = self.bring(&mut source, target).await;
            if let Node::Stopped(engines) = source {
                engines.close().await;
            }
            outcome
        })?;
        Ok(tally.finish(json))
    }

    async fn bring(&self, source: &mut Node, target: &mut Node) -> anyhow::Result<Tally> {
        let folder = self.folder.as_deref().map(parse).transpose()?;
        let into = self.into.as_deref().map(parse).transpose()?;
        let mut now = Mail { node: target, account: self.account.clone() };
        let is_there = now.mailboxes().await?;
        self.turn_back(source).await?;
        let mut then = Mail { node: source, account: self.account.clone() };
        let mut mailboxes = then.mailboxes().await.with_context(|| self.dir.display().to_string())?;
        if let Some(folder) = &folder {
            mailboxes.retain(|one| parse(&one.name).is_ok_and(|name| name == *folder || name.is_below(folder)));
            anyhow::ensure!(
                !mailboxes.is_empty(),
                "{}: {} has no folder {folder} there",
                self.dir.display(),
                self.account
            );
        }
        let mut tally = Tally::default();
        // A message that was moved since is not missing; what goes into a folder of its own is compared with that alone.
        let mut there = There::new();
        if into.is_none() {
            for mailbox in &is_there {
                note(&mut now, &mailbox.name, &mut there).await?;
            }
        }
        for mailbox in &mailboxes {
            let name = place(&parse(&mailbox.name)?, folder.as_ref(), into.as_ref())?;
            let role = mailbox.role.as_deref().and_then(Role::from_name).filter(|_| into.is_none());
            let to = now.open(&name, role, mailbox.subscribed).await?;
            if into.is_some() {
                there.clear();
                note(&mut now, &to, &mut there).await?;
            }
            let before = (tally.added, tally.present);
            self.add_missing(&mut then, mailbox, &mut now, &to, &mut there, &mut tally).await?;
            tally.mailboxes += 1;
            let (added, present) = (tally.added - before.0, tally.present - before.1);
            print::line_to_stderr(&format!("{} to {to}: {added} added, {present} there already", mailbox.name));
        }
        Ok(tally)
    }

    /// In the copy of the snapshot, brings back what was removed after the wanted time.
    async fn turn_back(&self, source: &mut Node) -> anyhow::Result<()> {
        let (Some(at), Node::Stopped(engines)) = (self.at, &*source) else { return Ok(()) };
        let address = self.account.parse::<mail::Address>().with_context(|| format!("`{}`", self.account))?;
        let Some(account) = engines.directory.account_by_address(&address).await? else { return Ok(()) };
        engines.storage.mail.set_quota(account.id, Quota::UNLIMITED).await?;
        engines.storage.mail.set_pools(account.id, Vec::new()).await?;
        let request = MailRequest::Restore {
            account: self.account.clone(),
            ids: Vec::new(),
            mailbox: None,
            since: None,
            at: Some(at.0),
            into: None,
        };
        source.ask(Request::Mail(request), Bytes::new()).await?;
        Ok(())
    }

    async fn add_missing(
        &self,
        then: &mut Mail<'_>,
        from: &MailboxRow,
        now: &mut Mail<'_>,
        to: &str,
        there: &mut There,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let rows = then.rows(&from.name, after).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.uid;
            for row in rows {
                if self.at.is_some_and(|at| row.internal_date > at.0) {
                    continue;
                }
                let candidates = there.entry(key(&row)).or_default();
                if let Some(found) = find(then, &from.name, &row, now, candidates).await? {
                    candidates.swap_remove(found);
                    tally.present += 1;
                } else {
                    match then.read(&from.name, &row).await {
                        Ok(message) => {
                            let context =
                                || format!("{to}: stopped after {} messages; run again to go on", tally.added);
                            now.add(to, message).await.with_context(context)?;
                            tally.added += 1;
                        }
                        Err(error) => tally.skip(&error.context(format!("{}, message {}", from.name, row.uid))),
                    }
                }
                tally.tell_progress(to);
            }
        }
    }
}

fn key(row: &MessageRow) -> (i64, u64) {
    (UtcMillis(row.internal_date).as_secs(), row.size)
}

async fn note(now: &mut Mail<'_>, mailbox: &str, there: &mut There) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let rows = now.rows(mailbox, after).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.uid;
        for row in rows {
            there.entry(key(&row)).or_default().push((mailbox.to_owned(), row));
        }
    }
}

/// Which of the candidates is this message: the same stored content, else content with the same digest.
async fn find(
    then: &mut Mail<'_>,
    mailbox: &str,
    row: &MessageRow,
    now: &mut Mail<'_>,
    candidates: &[(String, MessageRow)],
) -> anyhow::Result<Option<usize>> {
    if let Some(same) = candidates.iter().position(|(_, other)| !row.blob.is_empty() && other.blob == row.blob) {
        return Ok(Some(same));
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    // Damaged in the snapshot: it is told when it is read.
    let Ok(digest) = then.digest(mailbox, row.uid).await else { return Ok(None) };
    for (at, (place, other)) in candidates.iter().enumerate() {
        match now.digest(place, other.uid).await {
            Ok(found) if found == digest => return Ok(Some(at)),
            Err(error) if !now.node.is_alive() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

fn parse(text: &str) -> anyhow::Result<MailboxName> {
    text.parse().with_context(|| format!("`{text}`"))
}

/// Where a folder of the snapshot goes: with `into` the wanted folder, or without one the inbox, takes that name itself.
fn place(name: &MailboxName, folder: Option<&MailboxName>, into: Option<&MailboxName>) -> anyhow::Result<MailboxName> {
    let Some(into) = into else { return Ok(name.clone()) };
    if let Some(folder) = folder {
        return name.moved(folder, into).with_context(|| format!("{name} is not below {folder}"));
    }
    if name.is_inbox() { Ok(into.clone()) } else { parse(&format!("{into}/{name}")) }
}

/// The snapshot's databases as a copy beside the node's own data, so that they can be brought to this version, and its
/// segments by link. The copy goes when this is dropped.
struct Staged(PathBuf);

impl Staged {
    async fn open(dir: &Path, data: &Path) -> anyhow::Result<(Self, Engines)> {
        let at = || dir.display().to_string();
        anyhow::ensure!(dir.join("mail.sqlite").is_file(), "{}: neither a snapshot nor the folder of a node", at());
        if Connection::open(dir).await.ok().flatten().is_some() {
            anyhow::bail!("{}: a node runs there; take a snapshot of it first", at());
        }
        let staged = Self(data.join(format!("restore-{}.part", std::process::id())));
        let (from, to) = (dir.canonicalize().with_context(at)?, staged.0.clone());
        tokio::task::spawn_blocking(move || stage(&from, &to)).await?.with_context(at)?;
        let config = Config::with_defaults("snapshot", staged.0.clone(), Vec::new());
        let engines = Engines::open(&config).await.with_context(at)?;
        Ok((staged, engines))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is seen by its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stage(dir: &Path, copy: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(copy)?;
    for name in ["directory.sqlite", "directory.sqlite-wal"] {
        if dir.join(name).is_file() {
            std::fs::copy(dir.join(name), copy.join(name))?;
        }
    }
    Ok(store::Storage::stage(dir, copy)?)
}
