//! What every engine must do of the queue.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock as _, MessageId, UtcMillis};
use bytes::Bytes;

use crate::contract::{NOW, Subject};
use crate::model::{
    Enqueued, Lane, LaneClaim, LaneLeft, Needs, Notify, QueueAction, QueueFilter, QueueItem, QueueRecipient,
    QueueState, Settled,
};

const LEASE: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

fn lane(name: &str) -> Lane {
    Arc::from(name)
}

pub(crate) async fn message(s: &Subject, sender: &str, recipients: &[(&str, &str)]) -> Enqueued {
    let blob = s.blobs.put(vec![Bytes::from(format!("Subject: to {}\r\n\r\nx\r\n", recipients.len()))]).await.unwrap();
    let now = s.clock.utc();
    let item = QueueItem {
        message: s.ids.message(now),
        variant: 0,
        blob: blob.id(),
        size_bytes: blob.size_bytes(),
        prefix: Bytes::from_static(b"X-Spam-Flag: NO\r\n"),
        sender: sender.to_owned(),
        account: Some(AccountId(7)),
        needs: Needs { smtputf8: true, header_return: true, ..Needs::default() },
        envelope_id: Some("QQ314159".to_owned()),
        subject: "Of Bolts".to_owned(),
        created_at: now,
    };
    let recipients = (0..).zip(recipients).map(|(nth, (address, of))| QueueRecipient {
        nth,
        address: (*address).to_owned(),
        original: Some(format!("rfc822;{address}")),
        notify: Notify { success: true, failure: true, delay: false },
        lane: lane(of),
        priority: 5,
        state: QueueState::Waiting,
        next_at: now,
        alarm_at: now.plus(Duration::from_secs(4 * 3600)),
        expires_at: now.plus(Duration::from_secs(5 * 86_400)),
        attempts: 0,
        last_at: None,
        last_status: String::new(),
        last_host: String::new(),
    });
    Enqueued { item, blob, recipients: recipients.collect() }
}

fn only(of: &Enqueued) -> QueueFilter {
    QueueFilter { message: Some(of.item.message), ..QueueFilter::default() }
}

/// Claims all that is due and gives the claim of this lane.
async fn claim(s: &Subject, holder: &str, name: &str, lease: Duration) -> Option<LaneClaim> {
    let found = s.queue.claim_lanes(holder, lease, 1000).await.unwrap();
    found.into_iter().find(|claim| &*claim.lane == name)
}

fn done(message: MessageId, nth: u32) -> Settled {
    Settled::Done { message, nth }
}

pub(crate) async fn all(s: &Subject) {
    what_is_put_in_comes_out(s).await;
    a_lane_has_one_holder(s).await;
    what_waits_is_not_looked_at(s).await;
    alarms_ring_while_a_server_is_away(s).await;
    staff_do_as_they_like(s).await;
    many_nodes_end_each_recipient_once(s).await;
}

async fn what_is_put_in_comes_out(s: &Subject) {
    let mail =
        message(s, "ann@example.test", &[("bob@a.test", "in:a"), ("cy@a.test", "in:a"), ("di@b.test", "in:b")]).await;
    // Asked again, because an answer was lost: it is there once.
    for _ in 0..2 {
        s.queue.enqueue(vec![mail.clone()]).await.unwrap();
    }
    let listed = s.queue.queued(&only(&mail), None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|job| *job.item == mail.item));
    let recipients: Vec<_> = listed.iter().map(|job| job.recipient.clone()).collect();
    assert_eq!(recipients, mail.recipients);
    let counts = s.queue.queue_counts(&only(&mail)).await.unwrap();
    assert_eq!((counts.waiting, counts.due, counts.held, counts.oldest), (3, 3, 0, Some(mail.item.created_at)));

    let claims = s.queue.claim_lanes("one", LONG, 1000).await.unwrap();
    let of = |name: &str| claims.iter().find(|claim| &*claim.lane == name).unwrap();
    let due = s.queue.due(lane("in:a"), 10).await.unwrap();
    assert_eq!(due.iter().map(|job| job.recipient.nth).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(s.queue.due(lane("in:a"), 1).await.unwrap().len(), 1);
    // A bounce of one, in the same step.
    let bounce = message(s, "", &[("ann@example.test", "in:local")]).await;
    let id = mail.item.message;
    assert!(s.queue.settle(of("in:a"), vec![done(id, 0), done(id, 1)], vec![bounce.clone()]).await.unwrap());
    assert_eq!(s.queue.queued(&only(&bounce), None, 10).await.unwrap().len(), 1);
    let left = s.queue.queued(&only(&mail), None, 10).await.unwrap();
    assert_eq!(left.iter().map(|job| job.recipient.nth).collect::<Vec<_>>(), [2]);
    // Asked again it changes nothing.
    assert!(s.queue.settle(of("in:a"), vec![done(id, 0), done(id, 1)], vec![bounce.clone()]).await.unwrap());
    assert!(s.queue.settle(of("in:b"), vec![done(id, 2)], Vec::new()).await.unwrap());
    assert_eq!(s.queue.queued(&only(&mail), None, 10).await.unwrap(), []);
    for claim in &claims {
        s.queue.leave_lane(claim, LaneLeft::default()).await.unwrap();
    }
    let local = claim(s, "one", "in:local", LONG).await.unwrap();
    assert!(s.queue.settle(&local, vec![done(bounce.item.message, 0)], Vec::new()).await.unwrap());
    s.queue.leave_lane(&local, LaneLeft::default()).await.unwrap();
    assert_eq!(claim(s, "one", "in:a", LONG).await, None, "nothing is left there");
}

async fn a_lane_has_one_holder(s: &Subject) {
    let mail = message(s, "", &[("bob@c.test", "own:c"), ("cy@c.test", "own:c")]).await;
    s.queue.enqueue(vec![mail.clone()]).await.unwrap();
    let id = mail.item.message;
    let first = claim(s, "one", "own:c", LEASE).await.unwrap();
    assert_eq!(claim(s, "two", "own:c", LEASE).await, None);
    // What comes while it is held is its holder's.
    s.queue.enqueue(vec![message(s, "", &[("di@c.test", "own:c")]).await]).await.unwrap();
    assert_eq!(claim(s, "two", "own:c", LEASE).await, None);
    assert_eq!(s.queue.keep_lanes(vec![first.clone()], LEASE).await.unwrap(), [true]);
    // Its time over, another has it, and the first can change nothing.
    s.clock.advance(LEASE * 2);
    tokio::time::sleep(LEASE * 2).await;
    let second = claim(s, "two", "own:c", LONG).await.unwrap();
    assert!(second.fence > first.fence);
    assert_eq!(s.queue.keep_lanes(vec![first.clone(), second.clone()], LONG).await.unwrap(), [false, true]);
    assert!(!s.queue.settle(&first, vec![done(id, 0)], Vec::new()).await.unwrap());
    s.queue.leave_lane(&first, LaneLeft::default()).await.unwrap();
    assert_eq!(s.queue.queued(&only(&mail), None, 10).await.unwrap().len(), 2);
    assert!(s.queue.settle(&second, vec![done(id, 0)], Vec::new()).await.unwrap());
    // One that begins again lets go of what it had.
    s.queue.give_up_lanes("two").await.unwrap();
    let third = claim(s, "two", "own:c", LONG).await.unwrap();
    assert!(!s.queue.settle(&second, vec![done(id, 1)], Vec::new()).await.unwrap());
    for job in s.queue.due(lane("own:c"), 10).await.unwrap() {
        assert!(s.queue.settle(&third, vec![done(job.item.message, job.recipient.nth)], Vec::new()).await.unwrap());
    }
    s.queue.leave_lane(&third, LaneLeft::default()).await.unwrap();
}

async fn what_waits_is_not_looked_at(s: &Subject) {
    let mail = message(s, "ann@example.test", &[("bob@d.test", "wait:d")]).await;
    s.queue.enqueue(vec![mail.clone()]).await.unwrap();
    let first = claim(s, "one", "wait:d", LONG).await.unwrap();
    let now = s.clock.utc();
    let later = now.plus(Duration::from_secs(900));
    let kept = QueueRecipient {
        next_at: later,
        attempts: 1,
        last_at: Some(now),
        last_status: "451 4.3.0 Later".to_owned(),
        last_host: "mx.d.test".to_owned(),
        ..mail.recipients[0].clone()
    };
    let settled = vec![Settled::Kept { message: mail.item.message, recipient: kept.clone() }];
    assert!(s.queue.settle(&first, settled, Vec::new()).await.unwrap());
    assert_eq!(s.queue.queued(&only(&mail), None, 10).await.unwrap()[0].recipient, kept);
    assert_eq!(s.queue.due(lane("wait:d"), 10).await.unwrap(), []);
    s.queue.leave_lane(&first, LaneLeft { is_warm: true, ..LaneLeft::default() }).await.unwrap();
    // Just left it is looked at once more, then no more until its time.
    assert_eq!(claim(s, "one", "wait:d", LONG).await, None);
    s.clock.advance(Duration::from_secs(5));
    let again = claim(s, "one", "wait:d", LONG).await.unwrap();
    s.queue.leave_lane(&again, LaneLeft::default()).await.unwrap();
    s.clock.advance(Duration::from_secs(120));
    if let Some(again) = claim(s, "one", "wait:d", LONG).await {
        s.queue.leave_lane(&again, LaneLeft::default()).await.unwrap();
    }
    s.clock.advance(Duration::from_secs(120));
    assert_eq!(claim(s, "one", "wait:d", LONG).await, None);
    // New mail for it is tried at once; its server away, none is until it is tried again.
    let fresh = message(s, "", &[("cy@d.test", "wait:d")]).await;
    s.queue.enqueue(vec![fresh.clone()]).await.unwrap();
    let again = claim(s, "one", "wait:d", LONG).await.unwrap();
    let retry_at = s.clock.utc().plus(Duration::from_secs(3000));
    let left = LaneLeft { failures: 3, retry_at, reason: "connection refused".to_owned(), is_warm: true };
    s.queue.leave_lane(&again, left).await.unwrap();
    s.queue.enqueue(vec![message(s, "", &[("di@d.test", "wait:d")]).await]).await.unwrap();
    s.clock.advance(Duration::from_secs(1000));
    assert_eq!(claim(s, "one", "wait:d", LONG).await, None);
    s.clock.advance(Duration::from_secs(2001));
    let again = claim(s, "one", "wait:d", LONG).await.unwrap();
    assert_eq!((again.failures, again.retry_at), (3, retry_at));
    let due = s.queue.due(lane("wait:d"), 10).await.unwrap();
    assert_eq!(due.len(), 3);
    let all = due.iter().map(|job| done(job.item.message, job.recipient.nth)).collect();
    assert!(s.queue.settle(&again, all, Vec::new()).await.unwrap());
    s.queue.leave_lane(&again, LaneLeft::default()).await.unwrap();
    let later = s.clock.utc();
    s.clock.advance(Duration::from_secs(1));
    assert!(s.queue.tidy_lanes(later).await.unwrap() >= 1);
    assert!(!s.queue.lanes(None, 1000).await.unwrap().iter().any(|one| &*one.lane == "wait:d"));
}

async fn alarms_ring_while_a_server_is_away(s: &Subject) {
    let mail = message(s, "ann@example.test", &[("bob@e.test", "late:e")]).await;
    s.queue.enqueue(vec![mail.clone()]).await.unwrap();
    let first = claim(s, "one", "late:e", LONG).await.unwrap();
    assert_eq!(s.queue.alarms(lane("late:e"), 10).await.unwrap(), []);
    let retry_at = s.clock.utc().plus(Duration::from_secs(86_400));
    s.queue.leave_lane(&first, LaneLeft { failures: 9, retry_at, ..LaneLeft::default() }).await.unwrap();
    s.clock.advance(Duration::from_secs(4 * 3600 - 1));
    assert_eq!(claim(s, "one", "late:e", LONG).await, None);
    s.clock.advance(Duration::from_secs(1));
    let again = claim(s, "one", "late:e", LONG).await.unwrap();
    let late = s.queue.alarms(lane("late:e"), 10).await.unwrap();
    assert_eq!(late.len(), 1);
    assert!(s.queue.settle(&again, vec![done(mail.item.message, 0)], Vec::new()).await.unwrap());
    s.queue.leave_lane(&again, LaneLeft::default()).await.unwrap();
}

async fn staff_do_as_they_like(s: &Subject) {
    let mail = message(s, "Ann@Example.test", &[("bob@f.test", "staff:f"), ("cy@g.test", "staff:f")]).await;
    let other = message(s, "", &[("bob@f.test", "staff:f")]).await;
    s.queue.enqueue(vec![mail.clone(), other.clone()]).await.unwrap();
    let here = |filter: QueueFilter| QueueFilter { lane: Some(lane("staff:f")), ..filter };
    for (filter, expected) in [
        (QueueFilter::default(), 3),
        (QueueFilter { sender: Some("ann@example.TEST".to_owned()), ..QueueFilter::default() }, 2),
        (QueueFilter { sender: Some("@example.test".to_owned()), ..QueueFilter::default() }, 2),
        (QueueFilter { sender: Some("@ample.test".to_owned()), ..QueueFilter::default() }, 0),
        (QueueFilter { sender: Some(String::new()), ..QueueFilter::default() }, 1),
        (QueueFilter { recipient: Some("@f.test".to_owned()), ..QueueFilter::default() }, 2),
        (QueueFilter { recipient: Some("cy@g.test".to_owned()), ..QueueFilter::default() }, 1),
        (QueueFilter { account: Some(AccountId(8)), ..QueueFilter::default() }, 0),
        (QueueFilter { account: Some(AccountId(7)), ..QueueFilter::default() }, 3),
        (QueueFilter { subject: Some("of b".to_owned()), ..QueueFilter::default() }, 3),
        (QueueFilter { status: Some("late".to_owned()), ..QueueFilter::default() }, 0),
        (QueueFilter { state: Some(QueueState::Held), ..QueueFilter::default() }, 0),
        (QueueFilter { before: Some(NOW), ..QueueFilter::default() }, 0),
        (QueueFilter { message: Some(mail.item.message), nth: Some(1), ..QueueFilter::default() }, 1),
    ] {
        let filter = here(filter);
        assert_eq!(s.queue.queued(&filter, None, 10).await.unwrap().len(), expected, "{filter:?}");
        assert_eq!(s.queue.queue_counts(&filter).await.unwrap().waiting, expected as u64, "{filter:?}");
    }
    let all = here(QueueFilter::default());
    let page = s.queue.queued(&all, None, 2).await.unwrap();
    let last = page.last().map(|job| (job.item.message, job.recipient.nth));
    assert_eq!(s.queue.queued(&all, last, 10).await.unwrap().len(), 1);

    let first = QueueFilter { message: Some(mail.item.message), nth: Some(0), ..QueueFilter::default() };
    let act = async |filter: &QueueFilter, action| s.queue.queue_act(filter, action, None).await.unwrap();
    assert_eq!(act(&first, QueueAction::Hold("as asked".to_owned())).await, (1, None));
    let counts = s.queue.queue_counts(&all).await.unwrap();
    assert_eq!((counts.waiting, counts.held), (2, 1));
    let owner = claim(s, "one", "staff:f", LONG).await.unwrap();
    assert_eq!(s.queue.due(lane("staff:f"), 10).await.unwrap().len(), 2);
    // An attempt that was under way does not undo it; held, no alarm rings, and what is released has time again.
    let tried = QueueRecipient { attempts: 1, ..mail.recipients[0].clone() };
    let kept = Settled::Kept { message: mail.item.message, recipient: tried };
    assert!(s.queue.settle(&owner, vec![kept], Vec::new()).await.unwrap());
    assert_eq!(s.queue.queued(&first, None, 1).await.unwrap()[0].recipient.last_status, "as asked");
    s.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(s.queue.alarms(lane("staff:f"), 10).await.unwrap().len(), 2);
    act(&first, QueueAction::Release).await;
    assert_eq!(s.queue.alarms(lane("staff:f"), 10).await.unwrap().len(), 2);
    assert_eq!(s.queue.due(lane("staff:f"), 10).await.unwrap().len(), 3);
    // Suspended, its holder is told to stop, and nobody gets it until it is resumed.
    s.queue.suspend_lane(&lane("staff:f"), Some("as asked".to_owned())).await.unwrap();
    assert_eq!(s.queue.keep_lanes(vec![owner.clone()], LONG).await.unwrap(), [false]);
    s.queue.leave_lane(&owner, LaneLeft::default()).await.unwrap();
    s.queue.enqueue(vec![message(s, "", &[("x@f.test", "staff:f")]).await]).await.unwrap();
    assert_eq!(claim(s, "one", "staff:f", LONG).await, None);
    let shown = s.queue.lanes(None, 1000).await.unwrap();
    let shown = shown.iter().find(|one| &*one.lane == "staff:f").unwrap();
    assert_eq!((shown.is_suspended, shown.recipients), (true, 4));
    s.queue.suspend_lane(&lane("staff:f"), None).await.unwrap();
    let owner = claim(s, "one", "staff:f", LONG).await.unwrap();
    let retry_at = s.clock.utc().plus(LONG * 60);
    s.queue.leave_lane(&owner, LaneLeft { failures: 2, retry_at, ..LaneLeft::default() }).await.unwrap();

    // Another way, at once.
    act(&first, QueueAction::Reroute(lane("staff:other"))).await;
    let way = claim(s, "one", "staff:other", LONG).await.unwrap();
    assert_eq!(s.queue.due(lane("staff:other"), 10).await.unwrap().len(), 1);
    assert!(s.queue.settle(&way, vec![done(mail.item.message, 0)], Vec::new()).await.unwrap());
    s.queue.leave_lane(&way, LaneLeft::default()).await.unwrap();
    // Whatever is known of its server: somebody wants it tried.
    let null = here(QueueFilter { sender: Some(String::new()), ..QueueFilter::default() });
    assert_eq!(act(&null, QueueAction::Retry).await.0, 2);
    let owner = claim(s, "one", "staff:f", LONG).await.unwrap();
    assert_eq!((owner.failures, owner.retry_at), (0, UtcMillis(0)));
    act(&only(&mail), QueueAction::Return("a typing error".to_owned())).await;
    let back = s.queue.alarms(lane("staff:f"), 1).await.unwrap();
    assert_eq!(
        (back[0].recipient.state, back[0].recipient.last_status.as_str()),
        (QueueState::Returning, "a typing error")
    );
    assert_eq!(act(&all, QueueAction::Delete).await.0, 3);
    assert_eq!(s.queue.queued(&all, None, 10).await.unwrap(), []);
    s.queue.leave_lane(&owner, LaneLeft::default()).await.unwrap();
}

/// Actors claim, lose and settle at the same time; one that was removed by two at once takes its item along.
async fn many_nodes_end_each_recipient_once(s: &Subject) {
    let mut mails = Vec::new();
    for n in 0..30 {
        let (a, b) = (format!("many:{}", n % 3), format!("many:{}", (n + 1) % 3));
        mails.push(message(s, "", &[("a@h.test", &a), ("b@h.test", &b)]).await);
    }
    s.queue.enqueue(mails.clone()).await.unwrap();
    let work = async |holder: &'static str| {
        let mut ended = Vec::new();
        for _ in 0..60 {
            for claim in s.queue.claim_lanes(holder, LONG, 1).await.unwrap() {
                let due = s.queue.due(claim.lane.clone(), 4).await.unwrap();
                let all: Vec<_> = due.iter().map(|job| (job.item.message, job.recipient.nth)).collect();
                let settled = all.iter().map(|(message, nth)| done(*message, *nth)).collect();
                if s.queue.settle(&claim, settled, Vec::new()).await.unwrap() {
                    ended.extend(all);
                }
                s.queue.leave_lane(&claim, LaneLeft::default()).await.unwrap();
                s.clock.advance(Duration::from_millis(2));
            }
        }
        ended
    };
    let (one, two, three) = tokio::join!(work("one"), work("two"), work("three"));
    let mut ended = [one, two, three].concat();
    ended.sort_unstable();
    let mut expected: Vec<_> = mails.iter().flat_map(|mail| [(mail.item.message, 0), (mail.item.message, 1)]).collect();
    expected.sort_unstable();
    assert_eq!(ended, expected);
}
