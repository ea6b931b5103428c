//! What every engine must do of held messages.

use std::time::Duration;

use base::{AccountId, Clock as _, DomainId, Quota};
use bytes::Bytes;

use crate::contract::Subject;
use crate::error::AppendError;
use crate::model::{HeldBy, HeldFacts, HeldFilter, HeldId, HeldNote, NewHeld, Role};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

pub(crate) async fn message(s: &Subject, account: AccountId, domain: u64, subject: &str) -> NewHeld {
    let text = format!("From: Eve <eve@example.org>\r\nSubject: {subject}\r\n\r\nx\r\n");
    let now = s.clock.utc();
    NewHeld {
        account,
        message: s.message(),
        domain: DomainId(domain),
        facts: HeldFacts {
            reason: if subject.contains("virus") { "virus" } else { "spam" }.to_owned(),
            detail: "score 7.0 reaches quarantine-score 6.0\u{7}".to_owned(),
            score: 7000,
            sender: "eve@example.org".to_owned(),
            author: "Eve".to_owned(),
            recipient: format!("user{}@example.test", account.0),
            subject: subject.to_owned(),
        },
        blob: s.blobs.put(vec![Bytes::from(text)]).await.unwrap(),
        prefix: Bytes::from_static(b"Return-Path: <eve@example.org>\r\n"),
        summary: std::sync::Arc::from(&b""[..]),
        held_at: now,
        expires_at: now.plus(MONTH),
    }
}

pub(crate) async fn all(s: &Subject) {
    what_is_held_is_found(s, AccountId(900), AccountId(901)).await;
    a_message_is_in_one_place(s, AccountId(902)).await;
    time_ends_it(s, AccountId(903)).await;
    an_account_takes_along_what_it_has_held(s, AccountId(904)).await;
}

async fn subjects(s: &Subject, filter: &HeldFilter) -> Vec<String> {
    s.held.held(filter, None, 100).await.unwrap().into_iter().map(|one| one.facts.subject).collect()
}

async fn what_is_held_is_found(s: &Subject, one: AccountId, other: AccountId) {
    let mut all = Vec::new();
    for (account, domain, subject) in
        [(one, 71, "First 100%"), (one, 71, "A virus"), (other, 72, "Second"), (other, 72, "Third")]
    {
        s.clock.advance(Duration::from_secs(1));
        all.push(message(s, account, domain, subject).await);
    }
    let ids: Vec<HeldId> = s.held.hold(all.clone()).await.into_iter().map(Result::unwrap).collect();
    // Held again, as after an answer that was lost, it is the same.
    let again: Vec<HeldId> = s.held.hold(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids, again);
    let of = |by| HeldFilter::of(by);
    assert_eq!(subjects(s, &of(HeldBy::Account(one))).await, ["A virus", "First 100%"]);
    let domains = vec![DomainId(71), DomainId(72)];
    assert_eq!(subjects(s, &of(HeldBy::Domains(domains.clone()))).await, ["Third", "Second", "A virus", "First 100%"]);
    assert!(subjects(s, &of(HeldBy::Domains(Vec::new()))).await.is_empty());
    assert_eq!(subjects(s, &of(HeldBy::Domains(vec![DomainId(72)]))).await, ["Third", "Second"]);
    let text = |text: &str| HeldFilter { text: text.to_owned(), ..of(HeldBy::Domains(domains.clone())) };
    for (wanted, found) in [("0%", 1), ("_", 0), ("EVE@example", 4), ("user901@", 2), ("nobody", 0)] {
        assert_eq!(subjects(s, &text(wanted)).await.len(), found, "{wanted}");
    }
    let reason = HeldFilter { reason: Some("virus".to_owned()), ..of(HeldBy::Account(one)) };
    assert_eq!(subjects(s, &reason).await, ["A virus"]);
    let counts = s.held.held_counts(&of(HeldBy::Account(one))).await.unwrap();
    assert_eq!(counts, [("spam".to_owned(), 1), ("virus".to_owned(), 1)]);
    // Page by page.
    let filter = of(HeldBy::Domains(domains));
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let page = s.held.held(&filter, before, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.held_at, last.id));
        found.extend(page.into_iter().map(|one| one.id));
    }
    assert_eq!(found, ids.iter().rev().copied().collect::<Vec<_>>());
    // Notes.
    assert_eq!(s.held.note_held(vec![ids[0], ids[2]], HeldNote::Told).await.unwrap(), 2);
    assert_eq!(s.held.note_held(vec![ids[1]], HeldNote::Asked).await.unwrap(), 1);
    let untold = HeldFilter { untold: true, ..of(HeldBy::Account(one)) };
    assert_eq!(subjects(s, &untold).await, ["A virus"]);
    let asked = HeldFilter { asked: true, ..of(HeldBy::Account(one)) };
    assert_eq!(subjects(s, &asked).await, ["A virus"]);
    let gone = HeldId { account: other, ..ids[0] };
    let gone = HeldId { email: crate::model::EmailId(9999), ..gone };
    assert!(s.held.held_message(gone).await.unwrap().is_none());
    let message = s.held.held_message(ids[1]).await.unwrap().unwrap();
    assert_eq!(message.held.facts.detail, "score 7.0 reaches quarantine-score 6.0");
    assert_eq!(message.entry.size_bytes, message.held.size_bytes);
    assert_eq!(&message.entry.prefix[..], b"Return-Path: <eve@example.org>\r\n");
    assert_eq!(s.held.drop_held(ids.clone()).await.unwrap(), 4);
    assert_eq!(s.held.drop_held(ids).await.unwrap(), 0);
}

async fn a_message_is_in_one_place(s: &Subject, account: AccountId) {
    let new = message(s, account, 73, "Wanted").await;
    let id = s.held.hold(vec![new.clone()]).await.remove(0).unwrap();
    let usage = s.mail.usage(account).await.unwrap();
    assert_eq!((usage.messages, usage.size.0), (0, 0), "it counts against no quota");
    // A mailbox that is full takes nothing, and nothing is lost.
    s.mail.set_quota(account, Quota { size: None, messages: Some(0) }).await.unwrap();
    assert!(matches!(s.held.release_held(id, Role::Inbox).await, Err(AppendError::OverQuota(_))));
    assert!(s.held.held_message(id).await.unwrap().is_some());
    s.mail.set_quota(account, Quota::UNLIMITED).await.unwrap();
    let released = s.held.release_held(id, Role::Inbox).await.unwrap().unwrap();
    assert_eq!(released.mailbox_name().as_str(), "INBOX");
    assert!(s.held.held_message(id).await.unwrap().is_none());
    assert!(s.held.release_held(id, Role::Inbox).await.unwrap().is_none());
    assert_eq!(s.held.drop_held(vec![id]).await.unwrap(), 0);
    let entry = s.mail.emails(account, vec![released.email()]).await.unwrap().remove(0);
    let content = s.blobs.read(entry.blob, 0..u64::MAX).await.unwrap();
    assert!(content.starts_with(b"From: Eve"));
    assert_eq!(entry.size_bytes, entry.prefix.len() as u64 + content.len() as u64);
    assert_eq!(s.mail.usage(account).await.unwrap().messages, 1);
}

async fn time_ends_it(s: &Subject, account: AccountId) {
    let id = s.held.hold(vec![message(s, account, 74, "Old").await]).await.remove(0).unwrap();
    let of_account = |all: Vec<HeldId>| all.into_iter().filter(|one| one.account == account).collect::<Vec<_>>();
    assert!(of_account(s.held.expired_held(1000).await.unwrap()).is_empty());
    s.clock.advance(MONTH + Duration::from_secs(1));
    assert_eq!(of_account(s.held.expired_held(1000).await.unwrap()), [id]);
    assert_eq!(s.held.drop_held(vec![id]).await.unwrap(), 1);
}

async fn an_account_takes_along_what_it_has_held(s: &Subject, account: AccountId) {
    let new = message(s, account, 75, "Kept").await;
    let id = s.held.hold(vec![new]).await.remove(0).unwrap();
    s.mail.delete_account(account).await.unwrap();
    assert!(s.held.held_message(id).await.unwrap().is_none());
    assert!(s.held.held(&HeldFilter::of(HeldBy::Account(account)), None, 10).await.unwrap().is_empty());
}
