//! What the system writes to people, in their language.

use std::sync::Arc;

use anyhow::Context as _;
use directory::Account;
use mail::{Address, Domain};
use policy::option::MailLanguage;
use reception::Intake;
use store::StoreError;

use super::Engines;

/// A text in each language.
pub struct Texts {
    pub de: String,
    pub it: String,
    pub en: String,
}

impl Texts {
    /// Those that somebody reads, one after the other.
    pub fn of(&self, language: MailLanguage, between: &str) -> String {
        match language {
            MailLanguage::German => self.de.clone(),
            MailLanguage::Italian => self.it.clone(),
            MailLanguage::English => self.en.clone(),
            MailLanguage::All => [self.de.as_str(), &self.it, &self.en].join(between),
        }
    }
}

/// Asks whoever reads at `target` whether mail of an account may go there.
pub async fn ask_forward(
    engines: &Engines,
    intake: &Arc<Intake>,
    of: &Account,
    target: &Address,
    token: &str,
    language: MailLanguage,
) -> anyhow::Result<()> {
    let link = format!("{}/forward/{token}", engines.web_url);
    let from = &of.address;
    let subject = Texts {
        de: format!("Weiterleitung von {from} best\u{e4}tigen"),
        it: format!("Confermare l'inoltro da {from}"),
        en: format!("Confirm that mail of {from} comes to you"),
    };
    let text = Texts {
        de: format!(
            "{from} m\u{f6}chte seine Post an {target} weiterleiten. Sind Sie einverstanden, \u{f6}ffnen Sie bitte diese \
             Seite und best\u{e4}tigen Sie:\n\n{link}\n\nSonst tun Sie nichts: dann kommt keine Post."
        ),
        it: format!(
            "{from} desidera inoltrare la propria posta a {target}. Se \u{e8} d'accordo, apra questa pagina e confermi:\n\n\
             {link}\n\nAltrimenti non faccia nulla: non arriver\u{e0} alcun messaggio."
        ),
        en: format!(
            "{from} wishes to forward mail to {target}. If you agree, open this page and confirm:\n\n{link}\n\n\
             Otherwise do nothing: then no mail comes."
        ),
    };
    send(intake, target, &from.domain, [subject, text], language).await.context("the question could not be sent")
}

/// Sends whoever reads an account's mail the link by which it signs in.
pub async fn sign_in_link(
    engines: &Engines,
    intake: &Arc<Intake>,
    of: &Account,
    token: &str,
    language: MailLanguage,
) -> anyhow::Result<()> {
    let link = format!("{}/login/mail/{token}", engines.web_url);
    let to = &of.address;
    let subject = Texts {
        de: "Anmelden beim Mailfilter".to_owned(),
        it: "Accesso al filtro di posta".to_owned(),
        en: "Sign in to the mail filter".to_owned(),
    };
    let text = Texts {
        de: format!(
            "Mit diesem Verweis sehen Sie, was der Filter von der Post an {to} zur\u{fc}ckh\u{e4}lt. Er gilt einmal, eine \
             halbe Stunde lang:\n\n{link}\n\nHaben Sie ihn nicht verlangt, tun Sie nichts."
        ),
        it: format!(
            "Con questo collegamento vede ci\u{f2} che il filtro trattiene della posta per {to}. Vale una volta sola, per \
             mezz'ora:\n\n{link}\n\nSe non l'ha richiesto, non faccia nulla."
        ),
        en: format!(
            "This link shows what the filter holds back of the mail for {to}. It counts once, for half an hour:\n\n{link}\n\n\
             If you did not ask for it, do nothing."
        ),
    };
    send(intake, to, &to.domain, [subject, text], language).await.context("the link could not be sent")
}

/// Writes to somebody from the postmaster of a domain, in the languages that are read there.
async fn send(
    intake: &Intake,
    to: &Address,
    from: &Domain,
    [subject, text]: [Texts; 2],
    language: MailLanguage,
) -> Result<(), StoreError> {
    let letter = reception::Letter {
        to: to.clone(),
        from_domain: from.to_string(),
        subject: subject.of(language, " / "),
        text: text.of(language, "\n\n----\n\n"),
        html: None,
    };
    intake.send(letter).await
}
