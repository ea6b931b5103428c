//! Folders on disk: their names as names of files, and where mbox files lie.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use store::MailboxName;

use crate::message::Trouble;

/// A mailbox on disk: the folder of a Maildir, or an mbox file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Folder {
    pub name: MailboxName,
    pub path: PathBuf,
}

/// Folders below this depth are not looked for.
pub(crate) const DEPTH_MAX: usize = 32;

/// The mbox files at and below `root`, by name: a file with this ending or one that begins as an mbox does. `root` may be
/// a file itself.
pub fn mbox_files(root: &Path) -> (Vec<Folder>, Vec<Trouble>) {
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    if root.is_dir() {
        find_below(root, &[], &mut found, &mut troubles);
        found.sort();
    } else {
        add_file(root, &[], &mut found, &mut troubles);
    }
    (found, troubles)
}

fn find_below(folder: &Path, levels: &[String], found: &mut Vec<Folder>, troubles: &mut Vec<Trouble>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return troubles.push(Trouble::io(folder, error)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_file() && is_mbox(&path) {
            add_file(&path, levels, found, troubles);
        } else if kind.is_dir()
            && levels.len() < DEPTH_MAX
            && let Some(raw) = path.file_name().and_then(|name| name.to_str())
            && !raw.starts_with('.')
        {
            // Thunderbird puts the folders below `Work` into `Work.sbd`, Apple Mail the file of `Work` into `Work.mbox`.
            let raw = raw.strip_suffix(".sbd").or_else(|| raw.strip_suffix(".mbox")).unwrap_or(raw);
            find_below(&path, &[levels, &[raw.to_owned()]].concat(), found, troubles);
        }
    }
}

fn add_file(path: &Path, levels: &[String], found: &mut Vec<Folder>, troubles: &mut Vec<Trouble>) {
    let raw = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let own = match raw.strip_suffix(".mbox").unwrap_or(raw) {
        "mbox" if !levels.is_empty() => None,
        own => Some(own),
    };
    match name_of(levels.iter().map(String::as_str).chain(own)) {
        Some(name) => found.push(Folder { name, path: path.to_path_buf() }),
        None => troubles.push(Trouble::damaged(path, "its name can name no mailbox")),
    }
}

fn is_mbox(path: &Path) -> bool {
    let mut start = Vec::new();
    path.extension().is_some_and(|extension| extension == "mbox")
        || File::open(path).and_then(|file| file.take(5).read_to_end(&mut start)).is_ok() && start == b"From "
}

/// Where the mbox file of a mailbox lies below `root`.
pub fn mbox_path(root: &Path, name: &MailboxName) -> PathBuf {
    let levels: Vec<String> = name.as_str().split(MailboxName::DELIMITER).map(encode_level).collect();
    root.join(levels.join("/") + ".mbox")
}

/// One level of a mailbox name as other programs spell it on disk: modified UTF-7, and no dot, which would separate
/// levels or hide a file.
pub fn encode_level(level: &str) -> String {
    mail::utf7::encode(level).replace('.', "&AC4-")
}

/// The level that `raw` spells; text that is no modified UTF-7 is taken as it stands. `None` if it can be no level.
pub fn decode_level(raw: &str) -> Option<String> {
    let decoded: Option<Vec<String>> = raw.split("&AC4-").map(|piece| mail::utf7::decode(piece.as_bytes())).collect();
    let level = decoded.map_or_else(|| raw.to_owned(), |pieces| pieces.join("."));
    // Where another character separates levels, ours may stand in one.
    let level = level.replace(MailboxName::DELIMITER, "_");
    level.parse::<MailboxName>().ok().map(|_| level)
}

/// The mailbox of these raw levels.
pub fn name_of<'a>(levels: impl IntoIterator<Item = &'a str>) -> Option<MailboxName> {
    let levels: Option<Vec<String>> = levels.into_iter().map(decode_level).collect();
    levels?.join("/").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_go_to_disk_and_back() {
        for (level, raw) in [
            ("Entwürfe", "Entw&APw-rfe"),
            ("v1.2", "v1&AC4-2"),
            ("..", "&AC4-&AC4-"),
            ("a & b", "a &- b"),
            (".Ärger.", "&AC4-&AMQ-rger&AC4-"),
        ] {
            assert_eq!(encode_level(level), raw);
            assert_eq!(decode_level(raw).as_deref(), Some(level));
        }
        assert_eq!(decode_level("broken&APw").as_deref(), Some("broken&APw"));
        assert_eq!(decode_level("Entwürfe").as_deref(), Some("Entwürfe"));
        assert_eq!(decode_level("a/b").as_deref(), Some("a_b"));
        assert_eq!(decode_level(""), None);
        assert_eq!(decode_level("a*"), None);
    }

    #[test]
    fn mbox_files_of_every_layout_are_found() {
        let root = tempfile::tempdir().unwrap();
        let own: MailboxName = "Wörk.1/../x".parse().unwrap();
        let written = mbox_path(root.path(), &own);
        assert!(written.starts_with(root.path()) && !written.display().to_string().contains("/../"));
        let files = ["Inbox", "Inbox.msf", "Work.sbd/Sub", "Apple.mbox/mbox", "empty.mbox", ".hidden/x"]
            .map(|file| root.path().join(file));
        for path in files.iter().chain([&written]) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let is_mbox = !path.ends_with("Inbox.msf") && !path.ends_with("empty.mbox");
            fs::write(path, if is_mbox { "From x\n" } else { "" }).unwrap();
        }
        let (found, troubles) = mbox_files(root.path());
        assert!(troubles.is_empty());
        let found: Vec<&str> = found.iter().map(|folder| folder.name.as_str()).collect();
        assert_eq!(found, ["Apple", "INBOX", "Work/Sub", "Wörk.1/../x", "empty"]);
        assert_eq!(mbox_files(&written).0[0].name.as_str(), "x");
    }
}
