//! Countries of network addresses, by a database that the operator brings: MaxMind's format, as GeoLite2, DB-IP and IPinfo
//! have it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base::event;
use maxminddb::{MaxMindDbError, PathElement, Reader};
use parking_lot::Mutex;

/// A country's two letters (ISO 3166-1), upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Country([u8; 2]);

impl Country {
    /// `None` for what is not two ASCII letters.
    pub fn from_code(code: &str) -> Option<Self> {
        let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphabetic).then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct CountriesError {
    pub path: PathBuf,
    pub why: Unusable,
}

/// Why a file is no database of countries.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("no database in MaxMind's format, or a damaged one ({0})")]
    Damaged(#[from] MaxMindDbError),
    #[error("this database knows no countries; one with countries or cities is needed")]
    WithoutCountries,
    #[error("larger than {} MiB", FILE_BYTES_MAX >> 20)]
    TooLarge,
}

/// Tells one state of a file from the next.
type Stamp = (Option<SystemTime>, u64);

/// The database in memory, read again when its file changes.
pub struct Countries {
    path: PathBuf,
    reader: ArcSwap<Reader<Vec<u8>>>,
    /// Of the file as last looked at, readable or not.
    seen: Mutex<Option<Stamp>>,
}

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The largest databases of cities have about 150 MiB.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// So many networks are looked through for a country.
const PROBED_MAX: usize = 1000;

/// Where records have the code: GeoLite2 and DB-IP; networks of which only the registration is known; IPinfo.
const PLACES: [&[PathElement<'static>]; 3] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("registered_country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
];

impl Countries {
    /// Reads the database in `path`. Blocks.
    ///
    /// # Errors
    /// The file is missing, damaged, or one of something else; the error names it.
    pub fn open(path: &Path) -> Result<Self, CountriesError> {
        let seen = stamp(path);
        let reader = read(path).map_err(|why| CountriesError { path: path.to_path_buf(), why })?;
        Ok(Self { path: path.to_path_buf(), reader: ArcSwap::from_pointee(reader), seen: Mutex::new(seen) })
    }

    /// The country where the address is used, or registered; `None` if it is not known.
    pub fn of(&self, ip: IpAddr) -> Option<Country> {
        let reader = self.reader.load();
        let found = reader.lookup(ip.to_canonical()).ok()?;
        PLACES.iter().find_map(|place| found.decode_path::<&str>(place).ok().flatten().and_then(Country::from_code))
    }

    /// Reads the file again if it changed; gives whether it did. Blocks.
    ///
    /// # Errors
    /// It cannot be used: what was known before stays in force, and the file is left alone until it changes again.
    pub fn refresh(&self) -> Result<bool, CountriesError> {
        let stamp = stamp(&self.path);
        if std::mem::replace(&mut *self.seen.lock(), stamp) == stamp {
            return Ok(false);
        }
        let reader = read(&self.path).map_err(|why| CountriesError { path: self.path.clone(), why })?;
        self.reader.store(reader.into());
        Ok(true)
    }

    /// Looks after the file. Never ends. Cancel safe.
    pub(crate) async fn watch(self: &std::sync::Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let own = std::sync::Arc::clone(self);
            match tokio::task::spawn_blocking(move || own.refresh()).await {
                Ok(Ok(true)) => tracing::info!(event = event::COUNTRIES_READ, file = %self.path.display()),
                Ok(Err(error)) => tracing::warn!(event = event::COUNTRIES_FAILED, %error),
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Countries").field("path", &self.path).finish_non_exhaustive()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok(), found.len()))
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, Unusable> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(Unusable::TooLarge);
    }
    let reader = Reader::from_source(std::fs::read(path)?)?;
    for found in reader.networks(maxminddb::WithinOptions::default())?.take(PROBED_MAX) {
        let found = found?;
        if PLACES.iter().any(|place| matches!(found.decode_path::<&str>(place), Ok(Some(_)))) {
            return Ok(reader);
        }
    }
    Err(Unusable::WithoutCountries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[u8] = include_bytes!("testdata/countries.mmdb");

    fn written(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("countries.mmdb");
        std::fs::write(&file, content).unwrap();
        (folder, file)
    }

    #[test]
    fn addresses_are_looked_up() {
        let (_folder, file) = written(SMALL);
        let countries = Countries::open(&file).unwrap();
        for (ip, expected) in [
            ("192.0.2.7", Some("IT")),
            ("::ffff:192.0.2.7", Some("IT")),
            ("198.51.100.200", Some("US")),
            ("203.0.113.1", Some("NG")),
            ("203.0.113.129", Some("BR")),
            ("2001:db8:1::1", Some("DE")),
            ("2001:db8:ffff::1", None),
            ("10.1.2.3", None),
        ] {
            assert_eq!(countries.of(ip.parse().unwrap()).map(|one| one.to_string()).as_deref(), expected, "{ip}");
        }
    }

    #[test]
    fn what_is_none_is_told_by_name() {
        let cut = SMALL.get(..SMALL.len() / 2).unwrap();
        let missing = Path::new("/nonexistent/countries.mmdb");
        let error = |file: &Path| Countries::open(file).unwrap_err().to_string();
        assert!(error(missing).starts_with("/nonexistent/countries.mmdb: No such file"), "{}", error(missing));
        for content in [b"no database".as_slice(), b"", cut] {
            let (_folder, file) = written(content);
            let error = error(&file);
            assert!(error.contains("countries.mmdb: no database in MaxMind's format"), "{error}");
        }
        let (_folder, file) = written(include_bytes!("testdata/networks.mmdb"));
        assert!(error(&file).ends_with("knows no countries; one with countries or cities is needed"));
    }

    #[test]
    fn damage_is_no_panic() {
        for at in (0..SMALL.len()).step_by(3) {
            let mut damaged = SMALL.to_vec();
            damaged[at] ^= 0x5a;
            let (_folder, file) = written(&damaged);
            if let Ok(countries) = Countries::open(&file) {
                for ip in ["192.0.2.7", "203.0.113.129", "2001:db8:1::1", "255.255.255.255"] {
                    let _ = countries.of(ip.parse().unwrap());
                }
            }
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let (_folder, file) = written(SMALL);
        let countries = Countries::open(&file).unwrap();
        let here = "192.0.2.7".parse().unwrap();
        assert!(!countries.refresh().unwrap());
        std::fs::write(&file, "broken").unwrap();
        assert!(countries.refresh().is_err() && countries.of(here).is_some());
        assert!(!countries.refresh().unwrap(), "told once");
        std::fs::remove_file(&file).unwrap();
        assert!(countries.refresh().is_err() && countries.of(here).is_some());
        std::fs::write(&file, SMALL).unwrap();
        assert!(countries.refresh().unwrap());
    }
}
