//! Deleted folders come back as a whole.

use std::collections::BTreeMap;

use base::AccountId;

use crate::error::{AppendError, MailboxError};
use crate::model::{EmailId, MailboxName, RemovedMailbox};
use crate::storage::Storage;

/// What came back of a deleted folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestoredFolder {
    /// Itself and those below it, under the names they have now.
    pub mailboxes: Vec<MailboxName>,
    pub messages: u64,
}

/// Emails brought back in one transaction.
const STEP: usize = 500;

impl Storage {
    /// Brings back the folder of this name and those below it as each was when it was last deleted: its messages and
    /// their flags, its role if no other has it by now, its subscription. `into` takes the place of its name. What was
    /// there already stays; called again, it goes on where it stopped.
    ///
    /// # Errors
    /// [`AppendError::NoMailbox`] if no such folder was deleted within the undelete window.
    pub async fn restore_folder(
        &self,
        account: AccountId,
        folder: &MailboxName,
        into: Option<&MailboxName>,
    ) -> Result<RestoredFolder, AppendError> {
        let gone = self.mail.removed_mailboxes(account).await?;
        // The latest deletion of each name comes first.
        let mut wanted: BTreeMap<MailboxName, RemovedMailbox> = BTreeMap::new();
        for one in gone.into_iter().filter(|one| one.name == *folder || one.name.is_below(folder)) {
            wanted.entry(one.name.clone()).or_insert(one);
        }
        if wanted.is_empty() {
            return Err(AppendError::NoMailbox);
        }
        let mut out = RestoredFolder::default();
        for (name, gone) in wanted {
            let to = into.and_then(|into| name.moved(folder, into)).unwrap_or(name);
            self.make_again(account, &to, &gone).await?;
            let mut after = EmailId(0);
            loop {
                let step = self.mail.removed_with(account, &gone, after, STEP).await?;
                let Some(last) = step.last().copied() else { break };
                out.messages += self.mail.restore(account, step, Some(to.clone())).await?.len() as u64;
                after = last;
            }
            out.mailboxes.push(to);
        }
        Ok(out)
    }

    async fn make_again(
        &self,
        account: AccountId,
        name: &MailboxName,
        gone: &RemovedMailbox,
    ) -> Result<(), AppendError> {
        let role = gone.role.filter(|_| *name == gone.name);
        let made = match self.mail.create_mailbox(account, name, role).await {
            Err(MailboxError::RoleTaken) => self.mail.create_mailbox(account, name, None).await,
            made => made,
        };
        match made {
            Ok(_) if gone.subscribed => match self.mail.subscribe(account, name, true).await {
                Err(MailboxError::Store(error)) => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            },
            Ok(_) | Err(MailboxError::Exists) => Ok(()),
            Err(MailboxError::Store(error)) => Err(error.into()),
            Err(_) => Err(AppendError::NoMailbox),
        }
    }
}
