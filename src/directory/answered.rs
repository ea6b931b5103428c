//! Calls of the API that are made once, however often they are asked for.

use base::AccountId;
use engine::EngineError;
use engine::table::{Columns as _, Statement};

use crate::registry::Registry;

/// What is known of a call by the word that its caller gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// It is new; it has begun now.
    Begun,
    Answered {
        status: u16,
        body: Vec<u8>,
    },
    /// The same call has begun and not ended.
    UnderWay,
    /// The word was given to another call.
    Other,
}

/// Words count for so long.
const KEPT_MS: i64 = 86_400_000;
/// What has not ended by then never will: its node died.
const UNDER_WAY_MS: i64 = 120_000;

impl Registry {
    /// Begins a call, unless the account made one by this word; `digest` tells whether it is the same.
    pub async fn begin_call(&self, account: AccountId, word: &str, digest: [u8; 32]) -> Result<Call, EngineError> {
        let now = self.clock.utc().0;
        let text = "INSERT INTO answered_call (account, word, digest, status, body, answered_at)
            VALUES ($1, $2, $3, 0, $4, $5) ON CONFLICT (account, word)
            DO UPDATE SET digest = $3, status = 0, body = $4, answered_at = $5
            WHERE answered_call.answered_at <= $6 OR (answered_call.status = 0 AND answered_call.answered_at <= $7)";
        let values = vec![
            account.0.into(),
            word.into(),
            digest.to_vec().into(),
            Vec::new().into(),
            now.into(),
            (now - KEPT_MS).into(),
            (now - UNDER_WAY_MS).into(),
        ];
        if self.place().change(vec![Statement::new(text, values).must()]).await?.is_ok() {
            return Ok(Call::Begun);
        }
        let text = "SELECT digest, status, body FROM answered_call WHERE account = $1 AND word = $2";
        let found = self.ask_both(text, vec![account.0.into(), word.into()]).await?;
        // Given up between the two.
        let Some(row) = found.first() else { return Ok(Call::UnderWay) };
        Ok(match (row.bytes(0)? == digest, u16::try_from(row.number(1)?).unwrap_or(0)) {
            (false, _) => Call::Other,
            (true, 0) => Call::UnderWay,
            (true, status) => Call::Answered { status, body: row.bytes(2)?.to_vec() },
        })
    }

    /// Keeps the answer to a call; `None`: nothing came of it, and it may be made again.
    pub async fn end_call(
        &self,
        account: AccountId,
        word: &str,
        answer: Option<(u16, Vec<u8>)>,
    ) -> Result<(), EngineError> {
        let step = match answer {
            Some((status, body)) => {
                let text = "UPDATE answered_call SET status = $3, body = $4 WHERE account = $1 AND word = $2";
                Statement::new(text, vec![account.0.into(), word.into(), i64::from(status).into(), body.into()])
            }
            None => {
                let text = "DELETE FROM answered_call WHERE account = $1 AND word = $2";
                Statement::new(text, vec![account.0.into(), word.into()])
            }
        };
        self.place().change(vec![step]).await.map(drop)
    }

    pub(crate) async fn tidy_calls(&self) -> Result<(), EngineError> {
        let text = "DELETE FROM answered_call WHERE answered_at <= $1";
        let before = self.clock.utc().0 - KEPT_MS;
        self.place().change(vec![Statement::new(text, vec![before.into()])]).await.map(drop)
    }
}
