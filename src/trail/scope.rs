//! Who may see what. Enforced here, once: engines narrow what they read by [`Scope::narrow`], to save work; what a viewer
//! gets has gone through [`Scope::view`] or [`Scope::tells`].

use base::AccountId;
use mail::Domain;

use crate::event::Kind;
use crate::row::{MessageRow, PartyRow, StoredMessage, ToldEvent};
use crate::sql::{Sql, Value};

/// What a viewer may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything: staff.
    System,
    /// Messages with a sender or recipient in one of these domains.
    Domains(Vec<Domain>),
    /// Messages from or to this account.
    Account(AccountId),
}

impl Scope {
    fn covers(&self, address: &str, account: Option<AccountId>) -> bool {
        match self {
            Self::System => true,
            Self::Account(own) => account == Some(*own),
            Self::Domains(domains) => {
                let domain = domain_of(address);
                domains.iter().any(|known| known.as_str() == domain)
            }
        }
    }

    /// What the viewer sees of a message, with the recipients and the outcome that are theirs. `None` if nobody in scope
    /// has to do with it.
    pub(crate) fn view(&self, stored: StoredMessage) -> Option<MessageRow> {
        let StoredMessage { mut row, parties } = stored;
        let mut seen =
            parties.into_iter().filter(|party| self.covers(&party.row.address, party.row.account)).peekable();
        if *self != Self::System && seen.peek().is_none() {
            return None;
        }
        row.recipients = seen.filter(|party| party.is_recipient).map(|party| party.row).collect();
        if *self != Self::System && !row.recipients.is_empty() {
            row.outcome = row.recipients.iter().filter_map(|party| party.outcome).min();
            row.reason = row.recipients.iter().find_map(|party| party.reason.clone());
        }
        Some(row)
    }

    /// True if the viewer of `message` may hear of this event of it. A line that names a recipient is for those who may
    /// see the recipient: nobody learns of another's blind copy.
    pub(crate) fn tells(&self, message: &MessageRow, told: &ToldEvent) -> bool {
        if *self == Self::System {
            return true;
        }
        if let Some(address) = &told.event.party {
            // A server elsewhere answers for an address; whose that is, the message's own lines know.
            let is_known = |party: &PartyRow| party.address.eq_ignore_ascii_case(address);
            return self.covers(address, told.account)
                || (told.account.is_none() && message.recipients.iter().any(is_known));
        }
        match told.event.kind {
            // Of the connection or the whole message.
            Kind::Connected
            | Kind::ConnectionRefused
            | Kind::Started
            | Kind::Judged
            | Kind::Refused
            | Kind::Deferred
            | Kind::Abandoned => true,
            Kind::RecipientAccepted => {
                let named = told.event.fields.get("recipient").and_then(serde_json::Value::as_str);
                named.map(|path| path.trim_matches(['<', '>'])).is_some_and(|named| {
                    message.recipients.iter().any(|party| party.address.eq_ignore_ascii_case(named))
                })
            }
            // Of somebody who is not named. A gap may stand for any event that this version does not know.
            Kind::LoginAccepted
            | Kind::LoginRefused
            | Kind::RecipientRefused
            | Kind::Decided
            | Kind::Delivered
            | Kind::Queued
            | Kind::Bounced
            | Kind::Seen
            | Kind::Released
            | Kind::Administered
            | Kind::OwnerChanged
            | Kind::SendingLocked
            | Kind::Gap => false,
        }
    }

    /// Puts what the scope names into `sql`, for conditions.
    pub(crate) fn narrow(&self, sql: &mut Sql) -> Narrow {
        match self {
            Self::System => Narrow::All(sql.yes()),
            Self::Account(account) => Narrow::Account(sql.mark(account_value(*account))),
            // Nobody's domains: no row has this one.
            Self::Domains(domains) if domains.is_empty() => {
                Narrow::Domains(vec![sql.mark(Value::Text("/".to_owned()))])
            }
            Self::Domains(domains) => {
                let mark = |domain: &Domain| sql.mark(Value::Text(domain.as_str().to_owned()));
                Narrow::Domains(domains.iter().map(mark).collect())
            }
        }
    }
}

/// A scope as SQL.
pub(crate) enum Narrow {
    All(&'static str),
    Account(String),
    Domains(Vec<String>),
}

impl Narrow {
    /// A condition on the party table, here `alias`: rows that the viewer may see.
    pub(crate) fn on(&self, alias: &str) -> String {
        match self {
            Self::All(yes) => (*yes).to_owned(),
            Self::Account(mark) => format!("{alias}.account = {mark}"),
            Self::Domains(marks) => format!("{alias}.domain IN ({})", marks.join(", ")),
        }
    }
}

pub(crate) fn account_value(account: AccountId) -> Value {
    Value::Int(i64::try_from(account.0).unwrap_or(i64::MAX))
}

pub(crate) fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_ascii_lowercase())
}
