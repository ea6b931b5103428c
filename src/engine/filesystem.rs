//! Refuses folders where SQLite's locks and syncs cannot be trusted.

use std::path::Path;

use crate::error::EngineError;

/// Magic numbers of statfs(2) for file systems that live on another machine.
const NETWORK_FILESYSTEMS: [(i64, &str); 5] =
    [(0x6969, "NFS"), (0xFF53_4D42, "CIFS"), (0xFE53_4D42, "SMB"), (0x0102_1997, "9p"), (0x6573_5546, "FUSE")];

pub fn refuse_network(folder: &Path) -> Result<(), EngineError> {
    let Ok(facts) = nix::sys::statfs::statfs(folder) else {
        return Ok(()); // opening the file will say what is wrong
    };
    let magic = facts.filesystem_type().0;
    match NETWORK_FILESYSTEMS.iter().find(|(number, _)| *number == magic) {
        Some((_, kind)) => Err(EngineError::NetworkFilesystem { file: folder.to_path_buf(), kind }),
        None => Ok(()),
    }
}
