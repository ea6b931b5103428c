//! What tells a node that starts again from another one of the same name.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use engine::EngineError;

/// Goes with a node's data folder, whatever the node is called. 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity([u8; 16]);

const FILE: &str = "node.id";

impl Identity {
    #[cfg(test)]
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The identity of the node whose data lies in `folder`; made when there is none. Blocks.
    ///
    /// # Errors
    /// Names the file that cannot be read or written, or holds something else.
    pub fn of(folder: &Path) -> Result<Self, EngineError> {
        let file = folder.join(FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let reason = "no identity of a node".to_owned();
                Self::parse(text.trim()).ok_or(EngineError::Damaged { file, reason })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = Self::random().map_err(|error| EngineError::from_io(&file, error))?;
                let mut options = std::fs::File::options();
                let opened = options.write(true).create_new(true).mode(0o600).open(&file);
                let written = opened.and_then(|mut to| {
                    to.write_all(format!("{made}\n").as_bytes())?;
                    to.sync_all()
                });
                written.map_err(|error| EngineError::from_io(&file, error))?;
                Ok(made)
            }
            Err(error) => Err(EngineError::from_io(&file, error)),
        }
    }

    pub(crate) fn random() -> std::io::Result<Self> {
        let mut raw = [0; 16];
        getrandom::fill(&mut raw).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(raw))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let raw = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
        Some(Self(raw.to_be_bytes()))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
