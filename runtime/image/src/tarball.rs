//! A strict, bounded reader of tar streams: ustar, GNU long names and PAX.
//!
//! The usual libraries hold names and PAX records of any length in memory and differ in how they treat malformed
//! headers, which is how one archive comes to mean two things (CVE-2025-62518). Here every record has a limit, and
//! what is ambiguous is an error: sparse files, links that claim to have content, unknown entry types.
//!
//! Paths are bytes as they came; what they may name is decided by whoever uses them.

use std::io::{self, Read};

mod header;
mod pax;

use header::{BLOCK_BYTES, Header};
use pax::Overrides;

/// Linux's PATH_MAX: a longer path cannot be created anyway.
const MAX_PATH_BYTES: u64 = 4096;
/// PAX records of one entry: xattr values have up to 64 KiB each.
const MAX_PAX_BYTES: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file of so many bytes, which follow.
    File {
        size: u64,
    },
    Directory,
    /// Points to whatever the text says.
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    Hardlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it is in the archive.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Extended attributes by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Why a stream is not a tar archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed, or its decompression did.
    #[error("cannot read on at byte {offset}")]
    Read {
        /// Where, counted in the decompressed stream.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream ends too early.
    #[error("it is truncated: it ends at byte {offset}, inside an entry")]
    Truncated {
        /// Where, counted in the decompressed stream.
        offset: u64,
    },
    /// Something is malformed, ambiguous or beyond a limit.
    #[error("it is malformed before byte {offset}: {problem}")]
    Malformed {
        /// Where, counted in the decompressed stream.
        offset: u64,
        /// What.
        problem: String,
    },
}

/// Reads entries one after the other. Content that was not read is skipped.
pub(crate) struct TarReader<R> {
    source: R,
    offset: u64,
    /// Content of the current entry that has not been read.
    content: u64,
    /// What fills the content up to a whole block.
    padding: u64,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, offset: 0, content: 0, padding: 0, ended: false }
    }

    /// The next entry; `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut overrides = Overrides::default();
        let mut extended = false;
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                return if extended {
                    Err(self.malformed("it ends after an extension that belongs to no entry"))
                } else {
                    Ok(None)
                };
            };
            let size = self.field(header.size())?;
            extended = true;
            match header.kind() {
                b'L' => overrides.path = Some(self.long_name(size)?),
                b'K' => overrides.link = Some(self.long_name(size)?),
                b'x' => {
                    let records = self.record(size, MAX_PAX_BYTES)?;
                    overrides.read(&records).map_err(|problem| self.malformed(&problem))?;
                }
                // Global records carry comments (`git archive`); Docker ignores them, and so must we to agree.
                b'g' => {
                    self.record(size, MAX_PAX_BYTES)?;
                }
                _ => return self.entry(&header, overrides).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, overrides: Overrides) -> Result<Entry, TarError> {
        let size = overrides.size.map_or_else(|| self.field(header.size()), Ok)?;
        let path = overrides.path.unwrap_or_else(|| header.path());
        let link = overrides.link.unwrap_or_else(|| header.link());
        if path.contains(&0) || link.contains(&0) {
            return Err(self.malformed("a name contains a NUL"));
        }
        if path.len() as u64 > MAX_PATH_BYTES || link.len() as u64 > MAX_PATH_BYTES {
            return Err(self.malformed(&format!("a name is longer than {MAX_PATH_BYTES} bytes")));
        }
        let kind = self.kind(header, &path, link, size)?;
        if let EntryKind::File { size } = kind {
            self.content = size;
            self.padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        } else if size != 0 {
            return Err(self.malformed("an entry that is no regular file has content"));
        }
        let id = |value: u64| u32::try_from(value).ok().filter(|id| *id != u32::MAX);
        let uid = overrides.uid.map_or_else(|| self.field(header.uid()), Ok)?;
        let gid = overrides.gid.map_or_else(|| self.field(header.gid()), Ok)?;
        let out_of_range = || self.malformed("an owner is beyond 32 bits");
        Ok(Entry {
            kind,
            mode: (self.field(header.mode())? & 0o7777) as u32,
            uid: id(uid).ok_or_else(out_of_range)?,
            gid: id(gid).ok_or_else(out_of_range)?,
            mtime: overrides.mtime.unwrap_or_else(|| header.mtime()),
            xattrs: overrides.xattrs,
            path,
        })
    }

    fn kind(&self, header: &Header, path: &[u8], link: Vec<u8>, size: u64) -> Result<EntryKind, TarError> {
        let device = || -> Result<(u32, u32), TarError> {
            let (major, minor) = (self.field(header.device_major())?, self.field(header.device_minor())?);
            let number =
                |value| u32::try_from(value).map_err(|_| self.malformed("a device number is too large"));
            Ok((number(major)?, number(minor)?))
        };
        Ok(match header.kind() {
            // Before ustar, a trailing slash was how a directory was told.
            0 | b'0' | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => {
                if size > i64::MAX as u64 {
                    return Err(self.malformed("a file is larger than any file can be"));
                }
                EntryKind::File { size }
            }
            b'1' => EntryKind::Hardlink { target: link },
            b'2' => EntryKind::Symlink { target: link },
            b'3' => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(self.malformed("sparse files are not supported")),
            other => {
                let other = other.escape_ascii();
                return Err(self.malformed(&format!("entry type '{other}' is not supported")));
            }
        })
    }

    /// The next header; `None` at the end marker or where the stream ends between two entries.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES];
        let read = self.read_up_to(&mut block)?;
        if read == 0 || (read == BLOCK_BYTES && block == [0; BLOCK_BYTES]) {
            self.ended = true;
            return Ok(None);
        }
        if read < BLOCK_BYTES {
            return Err(TarError::Truncated { offset: self.offset });
        }
        Header::parse(block).map(Some).map_err(|problem| self.malformed(problem))
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.record(size, MAX_PATH_BYTES + 1)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// The whole content of an extension.
    fn record(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(self.malformed(&format!("a record has {size} bytes, at most {limit} are allowed")));
        }
        // The size is bounded, so the conversions below lose nothing.
        let mut bytes = vec![0; size.next_multiple_of(BLOCK_BYTES as u64) as usize];
        if self.read_up_to(&mut bytes)? < bytes.len() {
            return Err(TarError::Truncated { offset: self.offset });
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let mut left = std::mem::take(&mut self.content) + std::mem::take(&mut self.padding);
        let mut scratch = [0; 16 << 10];
        while left > 0 {
            let most = left.min(scratch.len() as u64) as usize;
            let read = self.read_up_to(&mut scratch[..most])?;
            if read < most {
                return Err(TarError::Truncated { offset: self.offset });
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// Reads some content of the current entry; 0 at its end.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let most = self.content.min(buffer.len() as u64) as usize;
        let read = self.read_up_to(&mut buffer[..most])?;
        self.content -= read as u64;
        if read < most {
            return Err(TarError::Truncated { offset: self.offset });
        }
        Ok(read)
    }

    /// Reads whatever follows the archive, so that the digest of the stream is that of all its bytes.
    pub(crate) fn drain(mut self) -> Result<(), TarError> {
        let mut scratch = vec![0; 64 << 10];
        while self.read_up_to(&mut scratch)? > 0 {}
        Ok(())
    }

    /// Fills `buffer` unless the stream ends.
    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { offset: self.offset, source }),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn field<T>(&self, value: Result<T, &'static str>) -> Result<T, TarError> {
        value.map_err(|problem| self.malformed(problem))
    }

    fn malformed(&self, problem: &str) -> TarError {
        TarError::Malformed { offset: self.offset, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests;
