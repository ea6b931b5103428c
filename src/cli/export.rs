//! `ortler mailbox export`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base::{ByteSize, UtcMillis};
use clap::Args;
use migrate::{Message, folder, maildir, mbox};
use store::MailboxName;

use super::transfer::{Format, Mail, MailboxRow, Tally, flags};
use super::{Where, print};

#[derive(Args, Debug)]
pub struct Export {
    account: String,
    /// Folder to write to; made if it is missing.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// `maildir` keeps every octet; `mbox` has LF at line ends and keeps the date to the second.
    #[arg(long, value_enum, default_value = "maildir")]
    format: Format,
    /// Only this mailbox.
    #[arg(long, value_name = "NAME")]
    mailbox: Vec<MailboxName>,
    /// Read everything again and compare size and BLAKE3 with the node's.
    #[arg(long)]
    verify: bool,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Export {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let tally = self.node.talk(async |node, _| {
            let mut mail = Mail { node, account: self.account.clone() };
            self.export(&mut mail).await
        })?;
        Ok(tally.finish(self.json))
    }

    async fn export(&self, mail: &mut Mail<'_>) -> anyhow::Result<Tally> {
        let mailboxes = mail.mailboxes().await?;
        for name in &self.mailbox {
            let known = mailboxes.iter().any(|mailbox| mailbox.name == name.as_str());
            anyhow::ensure!(known, "the mailbox {name} of {} does not exist", self.account);
        }
        fs::create_dir_all(&self.to).with_context(|| self.to.display().to_string())?;
        let mut tally = Tally::default();
        let mut subscribed = Vec::new();
        for mailbox in mailboxes {
            let name: MailboxName = mailbox.name.parse().with_context(|| mailbox.name.clone())?;
            if !self.mailbox.is_empty() && !self.mailbox.contains(&name) {
                continue;
            }
            let before = (tally.added, tally.present);
            let done = match self.format {
                Format::Maildir => self.to_maildir(mail, &mailbox, &name, &mut tally).await,
                Format::Mbox => self.to_mbox(mail, &mailbox, &name, &mut tally).await,
            };
            match done {
                Ok(()) => tally.mailboxes += 1,
                Err(error) if mail.node.is_alive() => tally.skip(&error.context(name.to_string())),
                Err(error) => return Err(error),
            }
            let (added, present) = (tally.added - before.0, tally.present - before.1);
            print::line_to_stderr(&format!("{name}: {added} added, {present} there already"));
            if mailbox.subscribed {
                subscribed.push(name);
            }
        }
        if self.format == Format::Maildir {
            maildir::subscribe(&self.to, subscribed)?;
        }
        Ok(tally)
    }

    async fn to_maildir(
        &self,
        mail: &mut Mail<'_>,
        mailbox: &MailboxRow,
        name: &MailboxName,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let mut writer = maildir::Writer::open(&self.to, name)?;
        let mut after = 0;
        loop {
            let rows = mail.rows(&mailbox.name, after).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.uid;
            for row in rows {
                let key = maildir::Key {
                    account: &self.account,
                    uid_validity: mailbox.uid_validity,
                    uid: row.uid,
                    internal_date: UtcMillis(row.internal_date),
                    size_bytes: row.size,
                };
                let flags = flags(&row);
                let is_present = writer.refresh(&key, &flags)?;
                if !is_present {
                    match mail.read(&mailbox.name, &row).await {
                        Ok(message) => writer.add(&key, &message)?,
                        Err(error) if mail.node.is_alive() => {
                            tally.skip(&error.context(format!("{name}: message {}", row.uid)));
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
                let unnamed = writer.without_letter(&flags);
                if !unnamed.is_empty() {
                    let what = format!("{name}: message {}: no room for keywords {}", row.uid, unnamed.join(" "));
                    tally.skip(&anyhow::anyhow!(what));
                }
                if self.verify {
                    let written = blake3::hash(&writer.read(&key)?).to_hex();
                    if written.as_str() != mail.digest(&mailbox.name, row.uid).await? {
                        let what = format!("{name}: message {} differs on disk; delete it and run again", row.uid);
                        tally.skip(&anyhow::anyhow!(what));
                        continue;
                    }
                }
                *(if is_present { &mut tally.present } else { &mut tally.added }) += 1;
                tally.tell_progress(&mailbox.name);
            }
        }
    }

    /// The file is made anew beside the old one and takes its place when it is whole.
    async fn to_mbox(
        &self,
        mail: &mut Mail<'_>,
        mailbox: &MailboxRow,
        name: &MailboxName,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let path = folder::mbox_path(&self.to, name);
        let draft = path.with_extension("part");
        let in_draft = || draft.display().to_string();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let mut known = if path.exists() { Contents::of(&path)? } else { Contents::default() };
        let mut output = None;
        let mut expected = Vec::new();
        let mut after = 0;
        loop {
            let rows = mail.rows(&mailbox.name, after).await?;
            let Some(last) = rows.last() else { break };
            after = last.uid;
            for row in rows {
                let message = match mail.read(&mailbox.name, &row).await {
                    Ok(message) => message,
                    Err(error) if mail.node.is_alive() => {
                        tally.skip(&error.context(format!("{name}: message {}", row.uid)));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let as_read = Message { content: mbox::as_read(&message.content), ..message.clone() };
                if self.verify {
                    expected.push((row.uid, Contents::key(&as_read)));
                }
                if known.take(Contents::key(&as_read)) {
                    tally.present += 1;
                } else {
                    let writer = match &mut output {
                        Some(writer) => writer,
                        None => output.insert(mbox::Writer::new(start(&path, &draft).with_context(in_draft)?)),
                    };
                    writer.add(&message).with_context(in_draft)?;
                    tally.added += 1;
                }
                tally.tell_progress(&mailbox.name);
            }
        }
        match output {
            Some(writer) => finish(writer.into_inner(), &draft, &path).with_context(in_draft)?,
            // A mailbox without messages is a mailbox, too.
            None => {
                File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
            }
        }
        if self.verify {
            let mut written = Contents::of(&path)?;
            for (uid, key) in expected {
                if !written.take(key) {
                    tally.skip(&anyhow::anyhow!("{name}: message {uid} is not the same in {}", path.display()));
                }
            }
        }
        Ok(())
    }
}

/// A draft with all that the file holds already.
fn start(path: &Path, draft: &Path) -> std::io::Result<BufWriter<File>> {
    if path.exists() {
        fs::copy(path, draft)?;
    } else {
        File::create(draft)?;
    }
    Ok(BufWriter::with_capacity(1 << 18, File::options().append(true).open(draft)?))
}

fn finish(mut output: BufWriter<File>, draft: &Path, path: &Path) -> std::io::Result<()> {
    output.flush()?;
    output.get_ref().sync_all()?;
    fs::rename(draft, path)
}

/// Messages of an mbox file: how often each is there.
#[derive(Default)]
struct Contents(HashMap<(i64, blake3::Hash), u32>);

impl Contents {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let reader = mbox::Reader::new(BufReader::with_capacity(1 << 18, file), path, ByteSize(u64::MAX), UtcMillis(0));
        let mut contents = Self::default();
        for message in reader {
            *contents.0.entry(Self::key(&message?)).or_default() += 1;
        }
        Ok(contents)
    }

    fn key(message: &Message) -> (i64, blake3::Hash) {
        (message.internal_date.as_secs(), blake3::hash(&message.content))
    }

    fn take(&mut self, key: (i64, blake3::Hash)) -> bool {
        match self.0.get_mut(&key) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            Some(_) | None => false,
        }
    }
}
