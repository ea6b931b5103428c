//! FETCH: from the picture alone where that is enough, from summaries where it can be, from bodies where it must.

use std::ops::Range;
use std::sync::Arc;

use mail::mime::Summary;
use store::{BlobStore, Entry, EntryContent, EntryView, FlagChange, Flags, Keyword, StoreError, SystemFlags};

use crate::batch::{Batch, Batches};
use crate::connection::{Connection, Services, Stop};
use crate::content::{self, STEP, Wanted, locate};
use crate::mime::summary_of;
use crate::proto::{Fetch, FetchItem, Ranges, Reply, SectionItem, SectionText, SequenceSet, write};
use crate::structure;
use crate::wire::{Closed, Wire};

/// What a FETCH writes for each message.
struct Plan {
    items: Vec<FetchItem>,
    needs_entry: bool,
    needs_summary: bool,
    marks_seen: bool,
}

impl Plan {
    fn of(fetch: &Fetch, by_uid: bool, read_only: bool) -> Self {
        let mut items = fetch.items.clone();
        if by_uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        if fetch.changed_since.is_some() && !items.contains(&FetchItem::ModSeq) {
            items.push(FetchItem::ModSeq);
        }
        let any = |holds: fn(&FetchItem) -> bool| items.iter().any(holds);
        let needs_summary = any(|item| {
            use FetchItem::{Envelope, Preview, Section, Structure};
            matches!(item, Envelope | Structure { .. } | Preview | Section(_))
        });
        let needs_entry = any(|item| matches!(item, FetchItem::InternalDate | FetchItem::Size | FetchItem::ThreadId));
        let marks_seen = !read_only && any(|item| matches!(item, FetchItem::Section(section) if !section.peek));
        Self { items, needs_entry: needs_entry || needs_summary, needs_summary, marks_seen }
    }
}

/// Why one message's response was not written.
enum RowFailure {
    /// Its content cannot be read now, or no more; nothing of the response is out yet.
    Content(StoreError),
    Closed(Closed),
}

impl From<Closed> for RowFailure {
    fn from(closed: Closed) -> Self {
        Self::Closed(closed)
    }
}

/// What went wrong along the way, for the answer at the end.
#[derive(Default)]
struct Outcome {
    unread: Option<StoreError>,
    gone: bool,
    seen: Ranges,
}

impl Connection {
    pub async fn fetch(&mut self, by_uid: bool, set: &SequenceSet, fetch: Fetch) -> Result<Reply, Stop> {
        let uids = self.uids(by_uid, set)?;
        // RFC 7162 §3.1: asking for mod-sequences makes the client a CONDSTORE client.
        self.session.condstore |= fetch.changed_since.is_some() || fetch.items.contains(&FetchItem::ModSeq);
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        let Some(selected) = self.session.selected() else { return Err(Reply::bad("Select a mailbox first").into()) };
        let picture = Arc::clone(&selected.seen.picture);
        let plan = Plan::of(&fetch, by_uid, selected.read_only);
        let mut batches = Batches::of_uids(&picture, &uids);
        if let Some(since) = fetch.changed_since {
            let changed = batches.entries(&picture).filter(|entry| entry.modseq.as_raw() > since);
            batches = Batches::of_indexes(changed.map(|entry| entry.index));
        }
        if !plan.needs_entry {
            for entry in batches.entries(&picture) {
                row_from_picture(&mut self.wire.out, &plan, entry);
                self.wire.flush_some().await?;
            }
            return Ok(Reply::ok("FETCH completed"));
        }

        let services = Arc::clone(&self.services);
        let mut outcome = Outcome::default();
        let load = |batch: &Batch| services.mail.entries(account, mailbox, batch.uids(&picture), batch.len);
        let mut current = match batches.next() {
            Some(batch) => Some((load(&batch).await?, batch)),
            None => None,
        };
        while let Some((entries, batch)) = current {
            let following = batches.next();
            // The next entries are read while these are written.
            let read = async {
                match &following {
                    Some(batch) => load(batch).await.map(Some),
                    None => Ok(None),
                }
            };
            let written = async {
                outcome.gone |= entries.len() < batch.len;
                for (view, entry) in batch.pairs(&picture, &entries) {
                    row(&mut self.wire, &services, &plan, view, entry, &mut outcome).await?;
                }
                Ok::<(), Closed>(())
            };
            let (loaded, written) = tokio::join!(read, written);
            written?;
            current = loaded?.zip(following);
        }
        if plan.marks_seen && !outcome.seen.is_empty() {
            let seen = std::mem::take(&mut outcome.seen).into_uids();
            let change = FlagChange::Add(Flags::system(SystemFlags::SEEN));
            // The news that follow every command tell the new flags.
            if let Err(error) = services.mail.set_flags(account, mailbox, seen, change, None).await {
                self.store_failed(&error);
            }
        }
        if let Some(error) = outcome.unread {
            self.store_failed(&error);
            return Err(error.into());
        }
        if outcome.gone && !by_uid {
            return Ok(Reply::no("EXPUNGEISSUED", "Some of the messages are gone"));
        }
        Ok(Reply::ok("FETCH completed"))
    }
}

/// One message's response, whole or not at all.
async fn row(
    wire: &mut Wire,
    services: &Services,
    plan: &Plan,
    view: EntryView<'_>,
    entry: &Entry,
    outcome: &mut Outcome,
) -> Result<(), Closed> {
    let start = wire.out.len();
    let sent = wire.sent;
    match row_items(wire, services, plan, view, entry).await {
        Ok(()) => {
            if plan.marks_seen && !view.flags.system.contains(SystemFlags::SEEN) {
                outcome.seen.push(view.uid.as_raw());
            }
            wire.flush_some().await
        }
        Err(RowFailure::Content(error)) if wire.sent == sent => {
            wire.out.truncate(start);
            outcome.unread = Some(error);
            Ok(())
        }
        // A literal was begun and cannot be ended: only closing tells the client.
        Err(RowFailure::Content(_)) => Err(Closed::Gone),
        Err(RowFailure::Closed(closed)) => Err(closed),
    }
}

async fn row_items(
    wire: &mut Wire,
    services: &Services,
    plan: &Plan,
    view: EntryView<'_>,
    entry: &Entry,
) -> Result<(), RowFailure> {
    let summary = match plan.needs_summary {
        true => Some(summary_of(&*services.mime, entry).map_err(RowFailure::Content)?),
        false => None,
    };
    row_start(&mut wire.out, view);
    for (at, item) in plan.items.iter().enumerate() {
        if at > 0 {
            wire.out.push(b' ');
        }
        match (item, &summary) {
            (FetchItem::Section(section), Some(summary)) => {
                write_section(wire, &services.blobs, section, summary, entry).await?
            }
            (item, summary) => write_item(&mut wire.out, item, view, entry, summary.as_ref()),
        }
    }
    wire.out.extend_from_slice(b")\r\n");
    Ok(())
}

fn row_start(out: &mut Vec<u8>, view: EntryView<'_>) {
    out.extend_from_slice(b"* ");
    write::number(out, view.index as u64 + 1);
    out.extend_from_slice(b" FETCH (");
}

fn row_from_picture(out: &mut Vec<u8>, plan: &Plan, view: EntryView<'_>) {
    row_start(out, view);
    for (at, item) in plan.items.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        write_known(out, item, view);
    }
    out.extend_from_slice(b")\r\n");
}

/// Items that a picture answers.
fn write_known(out: &mut Vec<u8>, item: &FetchItem, view: EntryView<'_>) {
    match item {
        FetchItem::Uid => {
            out.extend_from_slice(b"UID ");
            write::number(out, view.uid.as_raw().into());
        }
        FetchItem::Flags => {
            out.extend_from_slice(b"FLAGS ");
            write::flags(out, view.flags.system, view.flags.keywords.iter().map(Keyword::as_str));
        }
        FetchItem::ModSeq => {
            out.extend_from_slice(b"MODSEQ (");
            write::number(out, view.modseq.as_raw());
            out.push(b')');
        }
        FetchItem::EmailId => {
            out.extend_from_slice(b"EMAILID (M");
            write::number(out, view.email.0);
            out.push(b')');
        }
        _ => debug_assert!(false, "the plan asked for the entry"),
    }
}

/// Items that entry and summary answer.
fn write_item(out: &mut Vec<u8>, item: &FetchItem, view: EntryView<'_>, entry: &Entry, summary: Option<&Summary>) {
    match (item, summary) {
        (FetchItem::InternalDate, _) => {
            out.extend_from_slice(b"INTERNALDATE ");
            write::internal_date(out, entry.internal_date);
        }
        (FetchItem::Size, _) => {
            out.extend_from_slice(b"RFC822.SIZE ");
            write::number(out, entry.size_bytes);
        }
        (FetchItem::ThreadId, _) => {
            out.extend_from_slice(b"THREADID (T");
            write::number(out, entry.thread.0);
            out.push(b')');
        }
        (FetchItem::Envelope, Some(summary)) => {
            out.extend_from_slice(b"ENVELOPE ");
            structure::envelope(out, &summary.envelope);
        }
        (FetchItem::Structure { extended }, Some(summary)) => {
            out.extend_from_slice(if *extended { b"BODYSTRUCTURE " } else { b"BODY " });
            structure::structure(out, &summary.root, *extended);
        }
        (FetchItem::Preview, Some(summary)) => {
            out.extend_from_slice(b"PREVIEW ");
            // RFC 8970 §3.1: at most 200 characters.
            let end = summary.preview.char_indices().nth(200).map_or(summary.preview.len(), |(at, _)| at);
            write::string(out, &summary.preview.as_bytes()[..end]);
        }
        (item, _) => write_known(out, item, view),
    }
}

async fn write_section(
    wire: &mut Wire,
    blobs: &Arc<dyn BlobStore>,
    item: &SectionItem,
    summary: &Summary,
    entry: &Entry,
) -> Result<(), RowFailure> {
    let content = || EntryContent::new(Arc::clone(blobs), entry);
    wire.out.extend_from_slice(&item.label);
    wire.out.push(b' ');
    match (locate(&item.section, summary, entry), &item.section.text) {
        (Wanted::Octets(range), _) => write_octets(wire, &content(), entry, partial(range, item.partial)).await,
        (Wanted::Fields(range), SectionText::HeaderFields { names, except }) => {
            let mut fields = Vec::new();
            if item.section.path.is_empty() && content::are_common(names, *except) {
                content::select_fields(&mut fields, &entry.prefix, names, *except);
                content::select_fields(&mut fields, &summary.common_fields, names, *except);
            } else {
                let header = content::read_header(&content(), range).await.map_err(RowFailure::Content)?;
                content::select_fields(&mut fields, &header, names, *except);
            }
            // RFC 3501 §6.4.5: the delimiting blank line is always there.
            fields.extend_from_slice(b"\r\n");
            let part = partial(0..fields.len() as u64, item.partial);
            let text = usize::try_from(part.start).ok().zip(usize::try_from(part.end).ok());
            let text = text.and_then(|(start, end)| fields.get(start..end)).unwrap_or_default();
            write::literal_head(&mut wire.out, text.len() as u64);
            wire.out.extend_from_slice(text);
            Ok(())
        }
        _ => {
            wire.out.extend_from_slice(b"NIL");
            Ok(())
        }
    }
}

/// A literal, read and sent in steps: the next step is read while this one is sent.
async fn write_octets(
    wire: &mut Wire,
    content: &EntryContent,
    entry: &Entry,
    range: Range<u64>,
) -> Result<(), RowFailure> {
    let step = |from: u64| from..range.end.min(from.saturating_add(STEP));
    let short = || RowFailure::Content(StoreError::Damaged { what: format!("blob {} is too short", entry.blob) });
    let mut at = range.start;
    let mut piece = content.read(step(at)).await.map_err(RowFailure::Content)?;
    if piece.len() as u64 != step(at).end - at {
        return Err(short());
    }
    write::literal_head(&mut wire.out, range.end - range.start);
    loop {
        wire.out.extend_from_slice(&piece);
        at += piece.len() as u64;
        if at >= range.end {
            return Ok(());
        }
        let (sent, next) = tokio::join!(wire.flush_some(), content.read(step(at)));
        sent?;
        piece = next.map_err(RowFailure::Content)?;
        if piece.len() as u64 != step(at).end - at {
            return Err(short());
        }
    }
}

/// RFC 3501 §6.4.5: what lies beyond the end is cut off.
fn partial(range: Range<u64>, partial: Option<(u64, u64)>) -> Range<u64> {
    let Some((offset, length)) = partial else { return range };
    let start = range.start.saturating_add(offset).min(range.end);
    start..start.saturating_add(length).min(range.end)
}
