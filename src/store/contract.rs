//! What every engine must do, written against the seams alone: each engine's tests call [`all`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{AccountId, ByteSize, FakeClock, IdSource, MailboxId, MessageId, ModSeq, Quota, Uid, UtcMillis};
use bytes::Bytes;

use crate::error::{AppendError, MailboxError};
use crate::model::{Delivery, EmailId, FlagChange, Flags, Mailbox, MailboxName, NewEntry, Role, SystemFlags, Target};
use crate::picture::Picture;
use crate::storage::Storage;
use crate::traits::{BlobStore, HeldStore, MailStore, QueueStore};
use crate::{contract_held, contract_queue, contract_quota};

/// An engine under test.
#[derive(Clone)]
pub(crate) struct Subject {
    pub mail: Arc<dyn MailStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub queue: Arc<dyn QueueStore>,
    pub held: Arc<dyn HeldStore>,
    pub ids: Arc<IdSource>,
    pub clock: Arc<FakeClock>,
}

pub(crate) async fn all(subject: &Subject) {
    mailboxes_come_and_go(subject, AccountId(1)).await;
    deliveries_are_made_once(subject, AccountId(2)).await;
    contract_quota::quota_is_never_overshot(subject, AccountId(3)).await;
    random_operations_follow_the_model(subject, AccountId(4)).await;
    parallel_actors_leave_one_consistent_mailbox(subject, AccountId(5)).await;
    long_operations_go_in_steps(subject, AccountId(6)).await;
    the_log_is_trimmed_safely(subject, AccountId(7)).await;
    blobs_read_back_by_range(subject).await;
    blobs_in_pieces_are_whole(subject, AccountId(10)).await;
    an_account_goes_without_a_trace(subject, AccountId(8)).await;
    expunged_emails_come_back(subject, AccountId(9)).await;
    owners_say_what_is_spam(subject, AccountId(11)).await;
    contract_quota::pools_are_never_overshot(&[subject.clone(), subject.clone()], 100).await;
    contract_quota::a_dry_pool_is_asked_again(subject, 300).await;
    contract_quota::some_give_back_for_one_delivery(subject, 310).await;
    contract_quota::limits_that_stay_change_nothing(subject, 400).await;
    contract_queue::all(subject).await;
    contract_held::all(subject).await;
}

pub(crate) const NOW: UtcMillis = UtcMillis(1_700_000_000_000);
pub(crate) const EVERYTHING: RangeInclusive<Uid> = Uid::MIN..=Uid::MAX;

pub(crate) fn name(text: &str) -> MailboxName {
    text.parse().unwrap()
}

pub(crate) fn uid(n: u32) -> Uid {
    Uid::new(n).unwrap()
}

/// Repeats run after run; quality does not matter here.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n.max(1)
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

impl Subject {
    /// What of a store the contract is about.
    pub(crate) fn of(storage: &Storage, clock: Arc<FakeClock>, ids: Arc<IdSource>) -> Self {
        let (mail, blobs, queue, held) = (&storage.mail, &storage.blobs, &storage.queue, Arc::clone(&storage.held));
        Self { mail: Arc::clone(mail), blobs: Arc::clone(blobs), queue: Arc::clone(queue), held, ids, clock }
    }

    pub(crate) fn message(&self) -> MessageId {
        self.ids.message(NOW)
    }

    pub(crate) async fn delivery(&self, account: AccountId, text: &str, target: Target) -> Delivery {
        Delivery {
            account,
            message: self.message(),
            target,
            blob: self.blobs.put(vec![Bytes::from(text.to_owned())]).await.unwrap(),
            prefix: Bytes::from_static(b"Delivered-To: a@example.test\r\n"),
            summary: Arc::from(&b""[..]),
            flags: Flags::default(),
            received_at: NOW,
        }
    }

    pub(crate) async fn own(&self, text: &str, system: SystemFlags) -> NewEntry {
        NewEntry {
            blob: self.blobs.put(vec![Bytes::from(text.to_owned())]).await.unwrap(),
            summary: Arc::from(&b""[..]),
            flags: Flags::system(system),
            internal_date: NOW,
        }
    }

    pub(crate) async fn mailbox(&self, account: AccountId, text: &str) -> Mailbox {
        self.mail.mailbox(account, &name(text)).await.unwrap().expect(text)
    }
}

async fn mailboxes_come_and_go(s: &Subject, account: AccountId) {
    let names = async || -> Vec<String> {
        s.mail.mailboxes(account).await.unwrap().iter().map(|m| m.name.to_string()).collect()
    };
    assert_eq!(names().await, ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]);
    assert!(s.mail.mailboxes(account).await.unwrap().iter().all(|m| m.subscribed && m.role.is_some()));

    let before = s.mail.modseq(account).await.unwrap();
    let deep = s.mail.create_mailbox(account, &name("a/b/c"), None).await.unwrap();
    assert!(deep.changed_modseq > before && s.mail.modseq(account).await.unwrap() == deep.changed_modseq);
    assert_eq!((deep.messages, deep.uid_next, deep.subscribed), (0, Uid::MIN, false));
    assert!(names().await.contains(&"a/b".to_owned()));
    let create = async |text: &str, role| s.mail.create_mailbox(account, &name(text), role).await;
    assert!(matches!(create("a/b", None).await, Err(MailboxError::Exists)));
    assert!(matches!(create("Spam", Some(Role::Junk)).await, Err(MailboxError::RoleTaken)));

    s.mail.subscribe(account, &name("a/b"), true).await.unwrap();
    let rename = async |from: &str, to: &str| s.mail.rename_mailbox(account, &name(from), &name(to)).await;
    assert!(matches!(rename("a", "a/x").await, Err(MailboxError::Forbidden)));
    assert!(matches!(rename("nowhere", "x").await, Err(MailboxError::NoMailbox)));
    assert!(matches!(rename("a", "Sent").await, Err(MailboxError::Exists)));
    rename("a", "z/y").await.unwrap();
    let moved = s.mailbox(account, "z/y/b/c").await;
    assert_eq!((moved.id, moved.uid_validity), (deep.id, deep.uid_validity));
    assert!(s.mailbox(account, "z/y/b").await.subscribed && moved.changed_modseq > deep.changed_modseq);

    let subscribe = async |text: &str, on| s.mail.subscribe(account, &name(text), on).await;
    assert!(matches!(subscribe("a", true).await, Err(MailboxError::NoMailbox)));
    subscribe("never", false).await.unwrap();

    let inbox = s.mailbox(account, "inbox").await;
    s.mail.append(account, inbox.id, vec![s.own("x", SystemFlags::SEEN).await]).await.unwrap();
    rename("INBOX", "old").await.unwrap();
    assert_eq!((s.mailbox(account, "INBOX").await.messages, s.mailbox(account, "old").await.messages), (0, 1));

    let since = s.mail.modseq(account).await.unwrap();
    assert!(matches!(s.mail.delete_mailbox(account, &MailboxName::inbox()).await, Err(MailboxError::Forbidden)));
    let old = s.mailbox(account, "old").await;
    s.mail.delete_mailbox(account, &name("old")).await.unwrap();
    assert!(s.mail.mailbox(account, &name("old")).await.unwrap().is_none());
    assert!(s.mail.states(account, old.id).await.unwrap().is_none());
    assert_eq!(s.mail.mailboxes_destroyed(account, since).await.unwrap(), Some(vec![old.id]));
    let changes = s.mail.email_changes(account, since, 10).await.unwrap().unwrap();
    assert_eq!((changes.destroyed.len(), changes.has_more), (1, false));
    let again = s.mail.create_mailbox(account, &name("old"), None).await.unwrap();
    assert!(again.id != old.id && again.uid_validity > old.uid_validity);
}

async fn deliveries_are_made_once(s: &Subject, account: AccountId) {
    let other = AccountId(account.0 + 1000);
    let first = s.delivery(account, "Subject: a\r\n\r\nbody", Target::Role(Role::Inbox)).await;
    let junk = Delivery { account: other, target: Target::Role(Role::Junk), ..first.clone() };
    let both = s.mail.deliver(vec![first.clone(), junk.clone()]).await;
    let committed = both[0].as_ref().unwrap();
    assert_eq!((committed.uid(), committed.mailbox_name().as_str()), (Uid::MIN, "INBOX"));
    assert_eq!(both[1].as_ref().unwrap().mailbox_name().as_str(), "Junk");
    assert_eq!(committed.modseq(), s.mail.modseq(account).await.unwrap());

    // The same again, as after an unknown outcome: nothing happens, the answer is the first one.
    let again = s.mail.deliver(vec![junk, first.clone()]).await;
    assert_eq!(again[1].as_ref().unwrap(), committed);
    assert_eq!(again[0].as_ref().unwrap(), both[1].as_ref().unwrap());
    let inbox = s.mailbox(account, "INBOX").await;
    assert_eq!((inbox.messages, inbox.unseen, inbox.uid_next), (1, 1, uid(2)));
    assert_eq!(inbox.size_bytes, first.blob.size_bytes() + first.prefix.len() as u64);

    let named = s.delivery(account, "b", Target::Named(name("Sent"))).await;
    let lost = s.delivery(account, "c", Target::Named(name("no/such"))).await;
    let made = s.mail.deliver(vec![named, lost]).await;
    let landed: Vec<_> = made.iter().map(|d| d.as_ref().unwrap().mailbox_name().as_str().to_owned()).collect();
    assert_eq!(landed, ["Sent", "INBOX"]);

    s.mail.delete_mailbox(account, &name("Junk")).await.unwrap();
    let reborn = s.delivery(account, "d", Target::Role(Role::Junk)).await;
    assert_eq!(s.mail.deliver(vec![reborn]).await[0].as_ref().unwrap().mailbox_name().as_str(), "Junk");

    let entry = &s.mail.entries(account, inbox.id, vec![EVERYTHING], 10).await.unwrap()[0];
    assert_eq!((entry.blob, &entry.prefix), (first.blob.id(), &first.prefix));
    assert_eq!(entry.created_modseq, committed.modseq());
    assert_eq!(s.blobs.read(entry.blob, 0..7).await.unwrap(), "Subject");
    let by_id = s.mail.emails(account, vec![EmailId(u64::MAX >> 1), entry.email]).await.unwrap();
    assert_eq!(&by_id[..], std::slice::from_ref(entry));
    assert_eq!(s.mail.thread(account, entry.thread).await.unwrap(), [entry.email]);
}

/// What the model knows of an entry.
#[derive(Clone, PartialEq, Debug)]
struct Known {
    email: EmailId,
    flags: Flags,
    blob_size: u64,
}

/// A plain picture of an account, and what a client has been told of it.
struct Model {
    boxes: Vec<(MailboxId, BTreeMap<Uid, Known>, Picture)>,
    told: BTreeMap<EmailId, ()>,
    told_at: ModSeq,
}

async fn random_operations_follow_the_model(s: &Subject, account: AccountId) {
    let mut random = Random(3);
    let mut model = Model { boxes: Vec::new(), told: BTreeMap::new(), told_at: ModSeq::MIN };
    for text in ["INBOX", "Archive", "Trash"] {
        let id = s.mailbox(account, text).await.id;
        model.boxes.push((id, BTreeMap::new(), Picture::of(s.mail.states(account, id).await.unwrap().unwrap())));
    }
    for step in 0..400 {
        let (from, to) = (random.below(3), random.below(3));
        let last = model.boxes[from].1.keys().last().map_or(1, |uid| uid.as_raw());
        let low = u32::try_from(random.below(last as usize + 1)).unwrap() + 1;
        let high = low + u32::try_from(random.below(12)).unwrap();
        let uids = vec![uid(low)..=uid(high)];
        let hit: Vec<Uid> = model.boxes[from].1.range(uid(low)..=uid(high)).map(|(uid, _)| *uid).collect();
        match random.below(8) {
            0..=2 => append(s, account, &mut model.boxes[from], &mut random).await,
            3..=4 => set_flags(s, account, &mut model.boxes[from], uids, &hit, &mut random).await,
            5 => {
                let (source, target) = (model.boxes[from].0, model.boxes[to].0);
                let copied = s.mail.copy(account, source, uids, target).await.unwrap();
                assert_eq!(copied.uids.iter().map(|pair| pair.0).collect::<Vec<_>>(), hit);
                let fresh = s.mail.entries(account, target, new_uids(&copied.uids), 100).await.unwrap();
                for ((was, is), entry) in copied.uids.iter().zip(fresh) {
                    let known = Known { email: entry.email, ..model.boxes[from].1[was].clone() };
                    model.boxes[to].1.insert(*is, known);
                }
            }
            6 => {
                let (source, target) = (model.boxes[from].0, model.boxes[to].0);
                let moved = s.mail.r#move(account, source, uids, target).await.unwrap();
                assert_eq!(moved.uids.iter().map(|pair| pair.0).collect::<Vec<_>>(), hit);
                for (was, is) in moved.uids {
                    let known = model.boxes[from].1.remove(&was).unwrap();
                    model.boxes[to].1.insert(is, known);
                }
            }
            _ => {
                let (id, known, _) = &mut model.boxes[from];
                let only_deleted = random.below(2) == 0;
                let dies = |known: &Known| !only_deleted || known.flags.system.contains(SystemFlags::DELETED);
                let want: Vec<Uid> = hit.into_iter().filter(|uid| dies(&known[uid])).collect();
                let (gone, _) = s.mail.expunge(account, *id, uids, only_deleted).await.unwrap();
                assert_eq!(gone, want);
                known.retain(|uid, _| !want.contains(uid));
            }
        }
        if step % 5 == 0 {
            compare(s, account, &mut model).await;
        }
    }
}

fn new_uids(pairs: &[(Uid, Uid)]) -> Vec<RangeInclusive<Uid>> {
    pairs.iter().map(|(_, uid)| *uid..=*uid).collect()
}

async fn append(
    s: &Subject,
    account: AccountId,
    (id, known, _): &mut (MailboxId, BTreeMap<Uid, Known>, Picture),
    random: &mut Random,
) {
    let mut entries = Vec::new();
    for _ in 0..=random.below(3) {
        let system = SystemFlags::from_bits(u8::try_from(random.below(32)).unwrap());
        entries.push(s.own(&"y".repeat(random.below(50)), system).await);
    }
    let appended = s.mail.append(account, *id, entries.clone()).await.unwrap();
    for (entry, at) in entries.into_iter().zip(appended) {
        assert!(known.keys().all(|uid| *uid < at.uid), "UIDs rise");
        known.insert(at.uid, Known { email: at.email, flags: entry.flags, blob_size: entry.blob.size_bytes() });
    }
}

async fn set_flags(
    s: &Subject,
    account: AccountId,
    (id, known, picture): &mut (MailboxId, BTreeMap<Uid, Known>, Picture),
    uids: Vec<RangeInclusive<Uid>>,
    hit: &[Uid],
    random: &mut Random,
) {
    let mut flags = Flags::system(SystemFlags::from_bits(u8::try_from(random.below(32)).unwrap()));
    if random.below(3) == 0 {
        flags.keywords.insert(["$Work", "$Forwarded"][random.below(2)].parse().unwrap());
    }
    let condition = (random.below(4) == 0).then(|| picture.highest_modseq());
    let change = match random.below(3) {
        0 => FlagChange::Add(flags.clone()),
        1 => FlagChange::Remove(flags.clone()),
        _ => FlagChange::Replace(flags.clone()),
    };
    let outcome = s.mail.set_flags(account, *id, uids, change.clone(), condition).await.unwrap();
    let mut addressed: Vec<Uid> = outcome.changed.iter().map(|state| state.uid).collect();
    addressed.extend(&outcome.modified);
    addressed.sort_unstable();
    assert_eq!(addressed, hit);
    for state in outcome.changed {
        let known = known.get_mut(&state.uid).unwrap();
        match &change {
            FlagChange::Replace(to) => known.flags = to.clone(),
            FlagChange::Add(more) => {
                known.flags.system = known.flags.system.with(more.system);
                known.flags.keywords.extend(more.keywords.iter().cloned());
            }
            FlagChange::Remove(less) => {
                known.flags.system = known.flags.system.without(less.system);
                known.flags.keywords.retain(|word| !less.keywords.contains(word));
            }
        }
        assert_eq!(state.flags, known.flags);
    }
}

/// The store, the view that followed it and the client that synchronised by mod-sequence all agree with the model.
async fn compare(s: &Subject, account: AccountId, model: &mut Model) {
    let mut used = 0;
    for (id, known, picture) in &mut model.boxes {
        let changes = s.mail.changes_since(account, *id, picture.highest_modseq()).await.unwrap().unwrap();
        *picture = picture.advanced(changes);
        let seen: Vec<_> = picture.iter().map(|e| (e.uid, e.email, e.flags.clone())).collect();
        let want: Vec<_> = known.iter().map(|(uid, k)| (*uid, k.email, k.flags.clone())).collect();
        assert_eq!(seen, want);
        let fresh = Picture::of(s.mail.states(account, *id).await.unwrap().unwrap());
        assert!(Picture::differences(picture, &fresh).is_empty());
        assert_eq!(fresh.highest_modseq(), picture.highest_modseq());
        let mailboxes = s.mail.mailboxes(account).await.unwrap();
        let row = mailboxes.iter().find(|m| m.id == *id).unwrap();
        let count = |test: &dyn Fn(SystemFlags) -> bool| known.values().filter(|k| test(k.flags.system)).count();
        let size: u64 = known.values().map(|k| k.blob_size).sum();
        used += size;
        assert_eq!(row.messages as usize, known.len());
        assert_eq!(row.unseen as usize, count(&|f| !f.contains(SystemFlags::SEEN)));
        assert_eq!(row.deleted as usize, count(&|f| f.contains(SystemFlags::DELETED)));
        assert_eq!((row.size_bytes, row.uid_next), (size, picture.uid_next()));
    }
    assert_eq!(s.mail.usage(account).await.unwrap().size, ByteSize(used));
    loop {
        let changes = s.mail.email_changes(account, model.told_at, 3).await.unwrap().unwrap();
        assert!(changes.created.len() + changes.updated.len() + changes.destroyed.len() <= 3);
        for email in changes.created {
            assert!(model.told.insert(email, ()).is_none(), "created twice");
        }
        for email in changes.updated {
            assert!(model.told.contains_key(&email), "updated before it was created");
        }
        for email in changes.destroyed {
            // May be one that lived and died between two answers, of which the client never heard (RFC 8620 §5.2).
            model.told.remove(&email);
        }
        model.told_at = changes.new_state;
        if !changes.has_more {
            break;
        }
    }
    let want: BTreeSet<EmailId> = model.boxes.iter().flat_map(|b| b.1.values().map(|k| k.email)).collect();
    assert_eq!(model.told.keys().copied().collect::<BTreeSet<_>>(), want);
    let states = s.mail.email_states(account, None).await.unwrap();
    assert_eq!(states.iter().map(|e| e.state.email).collect::<BTreeSet<_>>(), want);
}

async fn parallel_actors_leave_one_consistent_mailbox(s: &Subject, account: AccountId) {
    let inbox = s.mailbox(account, "INBOX").await.id;
    let trash = s.mailbox(account, "Trash").await.id;
    let mut actors = tokio::task::JoinSet::new();
    for actor in 0..6u64 {
        let s = s.clone();
        actors.spawn(async move {
            let mut random = Random(actor);
            let mut added = 0usize;
            let mut removed = 0usize;
            for _ in 0..60 {
                let some = uid(u32::try_from(random.below(200)).unwrap() + 1);
                let uids = vec![some..=uid(some.as_raw() + 3)];
                match random.below(6) {
                    0 | 1 => {
                        let delivery = s.delivery(account, "m", Target::Role(Role::Inbox)).await;
                        added += s.mail.deliver(vec![delivery]).await.iter().filter(|d| d.is_ok()).count();
                    }
                    2 => {
                        added += s
                            .mail
                            .append(account, trash, vec![s.own("n", SystemFlags::SEEN).await])
                            .await
                            .unwrap()
                            .len()
                    }
                    3 => {
                        let seen = FlagChange::Add(Flags::system(SystemFlags::SEEN));
                        s.mail.set_flags(account, inbox, uids, seen, None).await.unwrap();
                    }
                    4 => drop(s.mail.r#move(account, inbox, uids, trash).await.unwrap()),
                    _ => removed += s.mail.expunge(account, trash, uids, false).await.unwrap().0.len(),
                }
            }
            (added, removed)
        });
    }
    // Meanwhile a view follows: no gap that later fills, no UID that comes back.
    let follower = {
        let s = s.clone();
        async move {
            let mut picture = Picture::of(s.mail.states(account, inbox).await.unwrap().unwrap());
            for _ in 0..100 {
                let changes = s.mail.changes_since(account, inbox, picture.highest_modseq()).await.unwrap().unwrap();
                let next = picture.advanced(changes);
                let differences = Picture::differences(&picture, &next);
                let newest: Vec<_> = next.slice(next.len() - differences.appended..next.len()).collect();
                assert!(newest.iter().all(|e| e.uid >= picture.uid_next() && e.modseq > picture.highest_modseq()));
                picture = next;
            }
            picture
        }
    };
    let (picture, sums) = tokio::join!(follower, actors.join_all());
    let (added, removed) = sums.into_iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    let changes = s.mail.changes_since(account, inbox, picture.highest_modseq()).await.unwrap().unwrap();
    let fresh = Picture::of(s.mail.states(account, inbox).await.unwrap().unwrap());
    assert!(Picture::differences(&picture.advanced(changes), &fresh).is_empty());
    let left = s.mail.email_states(account, None).await.unwrap().len();
    assert_eq!(left, added - removed);
    assert_eq!(s.mail.usage(account).await.unwrap().messages as usize, left);
}

async fn long_operations_go_in_steps(s: &Subject, account: AccountId) {
    let inbox = s.mailbox(account, "INBOX").await.id;
    let one = s.own("z", SystemFlags::default()).await;
    s.mail.append(account, inbox, vec![one; 2500]).await.unwrap();
    let seen = FlagChange::Add(Flags::system(SystemFlags::SEEN));
    let outcome = s.mail.set_flags(account, inbox, vec![EVERYTHING], seen, None).await.unwrap();
    assert_eq!((outcome.changed.len(), s.mailbox(account, "INBOX").await.unseen), (2500, 0));
    // Onto itself: each is moved once, though new UIDs lie in the range too.
    let moved = s.mail.r#move(account, inbox, vec![EVERYTHING], inbox).await.unwrap();
    assert_eq!(moved.uids.len(), 2500);
    let archive = s.mailbox(account, "Archive").await.id;
    let moved = s.mail.r#move(account, inbox, vec![EVERYTHING], archive).await.unwrap();
    assert_eq!((moved.uids.len(), s.mailbox(account, "Archive").await.messages), (2500, 2500));
    let page = s.mail.entries(account, archive, vec![EVERYTHING], 700).await.unwrap();
    assert_eq!((page.len(), page[699].uid), (700, uid(700)));
    assert_eq!(s.mail.expunge(account, archive, vec![EVERYTHING], false).await.unwrap().0.len(), 2500);
    assert_eq!(s.mail.usage(account).await.unwrap().messages, 0);
}

async fn the_log_is_trimmed_safely(s: &Subject, account: AccountId) {
    let inbox = s.mailbox(account, "INBOX").await.id;
    let one = s.own("z", SystemFlags::default()).await;
    let start = s.mail.modseq(account).await.unwrap();
    let mut late = start;
    for _ in 0..9 {
        s.mail.append(account, inbox, vec![one.clone(); 5000]).await.unwrap();
        late = s.mail.modseq(account).await.unwrap();
        s.mail.expunge(account, inbox, vec![EVERYTHING], false).await.unwrap();
    }
    // A client away since the start cannot be told all, one that was here lately can.
    assert_eq!(s.mail.changes_since(account, inbox, start).await.unwrap(), None);
    assert!(s.mail.email_changes(account, start, 10).await.unwrap().is_none());
    let recent = s.mail.changes_since(account, inbox, late).await.unwrap().unwrap();
    assert_eq!((recent.changed.len(), recent.vanished.len()), (0, 5000));
}

async fn blobs_read_back_by_range(s: &Subject) {
    let mut random = Random(9);
    for size in [0, 1, 100, 65_000, 262_144, 700_000] {
        let noise = random.bytes(size);
        let text: Vec<u8> = (0..size).map(|n| b"abcdefgh \r\n"[n / 7 % 11]).collect();
        for content in [noise, text] {
            let (head, tail) = content.split_at(size / 3);
            let pieces = vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
            let blob = s.blobs.put(pieces).await.unwrap();
            assert_eq!(blob.size_bytes(), size as u64);
            for _ in 0..8 {
                let from = random.below(size + 10);
                let to = from + random.below(size + 10);
                let read = s.blobs.read(blob.id(), from as u64..to as u64).await.unwrap();
                assert_eq!(&read[..], &content[from.min(size)..to.min(size)]);
            }
        }
    }
}

async fn blobs_in_pieces_are_whole(s: &Subject, account: AccountId) {
    let mut random = Random(10);
    s.mail.mailboxes(account).await.unwrap();
    let inbox = s.mailbox(account, "INBOX").await.id;
    for (size, step) in [(0, 1), (10, 3), (262_144, 262_144), (600_000, 7_000), (5_000_000, 1_000_000)] {
        let content = Bytes::from(random.bytes(size));
        let pieces = (0..size).step_by(step).map(|start| content.slice(start..size.min(start + step)));
        let blob = s.blobs.put(pieces.collect()).await.unwrap();
        assert_eq!(blob.size_bytes(), size as u64);
        let entry = NewEntry { blob, summary: Arc::from(&b""[..]), flags: Flags::default(), internal_date: NOW };
        let added = s.mail.append(account, inbox, vec![entry]).await.unwrap().remove(0);
        let entry = s.mail.emails(account, vec![added.email]).await.unwrap().remove(0);
        assert!(s.blobs.read(entry.blob, 0..u64::MAX).await.unwrap() == content, "{size}");
        let tail = s.blobs.read(entry.blob, size as u64 / 2..size as u64).await.unwrap();
        assert!(tail == content[size / 2..], "{size}");
    }
}

async fn an_account_goes_without_a_trace(s: &Subject, account: AccountId) {
    let delivery = s.delivery(account, "gone", Target::Role(Role::Inbox)).await;
    s.mail.deliver(vec![delivery.clone()]).await.remove(0).unwrap();
    let inbox = s.mailbox(account, "INBOX").await.id;
    s.mail.copy(account, inbox, vec![EVERYTHING], inbox).await.unwrap();
    s.mail.delete_account(account).await.unwrap();
    assert_eq!(s.mail.usage(account).await.unwrap().messages, 0);
    assert!(s.mail.states(account, inbox).await.unwrap().is_none());
    assert!(s.mail.email_states(account, None).await.unwrap().is_empty());
    s.mail.delete_account(account).await.unwrap();
}

async fn owners_say_what_is_spam(s: &Subject, account: AccountId) {
    let delivery = s.delivery(account, "first", Target::Role(Role::Inbox)).await;
    s.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    let delivery = s.delivery(account, "second", Target::Role(Role::Junk)).await;
    s.mail.deliver(vec![delivery]).await.remove(0).unwrap();
    let said = async || {
        let found = s.mail.owner_verdicts(10).await.unwrap();
        let own: Vec<_> = found.into_iter().filter(|verdict| verdict.account == account).collect();
        let told: Vec<(u64, bool)> = own.iter().map(|verdict| (verdict.email.0, verdict.is_spam)).collect();
        (own, told)
    };
    assert_eq!(said().await.1, [], "a delivery is nobody's word");
    let (inbox, junk) = (s.mailbox(account, "INBOX").await.id, s.mailbox(account, "Junk").await.id);
    let trash = s.mailbox(account, "Trash").await.id;
    let email = async |mailbox| s.mail.email_states(account, Some(mailbox)).await.unwrap()[0].state.email;
    let (first, second) = (email(inbox).await, email(junk).await);
    s.mail.r#move(account, junk, vec![EVERYTHING], trash).await.unwrap();
    assert_eq!(said().await.1, [], "who throws spam away says nothing new");
    s.mail.r#move(account, inbox, vec![EVERYTHING], junk).await.unwrap();
    let (verdicts, told) = said().await;
    assert_eq!(told, [(first.0, true)]);
    s.clock.advance(std::time::Duration::from_secs(1));
    s.mail.r#move(account, junk, vec![EVERYTHING], inbox).await.unwrap();
    s.mail.settle_verdicts(verdicts).await.unwrap();
    let (verdicts, told) = said().await;
    assert_eq!(told, [(first.0, false)], "the last word stays");
    s.mail.settle_verdicts(verdicts).await.unwrap();
    s.mail.copy(account, trash, vec![EVERYTHING], junk).await.unwrap();
    let copied = email(junk).await;
    assert!(copied != second);
    s.clock.advance(std::time::Duration::from_secs(1));
    let mark = |word: &str| {
        let keywords = std::iter::once(word.parse().unwrap()).collect();
        FlagChange::Add(Flags { keywords, ..Flags::default() })
    };
    for word in ["$NotJunk", "$NotJunk", "Junk"] {
        s.mail.set_flags(account, trash, vec![EVERYTHING], mark(word), None).await.unwrap();
    }
    let (verdicts, told) = said().await;
    assert_eq!(told, [(copied.0, true), (second.0, false)]);
    s.mail.settle_verdicts(verdicts).await.unwrap();
    s.mail.set_flags(account, trash, vec![EVERYTHING], mark("$Junk"), None).await.unwrap();
    s.mail.delete_account(account).await.unwrap();
    assert_eq!(said().await.1, []);
}

async fn expunged_emails_come_back(s: &Subject, account: AccountId) {
    let inbox = s.mailbox(account, "INBOX").await;
    let delivery = s.delivery(account, "first", Target::Role(Role::Inbox)).await;
    s.mail.deliver(vec![delivery.clone()]).await.remove(0).unwrap();
    let work = s.mail.create_mailbox(account, &name("Work"), None).await.unwrap();
    let own = [s.own("second", SystemFlags::SEEN).await, s.own("third", SystemFlags::FLAGGED).await];
    s.mail.append(account, work.id, own.to_vec()).await.unwrap();
    s.mail.expunge(account, inbox.id, vec![EVERYTHING], false).await.unwrap();
    s.mail.delete_mailbox(account, &name("Work")).await.unwrap();
    // Outside quota, and out of every client's sight.
    assert_eq!(s.mail.usage(account).await.unwrap().messages, 0);
    assert!(s.mail.email_states(account, None).await.unwrap().is_empty());
    let removed = s.mail.removed(account, 10).await.unwrap();
    assert_eq!(s.mail.removed(account, 1).await.unwrap(), removed[..1]);
    assert!(s.mail.removed(AccountId(account.0 + 1000), 10).await.unwrap().is_empty());
    let first = removed.iter().find(|gone| gone.mailbox.is_inbox()).unwrap();
    assert_eq!((removed.len(), first.blob, &first.prefix), (3, delivery.blob.id(), &delivery.prefix));

    // Each where it lay, with its flags; the deleted mailbox is there again. Ids are new, so no client is confused.
    let since = s.mail.modseq(account).await.unwrap();
    let ids: Vec<EmailId> = removed.iter().map(|gone| gone.email).collect();
    let back = s.mail.restore(account, ids.clone(), None).await.unwrap();
    assert_eq!(back.iter().map(|back| back.was).collect::<Vec<_>>(), ids);
    assert_eq!((s.mailbox(account, "INBOX").await.messages, s.mailbox(account, "Work").await.messages), (1, 2));
    assert_eq!(s.mailbox(account, "Work").await.unseen, 1);
    let changes = s.mail.email_changes(account, since, 10).await.unwrap().unwrap();
    assert_eq!((changes.created.len(), changes.updated.len(), changes.destroyed.len()), (3, 0, 0));
    assert!(back.iter().all(|back| !ids.contains(&back.email)));
    let entry = &s.mail.entries(account, inbox.id, vec![EVERYTHING], 10).await.unwrap()[0];
    assert_eq!((entry.uid, s.blobs.read(entry.blob, 0..99).await.unwrap().as_ref()), (uid(2), &b"first"[..]));
    assert!(s.mail.removed(account, 10).await.unwrap().is_empty());
    assert!(s.mail.restore(account, ids, None).await.unwrap().is_empty());

    // Into one named mailbox, and never beyond the quota: then nothing of it happens.
    let work = s.mailbox(account, "Work").await;
    s.mail.expunge(account, work.id, vec![EVERYTHING], false).await.unwrap();
    let ids: Vec<EmailId> = s.mail.removed(account, 10).await.unwrap().iter().map(|gone| gone.email).collect();
    s.mail.set_quota(account, Quota { size: Some(ByteSize(entry.size_bytes + 6)), messages: None }).await.unwrap();
    let refused = s.mail.restore(account, ids.clone(), Some(name("Found/here"))).await;
    assert!(matches!(refused, Err(AppendError::OverQuota { .. })));
    assert!(s.mail.mailbox(account, &name("Found/here")).await.unwrap().is_none());
    s.mail.set_quota(account, Quota::UNLIMITED).await.unwrap();
    let back = s.mail.restore(account, vec![ids[0]], Some(name("Found/here"))).await.unwrap();
    assert_eq!((back.len(), back[0].mailbox_name.as_str()), (1, "Found/here"));

    // Purged is gone for good.
    assert_eq!(s.mail.purge(account, Some(ids)).await.unwrap(), 1);
    assert!(s.mail.removed(account, 10).await.unwrap().is_empty());
    s.mail.expunge(account, inbox.id, vec![EVERYTHING], false).await.unwrap();
    assert_eq!(s.mail.purge(account, None).await.unwrap(), 1);
}

/// For [`EXPUNGED_LATER`]: one message that went with its folder.
pub(crate) async fn delete_folder_of_one(s: &Subject, account: AccountId) {
    let old = s.mail.create_mailbox(account, &name("Old"), None).await.unwrap();
    s.mail.append(account, old.id, vec![s.own("old", SystemFlags::SEEN).await]).await.unwrap();
    s.mail.delete_mailbox(account, &name("Old")).await.unwrap();
}

/// So many expunged emails of account 1 from the one that there is, each a moment later and of another mailbox, as `n`
/// has numbers `i`.
pub(crate) const EXPUNGED_LATER: &str = "
    INSERT INTO removed (account_id, email_id, removed_at, mailbox_id, mailbox_name, system, keywords, internal_date,
        size_bytes, content_id)
    SELECT account_id, email_id + 1000000 + i, removed_at + 1, mailbox_id + 1, 'Else', system, keywords, internal_date,
        size_bytes, content_id FROM removed, n WHERE account_id = 1";

/// A deleted folder with one below it, under its name and under another.
pub(crate) async fn folders_come_back(storage: &crate::Storage, s: &Subject, account: AccountId) {
    let work = s.mail.create_mailbox(account, &name("Work"), None).await.unwrap();
    let deep = s.mail.create_mailbox(account, &name("Work/2026/May"), None).await.unwrap();
    s.mail.subscribe(account, &name("Work"), true).await.unwrap();
    let texts = [("long gone", &work), ("one", &work), ("two", &work), ("three", &deep)];
    for (text, mailbox) in texts {
        s.mail.append(account, mailbox.id, vec![s.own(text, SystemFlags::FLAGGED).await]).await.unwrap();
    }
    s.mail.expunge(account, work.id, vec![uid(1)..=uid(1)], false).await.unwrap();
    s.clock.advance(std::time::Duration::from_secs(60));
    for text in ["Work", "Work/2026/May", "Work/2026"] {
        s.mail.delete_mailbox(account, &name(text)).await.unwrap();
    }
    let gone = s.mail.removed_mailboxes(account).await.unwrap();
    let told: Vec<_> = gone.iter().map(|one| (one.name.as_str(), one.messages, one.subscribed)).collect();
    assert_eq!(told, [("Work", 2, true), ("Work/2026", 0, false), ("Work/2026/May", 1, false)]);
    let none = storage.restore_folder(account, &name("Wor"), None).await;
    assert!(matches!(none, Err(AppendError::NoMailbox)));

    // What had been expunged before the deletion stays so. A new folder of the name is no obstacle.
    s.mail.create_mailbox(account, &name("Work"), None).await.unwrap();
    let back = storage.restore_folder(account, &name("Work"), None).await.unwrap();
    assert_eq!((back.mailboxes.len(), back.messages), (3, 3));
    let work = s.mailbox(account, "Work").await;
    assert_eq!((work.messages, s.mailbox(account, "Work/2026/May").await.messages), (2, 1));
    let states = s.mail.states(account, work.id).await.unwrap().unwrap().changed;
    assert!(states.iter().all(|entry| entry.flags.system == SystemFlags::FLAGGED));
    assert_eq!(storage.restore_folder(account, &name("Work"), None).await.unwrap().messages, 0);

    // The latest deletion counts, and a purge ends it.
    s.clock.advance(std::time::Duration::from_secs(60));
    s.mail.delete_mailbox(account, &name("Work")).await.unwrap();
    let back = storage.restore_folder(account, &name("Work"), Some(&name("Found"))).await.unwrap();
    assert_eq!(back.messages, 2);
    assert!(back.mailboxes.iter().all(|made| made.as_str().starts_with("Found")));
    assert_eq!(s.mailbox(account, "Found").await.messages, 2);
    storage.purge(account, None).await.unwrap();
    assert!(s.mail.removed_mailboxes(account).await.unwrap().is_empty());
}
