//! Messages from the system to its own users.

use std::sync::Arc;

use base::event;
use bytes::Bytes;
use directory::{Account, Resolution};
use mail::mime::Summary;
use mail::{ForwardPath, date};
use store::{Delivery, Flags, Role, Target};

use crate::intake::Intake;
use crate::onward::Parcel;
use crate::story::Story;

/// What the system tells, in German, Italian and English: which one its reader understands is not known.
pub(crate) struct Notice {
    subject: String,
    text: String,
}

impl Notice {
    /// An account may send no more.
    pub(crate) fn sending_locked(account: &Account, reason: &str) -> Self {
        let address = &account.address;
        let subject = format!("Versand gesperrt / Invio bloccato / Sending locked: {address}");
        let text = format!(
            "Von {address} wird auf eine Weise gesendet, die zu einem gestohlenen Passwort passt. Deshalb ist der\n\
             Versand jetzt gesperrt; lesen k\u{f6}nnen Sie weiter. \u{c4}ndern Sie das Passwort: danach k\u{f6}nnen Sie wieder\n\
             senden. Haben Sie selbst so gesendet, wenden Sie sich an Ihren Anbieter.\n\
             \n\
             Da {address} si invia in un modo che fa pensare a una password rubata. L'invio \u{e8} quindi bloccato;\n\
             la lettura resta possibile. Cambi la password: poi potr\u{e0} di nuovo inviare. Se \u{e8} stato Lei a inviare\n\
             cos\u{ec}, si rivolga al Suo fornitore.\n\
             \n\
             {address} sends in a way that suggests a stolen password. Sending is therefore locked; reading goes\n\
             on. Change the password: then you can send again. If it was you who sent this way, ask your provider.\n\
             \n\
             {reason}\n"
        );
        Self { subject, text }
    }

    fn message(&self, intake: &Intake, to: &str, domain: &str) -> Vec<u8> {
        let parts = &intake.parts;
        let at = parts.clock.utc();
        let id = parts.ids.message(at);
        let host = &parts.host_name;
        let head = format!(
            "From: Postmaster <postmaster@{domain}>\r\nTo: <{to}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n\r\n",
            self.subject,
            date::format_rfc5322(at),
        );
        [head.as_bytes(), self.text.replace('\n', "\r\n").as_bytes()].concat()
    }
}

impl Intake {
    /// Puts a notice into the inbox of each account that `path` leads to. What fails is logged: nobody waits for a notice.
    pub(crate) async fn tell(&self, path: &ForwardPath, notice: &Notice) {
        if let Err(error) = self.put_notice(path, notice).await {
            tracing::error!(event = event::STORE_FAILED, what = "notice", to = %path, %error);
        }
    }

    async fn put_notice(
        &self,
        path: &ForwardPath,
        notice: &Notice,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let parts = &self.parts;
        let Resolution::Local(recipients) = parts.directory.resolve(path).await? else { return Ok(()) };
        // Elsewhere nobody would see it: a mailbox that is not here yet gets none.
        for recipient in recipients.iter().filter(|recipient| recipient.legacy.is_none()) {
            let (to, domain) = (recipient.address.to_string(), recipient.address.domain.to_string());
            let content = Bytes::from(notice.message(self, &to, &domain));
            if self.onward(recipient).is_some() {
                let (at, account, address) = (parts.clock.utc(), recipient.account, recipient.address.clone());
                let message = parts.ids.message(at);
                let story = Story { trail: &parts.trail, session: None, message, at };
                self.hand_on(Parcel { message, sender: "", account, address, content }, &story).await?;
                continue;
            }
            let summary: Arc<[u8]> = Summary::of(&content).encode().into();
            let blob = parts.storage.blobs.put(vec![content]).await?;
            let at = parts.clock.utc();
            let delivery = Delivery {
                account: recipient.account,
                message: parts.ids.message(at),
                target: Target::Role(Role::Inbox),
                blob,
                prefix: format!("Return-Path: <>\r\nDelivered-To: {to}\r\n").into(),
                summary,
                flags: Flags::default(),
                received_at: at,
            };
            for outcome in parts.storage.mail.deliver(vec![delivery]).await {
                outcome?;
            }
        }
        Ok(())
    }
}
