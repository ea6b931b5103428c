//! One shared picture per open mailbox, advanced by mod-sequence.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use base::{AccountId, Clock, MailboxId, ModSeq};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::StoreError;
use crate::picture::Picture;
use crate::signal::Signals;
use crate::traits::MailStore;

/// Bounds of [`Views`].
#[derive(Clone, Copy, Debug)]
pub struct ViewSettings {
    /// Entries of views that no session holds, kept for the next one that opens the mailbox (24 bytes each).
    pub entries_max: usize,
    /// After this time a view asks the store even though no signal came: signals may be lost between nodes.
    pub recheck_after: Duration,
    /// Other nodes change the mailboxes too: whoever opens one asks the store, for their signals may still be on the way.
    pub is_shared: bool,
}

impl Default for ViewSettings {
    fn default() -> Self {
        Self { entries_max: 4_000_000, recheck_after: Duration::from_secs(30), is_shared: false }
    }
}

/// The views of this node. Correct without: everything in it can be read again.
pub struct Views {
    store: Arc<dyn MailStore>,
    signals: Arc<Signals>,
    clock: Arc<dyn Clock>,
    settings: ViewSettings,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    views: HashMap<(AccountId, MailboxId), Place>,
    uses: u64,
}

/// A view is kept while it is recently used or somebody holds it.
struct Place {
    shared: Weak<View>,
    kept: Option<Arc<View>>,
    last_use: u64,
}

/// What an open view weighs beyond its entries, in entries.
const VIEW_WEIGHT: usize = 64;

/// Opens between two looks at the bound: a look costs one step per view.
const ROOM_CHECKED_EVERY: u64 = 64;

impl Views {
    pub fn new(
        store: Arc<dyn MailStore>,
        signals: Arc<Signals>,
        clock: Arc<dyn Clock>,
        settings: ViewSettings,
    ) -> Self {
        Self { store, signals, clock, settings, open: Mutex::default() }
    }

    /// The view of a mailbox, up to date as of this call; `None` if there is no such mailbox. The first to open it loads
    /// it, everyone who comes meanwhile waits for that one load.
    ///
    /// Cancel safe.
    pub async fn open(&self, account: AccountId, mailbox: MailboxId) -> Result<Option<Arc<View>>, StoreError> {
        let view = self.place(account, mailbox);
        if self.settings.is_shared {
            view.asking.store(true, Ordering::Release);
        }
        let picture = view.refresh().await?;
        let mut open = self.open.lock();
        if picture.is_none() {
            open.views.remove(&(account, mailbox));
            return Ok(None);
        }
        if open.uses.is_multiple_of(ROOM_CHECKED_EVERY) {
            open.make_room(self.settings.entries_max);
        }
        Ok(Some(view))
    }

    fn place(&self, account: AccountId, mailbox: MailboxId) -> Arc<View> {
        let mut open = self.open.lock();
        open.uses += 1;
        let last_use = open.uses;
        if let Some(place) = open.views.get_mut(&(account, mailbox))
            && let Some(view) = place.shared.upgrade()
        {
            *place = Place { shared: Arc::downgrade(&view), kept: Some(Arc::clone(&view)), last_use };
            return view;
        }
        let view = Arc::new(View {
            account,
            mailbox,
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            recheck_after: self.settings.recheck_after,
            hints: Mutex::new(self.signals.subscribe(account)),
            picture: Mutex::new(Shown { picture: Arc::new(Picture::empty()), checked_at: None }),
            weight: AtomicUsize::new(VIEW_WEIGHT),
            gone: AtomicBool::new(false),
            asking: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
        });
        let place = Place { shared: Arc::downgrade(&view), kept: Some(Arc::clone(&view)), last_use };
        open.views.insert((account, mailbox), place);
        view
    }

    /// Mailboxes held and the sum of their entries, for metrics.
    pub fn size(&self) -> (usize, usize) {
        let open = self.open.lock();
        (open.views.len(), open.weight())
    }
}

impl Open {
    fn weight(&self) -> usize {
        self.views.values().filter_map(|place| place.kept.as_ref()).map(|view| view.weight()).sum()
    }

    /// Lets go of the views used longest ago, down to a little under the bound so that this is rare.
    fn make_room(&mut self, entries_max: usize) {
        let mut weight = self.weight();
        if weight <= entries_max {
            return;
        }
        let mut by_use: Vec<_> = self.views.iter().map(|(key, place)| (place.last_use, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if weight <= entries_max - entries_max / 8 {
                break;
            }
            if let Some(view) = self.views.get_mut(&key).and_then(|place| place.kept.take()) {
                weight -= view.weight();
            }
        }
        self.views.retain(|_, place| place.kept.is_some() || place.shared.strong_count() > 0);
    }
}

/// One mailbox as all its sessions on this node see it. A session holds this and the [`Picture`] it last told its client.
pub struct View {
    account: AccountId,
    mailbox: MailboxId,
    store: Arc<dyn MailStore>,
    clock: Arc<dyn Clock>,
    recheck_after: Duration,
    hints: Mutex<watch::Receiver<Option<ModSeq>>>,
    picture: Mutex<Shown>,
    weight: AtomicUsize,
    gone: AtomicBool,
    /// A question was begun and not answered yet: true also after one that failed or was given up.
    asking: AtomicBool,
    /// Whoever holds it asks the store; the others wait and find the work done.
    turn: tokio::sync::Mutex<()>,
}

struct Shown {
    picture: Arc<Picture>,
    /// When the store was last asked; `None` before the first load.
    checked_at: Option<Instant>,
}

impl View {
    pub const fn account(&self) -> AccountId {
        self.account
    }
    pub const fn mailbox(&self) -> MailboxId {
        self.mailbox
    }

    /// The latest picture this node has; asks nobody.
    pub fn current(&self) -> Arc<Picture> {
        Arc::clone(&self.picture.lock().picture)
    }

    /// Hints that the account changed: wait on it in IDLE, then [`View::refresh`].
    pub fn hints(&self) -> watch::Receiver<Option<ModSeq>> {
        let mut hints = self.hints.lock().clone();
        hints.mark_unchanged();
        hints
    }

    /// The picture after everything committed before this call; `None` if the mailbox is gone. Asks the store only
    /// if a signal came or none came for long. Many callers at once cost one question.
    ///
    /// Cancel safe.
    pub async fn refresh(&self) -> Result<Option<Arc<Picture>>, StoreError> {
        if self.is_fresh() {
            return Ok(self.shown());
        }
        let _turn = self.turn.lock().await;
        if self.is_fresh() {
            return Ok(self.shown());
        }
        // Hints count as seen before the question, so that one which comes during it asks again.
        self.asking.store(true, Ordering::Release);
        self.hints.lock().mark_unchanged();
        let picture = self.ask().await?.map(|picture| self.show(picture));
        self.asking.store(false, Ordering::Release);
        Ok(picture)
    }

    fn is_fresh(&self) -> bool {
        // In this order: `asking` is set before the hint is taken.
        let hinted = self.hints.lock().has_changed().unwrap_or(true) || self.asking.load(Ordering::Acquire);
        let checked_at = self.picture.lock().checked_at;
        let is_recent = |at: Instant| self.clock.now().saturating_duration_since(at) < self.recheck_after;
        self.gone.load(Ordering::Acquire) || (!hinted && checked_at.is_some_and(is_recent))
    }

    fn shown(&self) -> Option<Arc<Picture>> {
        if self.gone.load(Ordering::Acquire) { None } else { Some(self.current()) }
    }

    /// The next picture, or `None` if the mailbox is gone (mailbox ids are never reused, so it stays gone).
    async fn ask(&self) -> Result<Option<Picture>, StoreError> {
        let (known, is_loaded) = {
            let shown = self.picture.lock();
            (Arc::clone(&shown.picture), shown.checked_at.is_some())
        };
        if is_loaded
            && let Some(changes) = self.store.changes_since(self.account, self.mailbox, known.highest_modseq()).await?
        {
            return Ok(Some(known.advanced(changes)));
        }
        let states = self.store.states(self.account, self.mailbox).await?;
        if states.is_none() {
            self.gone.store(true, Ordering::Release);
        }
        Ok(states.map(Picture::of))
    }

    fn show(&self, next: Picture) -> Arc<Picture> {
        self.weight.store(VIEW_WEIGHT + next.len(), Ordering::Relaxed);
        let checked_at = Some(self.clock.now());
        let mut shown = self.picture.lock();
        if shown.checked_at.is_some() && next.highest_modseq() == shown.picture.highest_modseq() {
            shown.checked_at = checked_at; // the hint was about another mailbox of the account
        } else {
            *shown = Shown { picture: Arc::new(next), checked_at };
        }
        Arc::clone(&shown.picture)
    }

    fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }
}
