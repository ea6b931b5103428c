//! `ortler mailbox import`.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use base::{ByteSize, UtcMillis};
use clap::Args;
use migrate::{Folder, Message, Trouble, folder, maildir, mapping, mbox};
use store::{Flags, MailboxName, Role};

use super::transfer::{Format, Mail, Tally};
use super::{Where, print};

#[derive(Args, Debug)]
pub struct Import {
    account: String,
    /// A Maildir, an mbox file or a folder of them.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// What lies there; found out if not given.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Put it into this mailbox, folders below it, instead of where they belong by their names.
    #[arg(long, value_name = "NAME")]
    into: Option<MailboxName>,
    /// Only this folder of what lies there.
    #[arg(long, value_name = "NAME")]
    mailbox: Option<MailboxName>,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Import {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let tally = self.node.talk(async |node, config| {
            let mut mail = Mail { node, account: self.account.clone() };
            self.import(&mut mail, config.message_size_max).await
        })?;
        Ok(tally.finish(self.json))
    }

    async fn import(&self, mail: &mut Mail<'_>, limit: ByteSize) -> anyhow::Result<Tally> {
        let from = self.from.display();
        anyhow::ensure!(self.from.exists(), "{from}: no such file or folder");
        // An unknown account is told before anything is read.
        mail.mailboxes().await?;
        let mut tally = Tally::default();
        let (format, mut folders, troubles) = self.find();
        troubles.into_iter().for_each(|trouble| tally.skip(&trouble.into()));
        if let Some(name) = &self.mailbox {
            folders.retain(|folder| folder.name == *name);
            anyhow::ensure!(!folders.is_empty(), "{from}: no folder {name} in it");
        }
        anyhow::ensure!(!folders.is_empty(), "{from}: neither a Maildir nor an mbox");
        let roles = mapping::roles(folders.iter().map(|folder| &folder.name));
        let subscribed = if format == Format::Maildir { maildir::subscriptions(&self.from) } else { None };
        for folder in folders {
            let (name, role) = match &self.into {
                Some(into) => (self.below(into, &folder.name)?, None),
                None => (folder.name.clone(), role_of(&roles, &folder.name)),
            };
            let wants = subscribed.as_ref().is_none_or(|names| names.contains(&folder.name));
            let name = name_by_role(mail, name, role, wants).await?;
            let before = (tally.added, tally.present);
            match format {
                Format::Maildir => match maildir::Reader::open(&folder.path, limit) {
                    Ok(reader) => add_all(mail, &name, reader, limit, &mut tally).await?,
                    Err(trouble) => tally.skip(&trouble.into()),
                },
                Format::Mbox => match open_mbox(&folder.path, limit) {
                    Ok(reader) => add_all(mail, &name, reader, limit, &mut tally).await?,
                    Err(error) => tally.skip(&error),
                },
            }
            tally.mailboxes += 1;
            let (added, present) = (tally.added - before.0, tally.present - before.1);
            print::line_to_stderr(&format!("{} to {name}: {added} added, {present} there already", folder.name));
        }
        Ok(tally)
    }

    fn find(&self) -> (Format, Vec<Folder>, Vec<Trouble>) {
        let format = self.format.or_else(|| self.from.is_file().then_some(Format::Mbox));
        if format != Some(Format::Mbox) {
            let (folders, troubles) = maildir::folders(&self.from);
            if format.is_some() || !folders.is_empty() {
                return (Format::Maildir, folders, troubles);
            }
        }
        let (files, troubles) = folder::mbox_files(&self.from);
        (Format::Mbox, files, troubles)
    }

    /// Where a folder goes with `--into`: the only one, and the inbox, go there themselves.
    fn below(&self, into: &MailboxName, name: &MailboxName) -> anyhow::Result<MailboxName> {
        if name.is_inbox() || self.mailbox.is_some() || self.from.is_file() {
            return Ok(into.clone());
        }
        format!("{into}/{name}").parse().with_context(|| format!("{into}/{name}"))
    }
}

/// A folder's role, or that of the level above which its place follows from.
fn role_of(roles: &std::collections::BTreeMap<MailboxName, Role>, name: &MailboxName) -> Option<(MailboxName, Role)> {
    let mut level = Some(name.clone());
    while let Some(here) = level {
        if let Some(role) = roles.get(&here) {
            return Some((here, *role));
        }
        level = here.parent();
    }
    None
}

/// The mailbox for a folder: `Gesendet/2025` goes below the mailbox that has the role of `Gesendet`.
async fn name_by_role(
    mail: &mut Mail<'_>,
    name: MailboxName,
    role: Option<(MailboxName, Role)>,
    subscribed: bool,
) -> anyhow::Result<String> {
    let Some((from, role)) = role.filter(|(_, role)| *role != Role::Inbox) else {
        return mail.open(&name, None, subscribed).await;
    };
    let to = mail.open(&from, Some(role), subscribed).await?;
    match name.moved(&from, &to.parse()?) {
        Some(moved) if name != from => mail.open(&moved, None, subscribed).await,
        Some(_) | None => Ok(to),
    }
}

fn open_mbox(path: &Path, limit: ByteSize) -> anyhow::Result<mbox::Reader<BufReader<File>>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let modified = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fallback = UtcMillis(i64::try_from(modified.as_millis())?);
    Ok(mbox::Reader::new(BufReader::with_capacity(1 << 18, file), path, limit, fallback))
}

/// Adds what the mailbox lacks: each message that lay there before accounts for one of the same content and date.
async fn add_all(
    mail: &mut Mail<'_>,
    mailbox: &str,
    messages: impl Iterator<Item = Result<Message, Trouble>>,
    limit: ByteSize,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut there: HashMap<(i64, u64), Vec<u32>> = HashMap::new();
    let mut after = 0;
    loop {
        let rows = mail.rows(mailbox, after).await?;
        let Some(last) = rows.last() else { break };
        after = last.uid;
        for row in rows {
            there.entry((UtcMillis(row.internal_date).as_secs(), row.size)).or_default().push(row.uid);
        }
    }
    for message in messages {
        let mut message = match message {
            Ok(message) if message.content.len() as u64 <= limit.0 => message,
            Ok(_) => {
                tally.skip(&anyhow::anyhow!("{mailbox}: a message is larger than {limit}; left out"));
                continue;
            }
            Err(trouble) => {
                tally.skip(&trouble.into());
                continue;
            }
        };
        let key = (message.internal_date.as_secs(), message.content.len() as u64);
        if let Some(candidates) = there.get_mut(&key)
            && let Some(at) = find(mail, mailbox, candidates, &message.content).await?
        {
            candidates.swap_remove(at);
            tally.present += 1;
        } else {
            while message.flags.keywords.len() > Flags::KEYWORDS_MAX {
                message.flags.keywords.pop_last();
            }
            let context = || format!("{mailbox}: stopped after {} messages; run again to go on", tally.added);
            mail.add(mailbox, message).await.with_context(context)?;
            tally.added += 1;
        }
        tally.tell_progress(mailbox);
    }
    Ok(())
}

/// Which of the candidates has this content.
async fn find(mail: &mut Mail<'_>, mailbox: &str, candidates: &[u32], content: &[u8]) -> anyhow::Result<Option<usize>> {
    let digest = blake3::hash(content).to_hex();
    for (at, uid) in candidates.iter().enumerate() {
        match mail.digest(mailbox, *uid).await {
            Ok(found) if found == digest.as_str() => return Ok(Some(at)),
            // Damaged or just expunged: it accounts for nothing.
            Err(error) if !mail.node.is_alive() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}
