//! The reference: what an account must look like after each operation, in a page of plain maps.

use std::collections::BTreeMap;

use base::AccountId;
use mail::mime::Summary;

use crate::contract::{Random, name};
use crate::model::{FlagChange, Flags, MailboxName, Role, SystemFlags};
use crate::sqlite::change::changed_flags;

/// One operation of a client or of the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Letter `number` arrives for this folder, or for INBOX if there is none of that name.
    Deliver {
        number: u32,
        folder: String,
    },
    /// The last delivery once more, as after an unknown outcome.
    Again,
    Append {
        folder: String,
        numbers: Vec<u32>,
        system: SystemFlags,
    },
    Flags {
        folder: String,
        uids: (u32, u32),
        change: FlagChange,
    },
    Copy {
        from: String,
        uids: (u32, u32),
        to: String,
    },
    Move {
        from: String,
        uids: (u32, u32),
        to: String,
    },
    Expunge {
        folder: String,
        uids: (u32, u32),
        only_deleted: bool,
    },
    Create(String),
    Rename {
        from: String,
        to: String,
    },
    Delete(String),
    Restore {
        emails: Vec<u64>,
        into: Option<String>,
    },
    Purge(Option<Vec<u64>>),
    Quota(Option<u64>),
    /// Garbage collection long after the undelete window, or within it.
    Collect {
        is_late: bool,
    },
    Snapshot,
}

impl Op {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Deliver { .. } => "deliver",
            Self::Again => "again",
            Self::Append { .. } => "append",
            Self::Flags { .. } => "flags",
            Self::Copy { .. } => "copy",
            Self::Move { .. } => "move",
            Self::Expunge { .. } => "expunge",
            Self::Create(_) => "create",
            Self::Rename { .. } => "rename",
            Self::Delete(_) => "delete",
            Self::Restore { .. } => "restore",
            Self::Purge(_) => "purge",
            Self::Quota(_) => "quota",
            Self::Collect { .. } => "collect",
            Self::Snapshot => "snapshot",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Letter {
    email: u64,
    number: u32,
    is_delivered: bool,
    flags: Flags,
}

#[derive(Clone, Debug, PartialEq)]
struct Folder {
    id: u32,
    uid_next: u32,
    letters: BTreeMap<u32, Letter>,
}

#[derive(Clone, Debug, PartialEq)]
struct Gone {
    folder: u32,
    name: String,
    letter: Letter,
}

/// An account as it must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    pub account: AccountId,
    folders: BTreeMap<String, Folder>,
    gone: BTreeMap<u64, Gone>,
    next_email: u64,
    next_folder: u32,
    next_number: u32,
    quota: Option<u64>,
    /// Number and folder of the last delivery that may be tried again.
    last: Option<(u32, String)>,
}

/// By UID: email id, letter and flags.
pub(crate) type Letters = BTreeMap<u32, (u64, u32, Flags)>;

/// What can be seen of an account from outside.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Seen {
    /// By name: UIDNEXT and what is there.
    pub folders: BTreeMap<String, (u32, Letters)>,
    /// By email id: the name of the folder it lay in, letter and flags.
    pub gone: BTreeMap<u64, (String, u32, Flags)>,
    pub messages: u64,
    pub size_bytes: u64,
    pub quota: Option<u64>,
}

/// In front of every delivered letter.
pub(crate) const PREFIX: &[u8] = b"Delivered-To: a@example.test\r\n";

/// The header of letter `number` and the length of its text. Long enough to fill small segments, now and then longer than
/// one frame of a record, or so long that it gets a segment of its own.
fn shape(account: AccountId, number: u32) -> (String, usize) {
    let mut random = Random((account.0 << 32) + u64::from(number) + 1);
    let length = match number % 58 {
        36 => 4_300_000,
        7 => 300_000,
        _ => random.below(14_000),
    };
    let header = format!("Subject: {} {number}\r\nMessage-ID: <{}.{}@x>\r\n\r\n", account.0, account.0, number / 3);
    (header, length)
}

/// Letter `number`: the same for everyone who asks, and nothing that compresses.
pub(crate) fn letter(account: AccountId, number: u32) -> Vec<u8> {
    let (header, length) = shape(account, number);
    let mut text = header.into_bytes();
    let start = text.len();
    text.resize(start + length, 0);
    blake3::Hasher::new().update(&text[..start]).finalize_xof().fill(&mut text[start..]);
    text
}

pub(crate) fn summary(text: &[u8]) -> std::sync::Arc<[u8]> {
    Summary::of(text).encode().into()
}

pub(crate) fn size_of(account: AccountId, number: u32, is_delivered: bool) -> u64 {
    let (header, length) = shape(account, number);
    (header.len() + length) as u64 + if is_delivered { PREFIX.len() as u64 } else { 0 }
}

impl Model {
    pub(crate) fn new(account: AccountId) -> Self {
        let mut model = Self {
            account,
            folders: BTreeMap::new(),
            gone: BTreeMap::new(),
            next_email: 1,
            next_folder: 1,
            next_number: 1,
            quota: None,
            last: None,
        };
        for (_, name) in Role::INITIAL {
            model.folder(name);
        }
        model
    }

    /// The folder of this name, made with its parents if need be.
    fn folder(&mut self, wanted: &str) -> &mut Folder {
        if !self.folders.contains_key(wanted)
            && let Some(parent) = name(wanted).parent()
        {
            self.folder(parent.as_str());
        }
        let id = self.next_folder;
        self.folders.entry(wanted.to_owned()).or_insert_with(|| {
            self.next_folder += 1;
            Folder { id, uid_next: 1, letters: BTreeMap::new() }
        })
    }

    fn add(&mut self, to: &str, letter: Letter) {
        let folder = self.folder(to);
        folder.letters.insert(folder.uid_next, letter);
        folder.uid_next += 1;
    }

    fn take_email(&mut self) -> u64 {
        self.next_email += 1;
        self.next_email - 1
    }

    fn used(&self) -> u64 {
        let all = self.folders.values().flat_map(|folder| folder.letters.values());
        all.map(|letter| size_of(self.account, letter.number, letter.is_delivered)).sum()
    }

    pub(crate) fn has_room(&self, size_bytes: u64) -> bool {
        self.quota.is_none_or(|quota| self.used() + size_bytes <= quota)
    }

    fn hit(&self, folder: &str, (low, high): (u32, u32)) -> Vec<u32> {
        let found = self.folders.get(folder).map(|folder| folder.letters.range(low..=high));
        found.into_iter().flatten().map(|(uid, _)| *uid).collect()
    }

    /// The states that are on disk one after the other while `op` is done; the last one is its outcome. One state equal
    /// to this one if the operation is refused.
    pub(crate) fn after(&self, op: &Op) -> Vec<Self> {
        let mut next = self.clone();
        match op {
            Op::Deliver { number, folder } => {
                let number = *number;
                next.next_number = next.next_number.max(number + 1);
                next.last = Some((number, folder.clone()));
                if self.has_room(size_of(self.account, number, true)) {
                    let to = if self.folders.contains_key(folder) { folder } else { "INBOX" };
                    let email = next.take_email();
                    next.add(to, Letter { email, number, is_delivered: true, flags: Flags::default() });
                }
            }
            Op::Again | Op::Snapshot => {}
            Op::Append { folder, numbers, system } => {
                let size = numbers.iter().map(|number| size_of(self.account, *number, false)).sum();
                next.next_number = next.next_number.max(numbers.iter().max().map_or(0, |number| number + 1));
                if self.has_room(size) {
                    for number in numbers {
                        let email = next.take_email();
                        let flags = Flags::system(*system);
                        next.add(folder, Letter { email, number: *number, is_delivered: false, flags });
                    }
                }
            }
            Op::Flags { folder, uids, change } => {
                for uid in self.hit(folder, *uids) {
                    if let Some(letter) = next.folder(folder).letters.get_mut(&uid) {
                        letter.flags = changed_flags(&letter.flags, change).unwrap_or_else(|| letter.flags.clone());
                    }
                }
            }
            Op::Copy { from, uids, to } => {
                let found: Vec<Letter> =
                    self.hit(from, *uids).iter().map(|uid| self.folders[from].letters[uid].clone()).collect();
                let size = found.iter().map(|letter| size_of(self.account, letter.number, letter.is_delivered)).sum();
                if self.has_room(size) {
                    for letter in found {
                        let email = next.take_email();
                        next.add(to, Letter { email, ..letter });
                    }
                }
            }
            Op::Move { from, uids, to } => {
                for uid in self.hit(from, *uids) {
                    if let Some(letter) = next.folder(from).letters.remove(&uid) {
                        next.add(to, letter);
                    }
                }
            }
            Op::Expunge { folder, uids, only_deleted } => {
                let dies = |uid: &u32| {
                    let flags = &self.folders[folder].letters[uid].flags;
                    !only_deleted || flags.system.contains(SystemFlags::DELETED)
                };
                self.hit(folder, *uids).into_iter().filter(dies).for_each(|uid| next.remove(folder, uid));
            }
            Op::Create(folder) => {
                next.folder(folder);
            }
            Op::Rename { from, to } if from == "INBOX" => {
                next.folder(to);
                let made = next.clone();
                let all = (1, u32::MAX);
                let moved = made.after(&Op::Move { from: from.clone(), uids: all, to: to.clone() });
                return std::iter::once(made).chain(moved).collect();
            }
            Op::Rename { from, to } => next.rename(from, to),
            Op::Delete(folder) => {
                self.hit(folder, (1, u32::MAX)).into_iter().for_each(|uid| next.remove(folder, uid));
                next.folders.remove(folder);
            }
            Op::Restore { emails, into } => next.restore(emails, into.as_deref()),
            Op::Purge(None) => next.gone.clear(),
            Op::Purge(Some(emails)) => next.gone.retain(|email, _| !emails.contains(email)),
            Op::Quota(quota) => next.quota = *quota,
            Op::Collect { is_late } => {
                if *is_late {
                    next.gone.clear();
                }
                // Deliveries are remembered for some days only, and ids of messages carry the time of the start.
                next.last = None;
            }
        }
        vec![next]
    }

    fn remove(&mut self, folder: &str, uid: u32) {
        let id = self.folders[folder].id;
        if let Some(letter) = self.folder(folder).letters.remove(&uid) {
            self.gone.insert(letter.email, Gone { folder: id, name: folder.to_owned(), letter });
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(parent) = name(to).parent() {
            self.folder(parent.as_str());
        }
        let (from, to): (MailboxName, MailboxName) = (name(from), name(to));
        let moving: Vec<String> =
            self.folders.keys().filter(|n| name(n).moved(&from, &to).is_some()).cloned().collect();
        for old in moving {
            let folder = self.folders.remove(&old);
            let new = name(&old).moved(&from, &to);
            if let (Some(folder), Some(new)) = (folder, new) {
                self.folders.insert(new.as_str().to_owned(), folder);
            }
        }
    }

    fn can_rename(&self, from: &str, to: &str) -> bool {
        let (from, to) = (name(from), name(to));
        let moved = |n: &String| name(n).moved(&from, &to);
        let is_free = |new: MailboxName| !self.folders.contains_key(new.as_str());
        !to.is_below(&from) && self.folders.keys().filter_map(moved).all(is_free)
    }

    /// All or none.
    fn restore(&mut self, emails: &[u64], into: Option<&str>) {
        let before = self.clone();
        for email in emails {
            let Some(gone) = self.gone.get(email).cloned() else { continue };
            if !self.has_room(size_of(self.account, gone.letter.number, gone.letter.is_delivered)) {
                *self = before;
                return;
            }
            let where_it_lay = self.folders.iter().find(|(_, folder)| folder.id == gone.folder).map(|(n, _)| n.clone());
            let to = into.map(str::to_owned).or(where_it_lay).unwrap_or(gone.name);
            self.folder(&to);
            let email = self.take_email();
            // One that was to be expunged is not to be expunged again.
            let flags = Flags { system: gone.letter.flags.system.without(SystemFlags::DELETED), ..gone.letter.flags };
            self.gone.remove(&gone.letter.email);
            self.add(&to, Letter { email, flags, ..gone.letter });
        }
    }

    /// True if letter `number` was delivered and not refused; wherever it went since.
    pub(crate) fn holds(&self, number: u32) -> bool {
        let here = self.folders.values().flat_map(|folder| folder.letters.values());
        here.chain(self.gone.values().map(|gone| &gone.letter)).any(|l| l.number == number && l.is_delivered)
    }

    /// How many of the UIDs there are.
    pub(crate) fn finds(&self, folder: &str, uids: (u32, u32)) -> usize {
        self.hit(folder, uids).len()
    }

    pub(crate) fn has_gone(&self, emails: &[u64]) -> bool {
        emails.iter().any(|email| self.gone.contains_key(email))
    }

    pub(crate) fn last(&self) -> Option<(u32, String)> {
        self.last.clone()
    }

    pub(crate) fn seen(&self) -> Seen {
        let letters = |folder: &Folder| {
            let each = folder.letters.iter().map(|(uid, l)| (*uid, (l.email, l.number, l.flags.clone())));
            (folder.uid_next, each.collect())
        };
        let gone =
            |(email, gone): (&u64, &Gone)| (*email, (gone.name.clone(), gone.letter.number, gone.letter.flags.clone()));
        Seen {
            folders: self.folders.iter().map(|(name, folder)| (name.clone(), letters(folder))).collect(),
            gone: self.gone.iter().map(gone).collect(),
            messages: self.folders.values().map(|folder| folder.letters.len() as u64).sum(),
            size_bytes: self.used(),
            quota: self.quota,
        }
    }

    /// A random operation that a client could do now.
    pub(crate) fn random_op(&self, random: &mut Random, is_alone: bool) -> Op {
        const OWN: [&str; 4] = ["A", "A/x", "B", "C/y/z"];
        let names: Vec<&String> = self.folders.keys().collect();
        let any = |random: &mut Random| names[random.below(names.len())].clone();
        let busy = |random: &mut Random| {
            let full: Vec<&String> =
                self.folders.iter().filter(|(_, folder)| !folder.letters.is_empty()).map(|(name, _)| name).collect();
            full.get(random.below(full.len())).map_or_else(|| "INBOX".to_owned(), |name| (*name).clone())
        };
        let uids = |random: &mut Random, folder: &str| {
            let last = self.folders[folder].uid_next;
            let low = 1 + u32::try_from(random.below(last as usize)).unwrap_or(0);
            (low, low + u32::try_from(random.below(6)).unwrap_or(0))
        };
        let deliver = |folder: String| Op::Deliver { number: self.next_number, folder };
        let system = |random: &mut Random| SystemFlags::from_bits(u8::try_from(random.below(32)).unwrap_or(0));
        match random.below(30) {
            0..=6 => deliver("INBOX".to_owned()),
            7 => deliver(if random.below(3) == 0 { "no/such".to_owned() } else { any(random) }),
            8 if self.last.is_some() => Op::Again,
            8..=9 => {
                let count = 1 + u32::try_from(random.below(3)).unwrap_or(0);
                let numbers = (self.next_number..self.next_number + count).collect();
                Op::Append { folder: any(random), numbers, system: system(random) }
            }
            10..=12 => {
                let folder = busy(random);
                let uids = uids(random, &folder);
                let mut flags = Flags::system(system(random));
                if random.below(2) == 0 {
                    flags.keywords.extend("$Work".parse());
                }
                let kinds = [FlagChange::Add, FlagChange::Remove, FlagChange::Replace];
                Op::Flags { folder, uids, change: kinds[random.below(3)](flags) }
            }
            13..=14 => {
                let from = busy(random);
                Op::Copy { uids: uids(random, &from), from, to: any(random) }
            }
            15..=16 => {
                let from = busy(random);
                Op::Move { uids: uids(random, &from), from, to: any(random) }
            }
            17..=20 => {
                let folder = busy(random);
                Op::Expunge { uids: uids(random, &folder), folder, only_deleted: random.below(3) == 0 }
            }
            21..=23 => self.random_folder_op(random, &OWN),
            24..=25 => {
                let all: Vec<u64> = self.gone.keys().copied().collect();
                let count = 1 + random.below(3);
                let emails = (0..count).filter_map(|_| all.get(random.below(all.len())).copied()).collect();
                let into = ["B", "Archive", "C/y/z"].get(random.below(6)).map(|name| (*name).to_owned());
                Op::Restore { emails, into }
            }
            26 if self.gone.len() > 6 => Op::Purge(None),
            26 => Op::Purge(Some(self.gone.keys().copied().take(2).collect())),
            27 if random.below(2) == 0 => Op::Quota(Some(self.used() + random.below(40_000) as u64)),
            27 => Op::Quota(None),
            28 => Op::Collect { is_late: is_alone && random.below(2) == 0 },
            _ if is_alone => Op::Snapshot,
            _ => Op::Quota(None),
        }
    }

    fn random_folder_op(&self, random: &mut Random, own: &[&str]) -> Op {
        let (here, missing): (Vec<&str>, Vec<&str>) = own.iter().partition(|name| self.folders.contains_key(**name));
        let pick = |random: &mut Random, some: &[&str]| some.get(random.below(some.len())).map(|n| (*n).to_owned());
        match (random.below(4), pick(random, &here), pick(random, &missing)) {
            (0, Some(from), Some(to)) if self.can_rename(&from, &to) => Op::Rename { from, to },
            (1, _, Some(to)) => Op::Rename { from: "INBOX".to_owned(), to },
            (2, Some(folder), _) => Op::Delete(folder),
            (_, _, Some(folder)) => Op::Create(folder),
            (_, Some(folder), None) => Op::Delete(folder),
            _ => Op::Quota(None),
        }
    }
}
