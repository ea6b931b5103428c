//! What a machine needs to become a node: the configuration of another one, with the files that it names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use config::Config;
use config::option::{Kind, OPTIONS};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// As it goes from node to node.
#[derive(Serialize, Deserialize)]
pub struct Bundle {
    /// TOML, in which files are called as in `files`.
    configuration: String,
    /// Base 64, by a name below the configuration's folder.
    files: BTreeMap<String, String>,
}

/// Of all files together.
const FILES_MAX: u64 = 32 << 20;

impl Bundle {
    /// Of the node whose configuration is `file`. Blocks.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        let at = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(at)?;
        let mut table: Table = text.parse().with_context(at)?;
        let mut files =
            Files { folder: file.parent().unwrap_or(Path::new(".")), found: BTreeMap::new(), left: FILES_MAX };
        for option in OPTIONS.iter().filter(|option| option.path != "node.data") {
            let Some((section, key)) = option.path.split_once('.') else { continue };
            let Some(value) = table.get_mut(section).and_then(|section| section.get_mut(key)) else { continue };
            match (option.kind, value) {
                (Kind::Path, Value::String(path)) => *path = files.take(path)?,
                (Kind::Paths, Value::Array(paths)) => {
                    for path in paths {
                        if let Value::String(path) = path {
                            *path = files.take(path)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Self { configuration: toml::to_string(&table).with_context(at)?, files: files.found })
    }

    /// Writes the configuration of the new node to `file` and what it names beside it. Nothing that exists is written over.
    /// Blocks.
    ///
    /// # Errors
    /// Names what exists, or cannot be written; nothing is left behind then.
    pub fn write(&self, file: &Path, own: &NewNode) -> anyhow::Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        let done = self.write_all(file, own, &mut written);
        if done.is_err() {
            for path in &written {
                let _ = std::fs::remove_file(path);
            }
        }
        done.map(|()| written)
    }

    fn write_all(&self, file: &Path, own: &NewNode, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let text = own.adapt(self.configuration.parse().context("the other node's configuration")?)?;
        for (name, content) in &self.files {
            let path = Path::new(name);
            let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            anyhow::ensure!(is_plain, "{name}: no name of a file below the configuration");
            let content = BASE64_STANDARD.decode(content).with_context(|| name.clone())?;
            write_new(&folder.join(path), &content, written)?;
        }
        write_new(file, text.as_bytes(), written)?;
        // It must be what a node can start with.
        let config = Config::load(file)?;
        if let Some(user) = &config.user {
            super::machine::give_to(user, written)?;
        }
        Ok(())
    }
}

fn write_new(path: &Path, content: &[u8], written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let at = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(at)?;
    }
    let mut options = std::fs::File::options();
    let mut to = options.write(true).create_new(true).mode(0o600).open(path).with_context(at)?;
    written.push(path.to_path_buf());
    std::io::Write::write_all(&mut to, content).with_context(at)?;
    to.sync_all().with_context(at)
}

/// Files of a configuration, under names that a new node can use.
struct Files<'a> {
    folder: &'a Path,
    found: BTreeMap<String, String>,
    left: u64,
}

impl Files<'_> {
    /// Takes a file, or a folder with the files in it; gives its new name.
    fn take(&mut self, path: &str) -> anyhow::Result<String> {
        let from = self.folder.join(path);
        let base = from.file_name().with_context(|| format!("{path}: names no file"))?.to_string_lossy().into_owned();
        let is_taken = |name: &str| self.found.keys().any(|key| key == name || key.starts_with(&format!("{name}/")));
        let mut name = base.clone();
        for number in 2.. {
            if !is_taken(&name) {
                break;
            }
            name = format!("{number}-{base}");
        }
        if !from.is_dir() {
            self.read(&from, name.clone())?;
            return Ok(name);
        }
        let at = || from.display().to_string();
        let mut entries = std::fs::read_dir(&from).with_context(at)?.collect::<Result<Vec<_>, _>>().with_context(at)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_type().with_context(at)?.is_file() {
                self.read(&entry.path(), format!("{name}/{}", entry.file_name().to_string_lossy()))?;
            }
        }
        Ok(name)
    }

    fn read(&mut self, from: &Path, name: String) -> anyhow::Result<()> {
        let at = || from.display().to_string();
        let size = std::fs::metadata(from).with_context(at)?.len();
        self.left = self.left.checked_sub(size).with_context(|| format!("{}: too large to be handed on", at()))?;
        self.found.insert(name, BASE64_STANDARD.encode(std::fs::read(from).with_context(at)?));
        Ok(())
    }
}

/// What of a new node is its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    pub name: String,
    /// Instead of where the other node has its data.
    pub data: Option<PathBuf>,
    /// Where it listens instead of on the other node's addresses, and where other nodes reach it.
    pub address: IpAddr,
}

impl NewNode {
    fn adapt(&self, mut table: Table) -> anyhow::Result<String> {
        let mut node = match table.remove("node") {
            Some(Value::Table(node)) => node,
            _ => Table::new(),
        };
        node.insert("name".to_owned(), Value::String(self.name.clone()));
        if let Some(data) = &self.data {
            node.insert("data".to_owned(), Value::String(data.display().to_string()));
        }
        let mut port = None;
        for listener in table.get_mut("listener").and_then(Value::as_array_mut).into_iter().flatten() {
            let is_between_nodes = listener.get("protocol").and_then(Value::as_str) == Some("cluster");
            let Some(Value::String(text)) = listener.get_mut("address") else { continue };
            let mut address: SocketAddr = text.parse().with_context(|| format!("the other node's listener {text}"))?;
            if is_between_nodes {
                port = Some(address.port());
            }
            // Loopback stays, and so does "all addresses".
            if !address.ip().is_unspecified() && (!address.ip().is_loopback() || is_between_nodes) {
                address.set_ip(self.address);
            }
            *text = address.to_string();
        }
        if let (Some(port), Some(cluster)) = (port, table.get_mut("cluster").and_then(Value::as_table_mut))
            && cluster.contains_key("address")
        {
            let address = SocketAddr::new(self.address, port).to_string();
            cluster.insert("address".to_owned(), Value::String(address));
        }
        let mut all = Table::new();
        all.insert("node".to_owned(), Value::Table(node));
        all.extend(table);
        Ok(format!("# Options: `ortler config reference`.\n\n{}", toml::to_string(&all)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_like_the_old_one_but_for_what_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::create_dir_all(old.join("rules")).unwrap();
        std::fs::create_dir_all(old.join("tls")).unwrap();
        for (name, text) in
            [("pg", "secret\n"), ("rules/b.cf", "score X 1\n"), ("rules/a.cf", "score Y 1\n"), ("tls/pg", "key")]
        {
            std::fs::write(old.join(name), text).unwrap();
        }
        let rules = old.join("rules");
        let text = format!(
            "[node]\nname = \"mx1.example.net\"\ndata = \"/var/lib/ortler\"\n[cluster]\naddress = \"10.0.0.1:8899\"\n\
             [storage]\nengine = \"postgresql\"\npostgresql = \"host=db\"\npostgresql_password_file = \"pg\"\n\
             [tls]\ncertificate = \"tls/pg\"\nkey = \"tls/pg\"\n[filter]\nrules = [\"{}\"]\n\
             [[listener]]\nprotocol = \"smtp\"\naddress = \"0.0.0.0:25\"\n\
             [[listener]]\nprotocol = \"imap\"\naddress = \"10.0.0.1:143\"\n\
             [[listener]]\nprotocol = \"health\"\naddress = \"127.0.0.1:90\"\n\
             [[listener]]\nprotocol = \"cluster\"\naddress = \"10.0.0.1:8899\"\n",
            rules.display()
        );
        std::fs::write(old.join("ortler.toml"), text).unwrap();
        let bundle = serde_json::to_vec(&Bundle::of(&old.join("ortler.toml")).unwrap()).unwrap();
        let bundle: Bundle = serde_json::from_slice(&bundle).unwrap();
        let own = NewNode { name: "mx2.example.net".to_owned(), data: None, address: "10.0.0.2".parse().unwrap() };
        let file = new.join("ortler.toml");
        let written = bundle.write(&file, &own).unwrap();
        assert_eq!(written.len(), 6, "{written:?}");
        let config = Config::load(&file).unwrap();
        assert_eq!((config.node_name.as_str(), config.data.to_str().unwrap()), ("mx2.example.net", "/var/lib/ortler"));
        assert_eq!(config.cluster_address.as_deref(), Some("10.0.0.2:8899"));
        let addresses: Vec<String> = config.listeners.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0:25", "10.0.0.2:143", "127.0.0.1:90", "10.0.0.2:8899"]);
        assert_eq!(std::fs::read(config.postgres.unwrap().password_file.unwrap()).unwrap(), b"secret\n");
        assert_eq!(std::fs::read(config.tls.unwrap().key).unwrap(), b"key");
        assert_eq!(std::fs::read_dir(&config.rules[0]).unwrap().count(), 2);
        // Nothing is written over, and what was begun is taken back.
        std::fs::remove_file(new.join("pg")).unwrap();
        assert!(bundle.write(&file, &own).unwrap_err().to_string().contains("new/"));
        assert!(file.exists() && !new.join("pg").exists());
        // A node that answers with other names writes nothing elsewhere.
        let evil = Bundle { configuration: String::new(), files: [("../evil".to_owned(), String::new())].into() };
        assert!(evil.write(&new.join("other.toml"), &own).is_err() && !folder.path().join("evil").exists());
    }
}
