//! Walks the parts of a message, archives in them and documents in those, within one budget.

use mail::mime::decode::{decode_content, decode_header_text};
use mail::mime::{Part, PartBody, Summary};

use crate::archive::{self, Entry, Listing, Packed};
use crate::document::package::{self, Package};
use crate::document::{self, Look, ole, onenote, pdf, rtf, web};
use crate::kind::{HEAD, Kind, NameClass};
use crate::name::Name;
use crate::report::{Mark, Report};
use crate::unpack::{End, Method, unpack, unpack_counted};

/// How far is looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Archives, documents and messages inside each other.
    pub depth: usize,
    /// Attachments and things inside them, of one message.
    pub items: usize,
    /// Octets of them that are looked at, unpacked: also the memory that unpacked content takes at most.
    pub bytes: usize,
    /// Octets of a single one.
    pub item_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { depth: 5, items: 10_000, bytes: 160 * MIB, item_bytes: 64 * MIB }
    }
}

/// Looks at all attachments of a message (as received, transfer encodings and all). Text that is the message itself is
/// not looked at.
pub fn inspect(message: &[u8], limits: &Limits) -> Report {
    let mut walk = Walk::new(limits);
    walk.message(message, "", 0);
    walk.report
}

/// Looks at one attachment: its name, the media type it is declared as (lower case), and its decoded content.
pub fn inspect_part(name: &str, declared: &str, content: &[u8], limits: &Limits) -> Report {
    let mut walk = Walk::new(limits);
    walk.item(&Item { path: "", names: &[name], declared, inside: Inside::Message, depth: 0 }, content);
    walk.report
}

/// As many parts of a message are found; there may be more.
const PARTS_MAX: usize = 1000;
/// Unpacking to so many times the size, beyond what anybody sends, is an attack.
const BOMB_RATIO: usize = 100;
const BOMB_DECLARED: u64 = 1024 * 1024 * 1024;
/// Octets that are unpacked of files which an archive packs together; the names of all are read.
const TOGETHER_MAX: usize = 8 * 1024 * 1024;
/// Octets of a document's inner text that are read.
const TEXT_MAX: usize = 1024 * 1024;
const PATH_MAX: usize = 400;

struct Walk<'l> {
    limits: &'l Limits,
    report: Report,
    items_left: usize,
    bytes_left: usize,
}

/// Where something lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Message,
    Archive,
    /// The only content of a packed stream: `gz`, `bz2`, `xz`.
    Stream,
    Document,
}

struct Item<'a> {
    /// Of what it lies in; empty for the message itself.
    path: &'a str,
    /// What programs may take for its name, the first being the usual one.
    names: &'a [&'a str],
    declared: &'a str,
    inside: Inside,
    depth: usize,
}

impl Item<'_> {
    fn own_path(&self, name: &Name) -> String {
        let name = match (&*name.shown, self.declared) {
            ("", "") => "(no name)",
            ("", declared) => declared,
            (shown, _) => shown,
        };
        join(self.path, name)
    }
}

fn join(path: &str, name: &str) -> String {
    let mut whole = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    whole.truncate(whole.floor_char_boundary(PATH_MAX));
    whole
}

impl<'l> Walk<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, report: Report::default(), items_left: limits.items, bytes_left: limits.bytes }
    }

    /// Takes from the budget what is looked at; false if there is nothing left.
    fn spend(&mut self, bytes: usize, path: &str) -> bool {
        self.report.bytes = self.report.bytes.saturating_add(bytes);
        if self.bytes_left == 0 {
            self.report.note(Mark::TooMuch, path, "more content than is looked at");
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }

    fn message(&mut self, message: &[u8], path: &str, depth: usize) {
        if depth > self.limits.depth {
            self.report.note(Mark::TooDeep, path, "nested deeper than is looked into");
            return;
        }
        let root = Summary::of(message).root;
        let mut parts = 0;
        self.part(&root, message, path, depth, &mut parts);
        if parts >= PARTS_MAX {
            self.report.note(Mark::TooMuch, path, "more parts than are looked at");
        }
    }

    fn part(&mut self, part: &Part, message: &[u8], path: &str, depth: usize, parts: &mut usize) {
        *parts += 1;
        match &part.body {
            PartBody::Multipart { children } => {
                if children.is_empty() && part.content.end.saturating_sub(part.content.start) > 2 {
                    self.report.note(Mark::Damaged, path, "parts without their boundary");
                }
                children.iter().for_each(|child| self.part(child, message, path, depth, parts));
            }
            PartBody::Message { root, .. } => self.part(root, message, path, depth, parts),
            PartBody::Leaf { .. } => self.leaf(part, message, path, depth),
        }
    }

    fn leaf(&mut self, part: &Part, message: &[u8], path: &str, depth: usize) {
        if part.is("multipart", None) {
            // The walk through the message ended here.
            self.report.note(Mark::TooDeep, path, "nested deeper than is looked into");
            return;
        }
        let declared = format!("{}/{}", part.media_type, part.media_subtype).to_ascii_lowercase();
        let range = usize::try_from(part.content.start).unwrap_or(0)..usize::try_from(part.content.end).unwrap_or(0);
        let raw = message.get(range).unwrap_or_default();
        if part.is("message", Some("rfc822")) || part.is("message", Some("global")) {
            if self.spend(raw.len(), path) {
                self.message(&decode_content(part, raw), path, depth + 1);
            }
            return;
        }
        let names = names_of(part);
        let is_attached = part.disposition.as_ref().is_some_and(|disposition| disposition.kind == "attachment");
        let is_shown = part.is("text", None) && names.is_empty() && !is_attached;
        let is_uu = matches!(part.encoding.as_str(), "X-UUENCODE" | "X-UUE" | "UUENCODE");
        if is_uu || is_shown && part.is("text", Some("plain")) {
            for (name, content) in crate::uu::files(&decode_content(part, raw)) {
                let item = Item { path, names: &[&name], declared: &declared, inside: Inside::Message, depth };
                self.item(&item, &content);
            }
        }
        if is_shown && NameClass::of_type(&declared) == NameClass::Other {
            return;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let content = decode_content(part, raw);
        self.item(&Item { path, names: &names, declared: &declared, inside: Inside::Message, depth }, &content);
    }

    /// Something whose content is at hand.
    fn item(&mut self, item: &Item<'_>, content: &[u8]) {
        let Some((name, path)) = self.by_name(item) else { return };
        let kind = Kind::of(content);
        self.by_kind(item, &name, kind, &path);
        let is_message = item.declared == "message/rfc822" || name.extension == "eml";
        if !(kind.needs_whole() || is_message) {
            self.spend(content.len().min(HEAD), &path);
            return;
        }
        if self.spend(content.len(), &path) {
            self.whole(item, &name, kind, content, &path);
        }
    }

    /// An entry of an archive.
    fn entry(&mut self, item: &Item<'_>, packed: Option<Packed<'_>>) {
        let Some(packed) = packed.filter(|_| self.bytes_left > 0) else {
            if packed.is_some() {
                self.spend(0, item.path);
            }
            self.by_name(item);
            return;
        };
        if packed.method == Method::Stored {
            return self.item(item, packed.data);
        }
        let Some((name, path)) = self.by_name(item) else { return };
        let (head, end, cost) = unpack_counted(packed.method, packed.data, HEAD.min(self.bytes_left));
        self.spend(cost, &path);
        if end == End::Broken {
            self.report.note(Mark::Damaged, &path, "content cannot be unpacked");
        }
        if matches!(end, End::Limit(_)) && head.is_empty() {
            self.report.note(Mark::TooMuch, &path, "content that takes too much to unpack");
        }
        let kind = Kind::of(&head);
        self.by_kind(item, &name, kind, &path);
        if !(kind.needs_whole() || name.extension == "eml") {
            return;
        }
        if !matches!(end, End::Limit(_)) {
            return self.whole(item, &name, kind, &head, &path);
        }
        let room = self.limits.item_bytes.min(self.bytes_left / packed.method.cost());
        let (whole, end, cost) = unpack_counted(packed.method, packed.data, room);
        drop(head);
        self.spend(cost, &path);
        if let End::Limit(read) = end {
            if whole.len() / BOMB_RATIO > read {
                self.report.note(Mark::Bomb, &path, "unpacks to far more than it is");
                return;
            }
            self.report.note(Mark::TooMuch, &path, "more content than is looked at");
        }
        self.whole(item, &name, kind, &whole, &path);
    }

    /// What names say. `None` if there are more things than are looked at.
    fn by_name(&mut self, item: &Item<'_>) -> Option<(Name, String)> {
        let mut names = item.names.iter().map(|name| Name::read(name));
        let first = names.next().unwrap_or_default();
        let path = item.own_path(&first);
        if self.items_left == 0 {
            self.report.note(Mark::TooMuch, item.path, "more files than are looked at");
            return None;
        }
        self.items_left -= 1;
        self.report.items += 1;
        self.read_name(&first, &path);
        for other in names {
            self.read_name(&other, &join(item.path, &other.shown));
        }
        Some((first, path))
    }

    fn read_name(&mut self, name: &Name, path: &str) {
        self.report.note_extension(&name.extension, path);
        let class = NameClass::of(&name.extension);
        // Names end in `.com` for other reasons: that is for the content to say.
        if name.extension != "com" {
            self.by_class(class, path);
        }
        if class == NameClass::MacroDocument {
            self.report.note(Mark::Macro, path, "document for macros, by its name");
        }
        let tricks = name.tricks;
        let is_bad = class.is_dangerous() || class == NameClass::DiskImage;
        if tricks.reversed {
            self.report.note(Mark::Disguised, path, "name with turned reading direction");
        } else if tricks.look_alike && (is_bad || class == NameClass::MacroDocument) {
            self.report.note(Mark::Disguised, path, "extension of letters that look alike");
        } else if is_bad && (tricks.trailing || tricks.padded) {
            self.report.note(Mark::Disguised, path, "extension out of sight");
        } else if class.is_dangerous() && NameClass::of(&name.inner_extension).is_harmless() && name.extension != "com"
        {
            self.report.note(Mark::Disguised, path, "double extension");
        }
    }

    fn by_class(&mut self, class: NameClass, path: &str) {
        let (mark, what) = match class {
            NameClass::Program => (Mark::Executable, "program, by its name"),
            NameClass::Script => (Mark::Script, "script, by its name"),
            NameClass::Shortcut => (Mark::Shortcut, "shortcut, by its name"),
            NameClass::DiskImage => (Mark::DiskImage, "disk image, by its name"),
            NameClass::MacroDocument
            | NameClass::Archive
            | NameClass::Office
            | NameClass::Pdf
            | NameClass::Web
            | NameClass::Vector
            | NameClass::Message
            | NameClass::Picture
            | NameClass::Audio
            | NameClass::Video
            | NameClass::Text
            | NameClass::Other => return,
        };
        self.report.note(mark, path, what);
    }

    /// What the kind of content says, against the name and the declared type.
    fn by_kind(&mut self, item: &Item<'_>, name: &Name, kind: Kind, path: &str) {
        match kind {
            Kind::Program => self.report.note(Mark::Executable, path, "program, by its content"),
            Kind::Script | Kind::Help => self.report.note(Mark::Script, path, "script, by its content"),
            Kind::Shortcut => self.report.note(Mark::Shortcut, path, "shortcut, by its content"),
            Kind::Iso | Kind::DiskImage => self.report.note(Mark::DiskImage, path, "disk image, by its content"),
            _ => {}
        }
        let class = NameClass::of(&name.extension);
        if name.extension == "com" && matches!(kind, Kind::Text | Kind::Unknown) {
            self.report.note(Mark::Executable, path, "program, by its name");
        }
        if name.extension.is_empty() {
            self.by_class(NameClass::of_type(item.declared), path);
        }
        let family = item.declared.split('/').next().unwrap_or_default();
        let claims = class.is_harmless()
            || class == NameClass::Other
                && (matches!(family, "image" | "audio" | "video" | "text") || item.declared == "application/pdf");
        if matches!(kind, Kind::Program | Kind::Shortcut) && claims {
            self.report.note(Mark::Disguised, path, "program under a harmless name");
        } else if !class.agrees(kind) {
            self.report.note(Mark::Mismatch, path, "content of another kind than the name");
        }
    }

    /// Content that has to be looked at as a whole.
    fn whole(&mut self, item: &Item<'_>, name: &Name, kind: Kind, content: &[u8], path: &str) {
        if item.depth >= self.limits.depth && !matches!(kind, Kind::Html | Kind::Svg | Kind::Pdf | Kind::Rtf) {
            self.report.note(Mark::TooDeep, path, "nested deeper than is looked into");
            return;
        }
        let depth = item.depth + 1;
        let max = self.items_left.saturating_add(1);
        let is_nested = item.inside == Inside::Archive || item.inside == Inside::Stream && kind != Kind::Tar;
        if kind.is_archive() && kind != Kind::Zip && is_nested {
            self.report.note(Mark::NestedArchive, path, "archive in an archive");
        }
        match kind {
            Kind::Zip => {
                let listing = archive::zip::list(content, max);
                let package = Package::of(listing.entries.iter().map(|entry| &*entry.name));
                match package {
                    Package::Java | Package::Android => {
                        self.report.note(Mark::Executable, path, "Java or Android program");
                    }
                    Package::Plain if is_nested => {
                        self.report.note(Mark::NestedArchive, path, "archive in an archive");
                    }
                    Package::OfficeOpenXml | Package::OpenDocument => self.package(&listing, path),
                    Package::Plain => {}
                }
                let inside = if package.is_document() { Inside::Document } else { Inside::Archive };
                self.entries(listing, content.len(), path, inside, depth);
            }
            Kind::Rar => self.archive(archive::rar::list(content, max), content.len(), path, depth),
            Kind::SevenZip => self.archive(archive::seven::list(content, max), content.len(), path, depth),
            Kind::Tar => self.archive(archive::tar::list(content, max), content.len(), path, depth),
            Kind::Cabinet => self.archive(archive::cab::list(content, max), content.len(), path, depth),
            Kind::Iso => self.archive(archive::iso::list(content, max), content.len(), path, depth),
            Kind::Tnef => {
                let listing = archive::tnef::list(content, max);
                self.entries(listing, content.len(), path, Inside::Message, depth);
            }
            Kind::Gzip => self.stream(Method::Gzip, item, name, content, path),
            Kind::Bzip2 => self.stream(Method::Bzip2, item, name, content, path),
            Kind::Xz => self.stream(Method::Xz, item, name, content, path),
            Kind::Ole => self.document(ole::look(content), path, depth),
            Kind::OneNote => self.document(onenote::look(content), path, depth),
            Kind::Pdf => self.document(pdf::look(content), path, depth),
            Kind::Rtf => self.document(rtf::look(content), path, depth),
            Kind::Html => self.document(web::look_html(content), path, depth),
            Kind::Svg => self.document(web::look_svg(content), path, depth),
            _ => self.message(content, path, depth),
        }
    }

    fn archive(&mut self, listing: Listing<'_>, size: usize, path: &str, depth: usize) {
        self.entries(listing, size, path, Inside::Archive, depth);
    }

    fn entries(&mut self, listing: Listing<'_>, size: usize, path: &str, inside: Inside, depth: usize) {
        if listing.names_are_encrypted {
            self.report.note(Mark::Encrypted, path, "archive with a password, names and all");
        } else if listing.entries.iter().any(|entry| entry.is_encrypted) {
            self.report.note(Mark::Encrypted, path, "archive with a password");
        }
        let ratio = listing.declared_bytes / u64::try_from(size.max(1)).unwrap_or(u64::MAX);
        let explodes = listing.overlaps
            || listing.declared_bytes > BOMB_DECLARED && usize::try_from(ratio).is_ok_and(|ratio| ratio > BOMB_RATIO);
        if explodes {
            self.report.note(Mark::Bomb, path, "unpacks to far more than it is");
        }
        if listing.is_damaged {
            self.report.note(Mark::Damaged, path, "archive that does not fit its format");
        }
        if listing.is_cut {
            self.report.note(Mark::TooMuch, path, "more files than are looked at");
        }
        // What files that are packed together unpack to: of which stream, and its first octets.
        let mut together: Option<(Packed<'_>, Vec<u8>)> = None;
        let mut together_left = TOGETHER_MAX;
        for Entry { name, other_name, content, within, is_folder, .. } in listing.entries {
            if is_folder {
                continue;
            }
            let names: Vec<&str> = std::iter::once(&*name).chain(other_name.as_deref()).collect();
            let item = Item { path, names: &names, declared: "", inside, depth };
            let content = content.filter(|_| !explodes);
            let (Some(packed), Some(within)) = (content, within) else {
                self.entry(&item, content);
                continue;
            };
            if together.as_ref().is_none_or(|(known, _)| !std::ptr::eq(known.data, packed.data)) {
                let room = together_left.min(self.bytes_left / packed.method.cost());
                let (unpacked, _, cost) = unpack_counted(packed.method, packed.data, room);
                self.spend(cost, path);
                together_left = together_left.saturating_sub(unpacked.len());
                together = Some((packed, unpacked));
            }
            let unpacked = together.as_ref().map_or(&[][..], |(_, unpacked)| unpacked.as_slice());
            match unpacked.get(within.start..within.end.min(unpacked.len())).filter(|piece| !piece.is_empty()) {
                Some(piece) => self.item(&item, piece),
                None => drop(self.by_name(&item)),
            }
        }
    }

    /// What makes a document of an archive: macros, remote templates, passwords.
    fn package(&mut self, listing: &Listing<'_>, path: &str) {
        for entry in &listing.entries {
            let mut mark = package::mark_of(&entry.name);
            if mark.is_none()
                && package::is_read(&entry.name)
                && let Some(packed) = entry.content.filter(|_| self.bytes_left > 0)
            {
                let (text, _) = unpack(packed.method, packed.data, TEXT_MAX.min(self.bytes_left));
                self.spend(text.len(), path);
                mark = package::mark_of_text(&text);
            }
            if let Some((mark, what)) = mark {
                self.report.note(mark, path, what);
            }
        }
    }

    /// A packed stream with one content.
    fn stream(&mut self, method: Method, item: &Item<'_>, name: &Name, packed: &[u8], path: &str) {
        let inner = match &*name.extension {
            "tgz" | "tbz" | "tbz2" | "txz" => format!("{}.tar", stem(&name.shown)),
            "gz" | "bz2" | "xz" | "z" => stem(&name.shown).to_owned(),
            "svgz" => format!("{}.svg", stem(&name.shown)),
            _ => String::new(),
        };
        // The stream's own name is what `gunzip -N` and some file managers make of it.
        let stored = if method == Method::Gzip { gzip_name(packed) } else { None };
        let mut names: Vec<&str> = vec![&inner];
        names.extend(stored.as_deref());
        names.sort_by_key(|name| name.is_empty());
        let depth = item.depth + 1;
        let is_tar = {
            let (head, _, cost) = unpack_counted(method, packed, 512.min(self.bytes_left));
            self.spend(cost, path);
            Kind::of(&head) == Kind::Tar
        };
        // A packed tape archive is one archive to people.
        let depth = if is_tar { depth - 1 } else { depth };
        let inner = Item { path, names: &names, declared: "", inside: Inside::Stream, depth };
        self.entry(&inner, Some(Packed { method, data: packed }));
    }

    fn document(&mut self, look: Look<'_>, path: &str, depth: usize) {
        for (mark, what) in look.marks {
            self.report.note(mark, path, what);
        }
        for document::Child { name, content } in look.children {
            let item = Item { path, names: &[&name], declared: "", inside: Inside::Document, depth };
            self.item(&item, &content);
        }
    }
}

/// The names of a part: of its disposition and of its type. Programs differ in which they take.
fn names_of(part: &Part) -> Vec<String> {
    let of = |parameters: &[mail::mime::Parameter], wanted: &str| {
        parameters.iter().find(|parameter| parameter.name == wanted).map(|parameter| parameter.value.clone())
    };
    let disposition = part.disposition.as_ref().and_then(|disposition| of(&disposition.parameters, "filename"));
    let mut names: Vec<String> = Vec::new();
    for name in disposition.into_iter().chain(of(&part.parameters, "name")) {
        // Not allowed there (RFC 2047 §5), and everybody does it.
        let name = if name.contains("=?") { decode_header_text(name.as_bytes()) } else { name };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The name in a gzip header (RFC 1952 §2.3).
fn gzip_name(data: &[u8]) -> Option<String> {
    let mut cursor = crate::bytes::Cursor::at(data, 3);
    let flags = cursor.u8()?;
    cursor.skip(6)?;
    if flags & 4 != 0 {
        let length = cursor.u16()?;
        cursor.skip(length.into())?;
    }
    if flags & 8 == 0 {
        return None;
    }
    let name = cursor.until_nul();
    Some(crate::bytes::unknown_text(name.get(..archive::NAME_MAX).unwrap_or(name)))
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
