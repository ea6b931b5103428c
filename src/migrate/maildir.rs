//! Maildir folders, as Dovecot and Courier nest them (Maildir++) and as mbsync does (folders in folders).

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base::{ByteSize, UtcMillis};
use store::{Flags, Keyword, MailboxName, SystemFlags};

use crate::folder::{self, DEPTH_MAX, Folder};
use crate::message::{Message, Trouble, with_crlf};

/// What is read of a small file.
const LIST_MAX: u64 = 4 << 20;
const KEYWORDS_FILE: &str = "dovecot-keywords";
const SUBSCRIPTIONS_FILE: &str = "subscriptions";
/// Letters for keywords: `a` to `z`.
const LETTERS: usize = 26;
const LETTER_FLAGS: [(u8, SystemFlags); 5] = [
    (b'D', SystemFlags::DRAFT),
    (b'F', SystemFlags::FLAGGED),
    (b'R', SystemFlags::ANSWERED),
    (b'S', SystemFlags::SEEN),
    (b'T', SystemFlags::DELETED),
];
/// Passed on: a flag letter of Maildir, a keyword in IMAP.
const PASSED: &str = "$Forwarded";
/// An earlier time in a file's name is no time.
const NAME_TIME_MIN: i64 = 315_532_800;

/// All folders at and below `root`, by name, and what could not be looked at. `root` itself is INBOX if it is a folder.
pub fn folders(root: &Path) -> (Vec<Folder>, Vec<Trouble>) {
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    if is_folder(root) {
        found.push(Folder { name: MailboxName::inbox(), path: root.to_path_buf() });
    }
    find_below(root, &[], &mut found, &mut troubles);
    found.sort();
    (found, troubles)
}

fn is_folder(path: &Path) -> bool {
    path.join("cur").is_dir() || path.join("new").is_dir()
}

fn find_below(path: &Path, levels: &[String], found: &mut Vec<Folder>, troubles: &mut Vec<Trouble>) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return troubles.push(Trouble::io(path, error)),
    };
    for entry in entries {
        let path = match entry {
            // A link could lead round in circles.
            Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => entry.path(),
            Ok(_) => continue,
            Err(error) => {
                troubles.push(Trouble::io(path, error));
                continue;
            }
        };
        let Some(raw) = path.file_name().and_then(|name| name.to_str()) else {
            troubles.push(Trouble::damaged(&path, "the name is not UTF-8"));
            continue;
        };
        if matches!(raw, "cur" | "new" | "tmp") {
            continue;
        }
        let mut here = levels.to_vec();
        match raw.strip_prefix('.') {
            Some(dotted) => here.extend(dotted.split('.').map(str::to_owned)),
            None => here.push(raw.to_owned()),
        }
        if is_folder(&path) {
            match folder::name_of(here.iter().map(String::as_str)) {
                Some(name) => found.push(Folder { name, path: path.clone() }),
                None => troubles.push(Trouble::damaged(&path, "its name can name no mailbox")),
            }
        }
        if here.len() < DEPTH_MAX {
            find_below(&path, &here, found, troubles);
        }
    }
}

/// Names in the lists of subscribed folders that Dovecot and Courier keep; `None` if there is none.
pub fn subscriptions(root: &Path) -> Option<BTreeSet<MailboxName>> {
    if let Ok(text) = read_list(&root.join(SUBSCRIPTIONS_FILE)) {
        let separator = if text.starts_with("V\t2") { '\t' } else { '.' };
        let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with("V\t"));
        return Some(names.filter_map(|line| folder::name_of(line.split([separator, '/']))).collect());
    }
    let text = read_list(&root.join("courierimapsubscribed")).ok()?;
    let names = text.lines().map(|line| line.strip_prefix("INBOX.").unwrap_or(line));
    Some(names.filter_map(|line| folder::name_of(line.split('.'))).collect())
}

fn read_list(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(LIST_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Keywords of the letters `a` to `z`, as Dovecot numbers them. A number without a word has an empty one.
fn read_keywords(folder: &Path) -> Vec<String> {
    let mut words = vec![String::new(); LETTERS];
    for line in read_list(&folder.join(KEYWORDS_FILE)).unwrap_or_default().lines() {
        let Some((number, word)) = line.split_once(' ') else { continue };
        if let Some(slot) = number.parse::<usize>().ok().and_then(|number| words.get_mut(number)) {
            *slot = word.to_owned();
        }
    }
    words
}

/// Reads the messages of one folder, the oldest file first.
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    keywords: Vec<String>,
    limit: ByteSize,
}

impl Reader {
    pub fn open(folder: &Path, limit: ByteSize) -> Result<Self, Trouble> {
        let mut files = Vec::new();
        for part in ["cur", "new"] {
            let part = folder.join(part);
            let entries = match fs::read_dir(&part) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Trouble::io(&part, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| Trouble::io(&part, error))?;
                let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if !is_hidden && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    files.push(entry.path());
                }
            }
        }
        files.sort_by_cached_key(|path| (name_time(path).unwrap_or(0), path.file_name().map(ToOwned::to_owned)));
        Ok(Self { files: files.into_iter(), keywords: read_keywords(folder), limit })
    }

    fn read(&self, path: &Path) -> Result<Message, Trouble> {
        let failed = |error| Trouble::io(path, error);
        let file = File::open(path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        let too_large = || Trouble::TooLarge { path: path.to_path_buf(), line: None, limit: self.limit };
        if facts.len() > self.limit.0 {
            return Err(too_large());
        }
        let mut content = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0));
        file.take(self.limit.0.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > self.limit.0 {
            return Err(too_large());
        }
        if content.is_empty() {
            return Err(Trouble::damaged(path, "an empty file"));
        }
        let modified = facts.modified().map_err(failed)?;
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let modified = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => UtcMillis(millis(after)),
            Err(before) => UtcMillis(-millis(before.duration())),
        };
        Ok(Message { content: with_crlf(content), flags: self.flags(path), internal_date: date(path, modified) })
    }

    fn flags(&self, path: &Path) -> Flags {
        let mut flags = Flags::default();
        for letter in info(path).bytes() {
            if let Some((_, flag)) = LETTER_FLAGS.iter().find(|(known, _)| *known == letter) {
                flags.system = flags.system.with(*flag);
            }
            let word = match letter {
                b'P' => PASSED,
                b'a'..=b'z' => self.keywords.get(usize::from(letter - b'a')).map_or("", String::as_str),
                _ => "",
            };
            flags.keywords.extend(word.parse::<Keyword>());
        }
        flags
    }
}

impl Iterator for Reader {
    type Item = Result<Message, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.files.next()?;
        Some(self.read(&path))
    }
}

/// The letters after `:2,`; some file systems forbid the colon.
fn info(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let at = [":2,", ";2,", "!2,"].iter().find_map(|mark| name.rfind(mark));
    at.and_then(|at| name.get(at + 3..)).unwrap_or_default()
}

fn name_time(path: &Path) -> Option<i64> {
    let name = path.file_name()?.to_str()?;
    name.split('.').next()?.parse().ok().filter(|seconds| *seconds >= NAME_TIME_MIN)
}

/// The file's time is the message's date; but where the file was touched after it got its name (copied, say), the time
/// in its name is nearer.
fn date(path: &Path, modified: UtcMillis) -> UtcMillis {
    match name_time(path) {
        Some(seconds) if seconds < modified.as_secs() => UtcMillis::from_secs(seconds),
        _ => modified,
    }
}

/// Names a message for good, so that a second run knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key<'a> {
    pub account: &'a str,
    pub uid_validity: u32,
    pub uid: u32,
    pub internal_date: UtcMillis,
    pub size_bytes: u64,
}

impl Key<'_> {
    /// `S=` is what Dovecot and Courier count quota by.
    fn file_name(&self) -> String {
        let account: String = self
            .account
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "@-_".contains(c) { c } else { '_' })
            .collect();
        let seconds = self.internal_date.as_secs().max(0);
        format!("{seconds}.V{}U{}.{account},S={}", self.uid_validity, self.uid, self.size_bytes)
    }
}

/// Writes one folder of a Maildir++.
pub struct Writer {
    path: PathBuf,
    /// Names of files in `cur` and `new` by what stands before the flags.
    present: HashMap<String, PathBuf>,
    keywords: Vec<String>,
}

impl Writer {
    /// Opens or makes the folder of `name` in the Maildir++ at `root`.
    pub fn open(root: &Path, name: &MailboxName) -> Result<Self, Trouble> {
        let levels: Vec<String> = name.as_str().split(MailboxName::DELIMITER).map(folder::encode_level).collect();
        let path = if name.is_inbox() { root.to_path_buf() } else { root.join(format!(".{}", levels.join("."))) };
        let mut present = HashMap::new();
        for part in ["tmp", "new", "cur"] {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(|error| Trouble::io(&part, error))?;
            for entry in fs::read_dir(&part).map_err(|error| Trouble::io(&part, error))? {
                let entry = entry.map_err(|error| Trouble::io(&part, error))?;
                if let Some(file) = entry.file_name().to_str()
                    && !part.ends_with("tmp")
                {
                    present.insert(file.split(':').next().unwrap_or(file).to_owned(), entry.path());
                }
            }
        }
        if !name.is_inbox() {
            // By this file Courier knows a folder of a Maildir++.
            let mark = path.join("maildirfolder");
            File::create(&mark).map_err(|error| Trouble::io(&mark, error))?;
        }
        let keywords = read_keywords(&path);
        Ok(Self { path, present, keywords })
    }

    /// True if the message is there in full; its flags are then made as `flags` says.
    pub fn refresh(&mut self, key: &Key<'_>, flags: &Flags) -> Result<bool, Trouble> {
        let base = key.file_name();
        let Some(path) = self.present.get(&base).cloned() else { return Ok(false) };
        if fs::metadata(&path).map_or(0, |facts| facts.len()) != key.size_bytes {
            self.present.remove(&base);
            fs::remove_file(&path).map_err(|error| Trouble::io(&path, error))?;
            return Ok(false);
        }
        let wanted = self.place(&base, flags)?;
        if wanted != path {
            fs::rename(&path, &wanted).map_err(|error| Trouble::io(&path, error))?;
            self.present.insert(base, wanted);
        }
        Ok(true)
    }

    /// Adds a message: whole under its name, or not at all. `key`'s size is that of `message`.
    pub fn add(&mut self, key: &Key<'_>, message: &Message) -> Result<(), Trouble> {
        let base = key.file_name();
        let (draft, place) = (self.path.join("tmp").join(&base), self.place(&base, &message.flags)?);
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(&message.content)?;
            let span = Duration::from_millis(message.internal_date.0.unsigned_abs());
            let early = message.internal_date.0 < 0;
            let at = if early { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
            file.set_modified(at.unwrap_or(UNIX_EPOCH))?;
            file.sync_data()?;
            fs::rename(&draft, &place)
        };
        write().map_err(|error| Trouble::io(&draft, error))?;
        self.present.insert(base, place);
        Ok(())
    }

    /// What lies on disk of a message.
    pub fn read(&self, key: &Key<'_>) -> Result<Vec<u8>, Trouble> {
        let name = key.file_name();
        let path = self.present.get(&name).cloned().unwrap_or_else(|| self.path.join("cur").join(name));
        fs::read(&path).map_err(|error| Trouble::io(&path, error))
    }

    /// Keywords of `flags` that got no letter: a folder has 26 of them.
    pub fn without_letter<'a>(&self, flags: &'a Flags) -> Vec<&'a str> {
        let words = flags.keywords.iter().map(Keyword::as_str).filter(|word| !word.eq_ignore_ascii_case(PASSED));
        words.filter(|word| !self.keywords.iter().any(|known| known.eq_ignore_ascii_case(word))).collect()
    }

    /// The name of a file with its flags; keywords without a letter get one as long as there are any.
    fn place(&mut self, base: &str, flags: &Flags) -> Result<PathBuf, Trouble> {
        let mut letters: Vec<u8> =
            LETTER_FLAGS.iter().filter(|(_, flag)| flags.system.contains(*flag)).map(|(letter, _)| *letter).collect();
        let mut new_words = false;
        for keyword in &flags.keywords {
            if keyword.as_str().eq_ignore_ascii_case(PASSED) {
                letters.push(b'P');
                continue;
            }
            let known = self.keywords.iter().position(|word| word.eq_ignore_ascii_case(keyword.as_str()));
            let Some(number) = known.or_else(|| self.keywords.iter().position(String::is_empty)) else { continue };
            if let (None, Some(slot)) = (known, self.keywords.get_mut(number)) {
                keyword.as_str().clone_into(slot);
                new_words = true;
            }
            letters.extend(u8::try_from(number).map(|number| b'a' + number));
        }
        if new_words {
            self.write_keywords()?;
        }
        letters.sort_unstable();
        Ok(self.path.join("cur").join(format!("{base}:2,{}", String::from_utf8_lossy(&letters))))
    }

    fn write_keywords(&self) -> Result<(), Trouble> {
        let words = self.keywords.iter().enumerate().filter(|(_, word)| !word.is_empty());
        let text: String = words.map(|(number, word)| format!("{number} {word}\n")).collect();
        replace(&self.path.join(KEYWORDS_FILE), &text)
    }
}

/// Adds names to the list of subscribed folders.
pub fn subscribe(root: &Path, names: impl IntoIterator<Item = MailboxName>) -> Result<(), Trouble> {
    let mut all = subscriptions(root).unwrap_or_default();
    all.extend(names);
    let line = |name: &MailboxName| {
        name.as_str().split(MailboxName::DELIMITER).map(folder::encode_level).collect::<Vec<_>>().join(".") + "\n"
    };
    replace(&root.join(SUBSCRIPTIONS_FILE), &all.iter().map(line).collect::<String>())
}

fn replace(path: &Path, text: &str) -> Result<(), Trouble> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, path)).map_err(|error| Trouble::io(path, error))
}

#[cfg(test)]
#[path = "maildir_tests.rs"]
mod tests;
