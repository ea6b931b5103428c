//! Notices to senders about what became of their mail (RFC 3461, RFC 3464, RFC 6533).

use base::{MessageId, UtcMillis};
use bytes::Bytes;
use mail::{Status, date};
use store::{QueueItem, QueueRecipient};

use crate::words::{self, Words};

/// What a notice says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Failed,
    Delayed,
    Delivered,
    /// Handed to a server that does not tell what becomes of it.
    Relayed,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }

    const fn words(self) -> Words {
        match self {
            Self::Failed => words::FAILED,
            Self::Delayed => words::DELAYED,
            Self::Delivered => words::DELIVERED,
            Self::Relayed => words::RELAYED,
        }
    }

    /// Of the subject.
    const fn title(self) -> &'static str {
        match self {
            Self::Failed => "Nicht zugestellt / Non consegnato / Not delivered",
            Self::Delayed => "Verz\u{f6}gert / In ritardo / Delayed",
            Self::Delivered => "Zugestellt / Consegnato / Delivered",
            Self::Relayed => "Weitergegeben / Inoltrato / Passed on",
        }
    }
}

/// A recipient of whom something is told.
#[derive(Clone, Debug)]
pub struct Told {
    pub recipient: QueueRecipient,
    pub status: Status,
    /// The server that said so; empty if none did.
    pub host: String,
}

/// A notice to an item's sender about some of its recipients, all of the same kind.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    pub action: Action,
    pub item: &'a QueueItem,
    /// At least one.
    pub told: &'a [Told],
    /// The item's message as it lies in the queue.
    pub content: &'a [u8],
    pub host_name: &'a str,
    pub id: MessageId,
    pub at: UtcMillis,
}

/// A whole message is given back up to this size.
const RETURN_MAX: usize = 10 << 20;
/// A header is given back up to this size.
const HEADER_MAX: usize = 64 << 10;
/// Recipients that are named in the text; the machine's part has all.
const NAMED_MAX: usize = 50;

impl Report<'_> {
    pub fn subject(&self) -> String {
        let subject: String = self.item.subject.chars().take(80).collect();
        let gap = if subject.is_empty() { "" } else { ": " };
        format!("{}{gap}{subject}", self.action.title())
    }

    /// The whole notice, CRLF line ends.
    pub fn message(&self) -> Bytes {
        let Self { item, host_name, id, .. } = self;
        let boundary = format!("={id}=");
        let is_global = item.needs.smtputf8
            || !item.sender.is_ascii()
            || self.told.iter().any(|one| !one.recipient.address.is_ascii());
        let (status_type, header_type, whole_type) = if is_global {
            ("message/global-delivery-status", "message/global-headers", "message/global")
        } else {
            ("message/delivery-status", "text/rfc822-headers", "message/rfc822")
        };
        let header = header_of(self.content);
        let gives_all = self.action == Action::Failed && item.needs.full_return && self.content.len() <= RETURN_MAX;
        let (returned_type, returned) = if gives_all { (whole_type, self.content) } else { (header_type, header) };
        let is_8bit = |part: &[u8]| if part.is_ascii() { "7bit" } else { "8bit" };
        let (text, status) = (crlf(&self.text()), crlf(&self.status(is_global)));
        let mut out = format!(
            "From: Mail Delivery System <mailer-daemon@{host_name}>\r\nTo: <{sender}>\r\nSubject: {subject}\r\n\
             Date: {date}\r\nMessage-ID: <{id}@{host_name}>\r\n{references}Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n\
             --{boundary}\r\nContent-Type: {status_type}\r\nContent-Transfer-Encoding: {status_as}\r\n\r\n{status}\r\n\
             --{boundary}\r\nContent-Type: {returned_type}\r\nContent-Transfer-Encoding: {returned_as}\r\n\r\n",
            sender = item.sender,
            subject = encoded(&self.subject()),
            date = date::format_rfc5322(self.at),
            references = references(header),
            status_as = is_8bit(status.as_bytes()),
            returned_as = is_8bit(returned),
        )
        .into_bytes();
        out.extend_from_slice(returned);
        if !returned.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        out.into()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (nth, intro) in self.action.words().iter().enumerate() {
            out.push_str(&format!("{intro}\n\n"));
            for one in self.told.iter().take(NAMED_MAX) {
                out.push_str(&format!("    {}\n", one.recipient.address));
                if matches!(self.action, Action::Failed | Action::Delayed) {
                    let explained = words::explain(one.status.enhanced());
                    out.push_str(&format!("        {}\n", explained.get(nth).copied().unwrap_or_default()));
                }
            }
            if self.told.len() > NAMED_MAX {
                out.push_str(&format!("    (+ {})\n", self.told.len() - NAMED_MAX));
            }
            out.push('\n');
        }
        if !matches!(self.action, Action::Delivered) {
            for one in self.told.iter().take(NAMED_MAX) {
                let host = if one.host.is_empty() { String::new() } else { format!("{}: ", one.host) };
                out.push_str(&format!("{}\n    {host}{}\n", one.recipient.address, one.status));
            }
        }
        out
    }

    fn status(&self, is_global: bool) -> String {
        let Self { item, .. } = self;
        let mut out = format!("Reporting-MTA: dns; {}\n", self.host_name);
        if let Some(id) = &item.envelope_id {
            out.push_str(&format!("Original-Envelope-Id: {}\n", one_line(id)));
        }
        out.push_str(&format!("Arrival-Date: {}\n", date::format_rfc5322(item.created_at)));
        for Told { recipient, status, host } in self.told {
            out.push('\n');
            if let Some(original) = &recipient.original {
                out.push_str(&format!("Original-Recipient: {}\n", one_line(&original.replacen(';', "; ", 1))));
            }
            let kind = if is_global && !recipient.address.is_ascii() { "utf-8" } else { "rfc822" };
            out.push_str(&format!("Final-Recipient: {kind}; {}\n", one_line(&recipient.address)));
            out.push_str(&format!("Action: {}\n", self.action.as_str()));
            let code = status.enhanced();
            let class = match self.action {
                Action::Failed => 5,
                Action::Delayed => 4,
                Action::Delivered | Action::Relayed => 2,
            };
            out.push_str(&format!("Status: {class}.{}.{}\n", code.1, code.2));
            if !host.is_empty() {
                let name = host.split([' ', '[']).next().unwrap_or_default();
                out.push_str(&format!("Remote-MTA: dns; {}\n", one_line(name)));
                out.push_str(&format!("Diagnostic-Code: smtp; {}\n", one_line(&status.to_string())));
            }
            if let Some(at) = recipient.last_at {
                out.push_str(&format!("Last-Attempt-Date: {}\n", date::format_rfc5322(at)));
            }
            if self.action == Action::Delayed {
                out.push_str(&format!("Will-Retry-Until: {}\n", date::format_rfc5322(recipient.expires_at)));
            }
        }
        out
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(900).collect()
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// The header with the empty line after it, cut at a line's end where it is very long.
fn header_of(content: &[u8]) -> &[u8] {
    let end = content.windows(4).position(|four| four == b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    let end = if end > HEADER_MAX {
        content.get(..HEADER_MAX).and_then(|head| memchr::memrchr(b'\n', head)).map_or(0, |at| at + 1)
    } else {
        end
    };
    content.get(..end).unwrap_or(content)
}

/// Threads the notice to what it is about.
fn references(header: &[u8]) -> String {
    let text = String::from_utf8_lossy(header);
    let id = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("message-id").then(|| value.trim())
    });
    match id.filter(|id| id.starts_with('<') && id.ends_with('>') && id.len() < 500 && id.is_ascii()) {
        Some(id) => format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"),
        None => String::new(),
    }
}

/// RFC 2047, in words of whole characters that fit a line.
fn encoded(text: &str) -> String {
    use base64::Engine as _;
    if text.is_ascii() && text.len() <= 900 {
        return one_line(text);
    }
    let mut words = Vec::new();
    let mut word = String::new();
    for c in one_line(text).chars() {
        if word.len() + c.len_utf8() > 42 {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encode = |word: &String| format!("=?utf-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(word));
    words.iter().map(encode).collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use base::IdSource;
    use mail::Enhanced;
    use store::{Needs, Notify, QueueState};

    use super::*;

    const NOW: UtcMillis = UtcMillis(1_790_000_000_000);

    fn notice(action: Action, needs: Needs, address: &str) -> String {
        let ids = IdSource::system();
        let item = QueueItem {
            message: ids.message(NOW),
            variant: 0,
            blob: ids.blob(NOW),
            size_bytes: 1,
            prefix: Bytes::new(),
            sender: "ann@example.test".to_owned(),
            account: None,
            needs,
            envelope_id: Some("QQ314".to_owned()),
            subject: "Gr\u{fc}\u{df}e an alle, die diese lange Betreffzeile lesen wollen".to_owned(),
            created_at: NOW,
        };
        let recipient = QueueRecipient {
            nth: 0,
            address: address.to_owned(),
            original: Some(format!("rfc822;{address}")),
            notify: Notify::default(),
            lane: "example.net".into(),
            priority: 5,
            state: QueueState::Waiting,
            next_at: NOW,
            alarm_at: NOW,
            expires_at: NOW,
            attempts: 1,
            last_at: Some(NOW),
            last_status: String::new(),
            last_host: String::new(),
        };
        let status = Status::with_text(550, Enhanced(5, 1, 1), "No such user");
        let told = [Told { recipient, status, host: "mx.example.net [192.0.2.1]:25".to_owned() }];
        let content = b"Message-ID: <1@example.test>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nThe body\r\n";
        let (host_name, id) = ("mx.example.test", ids.message(NOW));
        let report = Report { action, item: &item, told: &told, content, host_name, id, at: NOW };
        String::from_utf8(report.message().to_vec()).unwrap()
    }

    #[test]
    fn a_failure_is_told_to_people_and_machines() {
        let text = notice(Action::Failed, Needs::default(), "bob@example.net");
        for part in [
            "To: <ann@example.test>\r\n",
            "In-Reply-To: <1@example.test>\r\n",
            "Content-Type: multipart/report; report-type=delivery-status;",
            "Diese Adresse gibt es dort nicht.",
            "Questo indirizzo non esiste.",
            "There is no such address there.",
            "Reporting-MTA: dns; mx.example.test\r\nOriginal-Envelope-Id: QQ314\r\n",
            "\r\n\r\nOriginal-Recipient: rfc822; bob@example.net\r\nFinal-Recipient: rfc822; bob@example.net\r\nAction: failed\r\n\
             Status: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n",
            "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMessage-ID: <1@example.test>\r\n",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        assert!(!text.contains("The body"));
        assert!(text.replace("\r\n", "").find('\n').is_none() && text.lines().all(|line| line.len() < 998));
        let parsed = mail::mime::Summary::of(text.as_bytes());
        let subject = parsed.envelope.subject.unwrap();
        assert!(subject.starts_with(b"=?utf-8?B?"), "{}", String::from_utf8_lossy(&subject));
    }

    #[test]
    fn all_is_given_back_where_it_is_asked_for() {
        let needs = Needs { full_return: true, ..Needs::default() };
        let text = notice(Action::Failed, needs, "bob@example.net");
        assert!(text.contains("Content-Type: message/rfc822\r\n") && text.contains("The body"));
        // Of a delay nobody needs it.
        let text = notice(Action::Delayed, needs, "bob@example.net");
        assert!(!text.contains("The body") && text.contains("Status: 4.1.1") && text.contains("Will-Retry-Until: "));
        let text = notice(Action::Relayed, Needs::default(), "b\u{f6}b@example.net");
        assert!(text.contains("message/global-delivery-status") && text.contains("Final-Recipient: utf-8; b\u{f6}b@"));
        assert!(text.contains("Action: relayed\r\nStatus: 2.1.1"));
    }
}
