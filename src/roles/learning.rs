//! What a command teaches the classifier, and what it takes along.

use anyhow::Context as _;
use bytes::Bytes;
use classifier::{Class, Counts, Learned, Owner};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Engines, mailboxes};

/// What a command asks of the classifier.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum LearnRequest {
    /// Learns the request's content, a message, or takes back what was learned of it.
    Message { account: Option<String>, is_spam: bool, forget: bool },
    /// How much was learned.
    Counts,
    /// Writes the weights of all into a file of the node's folder; gives its name.
    Export,
}

/// Where the weights are written for a command.
const EXPORT: &str = "classifier.weights";

/// Carries out a request; `content` is the message that came with it.
pub async fn execute(engines: &Engines, request: LearnRequest, content: Bytes) -> anyhow::Result<Value> {
    match request {
        LearnRequest::Message { account, is_spam, forget } => {
            let owner = match account {
                None => Owner::All,
                Some(address) => Owner::Account(mailboxes::id_of(engines, &address).await?),
            };
            let class = if is_spam { Class::Spam } else { Class::Ham };
            let lesson = tokio::task::spawn_blocking(move || filter::learned::lesson(&content, owner, class)).await?;
            let learned = match forget {
                true => engines.classifier.unlearn(&[lesson]).await?,
                false => engines.classifier.learn(&[lesson]).await?,
            };
            let word = match learned.first().context("nothing was learned")? {
                Learned::New => "new",
                Learned::Corrected => "corrected",
                Learned::Known => "known",
                Learned::Unlearned => "forgotten",
                Learned::NotKnown => "not-known",
            };
            Ok(json!(word))
        }
        LearnRequest::Counts => {
            let Counts { ham, spam } = engines.classifier.counts();
            Ok(json!({ "ham": ham, "spam": spam, "needed": Counts::NEEDED }))
        }
        LearnRequest::Export => {
            let file = engines.data().join(EXPORT);
            let weights = engines.classifier.current();
            let to = file.clone();
            tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
                // Whole or not at all: another command may read it.
                let draft = to.with_extension("part");
                std::fs::write(&draft, weights.export()?).with_context(|| draft.display().to_string())?;
                std::fs::rename(&draft, &to).with_context(|| to.display().to_string())
            })
            .await??;
            Ok(json!(file.display().to_string()))
        }
    }
}
