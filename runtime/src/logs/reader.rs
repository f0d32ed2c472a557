//! Reading a container's output back, from any point and on over rotations, in bounded memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Entry, file_path, format};

/// Bytes of log files that one call of [`Reader::read_batch`] looks at, at most.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes read at once when looking for the start of the tail.
const BLOCK_BYTES: u64 = 64 << 10;
/// Rotated files that are looked for, at most.
const FILES_LIMIT: u32 = 1_000;

/// Where to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only the last so many lines of the container; all where absent.
    pub tail: Option<u64>,
    /// Nothing that was written before.
    pub since: Option<Timestamp>,
}

/// Why output cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log files in {directory}", directory = directory.display())]
pub struct ReadError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads the output of one container from old to new.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    options: ReadOptions,
    started: bool,
    /// Files to read, oldest first. The last is, as far as known, the one that is written.
    files: VecDeque<Source>,
    /// The beginning of a line whose end was not there yet, of the first file.
    rest: Vec<u8>,
}

#[derive(Debug)]
struct Source {
    file: File,
    inode: u64,
    offset: u64,
}

impl Reader {
    pub(crate) fn new(directory: PathBuf, options: ReadOptions) -> Self {
        Self { directory, options, started: false, files: VecDeque::new(), rest: Vec::new() }
    }

    /// The next entries, or none at the end of what has been written so far. To follow, call
    /// again later: whoever is too slow for the rotation misses what it dropped.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read_batch(&mut self) -> Result<Vec<Entry>, ReadError> {
        self.read().map_err(|source| ReadError { directory: self.directory.clone(), source })
    }

    fn read(&mut self) -> io::Result<Vec<Entry>> {
        if !self.started {
            self.files = self.newer_than(None)?;
            self.started = !self.files.is_empty();
            if let Some(lines) = self.options.tail {
                self.skip_to_tail(lines)?;
            }
        }
        let mut entries = Vec::new();
        while entries.is_empty() && (self.fill(&mut entries)? || self.advance()?) {}
        Ok(entries)
    }

    /// Reads once from the first file; `false` at its end.
    fn fill(&mut self, entries: &mut Vec<Entry>) -> io::Result<bool> {
        let Some(source) = self.files.front_mut() else { return Ok(false) };
        let mut bytes = std::mem::take(&mut self.rest);
        let kept = bytes.len();
        bytes.resize(kept + BATCH_BYTES, 0);
        let read = source.file.read_at(&mut bytes[kept..], source.offset)?;
        source.offset += read as u64;
        bytes.truncate(kept + read);
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let since = self.options.since;
        entries.extend(
            bytes[..end]
                .split(|byte| *byte == b'\n')
                .filter_map(format::parse)
                .filter(|entry| since.is_none_or(|since| entry.time >= since)),
        );
        self.rest = bytes.split_off(end);
        if self.rest.len() > format::LINE_LIMIT_BYTES {
            // Not a line of ours: forget it up to its end, which then does not parse either.
            self.rest.clear();
        }
        Ok(read > 0)
    }

    /// At the end of the first file: goes on to the next; `false` where there is none.
    fn advance(&mut self) -> io::Result<bool> {
        if self.files.len() <= 1 {
            let newer = self.newer_than(self.files.front().map(|source| source.inode))?;
            // Lines may have come between our last read and the rotation, so the old file
            // stays first and is read once more.
            let found = !newer.is_empty();
            self.files.extend(newer);
            return Ok(found);
        }
        self.files.pop_front();
        self.rest.clear();
        Ok(true)
    }

    /// Opens the files written after `inode`, oldest first. They are opened newest first: a
    /// rotation meanwhile shows a file twice, which is noticed, but never skips one.
    fn newer_than(&self, inode: Option<u64>) -> io::Result<VecDeque<Source>> {
        let mut sources: VecDeque<Source> = VecDeque::new();
        for age in 0..FILES_LIMIT {
            let file = match File::open(file_path(&self.directory, age)) {
                // `current` is absent for a moment at each rotation.
                Err(error) if error.kind() == io::ErrorKind::NotFound && age == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            let own = file.metadata()?.ino();
            if inode == Some(own) {
                break;
            }
            if sources.front().is_none_or(|source| source.inode != own) {
                sources.push_front(Source { file, inode: own, offset: 0 });
            }
        }
        Ok(sources)
    }

    fn skip_to_tail(&mut self, lines: u64) -> io::Result<()> {
        let mut missing = lines;
        for index in (0..self.files.len()).rev() {
            let source = &mut self.files[index];
            let found = source.seek_before_end(missing)?;
            missing = missing.saturating_sub(found);
            if missing == 0 {
                self.files.drain(..index);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Source {
    /// Sets the offset so that `lines` lines of the container follow, or all that there are;
    /// returns how many.
    fn seek_before_end(&mut self, lines: u64) -> io::Result<u64> {
        let mut end = self.file.metadata()?.len();
        let mut found = 0;
        // Start of the line that was seen last, walking back.
        let mut line_start = end;
        let mut head = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES);
            let mut block = vec![0; usize::try_from(end - start).expect("a block is small")];
            self.file.read_exact_at(&mut block, start)?;
            block.append(&mut head);
            let mut upto = block.len();
            while let Some(newline) = block[..upto.saturating_sub(1)].iter().rposition(|b| *b == b'\n') {
                let line = &block[newline + 1..upto];
                if format::ends_line(line) {
                    if found == lines {
                        self.offset = line_start;
                        return Ok(found);
                    }
                    found += 1;
                }
                line_start = start + newline as u64 + 1;
                upto = newline + 1;
            }
            block.truncate(upto);
            head = block;
            end = start;
        }
        if format::ends_line(&head) {
            if found == lines {
                self.offset = line_start;
                return Ok(found);
            }
            found += 1;
        }
        self.offset = 0;
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
