//! What export and import have in common: an account's mail on its node, and the count of what was done.

use std::process::ExitCode;

use anyhow::Context as _;
use base::UtcMillis;
use bytes::Bytes;
use clap::ValueEnum;
use migrate::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::{Flags, Keyword, MailboxName, Role, SystemFlags};

use super::node::Node;
use super::print;
use crate::roles::control::{Reply, Request};
use crate::roles::mailboxes::{MailRequest, MessageRow};

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Maildir,
    Mbox,
}

/// An account's mail, by its node.
pub struct Mail<'a> {
    pub node: &'a mut Node,
    pub account: String,
}

#[derive(Deserialize, Debug)]
pub struct MailboxRow {
    pub name: String,
    pub role: Option<String>,
    pub subscribed: bool,
    pub uid_validity: u32,
}

impl Mail<'_> {
    async fn ask(&mut self, request: MailRequest, content: Bytes) -> anyhow::Result<Reply> {
        self.node.ask(Request::Mail(request), content).await
    }

    async fn ask_for<T: DeserializeOwned>(&mut self, request: MailRequest) -> anyhow::Result<T> {
        let answer = self.ask(request, Bytes::new()).await?.value;
        serde_json::from_value(answer).context("the node's answer makes no sense; is it of the same version?")
    }

    pub async fn mailboxes(&mut self) -> anyhow::Result<Vec<MailboxRow>> {
        self.ask_for(MailRequest::List { account: self.account.clone() }).await
    }

    /// Messages with a UID above `after`; none at the end.
    pub async fn rows(&mut self, mailbox: &str, after: u32) -> anyhow::Result<Vec<MessageRow>> {
        let (account, mailbox) = (self.account.clone(), mailbox.to_owned());
        self.ask_for(MailRequest::Messages { account, mailbox, after }).await
    }

    /// A message as its reader sees it.
    pub async fn read(&mut self, mailbox: &str, row: &MessageRow) -> anyhow::Result<Message> {
        let mut content = Vec::with_capacity(usize::try_from(row.size)?);
        while (content.len() as u64) < row.size {
            let (account, mailbox) = (self.account.clone(), mailbox.to_owned());
            let request = MailRequest::Read { account, mailbox, uid: row.uid, from: content.len() as u64 };
            let piece = self.ask(request, Bytes::new()).await?.content;
            anyhow::ensure!(!piece.is_empty(), "it ends after {} of {} octets", content.len(), row.size);
            content.extend_from_slice(&piece);
        }
        Ok(Message { content, flags: flags(row), internal_date: UtcMillis(row.internal_date) })
    }

    /// BLAKE3 of a message in hexadecimal, by the node.
    pub async fn digest(&mut self, mailbox: &str, uid: u32) -> anyhow::Result<String> {
        let (account, mailbox) = (self.account.clone(), mailbox.to_owned());
        self.ask_for(MailRequest::Digest { account, mailbox, uid }).await
    }

    /// The mailbox with this role, else of this name, made if need be; gives its name.
    pub async fn open(&mut self, name: &MailboxName, role: Option<Role>, subscribed: bool) -> anyhow::Result<String> {
        let (account, mailbox) = (self.account.clone(), name.to_string());
        let role = role.map(|role| role.as_str().to_owned());
        let answer: Value = self.ask_for(MailRequest::Open { account, mailbox, role, subscribed }).await?;
        Ok(answer["mailbox"].as_str().context("the node names no mailbox")?.to_owned())
    }

    pub async fn add(&mut self, mailbox: &str, message: Message) -> anyhow::Result<()> {
        let request = MailRequest::Add {
            account: self.account.clone(),
            mailbox: mailbox.to_owned(),
            flags: message.flags.system.bits(),
            keywords: message.flags.keywords.iter().map(|word| word.as_str().to_owned()).collect(),
            internal_date: message.internal_date.0,
        };
        self.ask(request, message.content.into()).await?;
        Ok(())
    }
}

pub fn flags(row: &MessageRow) -> Flags {
    let keywords = row.keywords.iter().filter_map(|word| word.parse::<Keyword>().ok()).collect();
    Flags { system: SystemFlags::from_bits(row.flags), keywords }
}

/// What was done.
#[derive(Default)]
pub struct Tally {
    pub mailboxes: u64,
    pub added: u64,
    pub present: u64,
    pub skipped: u64,
}

/// Progress is told after so many messages.
const PROGRESS_EVERY: u64 = 1000;

impl Tally {
    /// Something was left out; says so.
    pub fn skip(&mut self, what: &anyhow::Error) {
        self.skipped += 1;
        print::error(what);
    }

    pub fn tell_progress(&self, mailbox: &str) {
        let seen = self.added + self.present;
        if seen > 0 && seen.is_multiple_of(PROGRESS_EVERY) {
            print::line_to_stderr(&format!("{mailbox}: {} added, {} there already", self.added, self.present));
        }
    }

    /// Prints the counts. Exit code 1 if something was left out.
    pub fn finish(&self, json: bool) -> ExitCode {
        let value = json!({
            "mailboxes": self.mailboxes,
            "added": self.added,
            "present": self.present,
            "skipped": self.skipped,
        });
        print::value(&value, json);
        if self.skipped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
