//! Writing a container's output, bounded in memory and on disk.
//!
//! A disk that refuses writes loses output, never the container: what could not be written is
//! dropped and the file is cut back to its last whole line.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use jiff::Timestamp;

use super::format::Prefix;
use super::{ENTRY_LIMIT_BYTES, Stream, file_path};
use crate::runtime::LogLimits;

/// Lines that are collected before they are written. A chunk of nothing but newlines grows
/// forty-fold.
const OUT_LIMIT_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    /// Bytes of whole lines in `file`.
    size_bytes: u64,
    /// Unfinished lines; at most [`ENTRY_LIMIT_BYTES`] each.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Lines of the current call, before they are written at once.
    out: Vec<u8>,
}

impl Writer {
    pub fn new(directory: PathBuf, limits: LogLimits) -> Self {
        Self {
            directory,
            limits,
            file: None,
            size_bytes: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Takes bytes as the container wrote them.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: Timestamp) -> io::Result<()> {
        let Self { stdout, stderr, out, .. } = self;
        let pending = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let prefix = Prefix::new(now, stream);
        while !bytes.is_empty() {
            let room = ENTRY_LIMIT_BYTES - pending.len();
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (text, rest, partial) = match newline {
                Some(at) => (&bytes[..at], &bytes[at + 1..], false),
                None if bytes.len() > room => (&bytes[..room], &bytes[room..], true),
                None => {
                    pending.extend_from_slice(bytes);
                    break;
                }
            };
            if pending.is_empty() {
                prefix.append(out, partial, text);
            } else {
                pending.extend_from_slice(text);
                prefix.append(out, partial, pending);
                pending.clear();
            }
            bytes = rest;
            if out.len() > OUT_LIMIT_BYTES {
                self.flush()?;
                return self.write(stream, bytes, now);
            }
        }
        self.flush()
    }

    /// Writes a last line that has no newline.
    pub fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        for (stream, pending) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if !pending.is_empty() {
                Prefix::new(now, stream).append(&mut self.out, false, pending);
                pending.clear();
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.write_out();
        self.out.clear();
        written
    }

    fn write_out(&mut self) -> io::Result<()> {
        let added = self.out.len() as u64;
        if self.size_bytes > 0 && self.size_bytes + added > self.limits.file_bytes {
            self.rotate()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        if let Err(error) = file.write_all(&self.out) {
            file.set_len(self.size_bytes)?;
            self.file = Some(file);
            return Err(error);
        }
        self.file = Some(file);
        self.size_bytes += added;
        Ok(())
    }

    /// Many containers never write a word, so the directory too is made only now.
    fn open(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        OpenOptions::new().append(true).create(true).mode(0o600).open(file_path(&self.directory, 0))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let oldest = self.limits.files.max(1) - 1;
        if oldest == 0 {
            fs::remove_file(file_path(&self.directory, 0))?;
        }
        for age in (0..oldest).rev() {
            let (from, to) = (file_path(&self.directory, age), file_path(&self.directory, age + 1));
            match fs::rename(from, to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        self.size_bytes = 0;
        Ok(())
    }
}
