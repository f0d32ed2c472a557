//! Small files written so that a reader, or a crash, never sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How much must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process: enough for what is only true while the host is up.
    Process,
    /// A power cut.
    Host,
}

/// Replaces `path` by a file with these bytes, mode 0600.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    if durability == Durability::Host {
        file.sync_all()?;
    }
    fs::rename(temporary, path)?;
    if durability == Durability::Host {
        let parent = path.parent().expect("a file in a directory of ours");
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Most of what is read is smaller, and so read at once.
const USUAL_BYTES: usize = 4096;

/// Reads at most `limit` bytes of a file; more is an error.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(bytes)
}
